"""Intervene: prompts x lanes through a model, one row a prompt and lane, streamed to Parquet.

Batches are cut by a token budget alone, so they do not depend on how often a run was stopped. Each
batch leaves one finished part in a staging folder named by the content of the job; a rerun goes on
after the last part, and the file appears under its final name as a whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from actshift.edits import Lane
from actshift.engine.causal import causal_model
from actshift.engine.eos import eos_of, warn_endless
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
from actshift.hooks.lanes.generation import Decoder, LaneBatch, generate_lanes
from actshift.hooks.reading.memory import is_out_of_memory
from actshift.io.atomic import file_lock, remove
from actshift.maths.scores import distinct_2, kl_rows, refusal_log_odds, refused_by_keyword
from actshift.models.load import LoadedModel
from actshift.prompts.records import Prompt
from actshift.prompts.templates import Tokenizer

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
    """Ask every prompt in every lane and write the rows.

    Args:
        receiver: The model that is edited.
        asked: Prompts with their tokens; ids are unique.
        lanes: Conditions with unique names; a lane without edits is the baseline.
        labels: Of the rows.
        settings: What decides the rows.
        staging: Folder for unfinished parts, outside every declared output.
        out: The Parquet file, in the order of the batches; it appears whole.
        identity: What else decides the rows (weights hashes, code hash): parts of another identity
            are never taken up again.
        donor: The model that patches read.
        chat: Whose chat template the prompts are in; the receiver's own tokenizer if None.

    Raises:
        UserError: Two lanes or prompts share a name, or the device runs out of memory.
    """
    check_names([lane.name for lane in lanes], "lanes")
    check_names([one.prompt.id for one in asked], "prompts")
    key = job_key(asked, lanes, labels=labels, settings=settings, identity=identity)
    parts = staging / key
    batches = plan_batches([len(one.ids) for one in asked], len(lanes), settings)
    with file_lock(staging / f"{key[:16]}.lock"):
        decoder = decoder_of(receiver, chat=chat)
        patched_from = None if donor is None else decoder_of(donor, chat=chat)
        run = _Run(receiver, decoder, patched_from, asked, lanes, labels, settings)
        made = [
            Part(partial(run.rows, batch), len(batch.prompts) * len(batch.lanes))
            for batch in batches
        ]
        files = fill_parts(made, parts, label=labels.model, unit="answer")
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
    said: dict[tuple[int, ...], dict[str, Any]] = field(default_factory=dict)
    plain: dict[tuple[int, ...], LaneBatch] = field(default_factory=dict)

    def rows(self, batch: Batch) -> pa.Table:
        """What is said in a batch."""
        if batch.prompts not in self.plain:
            # Always its own pass, so that a resumed run compares with the same bits; only that of
            # the latest prompts is kept.
            self.plain.clear()
            self.plain[batch.prompts] = self.generate(batch, [_PLAIN], 1)
        lanes = [self.lanes[i] for i in batch.lanes]
        found = self.generate(batch, lanes, self.settings.max_new)
        rows = list(_rows(self, batch, found, self.plain[batch.prompts]))
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
    """The parts of a loaded model that lanes need.

    Args:
        loaded: The model.
        chat: Whose chat template says what ends a turn; the model's own tokenizer if None.

    Raises:
        UserError: Nothing names an end token.
    """
    eos = eos_of(loaded, chat=chat)
    pad: Any = loaded.tokenizer.pad_token_id
    if pad is None:
        pad = min(eos)  # padding is masked, so any token will do
    return Decoder(causal_model(loaded.model), eos, pad)


def _rows(run: _Run, batch: Batch, found: LaneBatch, plain: LaneBatch) -> Iterator[dict[str, Any]]:
    tokens = run.settings.refusal_tokens
    labels = asdict(run.labels)
    names = {index: _names(run.asked[index].prompt) for index in batch.prompts}
    for lane_index, answers, logits in zip(
        batch.lanes, found.answers, found.first_logits, strict=True
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
                **_said(run, answer.tokens),
                "ended": answer.ended,
                "margin": answer.margin,
                "refusal_log_odds": None if one_odds is None else float(one_odds),
                "kl_first": float(one_kl),
            }


def _names(prompt: Prompt) -> dict[str, str]:
    names = ("condition", "category", "cluster", "split")
    return {"prompt_id": prompt.id, **{name: getattr(prompt, name) for name in names}}


def _said(run: _Run, tokens: tuple[int, ...]) -> dict[str, Any]:
    """What an answer says; most lanes say the same, so it is looked at once."""
    if tokens not in run.said:
        decoded: Any = run.receiver.tokenizer.decode(list(tokens), skip_special_tokens=True)
        text = decoded.strip()
        run.said[tokens] = {
            "text": text,
            "n_tokens": len(tokens),
            "refused": refused_by_keyword(text, run.settings.refusal_phrases),
            "distinct_2": distinct_2(tokens),
        }
    return run.said[tokens]
