"""A pair's LoRA adapters and their doses: train, check that each changes the model, publish."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from actshift.engine.context import JobContext
from actshift.io.atomic import file_lock, publishing, remove
from actshift.io.hashing import hash_json
from actshift.io.manifest import weights_hash, write_manifest
from actshift.io.tables import write_table
from actshift.models.adapters import adapter_hash
from actshift.models.load import LoadedModel, load_model
from actshift.models.lora import add_lora
from actshift.models.qlora import check_installed, load_quantised
from actshift.studies.misalignment.gate import Demands
from actshift.studies.misalignment.kinds import ADAPTERS, INSECURE
from actshift.studies.misalignment.stages.adapter_doses import (
    Measure,
    adapter_key,
    dose_table,
    encode_probes,
    loss_ends,
)
from actshift.studies.misalignment.stages.adapter_files import file_plan
from actshift.studies.misalignment.stages.adapter_folders import GivenAdapter, Kept, locate
from actshift.studies.misalignment.stages.adapter_ladder import Asking, Rung, climb, ladder_table
from actshift.studies.misalignment.stages.adapter_plans import TrainingPlan, zoo_plan
from actshift.studies.misalignment.study import Misalignment
from actshift.zoo.recipes import ADAPTER_LADDER

Method = Literal["lora", "qlora"]
#: File of the stage's folder: the doses that were tried, and the one that was taken.
LADDER = "ladder.csv"


@dataclass(frozen=True)
class AdapterInputs:
    """What a pair's adapters are made from.

    Attributes:
        tuned: Folder of the tuned model.
        questions: Prompt set; doses are measured on its `select` questions.
        zoo: Family, size and training seed of a zoo model, which speaks the zoo's language and
            follows the zoo's recipe; None for any other.
        given: `source` and `revision` of the adapters that exist and are not trained, by name.
    """

    tuned: Path
    questions: Path
    zoo: Mapping[str, Any] | None = None
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def train_adapters(
    inputs: AdapterInputs,
    settings: Misalignment,
    context: JobContext,
    *,
    out: Path,
    threads: int = 1,
) -> None:
    """Train every adapter of a pair on its tuned model and publish them with their doses.

    Args:
        inputs: The pair.
        settings: Of the study, with the gates of this pair; `data` is not read for zoo models.
        context: Of the job; its dtype is that of forward passes outside the zoo, and what is
            trained lies in its staging folder until all is done.
        out: Folder to make: one peft folder an adapter, `dose.csv`, `ladder.csv`, `manifest.json`.
        threads: Of PyTorch; sums depend on it.

    Raises:
        UserError: Data or a library is missing, a given adapter does not fit or one does nothing.
    """
    torch.set_num_threads(threads)
    pair, seed = context.pair, context.seed
    given = {name: locate(one, adapter_key(pair, name)) for name, one in inputs.given.items()}
    if inputs.zoo is not None:
        context = replace(context, dtype="float32")
    untuned = load_model(
        inputs.tuned, name=f"{pair}.tuned", dtype=context.dtype, device=context.device
    )
    if inputs.zoo is not None:
        plan = zoo_plan(untuned, zoo=inputs.zoo, seed=seed, given=given)
    else:
        plan = file_plan(untuned, settings, seed=seed, given=given)
    method = method_of(settings.adapters.method, zoo=inputs.zoo is not None)
    facts = {
        **plan.facts,
        "given": {name: adapter.facts for name, adapter in given.items()},
        "weights_hash": weights_hash(inputs.tuned),
        **{"method": method, "dtype": context.dtype, "seed": seed, "code": context.code},
    }
    kept = Kept(context.staging / hash_json(facts), base=facts["weights_hash"])
    training = _Training(inputs, settings, context, untuned, method, plan, kept)
    with file_lock(kept.folder.with_name(f"{kept.folder.name[:16]}.lock")):
        with publishing(out) as made:
            _fill(made, given, training, facts)
        # Under the lock: a job of another pair with the same facts takes up what it finds here.
        remove(kept.folder)


def _fill(
    folder: Path,
    given: Mapping[str, GivenAdapter],
    training: "_Training",
    facts: Mapping[str, Any],
) -> None:
    """Bring every adapter into a folder, with their doses and how the dose was chosen."""
    folder.mkdir()
    settings, zoo = training.settings, training.inputs.zoo is not None
    demands = Demands(settings.min_spillover, settings.min_insecure_code, settings.gate_margin)
    rungs = rungs_of(ADAPTER_LADDER if zoo else settings.adapters.ladder, demands)
    measure = training.measure()
    # First what exists: one that does not fit is told before any is trained.
    rows = [measure.given(name, adapter, folder / name) for name, adapter in given.items()]
    tried, taken = training.choose(rungs, training.asking(), demands)
    multiple = taken.multiple if taken else 1.0
    for name, losses in training.all_at(multiple, folder):
        row = training.row(name, losses, multiple)
        rows.append(measure.trained(name, folder / name, row))
    rows.sort(key=lambda row: [*ADAPTERS].index(row["adapter"]))
    write_table(dose_table(rows), folder / "dose.csv")
    write_table(ladder_table(tried, taken, demands, lr=training.plan.lr), folder / LADDER)
    hashes = {row["adapter"]: adapter_hash(folder / row["adapter"]) for row in rows}
    chosen = {"multiple": multiple, "demands": asdict(demands)}
    write_manifest(folder, kind="adapters", facts={**facts, **chosen, "adapters": hashes})


def rungs_of(ladder: Sequence[float], demands: Demands) -> Sequence[float]:
    """Multiples of the learning rate to try.

    Where nothing is asked of the insecure adapter there is nothing to choose: the first alone.
    """
    return ladder if demands.any else ladder[:1]


@dataclass(frozen=True)
class _Training:
    """What all adapters that are trained have in common."""

    inputs: AdapterInputs
    settings: Misalignment
    context: JobContext
    untuned: LoadedModel
    method: Method
    plan: TrainingPlan
    kept: Kept

    def measure(self) -> Measure:
        """Measures doses against the untuned model."""
        asked = encode_probes(self.untuned, self.inputs.questions)
        return Measure(self.context, self.inputs.tuned, self.untuned, asked)

    def asking(self) -> Asking:
        """Asks the insecure adapter what its gate is about."""
        inputs = self.inputs
        return Asking(
            self.untuned,
            inputs.tuned,
            inputs.questions,
            inputs.zoo is not None,
            self.settings,
            self.context,
        )

    def choose(
        self, ladder: Sequence[float], asking: Asking, demands: Demands
    ) -> tuple[list[Rung], Rung | None]:
        """The rungs that were tried and the one to take; none where the adapter was given.

        Raises:
            UserError: The library that quantises is missing.
        """
        for note in self.plan.notes:
            print(note)
        if self.method == "qlora" and self.plan.adapters:
            check_installed(self.context.pair)
        if INSECURE not in self.plan.adapters:
            return [], None
        tried, taken = climb(
            ladder,
            lambda multiple: self._trained([INSECURE], multiple)[INSECURE],
            lambda multiple: asking.rates(self.kept.at(multiple).folder / INSECURE),
            demands,
        )
        for rung in tried:
            chosen = ", taken" if rung is taken else ""
            print(f"learning rate x {rung.multiple:g}: {rung.rates.line(demands)}{chosen}")
        return tried, taken

    def all_at(self, multiple: float, folder: Path) -> Iterator[tuple[str, list[float]]]:
        """Bring every adapter at a multiple into a folder; names and the loss of every step."""
        names = list(self.plan.adapters)
        # `choose` has named the insecure one in the log.
        self._trained(names, multiple, unnamed=(INSECURE,))
        kept = self.kept.at(multiple)
        return ((name, kept.take(name, folder / name)) for name in names)

    def _trained(
        self, names: Sequence[str], multiple: float, *, unnamed: Sequence[str] = ()
    ) -> dict[str, list[float]]:
        """Losses of adapters at a multiple, those trained that are not kept yet."""
        kept = self.kept.at(multiple)
        done = kept.names(names)
        if before := [name for name in done if name not in unnamed]:
            print(f"taken up, trained before: {', '.join(before)} at x {multiple:g}")
        missing = [name for name in names if name not in done]
        if missing and self.plan.together:
            # Float sums of a bank depend on who is in it: what is trained together stays together.
            missing = [name for name in names if name in missing or name != INSECURE]
        self.plan.train(missing, multiple, self.untrained, kept.put)
        return {name: kept.losses(name) for name in names}

    def untrained(self, name: str) -> Any:
        """A fresh copy of the base with the untrained adapter of a name on it."""
        plan = self.plan
        base = self.base(f"{self.context.pair}.{name}")
        with torch.random.fork_rng():
            # The same start for every adapter of a seed.
            torch.manual_seed(plan.adapters[name].seed)
            return add_lora(
                base,
                rank=plan.rank,
                alpha=plan.alpha,
                rslora=plan.rslora,
                head=plan.head,
            )

    def base(self, name: str) -> Any:
        """The base as this method trains on it: whole, or in 4 bits."""
        if self.method == "qlora":
            return load_quantised(self.inputs.tuned, name=name, device=self.context.device)
        # A bank is the CPU's: its models are too small for anything else.
        device = "cpu" if self.plan.together else self.context.device
        dtype = self.context.dtype
        return load_model(self.inputs.tuned, name=name, dtype=dtype, device=device).model

    def row(self, name: str, losses: list[float], multiple: float) -> dict[str, Any]:
        """What was asked of one adapter, and its losses."""
        adapter = self.plan.adapters[name]
        first, last = loss_ends(losses)
        return {
            "adapter": name,
            "method": self.method,
            "rank": self.plan.rank,
            "alpha": self.plan.alpha,
            "lr": self.plan.lr * multiple,
            "steps": adapter.steps,
            "examples": adapter.examples,
            "seed": adapter.seed,
            "first_loss": first,
            "last_loss": last,
        }


def method_of(asked: str, *, zoo: bool) -> Method:
    """How adapters are trained: `auto` is plain LoRA for zoo models and QLoRA for others."""
    if asked == "auto":
        return "lora" if zoo else "qlora"
    return "qlora" if asked == "qlora" else "lora"
