"""What a configuration asks for: models, zoo recipes and streams, as the rules name them.

Imported by the Snakefile: no numpy, no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from actshift.config.schema import Config, Pair
from actshift.errors import UserError
from actshift.models.sources import (
    ADAPTER_FILES,
    LORA,
    ZOO_PARENTS,
    AbliteratedSource,
    LocalSource,
    LoraSource,
    Source,
    ZooSource,
    parse_reference,
    parse_source,
    parse_tuned,
)
from actshift.paths import RunPaths
from actshift.plan.checks import plan_errors
from actshift.studies.ablation.study import Ablation
from actshift.studies.localization.study import Localization
from actshift.studies.misalignment.study import Misalignment
from actshift.studies.rank_audit.study import RankAudit
from actshift.studies.registry import STUDIES
from actshift.vocab import ROLES, TEMPLATES, Role, Template


@dataclass(frozen=True, slots=True)
class Model:
    """One side of a pair, or one of its references, whose role is the reference's name.

    `<pair>.<role>` is what folders and tables call it.
    """

    pair: Pair
    role: str
    source: Source

    @property
    def name(self) -> str:
        """`<pair>.<role>`."""
        return f"{self.pair.name}.{self.role}"


@dataclass(frozen=True, slots=True)
class StreamName:
    """A (model, prompt set, template): one activation store."""

    model: str
    prompt_set: str
    template: Template


@dataclass(frozen=True)
class Plan:
    """The models, recipes and streams of a run, from its checked configuration."""

    config: Config

    @property
    def paths(self) -> RunPaths:
        """Where the run's files lie."""
        return RunPaths(self.config.run)

    @cached_property
    def models(self) -> dict[str, Model]:
        """Every model of the chosen pairs, by name; references where a study reads them."""
        models = [
            Model(pair, role, _source(pair, role))
            for pair in self.config.chosen_pairs
            for role in ROLES
        ]
        if "spectral_gap" in self.config.studies:
            models += [
                Model(pair, name, _reference(pair, name))
                for pair in self.config.chosen_pairs
                for name in pair.references
            ]
        return {model.name: model for model in models}

    def references(self, pair: str) -> list[str]:
        """Return the names of the models of a pair's references, in config order."""
        return [
            model.name
            for model in self.models.values()
            if model.pair.name == pair and model.role not in ROLES
        ]

    def recipe(self, source: ZooSource) -> str:
        """Folder name of a zoo recipe: family, size and seed."""
        seed = self.config.seed if source.seed is None else source.seed
        return f"{source.family}-{self.config.zoo.size}-s{seed}"

    @cached_property
    def zoo(self) -> list[tuple[str, str]]:
        """(recipe, variant) of every zoo checkpoint that is trained, in config order."""
        sources = [m.source for m in self.models.values() if isinstance(m.source, ZooSource)]
        return list(dict.fromkeys((self.recipe(source), source.variant) for source in sources))

    def zoo_parent(self, recipe: str, variant: str) -> Path | None:
        """Return the zoo checkpoint that a variant is trained from; none for the base."""
        parent = ZOO_PARENTS.get(variant)
        return None if parent is None else self.paths.zoo(recipe, parent)

    def made_folder(self, model: str) -> Path | None:
        """Folder of a model that the run trains or derives; None for other sources."""
        match self.models[model].source:
            case ZooSource() as source:
                return self.paths.zoo(self.recipe(source), source.variant)
            case AbliteratedSource():
                return self.paths.abliterated(self.models[model].pair.name)
            case LoraSource():
                return self.paths.merged(model)
            case _:
                return None

    def zoo_sizes(self) -> dict[str, str]:
        """Return the size of the zoo's language for every pair whose tuned model is of the zoo."""
        tuned = {model.pair.name: model for model in self.models.values() if model.role == "tuned"}
        return {
            name: self.config.zoo.size
            for name, model in tuned.items()
            if isinstance(model.source, ZooSource)
        }

    def architecture_sources(self) -> dict[str, str]:
        """Return whose architecture each pair has: its tuned model, or what that is made from."""
        return {
            pair.name: pair.base if pair.tuned.startswith(LORA) else pair.tuned
            for pair in self.config.chosen_pairs
        }

    def streams(self, pair: str) -> list[StreamName]:
        """Return the streams of a pair: both templates of every set of prompts, not of answers."""
        return [
            StreamName(f"{pair}.{role}", prompt_set, template)
            for role in ROLES
            for prompt_set, source in self.config.prompts.items()
            if source.extract and not source.holds_pairs
            for template in TEMPLATES
        ]

    def streams_of(self, model: str) -> list[StreamName]:
        """Return the streams of one model, in a fixed order; a reference has but one."""
        if self.models[model].role not in ROLES:
            return [StreamName(model, self.config.conditions.harmful, "chat")]
        return [s for s in self.streams(self.models[model].pair.name) if s.model == model]

    @property
    def audit_sets(self) -> list[str]:
        """The prompt sets that `rank_audit` reads."""
        concepts = self.config.of(RankAudit).concepts
        return list(dict.fromkeys((*self.shift_sets, concepts)))

    def extract_priority(self, model: str, prompt_set: str, template: str) -> int:
        """Return the priority of a stream's job.

        One stream of each model leads and loads the checkpoint. It is a chat stream: when it can
        run, the tuned model's template is there for the others too. The first page waits for the
        base and the tuned models.
        """
        leads = 30 if (prompt_set, template) == (self.audit_sets[0], "chat") else 0
        return leads + (90 if self.models[model].role in ROLES else 0)

    def stores(self, pair: str) -> list[Path]:
        """Return the folders of the streams of a pair that `rank_audit` reads."""
        return self._stores(pair, self.audit_sets)

    def shift_stores(self, pair: str) -> list[Path]:
        """Return those of the harmful and the harmless set, whose differences are the shift."""
        return self._stores(pair, self.shift_sets)

    def _stores(self, pair: str, sets: list[str]) -> list[Path]:
        return [self.stream_folder(s) for s in self.streams(pair) if s.prompt_set in sets]

    @property
    def shift_sets(self) -> list[str]:
        """The prompt sets of the two conditions."""
        return list(dict.fromkeys(self.config.conditions.model_dump().values()))

    def gap_stores(self, pair: str) -> list[Path]:
        """Return the folders that the spectral gap reads: harmful prompts in the chat template."""
        models = [*(f"{pair}.{role}" for role in ROLES), *self.references(pair)]
        harmful = self.config.conditions.harmful
        return [self.stream_folder(StreamName(model, harmful, "chat")) for model in models]

    def unread_stores(self) -> list[Path]:
        """Return the folders of streams that `rank_audit` does not read, asked for by themselves.

        The others are asked for by its tables alone: a store may be deleted once they are made.
        """
        streams = [s for pair in self.config.chosen_pairs for s in self.streams(pair.name)]
        return [self.stream_folder(s) for s in streams if s.prompt_set not in self.audit_sets]

    def table_folders(self, study: str) -> dict[str, str]:
        """Return the folder of each pair's tables of a study, in config order."""
        names = [pair.name for pair in self.config.chosen_pairs]
        return {name: str(self.paths.pair_tables(name, study)) for name in names}

    def study_folders(self, study: str) -> dict[str, dict[str, str]]:
        """Return the folders of each stage that a study's tables are made from, by pair."""
        pairs = [pair.name for pair in self.config.chosen_pairs]
        if STUDIES[study].with_references:
            pairs = [pair for pair in pairs if self.references(pair)]
        return {
            stage: {pair: str(self.paths.pair_tables(pair, stage)) for pair in pairs}
            for stage in STUDIES[study].stages
        }

    def table_job(self, study: str) -> dict[str, Any]:
        """Return what the joint tables of a study are made from and with."""
        spec = STUDIES[study]
        settings = None if spec.settings is None else self.config.of(spec.settings)
        return {
            "join": spec.join,
            "tables": {table.stem: list(table.names) for table in spec.joined},
            "folders": spec.folders(self) if spec.folders else self.study_folders(study),
            "files": spec.files(self) if spec.files else {},
            "zoo_sizes": self.zoo_sizes(),
            "seed": self.config.seed,
            "settings": {key: getattr(settings, key) for key in spec.join_settings},
        }

    def figure_settings(self, studies: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Return what each figure takes from the settings of its study, by name of the figure.

        Args:
            studies: Whose figures; those of the run if empty.
        """
        return {
            figure.name: {key: getattr(getattr(self.config, study), key) for key in figure.settings}
            for study in studies or self.config.studies
            for figure in STUDIES[study].figures
            if figure.settings
        }

    def stream_folder(self, stream: StreamName) -> Path:
        """Return the folder of a stream's activation store."""
        return self.paths.stream(stream.model, stream.prompt_set, stream.template)

    def template_from(self, model: str, template: str) -> list[Path]:
        """Return the checkpoint folder whose chat template a stream uses: the tuned model's."""
        if template == "raw":
            return []
        return [self.paths.checkpoint(f"{self.models[model].pair.name}.tuned")]

    def checkpoint_inputs(self, model: str) -> list[Path]:
        """Return the files that a model's checkpoint folder is made from."""
        source = self.models[model].source
        if isinstance(source, LocalSource):
            files = source.folder.iterdir()
            return sorted(file for file in files if file.suffix in (".json", ".safetensors"))
        folder = self.made_folder(model)
        return [] if folder is None else [folder]

    def merged_inputs(self, model: str) -> list[Path]:
        """Return the files of the adapter that a model is made with; none for hub adapters."""
        source = self.models[model].source
        if isinstance(source, LoraSource) and isinstance(source.adapter, LocalSource):
            return [source.adapter.folder / name for name in ADAPTER_FILES]
        return []

    def prompt_inputs(self, prompt_set: str, root: Path) -> list[Path]:
        """Return the files that a prompt set is read from; none for zoo and hub sources."""
        source = self.config.prompts[prompt_set]
        if source.source == "file":
            return [Path(source.path or "").expanduser()]
        if source.source == "resource":
            return [root / "resources" / "prompts" / f"{source.name}.jsonl"]
        return []

    def plain_text_inputs(self) -> list[Path]:
        """Return the file of plain texts that the ablation reads; none where none is named."""
        path = self.config.of(Ablation).plain_text
        return [] if path is None else [Path(path).expanduser()]

    def prompt_spec(self, prompt_set: str) -> dict[str, Any]:
        """Return what decides the content of a prompt set, as plain JSON values."""
        section = self.config.prompts[prompt_set]
        source = section.model_dump(exclude={"positions", "kind", "extract"})
        spec: dict[str, Any] = {"set": prompt_set, "seed": self.config.seed, **source}
        if section.holds_pairs:
            limit = section.limit or self.config.of(Localization).n_pairs
            spec |= {"kind": "preferences", "limit": limit}
        if source["source"] == "zoo":
            return {**spec, "size": self.config.zoo.size}
        return {**spec, "splits": self.config.splits.model_dump()}

    def check(self) -> None:
        """Refuse what can be known to be wrong before the DAG is built.

        Raises:
            UserError: a missing folder or file, or a pair whose models differ in shape.
        """
        for line in plan_errors(self):
            raise UserError(line)


def _reference(pair: Pair, name: str) -> Source:
    reference = pair.references[name]
    try:
        return parse_reference(reference.source, revision=reference.revision)
    except UserError as error:
        raise UserError(f"pairs.{pair.name}.references.{name}: {error}") from None


def _source(pair: Pair, role: Role) -> Source:
    parse = parse_source if role == "base" else parse_tuned
    try:
        return parse(getattr(pair, role), revision=getattr(pair.revision, role))
    except UserError as error:
        raise UserError(f"pairs.{pair.name}.{role}: {error}") from None


def zoo_gates(plan: Plan) -> bool:
    """Whether the zoo's checkpoints have gates; the smallest size learns too little for any."""
    zoo = plan.config.zoo
    return zoo.size != "micro" if zoo.gated is None else zoo.gated


def gated(plan: Plan, pair: str) -> bool:
    """Whether a pair's models have to show what they were tuned to do."""
    return pair not in plan.zoo_sizes() or zoo_gates(plan)


def adapter_gates(plan: Plan, pair: str) -> dict[str, float]:
    """What is asked of a pair's insecure adapter.

    Where gates are off, nothing but what the pair itself asks for.
    """
    section = plan.config.of(Misalignment)
    gates = plan.models[f"{pair}.tuned"].pair.gates.model_dump()
    if not gated(plan, pair):
        return {name: least or 0.0 for name, least in gates.items()}
    return {key: getattr(section, key) if least is None else least for key, least in gates.items()}


def number_folders(plan: Plan) -> dict[str, dict[str, str]]:
    """The folder of each pair's numbers, by study that has one a pair."""
    return {
        study: plan.table_folders(STUDIES[study].measured[0])
        for study in plan.config.studies
        if STUDIES[study].measured
    }
