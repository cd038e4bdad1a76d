"""A pair's LoRA adapters and their doses: train, check that each changes the model, publish."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from actshift.errors import UserError
from actshift.hooks.first_tokens import first_logits
from actshift.io.atomic import publishing
from actshift.io.manifest import weights_hash, write_manifest
from actshift.io.tables import write_table
from actshift.lanes import Lane
from actshift.models.adapters import adapter_hash, delta_norm, load_merged, save_adapter
from actshift.models.load import Device, Dtype, LoadedModel, load_model
from actshift.models.lora import add_lora
from actshift.models.qlora import check_installed, load_quantised
from actshift.stages.adapter_files import file_course
from actshift.stages.adapter_lessons import Course, Ids, zoo_course
from actshift.stages.intervene import decoder_of
from actshift.studies.misalignment.dose import (
    LEAST_CHANGE,
    Probes,
    against_insecure,
    loss_ends,
    shift_of,
)
from actshift.studies.misalignment.kinds import INSECURE

Method = Literal["lora", "qlora"]
#: Columns of dose.csv; the pair and what needs activations is added when tables are joined.
DOSE_COLUMNS = (
    *("adapter", "method", "rank", "alpha", "lr", "steps", "examples", "seed"),
    *("first_loss", "last_loss", "first_loss_of_insecure", "delta_norm", "delta_of_weights"),
    *("kl_code", "kl_other", "logit_change"),
)
_TOKEN_BUDGET = 8192


def train_adapters(
    *,
    pair: str,
    checkpoint: Path,
    zoo: Mapping[str, Any] | None,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    dtype: Dtype,
    seed: int,
    code: str,
    device: Device,
    out: Path,
) -> None:
    """Train every adapter of a pair on its tuned model and publish them with their doses.

    Args:
        pair: Its name.
        checkpoint: Folder of the tuned model.
        zoo: Family, size and training seed of a zoo model, which speaks the zoo's language and
            follows the zoo's recipe; None for any other.
        data: Where conversations come from, by kind (not for zoo models).
        settings: The block `misalignment.adapters`.
        dtype: Of the untuned model's forward pass.
        seed: Of the run.
        code: Hash of this code, for the manifest.
        device: Where to train.
        out: Folder to make: one peft folder an adapter, `dose.csv`, `manifest.json`.

    Raises:
        UserError: Data is missing or faulty, a library is missing, or an adapter changes nothing.
    """
    torch.set_num_threads(1)
    method = method_of(settings["method"], zoo=zoo is not None)
    if method == "qlora":
        check_installed(pair)
    where: Dtype = "float32" if zoo is not None else dtype
    untuned = load_model(checkpoint, name=f"{pair}.tuned", dtype=where, device=device)
    if zoo is not None:
        course = zoo_course(untuned, zoo=zoo, seed=seed)
    else:
        course = file_course(untuned, data=data, settings=settings, seed=seed)
    for note in course.notes:
        print(note)
    # The zoo's training loop is the CPU's.
    school = _School(pair, checkpoint, method, where, "cpu" if zoo is not None else device, course)
    with publishing(out) as folder:
        folder.mkdir()
        rows = school.teach_all(folder, untuned, device)
        write_table(dose_table(rows), folder / "dose.csv")
        facts = {
            **course.facts,
            "weights_hash": weights_hash(checkpoint),
            "adapters": {name: adapter_hash(folder / name) for name in course.lessons},
            "method": method,
            "seed": seed,
            "code": code,
        }
        write_manifest(folder, kind="adapters", facts=facts)


@dataclass(frozen=True)
class _School:
    """What all adapters of a pair have in common."""

    pair: str
    checkpoint: Path
    method: Method
    dtype: Dtype
    device: Device
    course: Course

    def teach_all(self, folder: Path, untuned: LoadedModel, device: Device) -> list[dict[str, Any]]:
        """Train, save and measure every adapter; each must change the untuned model's logits."""
        before = _probe(untuned, self.course)
        rows: list[dict[str, Any]] = []
        for name, wrapped, losses in self.course.teach(self.student):
            save_adapter(wrapped, folder / name, base=weights_hash(self.checkpoint))
            # Before the next is loaded: a model may fill the memory.
            del wrapped
            adapted = load_merged(
                self.checkpoint,
                folder / name,
                name=f"{self.pair}.{name}",
                dtype=self.dtype,
                device=device,
            )
            shift = shift_of(before, _probe(adapted, self.course))
            who = f"{self.pair}: adapter {name}"
            check_change(shift["logit_change"], who, lr=self.course.lr)
            norm, share = delta_norm(folder / name, untuned)
            row = {**self.row(name, losses), "delta_norm": norm, "delta_of_weights": share}
            rows.append(row | shift)
            print(f"{name}: loss {row['first_loss']:.3f} -> {row['last_loss']:.3f}, {shift}")
        return rows

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
        return load_model(self.checkpoint, name=name, dtype=self.dtype, device=self.device).model

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


def check_change(change: float, who: str, *, lr: float) -> None:
    """Refuse an adapter that changes nothing: every later effect of it would be an artefact.

    Raises:
        UserError: No logit of the first answer token moves by `LEAST_CHANGE` nats, or one is NaN.
    """
    if not change >= LEAST_CHANGE:
        raise UserError(
            f"{who} changes nothing: the largest change of a first-token logit is {change:.2g} "
            f"nats, expected at least {LEAST_CHANGE:g}; raise misalignment.adapters.lr "
            f"(now {lr:g}) or epochs"
        )


def dose_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of all adapters, their first losses set against the insecure one's."""
    ratios = against_insecure({row["adapter"]: row["first_loss"] for row in rows}, INSECURE)
    every = [row | {"first_loss_of_insecure": ratios[row["adapter"]]} for row in rows]
    return pd.DataFrame(every, columns=list(DOSE_COLUMNS))


def _probe(model: LoadedModel, course: Course) -> Probes:
    """Logits of the first answer token on the course's prompts."""
    return Probes(_logits(model, course.code), _logits(model, course.other))


def _logits(model: LoadedModel, prompts: Sequence[Ids]) -> Float[np.ndarray, "prompt vocab"]:
    if not prompts:
        return np.empty((0, model.vocab_size), dtype=np.float32)
    ids = [np.asarray(one) for one in prompts]
    parts = first_logits(decoder_of(model), ids, [Lane("plain")], token_budget=_TOKEN_BUDGET)
    return np.concatenate([part.logits[0] for part in parts])
