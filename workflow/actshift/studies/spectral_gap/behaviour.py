"""What the tuned model of a pair and its unsafe references answer to held-out prompts."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from actshift.edits import Lane
from actshift.engine.context import JobContext
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
from actshift.studies.spectral_gap.study import ReferenceAnswers


def reference_behaviour(
    *,
    checkpoints: Mapping[str, Path],
    prompts: Mapping[str, Path],
    settings: ReferenceAnswers,
    context: JobContext,
    out: Path,
) -> None:
    """Ask every model the same held-out prompts, one file of rows a model.

    An "unsafe reference" that still refuses is no such reference; only its answers can tell.

    Args:
        checkpoints: Folder of every model by its role, `tuned` among them, whose chat template and
            refusal keywords and openers serve them all. A reference that missed its gate is left
            out.
        prompts: Prompt sets of the conditions `harmful` and `harmless`.
        settings: How they are asked.
        context: The job; its seed draws the prompts.
        out: Folder to make: `<role>.parquet`, rows as those of `engine.intervene`.

    Raises:
        UserError: A condition has no held-out prompts, or a model cannot be read.
    """
    missed = unusable(checkpoints)
    if missed is not None:
        mark_missed(out, missed)
        return
    pair = context.pair
    drawn = _heldout(prompts, most=settings.n_heldout, seed=context.seed)
    chat, answering = _answering(checkpoints["tuned"], f"{pair}.tuned", settings)
    with publishing(out) as partial:
        partial.mkdir()
        for role, folder in checkpoints.items():
            if missed_in(folder) is not None:
                continue
            name = f"{pair}.{role}"
            loaded = load_model(folder, name=name, dtype=context.dtype, device=context.device)
            intervene(
                loaded,
                _asked(drawn, loaded.tokenizer, chat),
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


def _answering(
    tuned: Path, name: str, settings: ReferenceAnswers
) -> tuple[Tokenizer, InterveneSettings]:
    """The tuned model's tokenizer, and how every model answers and is judged."""
    chat = open_tokenizer(tuned, name=name)
    tokens = refusal_tokens(chat, settings.openers)
    dumped = settings.model_dump()
    return chat, InterveneSettings.of(
        dumped, refusal_phrases=refusal_phrases_of(tuned), tokens=tokens
    )


def _asked(drawn: Sequence[Prompt], tokenizer: Tokenizer, chat: Tokenizer) -> list[Asked]:
    lead = answer_lead(tokenizer, chat_tokenizer=chat)
    encoded = [
        encode_to_answer(tokenizer, prompt.text, lead=lead, chat_tokenizer=chat) for prompt in drawn
    ]
    return [Asked(prompt, np.array(e.ids)) for prompt, e in zip(drawn, encoded, strict=True)]


def _heldout(prompts: Mapping[str, Path], *, most: int, seed: int) -> list[Prompt]:
    """Drawn held-out prompts of both conditions."""
    drawn: list[Prompt] = []
    for name, path in prompts.items():
        members = [p for p in read_prompts(path) if (p.condition, p.split) == (name, "heldout")]
        if not members:
            raise UserError(f"reference_behaviour: {path} has no held-out '{name}' prompts")
        rng = random.Random(f"reference behaviour {name} {seed}")
        drawn += rng.sample(members, min(len(members), most))
    return drawn
