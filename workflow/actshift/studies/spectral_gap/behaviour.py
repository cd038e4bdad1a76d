"""What the tuned model of a pair and its unsafe references answer to held-out prompts."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actshift.edits import Lane
from actshift.engine.intervene import intervene
from actshift.engine.intervene_plan import Asked, InterveneSettings, Labels, refusal_tokens
from actshift.engine.refusal_phrases import refusal_phrases_of
from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.manifest import weights_hash
from actshift.io.missed import mark_missed, missed_in
from actshift.models.load import load_model, open_tokenizer
from actshift.prompts.answers import answer_lead, encode_to_answer
from actshift.prompts.records import Prompt, read_prompts
from actshift.prompts.templates import Tokenizer
from actshift.studies.spectral_gap.stage import unusable


def reference_behaviour(
    *,
    run: str,
    pair: str,
    checkpoints: Mapping[str, Path],
    prompts: Mapping[str, Path],
    settings: Mapping[str, Any],
    dtype: Any,
    device: Any,
    seed: int,
    code: str,
    staging: Path,
    out: Path,
) -> None:
    """Ask every model the same held-out prompts, one file of rows a model.

    An "unsafe reference" that still refuses is no such reference; only its answers can tell.

    Args:
        run: Name of the run.
        pair: Name of the pair.
        checkpoints: Folder of every model by its role, `tuned` among them, whose chat template and
            refusal keywords and openers serve them all. A reference that missed its gate is left
            out.
        prompts: Prompt sets of the conditions `harmful` and `harmless`.
        settings: Fields of the config's `refusal_direction`.
        dtype: Of the forward pass.
        device: Where to run.
        seed: Of the draw of prompts.
        code: Hash of the code.
        staging: Folder for unfinished rows.
        out: Folder to make: `<role>.parquet`, rows as those of `engine.intervene`.

    Raises:
        UserError: A condition has no held-out prompts, or a model cannot be read.
    """
    missed = unusable(checkpoints)
    if missed is not None:
        mark_missed(out, missed)
        return
    drawn = _heldout(prompts, most=settings["n_heldout"], seed=seed)
    chat, answering = _answering(checkpoints["tuned"], f"{pair}.tuned", settings)
    with publishing(out) as partial:
        partial.mkdir()
        usable = {role: one for role, one in checkpoints.items() if missed_in(one) is None}
        for role, folder in usable.items():
            loaded = load_model(folder, name=f"{pair}.{role}", dtype=dtype, device=device)
            intervene(
                loaded,
                _asked(drawn, loaded.tokenizer, chat),
                [Lane("plain")],
                labels=Labels(run, pair, loaded.name),
                settings=answering,
                staging=staging,
                out=partial / f"{role}.parquet",
                identity={"code": code, "weights": weights_hash(folder)},
                chat=chat,
            )
            # Or the next model would be read while this one still fills the device.
            del loaded


def _answering(
    tuned: Path, name: str, settings: Mapping[str, Any]
) -> tuple[Tokenizer, InterveneSettings]:
    """The tuned model's tokenizer, and how every model answers and is judged."""
    chat = open_tokenizer(tuned, name=name)
    tokens = refusal_tokens(chat, settings["openers"])
    return chat, InterveneSettings.of(
        settings, refusal_phrases=refusal_phrases_of(tuned), tokens=tokens
    )


def _asked(drawn: Sequence[Prompt], tokenizer: Tokenizer, chat: Tokenizer) -> list[Asked]:
    lead = answer_lead(tokenizer, chat_tokenizer=chat)
    encoded = [
        encode_to_answer(tokenizer, one.text, lead=lead, chat_tokenizer=chat) for one in drawn
    ]
    return [Asked(one, np.array(found.ids)) for one, found in zip(drawn, encoded, strict=True)]


def _heldout(prompts: Mapping[str, Path], *, most: int, seed: int) -> list[Prompt]:
    """Drawn held-out prompts of both conditions."""
    found: list[Prompt] = []
    for name, path in prompts.items():
        members = [p for p in read_prompts(path) if (p.condition, p.split) == (name, "heldout")]
        if not members:
            raise UserError(f"reference_behaviour: {path} has no held-out '{name}' prompts")
        rng = random.Random(f"reference behaviour {name} {seed}")
        found += rng.sample(members, min(len(members), most))
    return found
