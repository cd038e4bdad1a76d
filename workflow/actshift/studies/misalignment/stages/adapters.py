"""A pair's LoRA adapters: train at the smallest dose that clears the gate, measure, publish."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from actshift.engine.context import JobContext
from actshift.engine.intervene import encode_questions
from actshift.engine.intervene_plan import Asked
from actshift.io.atomic import file_lock, hash_json, publishing, remove
from actshift.io.manifest import weights_hash, write_manifest
from actshift.io.tables import write_table
from actshift.models.adapters import (
    CONFIG,
    WEIGHTS,
    GivenAdapter,
    adapter_hash,
    adapter_size,
    import_adapter,
    load_merged,
    locate,
    named,
    save_adapter,
)
from actshift.models.load import LoadedModel, load_model
from actshift.models.lora import add_lora
from actshift.models.qlora import check_installed, load_quantised
from actshift.prompts.records import read_prompts
from actshift.studies.misalignment.kinds import ADAPTERS, INSECURE
from actshift.studies.misalignment.outcomes import Demands, InsecureRates
from actshift.studies.misalignment.stages.adapter_doses import (
    Measure,
    Rung,
    climb,
    dose_table,
    insecure_rates,
    ladder_table,
    loss_ends,
)
from actshift.studies.misalignment.stages.adapter_plans import TrainingPlan, file_plan, zoo_plan
from actshift.studies.misalignment.study import Misalignment
from actshift.zoo.recipes import ADAPTER_LADDER

Method = Literal["lora", "qlora"]
#: File of the stage's folder: the doses that were tried, and the one that was taken.
LADDER = "ladder.csv"
_LOSSES = "losses.json"


def train_adapters(
    inputs: Mapping[str, Path],
    *,
    settings: Misalignment,
    context: JobContext,
    zoo: Mapping[str, Any] | None = None,
    given: Mapping[str, Mapping[str, Any]],
    out: Path,
    threads: int = 1,
) -> None:
    """Train every adapter of a pair on its tuned model and publish them with their doses.

    Args:
        inputs: `tuned`, the checkpoint, and `questions`, whose `select` questions are asked.
        settings: With the gates of this pair; `data` is not read for zoo models.
        context: Of the job; its dtype is that of forward passes outside the zoo, and what is
            trained lies in its staging folder until all is done.
        zoo: Family, size and training seed of a zoo model, which speaks the zoo's language and
            follows the zoo's recipe; None for any other.
        given: `source` and `revision` of the adapters that exist and are not trained, by name.
        out: Folder to make: one peft folder an adapter, `dose.csv`, `ladder.csv`, `manifest.json`.
        threads: Of PyTorch; sums depend on it.

    Raises:
        UserError: Data or a library is missing, a given adapter does not fit or one does nothing.
    """
    torch.set_num_threads(threads)
    pair, seed, tuned = context.pair, context.seed, inputs["tuned"]
    found = {
        name: locate(spec["source"], spec.get("revision"), key=_key(pair, name))
        for name, spec in given.items()
    }
    if zoo is not None:
        context = replace(context, dtype="float32")
    untuned = load_model(tuned, name=f"{pair}.tuned", dtype=context.dtype, device=context.device)
    if zoo is not None:
        plan = zoo_plan(untuned, zoo=zoo, seed=seed, given=given)
    else:
        plan = file_plan(untuned, settings, seed=seed, given=given)
    method = method_of(settings.adapters.method, zoo=zoo is not None)
    facts = {
        **plan.facts,
        "given": {name: adapter.facts for name, adapter in found.items()},
        "weights_hash": weights_hash(tuned),
        **{"method": method, "dtype": context.dtype, "seed": seed, "code": context.code},
    }
    kept = Kept(context.staging / hash_json(facts), base=facts["weights_hash"])
    training = Training(tuned, inputs["questions"], settings, context, untuned, method, plan)
    with file_lock(kept.folder.with_name(f"{kept.folder.name[:16]}.lock")):
        with publishing(out) as folder:
            _fill(folder, found, training, kept, facts)
        # Under the lock: a job of another pair with the same facts takes up what it finds here.
        remove(kept.folder)


def _fill(
    folder: Path,
    given: Mapping[str, GivenAdapter],
    training: "Training",
    kept: "Kept",
    facts: Mapping[str, Any],
) -> None:
    """Bring every adapter into a folder, with their doses and how the dose was chosen."""
    folder.mkdir()
    demands, plan = Demands.of(training.settings), training.plan
    # First what exists: one that does not fit is reported before any is trained.
    rows = [training.take_over(name, adapter, folder / name) for name, adapter in given.items()]
    tried, taken = training.choose(kept, demands)
    multiple = taken.multiple if taken else 1.0
    kept = kept.at(multiple)
    # `choose` has named the insecure one in the log.
    training.losses(kept, list(plan.adapters), multiple, unnamed=(INSECURE,))
    for name in plan.adapters:
        losses = kept.take(name, folder / name)
        rows.append(training.row(name, losses, multiple, folder / name))
    rows.sort(key=lambda row: [*ADAPTERS].index(row["adapter"]))
    write_table(dose_table(rows), folder / "dose.csv")
    write_table(ladder_table(tried, taken, demands, lr=plan.lr), folder / LADDER)
    hashes = {row["adapter"]: adapter_hash(folder / row["adapter"]) for row in rows}
    chosen = {"multiple": multiple, "demands": asdict(demands)}
    write_manifest(folder, kind="adapters", facts={**facts, **chosen, "adapters": hashes})


def _key(pair: str, name: str) -> str:
    """The config key of a given adapter."""
    return f"pairs.{pair}.adapters.{name}"


def rungs_of(ladder: Sequence[float], demands: Demands) -> Sequence[float]:
    """Multiples of the learning rate to try; without a demand there is no choice: the first."""
    return ladder if demands.any else ladder[:1]


def method_of(method: str, *, zoo: bool) -> Method:
    """How adapters are trained: `auto` is plain LoRA for zoo models and QLoRA for others."""
    return "lora" if method == "lora" or (method == "auto" and zoo) else "qlora"


@dataclass(frozen=True)
class Kept:
    """Adapters that a job has trained so far, outside of what it publishes.

    The folder's name stands for all that decides them; `base` is the hash of the base's weights.
    """

    folder: Path
    base: str

    def at(self, multiple: float) -> "Kept":
        """Those that were trained at one multiple of the learning rate."""
        return Kept(self.folder / f"x{multiple:g}", self.base)

    def has(self, name: str) -> bool:
        """Whether an adapter is there and whole."""
        try:
            self.losses(name)
            json.loads((self.folder / name / CONFIG).read_text(encoding="utf-8"))
            with safe_open(self.folder / name / WEIGHTS, framework="numpy"):
                return True
        except (FileNotFoundError, NotADirectoryError, ValueError, SafetensorError):
            # Any other refusal of the file system is about the machine, not about the adapter.
            return False

    def put(self, name: str, wrapped: Any, losses: list[float]) -> None:
        """Keep a trained adapter with the loss of every step."""
        with publishing(self.folder / name) as folder:
            save_adapter(wrapped, folder, base=self.base)
            (folder / _LOSSES).write_text(json.dumps(losses), encoding="utf-8")

    def take(self, name: str, folder: Path) -> list[float]:
        """Copy a kept adapter, as a plain peft folder, and return its losses."""
        shutil.copytree(self.folder / name, folder, ignore=shutil.ignore_patterns(_LOSSES))
        return self.losses(name)

    def losses(self, name: str) -> list[float]:
        """Loss of every step of a kept adapter, nats a token."""
        return json.loads((self.folder / name / _LOSSES).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Training:
    """What all adapters of a pair have in common."""

    tuned: Path
    questions: Path
    settings: Misalignment
    context: JobContext
    untuned: LoadedModel
    method: Method
    plan: TrainingPlan

    @cached_property
    def _measure(self) -> Measure:
        return Measure(self.context.pair, self.untuned, self.questions)

    @cached_property
    def _asked(self) -> list[Asked]:
        prompts = read_prompts(self.questions)
        return encode_questions(self.untuned, [p for p in prompts if p.split == "select"])

    def _adapted(self, folder: Path) -> LoadedModel:
        name, context = f"{self.context.pair}.{folder.name}", self.context
        return load_merged(
            self.tuned, folder, name=name, dtype=context.dtype, device=context.device
        )

    def take_over(self, name: str, given: GivenAdapter, folder: Path) -> dict[str, Any]:
        """Take over an existing adapter; its row of `dose.csv` says nothing of a training."""
        key = _key(self.context.pair, name)
        with named(key):
            weights = weights_hash(self.tuned)
            import_adapter(given.folder, folder, base=self.untuned, weights=weights)
        dose = self._measure.dose(self._adapted(folder), folder, f"is {key} the right one?")
        rank, alpha = adapter_size(folder)
        print(f"{name}: {given.facts['source']}, {dose}")
        return {"adapter": name, "method": "given", "rank": rank, "alpha": alpha} | dose

    def choose(self, kept: Kept, demands: Demands) -> tuple[list[Rung], Rung | None]:
        """The rungs that were tried and the one to take; none where the adapter was given.

        Raises:
            UserError: The library that quantises is missing.
        """
        plan = self.plan
        for note in plan.notes:
            print(note)
        if self.method == "qlora" and plan.adapters:
            check_installed(self.context.pair)
        if INSECURE not in plan.adapters:
            return [], None
        tried, taken = climb(
            rungs_of(ADAPTER_LADDER if plan.zoo else self.settings.adapters.ladder, demands),
            lambda multiple: self.losses(kept.at(multiple), [INSECURE], multiple)[INSECURE],
            lambda multiple: self.rates(kept.at(multiple).folder / INSECURE),
            demands,
        )
        for rung in tried:
            chosen = ", taken" if rung is taken else ""
            print(f"learning rate x {rung.multiple:g}: {rung.rates.line(demands)}{chosen}")
        return tried, taken

    def rates(self, adapter: Path) -> InsecureRates:
        """What the adapter of a folder does on the `select` questions."""
        model, settings = self._adapted(adapter), self.settings
        return insecure_rates(model, self._asked, settings, zoo=self.plan.zoo)

    def losses(
        self, kept: Kept, names: Sequence[str], multiple: float, *, unnamed: Sequence[str] = ()
    ) -> dict[str, list[float]]:
        """Losses of adapters at a multiple; those that are not kept yet are trained."""
        whole = [name for name in names if kept.has(name)]
        if before := [name for name in whole if name not in unnamed]:
            print(f"taken up, trained before: {', '.join(before)} at x {multiple:g}")
        missing = [name for name in names if name not in whole]
        if missing and self.plan.zoo:
            # Float sums of a bank depend on who is in it: what is trained together stays together.
            missing = [name for name in names if name in missing or name != INSECURE]
        self.plan.train(missing, multiple, self._untrained, kept.put)
        return {name: kept.losses(name) for name in names}

    def _untrained(self, name: str) -> Any:
        """A fresh copy of the base with the untrained adapter of a name on it."""
        plan, base = self.plan, self._base(f"{self.context.pair}.{name}")
        with torch.random.fork_rng():
            # The same start for every adapter of a seed.
            torch.manual_seed(plan.adapters[name].seed)
            return add_lora(
                base, rank=plan.rank, alpha=plan.alpha, rslora=plan.rslora, head=plan.head
            )

    def _base(self, name: str) -> Any:
        """The base as this method trains on it: whole, or in 4 bits."""
        if self.method == "qlora":
            return load_quantised(self.tuned, name=name, device=self.context.device)
        # A bank is the CPU's: its models are too small for anything else.
        device = "cpu" if self.plan.zoo else self.context.device
        return load_model(self.tuned, name=name, dtype=self.context.dtype, device=device).model

    def row(self, name: str, losses: list[float], multiple: float, folder: Path) -> dict[str, Any]:
        """The row of `dose.csv` of a trained adapter."""
        adapter, lr = self.plan.adapters[name], self.plan.lr * multiple
        first, last = loss_ends(losses)
        advice = f"raise misalignment.adapters.lr (now {lr:g}) or epochs"
        dose = self._measure.dose(self._adapted(folder), folder, advice)
        print(f"{name}: loss {first:.3f} -> {last:.3f}, {dose}")
        return {
            "adapter": name,
            "method": self.method,
            **{"rank": self.plan.rank, "alpha": self.plan.alpha, "lr": lr},
            **asdict(adapter),
            **{"first_loss": first, "last_loss": last, **dose},
        }
