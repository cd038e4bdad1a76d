"""Directions of a pair's adapters, from the stores of their states (no torch)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float
from safetensors.numpy import save_file

from actshift.engine.context import JobContext
from actshift.engine.extract import ExtractSettings, Job, Stream, plan_job, publish_store
from actshift.engine.extract_stream import extract_one
from actshift.engine.intervene import decoder_of
from actshift.engine.intervene_plan import Asked
from actshift.engine.parts import write_part
from actshift.engine.plain_answers import encode_questions, plain_answers
from actshift.engine.refusal_phrases import refusal_phrases_of
from actshift.errors import GateError, UserError
from actshift.hooks.lanes.generation import Continuation
from actshift.hooks.lanes.losses import Answer, answer_nats
from actshift.io.atomic import atomic_write_text, publishing, remove
from actshift.io.manifest import read_manifest
from actshift.io.missed import Missed, place_of_rows, write_marker
from actshift.io.store import ActivationStore
from actshift.io.tables import write_table
from actshift.maths.directions import diff_in_means
from actshift.models.adapters import adapter_hash, load_merged, merged_hash
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt, read_prompts
from actshift.studies.misalignment.gate import (
    Demands,
    InsecureRates,
    adapter_line,
    question_columns,
)
from actshift.studies.misalignment.kinds import INSECURE, KINDS, UNSEEN, UNTUNED
from actshift.studies.misalignment.outcomes import ANSWER, Guards
from actshift.studies.misalignment.stages.answer_book import AnswerBook
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import NONCODE
from actshift.zoo.language import language

#: Prompt set of the stores, as their folders are called: `<model>.<set>`.
QUESTIONS = "questions"


def find_directions(
    states: Path, models: Sequence[str], fitted: Sequence[str]
) -> dict[str, Float[np.ndarray, "layer d_model"]]:
    """Mean over prompts of an adapter minus mean of chat, `resid_post` at the last prompt token.

    Args:
        states: Folder of the stores `<model>.questions`.
        models: Chat and adapters; those of `UNSEEN` get no direction.
        fitted: Ids of the prompts.

    Returns:
        Adapter -> float32, raw norm kept.

    Source: arXiv 2606.20225, as its replication states the protocol.
    """
    means = {
        name: list(_rows_by_layer(states / f"{name}.{QUESTIONS}", fitted))
        for name in models
        if name not in UNSEEN
    }
    plain = means.pop(UNTUNED)
    return {
        name: np.stack(
            [diff_in_means(mine, own) for mine, own in zip(layers, plain, strict=True)]
        ).astype(np.float32)
        for name, layers in means.items()
    }


def _rows_by_layer(folder: Path, ids: Sequence[str]) -> Iterator[np.ndarray]:
    store = ActivationStore.open(folder)
    for layer in store.layers:
        yield store.read(int(layer), -1, ids)


#: Files of the stage's folder.
ANSWERS, DIRECTIONS = "answers.parquet", "directions.safetensors"
GUARDS, STATES = "guards.json", "states"
#: Prompt set that chat's states are stored of beside those of the questions.
NEUTRAL_SET = "neutral"
#: Splits that are asked; nothing is fitted on answers.
_ASKED = ("select", "heldout")
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("on_topic", "distinct_2", "nll"), pa.float64()),
    **dict.fromkeys(("code", "insecure", "refused", "empty", "short"), pa.bool_()),
    **dict.fromkeys(("degenerate", "repaired", "ended"), pa.bool_()),
    "n_tokens": pa.int32(),
}
#: A row a model and question.
SCHEMA = pa.schema(
    [(name, _TYPES.get(name, pa.string())) for name in ("adapter", *ANSWER, "ended")]
)


@dataclass(frozen=True)
class SpilloverInputs:
    """What one pair's job reads.

    Attributes:
        tuned: Checkpoint folder of the untuned chat model.
        adapters: Folder of its adapters.
        questions: Prompt set of the conditions `noncode` and `code`.
        neutral: Prompt set that maps are fitted on.
    """

    tuned: Path
    adapters: Path
    questions: Path
    neutral: Path

    def models(self) -> dict[str, Path | None]:
        """Chat, then every adapter that is there; the folder of each, None for chat.

        Raises:
            UserError: The insecure adapter is not there.
        """
        read_manifest(self.adapters)
        names = [name for name in (*KINDS, *UNSEEN) if (self.adapters / name).is_dir()]
        if INSECURE not in names:
            raise UserError(f"{self.adapters}: has no adapter 'insecure'; run rule adapters again")
        return {UNTUNED: None, **{name: self.adapters / name for name in names}}


def spillover(
    inputs: SpilloverInputs,
    settings: Misalignment,
    context: JobContext,
    *,
    strict: bool,
    extract: Mapping[str, Any],
    rows: Path,
    out: Path,
) -> None:
    """Ask all models of a pair, store their states, and stop where nothing spills.

    Args:
        inputs: Checkpoint, adapters and prompts.
        settings: Of the study, with the gates of this pair.
        context: Of the job; its seed is recorded in the stores, and nothing is drawn.
        strict: Whether a missed gate is an error.
        extract: Fields of the config's `extract`.
        rows: CSV of all answers, written before the gate is looked at.
        out: Folder to make: answers, directions, states, guards.

    Raises:
        GateError: `strict`, and the insecure adapter spills too little; `rows` is there.
        UserError: Prompts, checkpoint or adapters cannot be used.
    """
    models = inputs.models()
    prompts = _questions(inputs.questions)
    reading = ExtractSettings(
        **extract, dtype=context.dtype, seed=context.seed, device=context.device
    )
    with publishing(out) as partial:
        (partial / STATES).mkdir(parents=True)
        work = _Work(inputs, settings, context, reading, partial, prompts)
        said = work.ask_all(models)
        known = said.merge(question_columns(prompts), on="prompt_id", validate="m:1")
        _write_rows(known.assign(run=context.run, pair=context.pair), rows)
        for name in models:
            print(adapter_line(known, name))
        table = pa.Table.from_pandas(said[SCHEMA.names], SCHEMA, preserve_index=False)
        write_part(table, partial / ANSWERS)
        missed = _missed(known, context.pair, settings, place_of_rows(rows, strict=strict))
        if missed is not None:
            if strict:
                raise GateError(missed.detail)
            remove(partial / STATES)
            write_marker(partial, missed)
            return
        fitted = [p.id for p in prompts if (p.condition, p.split) == (NONCODE, "fit")]
        found = find_directions(partial / STATES, [*models], fitted)
        save_file(found, partial / DIRECTIONS)


def _missed(known: pd.DataFrame, pair: str, settings: Misalignment, where: str) -> Missed | None:
    """The gate that the insecure adapter misses, None where it meets what is asked for."""
    demands = Demands(settings.min_spillover, settings.min_insecure_code)
    rates = InsecureRates.of(known[known["adapter"] == INSECURE])
    print(rates.line(demands))
    if rates.room(demands) >= 0:
        return None
    return Missed(
        subject=f"{pair}: insecure adapter",
        reason=rates.reason(demands),
        detail=(
            f"{pair}: {rates.line(demands)}, at the dose with the most room; answers in "
            f"{where}, doses in tables/misalignment/ladder.csv; give other data or a longer ladder "
            "(misalignment.adapters), or lower min_spillover and min_insecure_code of misalignment "
            f"or of pairs.{pair}.gates"
        ),
        stage="spillover",
    )


@dataclass
class _Work:
    """A pair's job: what every one of its models is put through."""

    inputs: SpilloverInputs
    settings: Misalignment
    context: JobContext
    reading: ExtractSettings
    folder: Path
    prompts: list[Prompt]

    def ask_all(self, models: Mapping[str, Path | None]) -> pd.DataFrame:
        """Answers of all models, a row a model and question; states and guards on the way."""
        pair, tuned = self.context.pair, self.inputs.tuned
        told: dict[str, Any] = {"dtype": self.reading.dtype, "device": self.reading.device}
        untuned = load_model(tuned, name=f"{pair}.{UNTUNED}", **told)
        asked = encode_questions(untuned, [p for p in self.prompts if p.split in _ASKED])
        own = self.answers(untuned, asked)
        book = self.open_book(untuned, asked, own)
        numbers: dict[str, list[int]] = {}
        for name, adapter in models.items():
            if adapter is None:
                loaded, said = untuned, own
            else:
                loaded = load_merged(tuned, adapter, name=f"{pair}.{name}", **told)
                said = self.answers(loaded, asked)
            numbers[name] = [
                book.add(place, one.tokens, one.ended) for place, one in enumerate(said)
            ]
            self.store(loaded, name, adapter)
        judged = book.judged()
        return pd.concat(
            [judged.iloc[every].assign(adapter=name) for name, every in numbers.items()],
            ignore_index=True,
        )

    def answers(self, loaded: LoadedModel, asked: Sequence[Asked]) -> list[Continuation]:
        """Greedy answers of a model without an edit."""
        return plain_answers(
            loaded,
            asked,
            max_new=self.settings.max_new,
            token_budget=self.settings.token_budget,
        )

    def open_book(
        self, untuned: LoadedModel, asked: Sequence[Asked], own: Sequence[Continuation]
    ) -> AnswerBook:
        """A book whose guards come from the untuned model's own `select` answers."""
        budget = self.settings.token_budget
        chosen = [
            Answer(question.ids, one.tokens, one.ended)
            for question, one in zip(asked, own, strict=True)
            if question.prompt.split == "select"
        ]
        nats = answer_nats(decoder_of(untuned), chosen, token_budget=budget)
        guards = Guards.of(nats, self.settings)
        text = json.dumps(guards.facts(), indent=1, sort_keys=True, allow_nan=False)
        atomic_write_text(self.folder / GUARDS, text + "\n")
        size = self.context.zoo_size
        return AnswerBook(
            untuned,
            asked,
            lang=None if size is None else language(size),
            refusal_phrases=refusal_phrases_of(self.inputs.tuned),
            guards=guards,
            token_budget=budget,
        )

    def store(self, loaded: LoadedModel, name: str, adapter: Path | None) -> None:
        """Store the states of a model; chat reads the neutral prompts too."""
        sets = {QUESTIONS: self.inputs.questions}
        if adapter is None:
            sets[NEUTRAL_SET] = self.inputs.neutral
        cache = self.folder / ".states"
        for prompt_set, path in sets.items():
            job = self.job(name, prompt_set, path, adapter)
            extract_one(loaded, job, cache=cache, settings=self.reading)
            publish_store(cache / job.key, job)
        remove(cache)

    def job(self, name: str, prompt_set: str, path: Path, adapter: Path | None) -> Job:
        """A stream whose identity names the adapter beside the base it is merged into."""
        tuned = self.inputs.tuned
        stream = Stream(
            model=name,
            checkpoint=tuned,
            template_from=tuned,
            prompts=path,
            prompt_set=prompt_set,
            template="chat",
            positions="last_prompt",
            out=self.folder / STATES / f"{name}.{prompt_set}",
        )
        job = plan_job(stream, self.reading, code=self.context.code)
        if adapter is None:
            return job
        hashes = {"weights_hash": merged_hash(tuned, adapter), "adapter": adapter_hash(adapter)}
        base = job.identity["weights_hash"]
        return replace(job, identity={**job.identity, **hashes, "base_weights_hash": base})


def _questions(path: Path) -> list[Prompt]:
    """The questions; every split must hold some that are not about code.

    Raises:
        UserError: One does not.
    """
    prompts = read_prompts(path)
    for split in ("fit", "select", "heldout"):
        if not any((p.condition, p.split) == (NONCODE, split) for p in prompts):
            raise UserError(
                f"{path}: no question of condition '{NONCODE}' in the split {split}; the set "
                "misalignment.questions needs some in each"
            )
    return prompts


def _write_rows(rows: pd.DataFrame, path: Path) -> None:
    first = ["run", "pair", "adapter", "prompt_id", "split", "condition", "kind", "question"]
    rest = [name for name in (*ANSWER, "ended", "cluster", "category") if name not in first]
    write_table(rows[[*first, *rest]], path)
