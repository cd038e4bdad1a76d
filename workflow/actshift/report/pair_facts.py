"""What the models of a run are: sources, architecture, parameters, before anything is claimed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actshift.io.manifest import NAME, read_manifest
from actshift.models.files import count_parameters
from actshift.models.sources import read_model_config, shape_in
from actshift.vocab import ROLES

#: Start of the source of a model that the run trains itself.
_ZOO = "zoo:"
#: Family and variant of such a source; sizes do not depend on the seed.
_ZOO_MODEL = re.compile(r"zoo:(\w+)/(\w+)")


@dataclass(frozen=True, slots=True)
class PairFacts:
    """One pair as the page introduces it; None where no checkpoint has been made.

    Attributes:
        pair: its name.
        base: source of the base, with the commit of a hub model.
        tuned: source of the tuned model, likewise.
        architecture: `model_type` of the config.
        parameters: stored parameters of the tuned model; tied matrices count once.
        blocks: decoder blocks.
        d_model: width of the residual stream.
        dtype: dtype of the forward pass.
        references: names of further models of the pair.
    """

    pair: str
    base: str
    tuned: str
    architecture: str | None
    parameters: int | None
    blocks: int | None
    d_model: int | None
    dtype: str | None
    references: tuple[str, ...] = ()

    @property
    def trained_here(self) -> bool:
        """Whether both models are of the zoo."""
        return self.base.startswith(_ZOO) and self.tuned.startswith(_ZOO)

    def record(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return asdict(self) | {"trained_here": self.trained_here}


def chosen_pairs(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Entries of the config's pairs that `only` leaves in."""
    only = [name.strip() for name in str(config.get("only") or "").split(",") if name.strip()]
    return [pair for pair in config.get("pairs", ()) if not only or str(pair["name"]) in only]


def pair_facts(run_dir: Path, pairs: Iterable[Mapping[str, Any]]) -> list[PairFacts]:
    """Read the facts of each pair from its checkpoints.

    Args:
        run_dir: `results/<run>`.
        pairs: entries of the config's `pairs`: name, base, tuned, references.

    Returns:
        One entry a pair, in the given order; what no checkpoint says is None.

    Raises:
        UserError: a manifest is damaged.
    """
    return [_pair(run_dir, pair) for pair in pairs]


def models_line(pairs: Sequence[PairFacts]) -> str:
    """Say in one or two sentences how many pairs there are and of what kind; empty without any."""
    trained = [pair for pair in pairs if pair.trained_here]
    given = [pair for pair in pairs if not pair.trained_here]
    sentences = []
    if trained:
        sentences.append(
            f"{_pairs(trained)}, trained from scratch by this run in a made-up language: "
            "a test bed, not language models."
        )
    if given:
        sentences.append(f"{_pairs(given)}, given to this run and not trained by it.")
    return " ".join(sentences)


def model_cells(pairs: Sequence[PairFacts]) -> list[dict[str, str]]:
    """The pairs as rows of text, column name -> cell; a column without any text is left out."""
    rows = [
        {
            "Pair": pair.pair,
            "Base": pair.base,
            "Tuned": pair.tuned,
            "References": ", ".join(pair.references),
            "Architecture": pair.architecture or "",
            "Parameters": "" if pair.parameters is None else count_text(pair.parameters),
            "Blocks": "" if pair.blocks is None else str(pair.blocks),
            "d_model": "" if pair.d_model is None else str(pair.d_model),
            "dtype": pair.dtype or "",
        }
        for pair in pairs
    ]
    filled = {name for row in rows for name, cell in row.items() if cell}
    return [{name: cell for name, cell in row.items() if name in filled} for row in rows]


def count_text(count: int) -> str:
    """A number of parameters in words: `76 thousand`, `0.29 million`, `7.62 billion`."""
    if count < 10**5:
        return f"{round(count / 1000, 1):g} thousand"
    unit, name = (10**9, "billion") if count >= 999_500_000 else (10**6, "million")
    return f"{float(f'{count / unit:.3g}' if count >= 10**6 else f'{count / unit:.2g}'):g} {name}"


def _pair(run_dir: Path, pair: Mapping[str, Any]) -> PairFacts:
    name = str(pair["name"])
    manifests = {role: _facts(run_dir, f"{name}.{role}") for role in ROLES}
    # The tuned model first: it is the one that is asked about.
    trained = [_zoo_folder(run_dir, pair.get(role)) for role in reversed(ROLES)]
    folders = [run_dir / "checkpoints" / f"{name}.{role}" for role in reversed(ROLES)]
    folders += [folder for folder in trained if folder is not None]
    counts = map(count_parameters, folders)
    known = manifests["tuned"] or manifests["base"] or _trained_facts(trained)
    return PairFacts(
        pair=name,
        base=_source(manifests["base"], pair.get("base")),
        tuned=_source(manifests["tuned"], pair.get("tuned")),
        architecture=known.get("family"),
        parameters=next((count for count in counts if count is not None), None),
        blocks=known.get("n_layers"),
        d_model=known.get("d_model"),
        dtype=known.get("dtype"),
        references=tuple(pair.get("references") or ()),
    )


def _zoo_folder(run_dir: Path, source: object) -> Path | None:
    """Folder of a zoo model with weights: one that missed its gate has no checkpoint folder."""
    recipe = _ZOO_MODEL.match(str(source))
    configs = run_dir.glob(f"zoo/{recipe[1]}-*/{recipe[2]}/config.json") if recipe else ()
    return next((file.parent for file in sorted(configs)), None)


def _trained_facts(folders: Iterable[Path | None]) -> dict[str, Any]:
    """Architecture and shape of the first zoo model that is there."""
    for folder in folders:
        if folder is not None:
            config = read_model_config(folder)
            blocks, width = shape_in(config, name=str(folder))
            return {"family": config.get("model_type"), "n_layers": blocks, "d_model": width}
    return {}


def _facts(run_dir: Path, model: str) -> dict[str, Any] | None:
    """Facts of a checkpoint's manifest; None where the checkpoint was not made."""
    folder = run_dir / "checkpoints" / model
    return read_manifest(folder)["facts"] if (folder / NAME).is_file() else None


def _source(facts: Mapping[str, Any] | None, configured: object) -> str:
    """Source of a model, at the commit that a hub revision resolved to."""
    if facts is None:
        return str(configured or "")
    source, commit = str(facts.get("source", configured)), facts.get("revision")
    return f"{source.split('@')[0]}@{str(commit)[:12]}" if commit else source


def _pairs(pairs: Sequence[PairFacts]) -> str:
    """`4 pairs of models of 0.26 to 0.31 million parameters`."""
    many = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    return f"{many} of models{sizes_text(pairs)}"


def sizes_text(pairs: Sequence[PairFacts]) -> str:
    """` of 0.26 to 0.31 million parameters`; empty where no checkpoint has been made."""
    counts = sorted(pair.parameters for pair in pairs if pair.parameters is not None)
    if not counts:
        return ""
    low, high = count_text(counts[0]), count_text(counts[-1])
    if low == high:
        return f" of {low} parameters"
    number, unit = low.split()
    start = number if high.endswith(unit) else low
    return f" of {start} to {high} parameters"
