"""What the tuned model of a pair and its unsafe references answer to held-out prompts."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actshift.edits import Lane
from actshift.engine.context import JobContext
from actshift.engine.intervene import encode_questions, intervene
from actshift.engine.intervene_plan import (
    InterveneSettings,
    Labels,
    refusal_phrases_of,
    refusal_tokens,
)
from actshift.engine.stores import CONDITIONS
from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.manifest import weights_hash
from actshift.io.missed import mark_missed, missed_in
from actshift.models.load import load_model, open_tokenizer
from actshift.prompts.records import Prompt, read_prompts
from actshift.studies.spectral_gap.stage import unusable
from actshift.studies.spectral_gap.study import ReferenceAnswers


def reference_behaviour(
    inputs: Mapping[str, Any], *, settings: ReferenceAnswers, context: JobContext, out: Path
) -> None:
    """Ask a tuned model and its references the same held-out prompts, one file of rows a model.

    An "unsafe reference" that still refuses is no such reference; only its answers can tell. One
    that missed its gate is left out.

    Args:
        inputs: `checkpoints`, folders `<pair>.<role or reference>`, `tuned` among them, whose chat
            template and refusal keywords and openers serve them all; prompt sets of the conditions
            `harmful` and `harmless`.
        settings: How they are asked.
        context: The job; its seed draws the prompts.
        out: Folder to make: `<role>.parquet`, rows as those of `engine.intervene`.

    Raises:
        UserError: A condition has no held-out prompts, or a model cannot be read.
    """
    checkpoints = {folder.name.rpartition(".")[2]: folder for folder in inputs["checkpoints"]}
    missed = unusable(checkpoints)
    if missed is not None:
        mark_missed(out, missed)
        return
    pair = context.pair
    drawn = _heldout(inputs, most=settings.n_heldout, seed=context.seed)
    chat = open_tokenizer(checkpoints["tuned"], name=f"{pair}.tuned")
    answering = InterveneSettings.of(
        settings.model_dump(),
        refusal_phrases=refusal_phrases_of(checkpoints["tuned"]),
        tokens=refusal_tokens(chat, settings.openers),
    )
    with publishing(out) as partial:
        partial.mkdir()
        for role, folder in checkpoints.items():
            if missed_in(folder) is not None:
                continue
            name = f"{pair}.{role}"
            loaded = load_model(folder, name=name, dtype=context.dtype, device=context.device)
            intervene(
                loaded,
                encode_questions(loaded, drawn, chat=chat),
                [Lane("plain")],
                labels=Labels(context.run, pair, loaded.name),
                settings=answering,
                staging=context.staging,
                out=partial / f"{role}.parquet",
                identity={"code": context.code, "weights": weights_hash(folder)},
                chat=chat,
            )
            # Or the next model would be read while this one still fills the device.
            del loaded


def _heldout(inputs: Mapping[str, Any], *, most: int, seed: int) -> list[Prompt]:
    drawn: list[Prompt] = []
    for name in CONDITIONS:
        path = inputs[name]
        members = [p for p in read_prompts(path) if (p.condition, p.split) == (name, "heldout")]
        if not members:
            raise UserError(f"reference_behaviour: {path} has no held-out '{name}' prompts")
        rng = random.Random(f"reference behaviour {name} {seed}")
        drawn += rng.sample(members, min(len(members), most))
    return drawn
