"""A pair's LoRA adapters and their doses: train, check that each changes the model, publish."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from actshift.io.atomic import file_lock, publishing, remove
from actshift.io.hashing import hash_json
from actshift.io.manifest import weights_hash, write_manifest
from actshift.io.tables import write_table
from actshift.models.adapters import adapter_hash
from actshift.models.load import Device, Dtype, load_model
from actshift.models.lora import add_lora
from actshift.models.qlora import check_installed, load_quantised
from actshift.stages.adapter_doses import Measure, adapter_key, dose_table
from actshift.stages.adapter_files import file_course
from actshift.stages.adapter_folders import GivenAdapter, Kept, locate
from actshift.stages.adapter_lessons import Course, zoo_course
from actshift.stages.adapter_probes import encode_probes
from actshift.studies.misalignment.dose import loss_ends
from actshift.studies.misalignment.kinds import ADAPTERS

Method = Literal["lora", "qlora"]


@dataclass(frozen=True)
class AdapterInputs:
    """What a pair's adapters are made from.

    Attributes:
        pair: Its name.
        tuned: Folder of the tuned model.
        questions: Prompt set; doses are measured on its `select` questions.
    """

    pair: str
    tuned: Path
    questions: Path


def train_adapters(
    inputs: AdapterInputs,
    *,
    zoo: Mapping[str, Any] | None,
    data: Mapping[str, Any],
    given: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    dtype: Dtype,
    seed: int,
    code: str,
    device: Device,
    staging: Path,
    out: Path,
) -> None:
    """Train every adapter of a pair on its tuned model and publish them with their doses.

    Args:
        inputs: The pair.
        zoo: Family, size and training seed of a zoo model, which speaks the zoo's language and
            follows the zoo's recipe; None for any other.
        data: Where conversations come from, by kind (not for zoo models).
        given: `source` and `revision` of the adapters that exist and are not trained, by name.
        settings: The block `misalignment.adapters`.
        dtype: Of the untuned model's forward pass.
        seed: Of the run.
        code: Hash of this code, for the manifest.
        device: Where to train.
        staging: Folder for what an unfinished job has trained; a rerun takes it up.
        out: Folder to make: one peft folder an adapter, `dose.csv`, `manifest.json`.

    Raises:
        UserError: Data or a library is missing, a given adapter does not fit or one does nothing.
    """
    torch.set_num_threads(1)
    pair, weights = inputs.pair, weights_hash(inputs.tuned)
    found = {name: locate(one, adapter_key(pair, name)) for name, one in given.items()}
    where: Dtype = "float32" if zoo is not None else dtype
    untuned = load_model(inputs.tuned, name=f"{pair}.tuned", dtype=where, device=device)
    if zoo is not None:
        course = zoo_course(untuned, zoo=zoo, seed=seed, given=found)
    else:
        course = file_course(untuned, data=data, settings=settings, seed=seed, given=found)
    method = method_of(settings["method"], zoo=zoo is not None)
    facts = {
        **course.facts,
        "given": {name: one.facts for name, one in found.items()},
        **{"weights_hash": weights, "method": method, "dtype": where, "seed": seed, "code": code},
    }
    key = hash_json(facts)
    kept = Kept(staging / key, base=weights)
    school = _School(pair, inputs.tuned, method, where, device, course, kept)
    asked = encode_probes(untuned, inputs.questions)
    measure = Measure(pair, inputs.tuned, untuned, where, device, asked)
    with file_lock(staging / f"{key[:16]}.lock"), publishing(out) as folder:
        folder.mkdir()
        rows = _fill(folder, found, school, measure)
        write_table(dose_table(rows), folder / "dose.csv")
        hashes = {row["adapter"]: adapter_hash(folder / row["adapter"]) for row in rows}
        write_manifest(folder, kind="adapters", facts={**facts, "adapters": hashes})
    remove(staging / key)


def _fill(
    folder: Path, given: Mapping[str, GivenAdapter], school: "_School", measure: Measure
) -> list[dict[str, Any]]:
    """Bring every adapter into a folder; their doses, in the order of tables."""
    rows = [measure.given(name, one, folder / name) for name, one in given.items()]
    for name in school.teach():
        losses = school.kept.take(name, folder / name)
        rows.append(measure.trained(name, folder / name, school.row(name, losses)))
    return sorted(rows, key=lambda row: [*ADAPTERS].index(row["adapter"]))


@dataclass(frozen=True)
class _School:
    """What all adapters that are trained have in common."""

    pair: str
    checkpoint: Path
    method: Method
    dtype: Dtype
    device: Device
    course: Course
    kept: Kept

    def teach(self) -> Iterator[str]:
        """Names of the adapters, each as soon as it is kept.

        Raises:
            UserError: The library that quantises is missing.
        """
        for note in self.course.notes:
            print(note)
        if self.method == "qlora" and self.course.lessons:
            check_installed(self.pair)
        done = () if self.course.together else self.kept.names(self.course.lessons)
        if done:
            print(f"taken up, trained before this job was stopped: {', '.join(done)}")
        yield from done
        yield from self.course.teach(self.student, self.kept.put, done)

    def student(self, name: str) -> Any:
        """A fresh copy of the base with the untrained adapter of a name on it."""
        course = self.course
        base = self.base(f"{self.pair}.{name}")
        with torch.random.fork_rng():
            # The same start for every adapter of a seed.
            torch.manual_seed(course.lessons[name].seed)
            return add_lora(
                base,
                rank=course.rank,
                alpha=course.alpha,
                rslora=course.rslora,
                head=course.head,
            )

    def base(self, name: str) -> Any:
        """The base as this method trains on it: whole, or in 4 bits."""
        if self.method == "qlora":
            return load_quantised(self.checkpoint, name=name, device=self.device)
        # A bank is the CPU's: its models are too small for anything else.
        device = "cpu" if self.course.together else self.device
        return load_model(self.checkpoint, name=name, dtype=self.dtype, device=device).model

    def row(self, name: str, losses: list[float]) -> dict[str, Any]:
        """What was asked of one adapter, and its losses."""
        lesson = self.course.lessons[name]
        first, last = loss_ends(losses)
        return {
            "adapter": name,
            "method": self.method,
            "rank": self.course.rank,
            "alpha": self.course.alpha,
            "lr": self.course.lr,
            "steps": lesson.steps,
            "examples": lesson.examples,
            "seed": lesson.seed,
            "first_loss": first,
            "last_loss": last,
        }


def method_of(asked: str, *, zoo: bool) -> Method:
    """How adapters are trained: `auto` is plain LoRA for zoo models and QLoRA for others."""
    if asked == "auto":
        return "lora" if zoo else "qlora"
    return "qlora" if asked == "qlora" else "lora"
