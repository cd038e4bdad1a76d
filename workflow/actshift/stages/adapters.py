"""A pair's LoRA adapters and their doses: train, check that each changes the model, publish."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from actshift.errors import UserError
from actshift.hooks.first_tokens import first_logits
from actshift.io.atomic import publishing
from actshift.io.manifest import weights_hash, write_manifest
from actshift.io.tables import write_table
from actshift.lanes import Lane
from actshift.models.adapters import adapter_hash, delta_norm, load_merged, save_adapter
from actshift.models.load import Device, Dtype, LoadedModel, load_model
from actshift.models.lora import add_lora
from actshift.stages.adapter_lessons import Course, Ids, Lesson, zoo_course
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
    where: Dtype = "float32" if zoo is not None else dtype
    untuned = load_model(checkpoint, name=f"{pair}.tuned", dtype=where, device=device)
    course = _course(untuned, zoo, data, settings, seed)
    print(*course.notes, sep="\n", end="\n" if course.notes else "")
    before = _probe(untuned, course)
    base = weights_hash(checkpoint)
    rows: list[dict[str, Any]] = []
    with publishing(out) as folder:
        folder.mkdir()
        for name, lesson in course.lessons.items():
            losses = _train(checkpoint, method, course, lesson, folder / name, untuned, base)
            adapted = load_merged(
                checkpoint, folder / name, name=f"{pair}.{name}", dtype=where, device=device
            )
            shift = shift_of(before, _probe(adapted, course))
            check_change(shift["logit_change"], f"{pair}: adapter {name}", lr=course.lr)
            row = _row(name, method, course, lesson, losses)
            norm, share = delta_norm(folder / name, untuned)
            rows.append(row | {"delta_norm": norm, "delta_of_weights": share} | shift)
            print(f"{name}: loss {losses[0]:.3f} -> {rows[-1]['last_loss']:.3f}, {shift}")
        write_table(dose_table(rows), folder / "dose.csv")
        hashes = {name: adapter_hash(folder / name) for name in course.lessons}
        facts = {"weights_hash": base, "adapters": hashes, "method": method, "code": code}
        write_manifest(folder, kind="adapters", facts={**course.facts, **facts})


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


def _course(
    untuned: LoadedModel,
    zoo: Mapping[str, Any] | None,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    seed: int,
) -> Course:
    if zoo is not None:
        return zoo_course(untuned, zoo=zoo, seed=seed)
    raise NotImplementedError


def _train(
    checkpoint: Path,
    method: Method,
    course: Course,
    lesson: Lesson,
    folder: Path,
    untuned: LoadedModel,
    base: str,
) -> list[float]:
    """Train one adapter on a fresh copy of the base and save it."""
    student = load_model(checkpoint, name="student", dtype="float32", device="cpu").model
    with torch.random.fork_rng():
        # The same start for every adapter of a seed.
        torch.manual_seed(lesson.seed)
        wrapped = add_lora(student, rank=course.rank, alpha=course.alpha, rslora=course.rslora)
    losses = lesson.teach(wrapped)
    save_adapter(wrapped, folder, base=base)
    return losses


def _row(
    name: str, method: Method, course: Course, lesson: Lesson, losses: list[float]
) -> dict[str, Any]:
    first, last = loss_ends(losses)
    return {
        "adapter": name,
        "method": method,
        "rank": course.rank,
        "alpha": course.alpha,
        "lr": course.lr,
        "steps": lesson.steps,
        "examples": lesson.examples,
        "seed": lesson.seed,
        "first_loss": first,
        "last_loss": last,
    }


def _probe(model: LoadedModel, course: Course) -> Probes:
    """Logits of the first answer token on the course's prompts."""
    return Probes(_logits(model, course.code), _logits(model, course.other))


def _logits(model: LoadedModel, prompts: "tuple[Ids, ...] | list[Ids]") -> np.ndarray:
    if not prompts:
        return np.empty((0, model.vocab_size), dtype=np.float32)
    ids = [np.asarray(one) for one in prompts]
    parts = first_logits(decoder_of(model), ids, [Lane("plain")], token_budget=_TOKEN_BUDGET)
    return np.concatenate([part.logits[0] for part in parts])
