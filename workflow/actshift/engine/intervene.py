"""Intervene: prompts x lanes through a model, one row a prompt and lane, streamed to Parquet.

Batches are cut by a token budget alone, so they do not depend on how often a run was stopped. Each
batch leaves one finished part in a staging folder named by the content of the job; a rerun goes on
after the last part, and the file appears under its final name as a whole.

What ends an answer is joined from all that a checkpoint says: `generation_config.json` often keeps
the base's end of a document after tuning taught another end of a turn. Answers would then run on
into turns of their own making, and be judged with them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from actshift.edits import Lane
from actshift.engine.causal import causal_model
from actshift.engine.intervene_plan import (
    Asked,
    Batch,
    InterveneSettings,
    Labels,
    check_names,
    job_key,
    plan_batches,
)
from actshift.engine.parts import Part, fill_parts, join_parts
from actshift.errors import UserError
from actshift.hooks.lanes.generation import Continuation, Decoder, LaneBatch, generate_lanes
from actshift.hooks.reading.memory import is_out_of_memory
from actshift.io.atomic import file_lock, remove
from actshift.maths.scores import distinct_2, kl_rows, refusal_log_odds, refused_by_keyword
from actshift.models.load import LoadedModel
from actshift.models.tokenizers import say_once
from actshift.prompts.answers import answer_lead, encode_to_answer, turn_end
from actshift.prompts.records import Prompt
from actshift.prompts.templates import Tokenizer


def eos_of(loaded: LoadedModel, *, chat: Tokenizer | None = None) -> frozenset[int]:
    """Token ids that end an answer of a model; none is a UserError.

    Those of generation_config.json, the tokenizer's eos_token, and what the chat template (of
    `chat`, else of the model's own tokenizer) writes right behind an answer. Ends that
    generation_config.json does not list are named in the log.
    """
    listed: int | list[int] | None = getattr(loaded.model.generation_config, "eos_token_id", None)
    tokenizer = loaded.tokenizer
    tokens = {
        "the tokenizer's eos_token": tokenizer.eos_token_id,
        "the end of a turn in the chat template": turn_end(tokenizer, chat_tokenizer=chat),
    }
    ends = {listed} if isinstance(listed, int) else set(listed or ())
    for what, token in tokens.items():
        # A token without an embedding is never written.
        if isinstance(token, int) and token < loaded.vocab_size and token not in ends:
            ends.add(token)
            text = tokenizer.convert_ids_to_tokens(token)
            say_once(
                f"{loaded.name}: answers also end at {text} ({token}), {what}, which "
                "generation_config.json does not list"
            )
    if not ends:
        raise UserError(
            f"{loaded.name}: generation_config.json names no eos_token_id, the tokenizer has no "
            "eos_token and the chat template ends no turn, so no answer would ever end; add "
            "eos_token_id to generation_config.json"
        )
    return frozenset(ends)


def warn_endless(
    conditions: Sequence[str], ended: Sequence[bool], *, model: str, max_new: int
) -> list[str]:
    """Say in the log of which prompts no plain answer came to an end; returns their conditions.

    `conditions` and `ended` have one entry a plain answer.
    """
    counts = Counter(conditions)
    with_ends = {name for name, over in zip(conditions, ended, strict=True) if over}
    endless = [name for name in counts if name not in with_ends]
    for name in endless:
        print(
            f"warning: {model}: none of the {counts[name]} plain answers to '{name}' prompts ended "
            f"within {max_new} tokens (max_new); refusals and distinct_2 are read from cut-off "
            "answers: raise max_new, or add the token that ends a turn to eos_token_id in "
            "generation_config.json"
        )
    return endless


#: One row a prompt and lane. Aggregates are made from these rows and never stored instead of them.
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("run", "pair", "model", "prompt_id", "condition")),
        *((name, pa.string()) for name in ("category", "cluster", "split", "lane")),
        ("draw", pa.int32()),
        ("text", pa.string()),
        ("n_tokens", pa.int32()),
        ("refused", pa.bool_()),
        ("refusal_log_odds", pa.float64()),
        ("kl_first", pa.float64()),
        ("ended", pa.bool_()),
        ("distinct_2", pa.float64()),
        ("margin", pa.float32()),
    ]
)
_PLAIN = Lane("plain")


def intervene(
    receiver: LoadedModel,
    asked: Sequence[Asked],
    lanes: Sequence[Lane],
    *,
    labels: Labels,
    settings: InterveneSettings,
    staging: Path,
    out: Path,
    identity: dict[str, Any],
    donor: LoadedModel | None = None,
    chat: Tokenizer | None = None,
) -> None:
    """Ask every prompt in every lane and write the rows, in the order of the batches.

    Args:
        receiver: The model that is edited.
        asked: Prompts with their tokens; ids are unique.
        lanes: Conditions with unique names; a lane without edits is the baseline.
        labels: Of the rows.
        settings: What decides the rows.
        staging: Folder for unfinished parts, outside every declared output.
        out: The Parquet file; it appears whole.
        identity: What else decides the rows (weights hashes, code hash): parts of another identity
            are never taken up again.
        donor: The model that patches read.
        chat: Whose chat template the prompts are in; the receiver's own tokenizer if None.

    Raises:
        UserError: Two lanes or prompts share a name, or the device runs out of memory.
    """
    check_names([lane.name for lane in lanes], "lanes")
    check_names([question.prompt.id for question in asked], "prompts")
    key = job_key(asked, lanes, labels=labels, settings=settings, identity=identity)
    parts = staging / key
    batches = plan_batches([len(question.ids) for question in asked], len(lanes), settings)
    with file_lock(staging / f"{key[:16]}.lock"):
        decoder = decoder_of(receiver, chat=chat)
        patched_from = None if donor is None else decoder_of(donor, chat=chat)
        run = _Run(receiver, decoder, patched_from, asked, lanes, labels, settings)
        to_make = [
            Part(partial(run.rows, batch), len(batch.prompts) * len(batch.lanes))
            for batch in batches
        ]
        files = fill_parts(to_make, parts, label=labels.model, unit="answer")
        join_parts(files, out, SCHEMA)
        remove(parts)
    answers = pd.read_parquet(out, columns=["condition", "lane", "ended"])
    plain = answers[answers["lane"] == _PLAIN.name]
    warn_endless(
        plain["condition"].tolist(),
        plain["ended"].tolist(),
        model=labels.model,
        max_new=settings.max_new,
    )


@dataclass(frozen=True)
class _Run:
    """A job's models, prompts and lanes."""

    receiver: LoadedModel
    decoder: Decoder
    donor: Decoder | None
    asked: Sequence[Asked]
    lanes: Sequence[Lane]
    labels: Labels
    settings: InterveneSettings
    columns: dict[tuple[int, ...], dict[str, Any]] = field(default_factory=dict)
    plain: dict[tuple[int, ...], LaneBatch] = field(default_factory=dict)

    def rows(self, batch: Batch) -> pa.Table:
        """Rows of a batch."""
        if batch.prompts not in self.plain:
            # Always its own pass, so that a resumed run compares with the same bits; only that of
            # the latest prompts is kept.
            self.plain.clear()
            self.plain[batch.prompts] = self.generate(batch, [_PLAIN], 1)
        lanes = [self.lanes[i] for i in batch.lanes]
        generated = self.generate(batch, lanes, self.settings.max_new)
        rows = list(_rows(self, batch, generated, self.plain[batch.prompts]))
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def generate(self, batch: Batch, lanes: Sequence[Lane], max_new: int) -> LaneBatch:
        """Run some lanes on the prompts of a batch."""
        ids = [self.asked[i].ids for i in batch.prompts]
        try:
            return generate_lanes(self.decoder, ids, lanes, max_new=max_new, donor=self.donor)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"{self.labels.model}: the device is out of memory at {len(ids)} prompts x "
                f"{len(lanes)} lanes; lower the token budget of the interventions"
            ) from None


def decoder_of(loaded: LoadedModel, *, chat: Tokenizer | None = None) -> Decoder:
    """The parts of a loaded model that lanes need; the template of `chat` says what ends a turn.

    Raises:
        UserError: Nothing names an end token.
    """
    eos = eos_of(loaded, chat=chat)
    pad: Any = loaded.tokenizer.pad_token_id
    if pad is None:
        pad = min(eos)  # padding is masked, so any token will do
    return Decoder(causal_model(loaded.model), eos, pad)


def _rows(
    run: _Run, batch: Batch, generated: LaneBatch, plain: LaneBatch
) -> Iterator[dict[str, Any]]:
    tokens = run.settings.refusal_tokens
    labels = asdict(run.labels)
    names = {index: _names(run.asked[index].prompt) for index in batch.prompts}
    for lane_index, answers, logits in zip(
        batch.lanes, generated.answers, generated.first_logits, strict=True
    ):
        lane = run.lanes[lane_index]
        kl = kl_rows(plain.first_logits[0], logits)
        odds = refusal_log_odds(logits, tokens) if tokens else [None] * len(answers)
        for index, answer, one_kl, one_odds in zip(batch.prompts, answers, kl, odds, strict=True):
            yield {
                **labels,
                **names[index],
                "lane": lane.name,
                "draw": lane.draw,
                **_answer_columns(run, answer.tokens),
                "ended": answer.ended,
                "margin": answer.margin,
                "refusal_log_odds": None if one_odds is None else float(one_odds),
                "kl_first": float(one_kl),
            }


def _names(prompt: Prompt) -> dict[str, str]:
    names = ("condition", "category", "cluster", "split")
    return {"prompt_id": prompt.id, **{name: getattr(prompt, name) for name in names}}


def _answer_columns(run: _Run, tokens: tuple[int, ...]) -> dict[str, Any]:
    """Columns of an answer; most lanes give the same one, so it is read once."""
    if tokens not in run.columns:
        decoded: Any = run.receiver.tokenizer.decode(list(tokens), skip_special_tokens=True)
        text = decoded.strip()
        run.columns[tokens] = {
            "text": text,
            "n_tokens": len(tokens),
            "refused": refused_by_keyword(text, run.settings.refusal_phrases),
            "distinct_2": distinct_2(tokens),
        }
    return run.columns[tokens]


#: Most prompts a batch, whatever the budget.
_PROMPTS = 256


def encode_questions(
    loaded: LoadedModel, prompts: Sequence[Prompt], *, chat: Tokenizer | None = None
) -> list[Asked]:
    """Questions up to where answers begin, in the chat template of `chat` or the model's own."""
    lead = answer_lead(loaded.tokenizer, chat_tokenizer=chat)
    how = {"lead": lead, "chat_tokenizer": chat}
    encoded = (encode_to_answer(loaded.tokenizer, prompt.text, **how) for prompt in prompts)
    return [Asked(prompt, np.array(e.ids)) for prompt, e in zip(prompts, encoded, strict=True)]


def plain_answers(
    loaded: LoadedModel, asked: Sequence[Asked], *, max_new: int, token_budget: int
) -> list[Continuation]:
    """Greedy answers without an edit, in the order of the questions.

    `token_budget` is the most padded tokens a batch, `max_new` the longest answer.
    """
    settings = InterveneSettings(
        max_new=max_new, token_budget=token_budget, prompts_a_batch=_PROMPTS
    )
    decoder = decoder_of(loaded)
    by_place: dict[int, Continuation] = {}
    for batch in plan_batches([len(question.ids) for question in asked], 1, settings):
        ids = [asked[place].ids for place in batch.prompts]
        generated = generate_lanes(decoder, ids, [Lane("plain")], max_new=max_new)
        by_place |= zip(batch.prompts, generated.answers[0], strict=True)
    answers = [by_place[place] for place in range(len(asked))]
    warn_endless(
        [question.prompt.condition for question in asked],
        [answer.ended for answer in answers],
        model=loaded.name,
        max_new=max_new,
    )
    return answers
