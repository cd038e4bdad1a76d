"""What a pair's adapters answer without an edit, their states and the directions of these.

The answer book holds distinct answers to a fixed set of questions, each judged and scored once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from actshift.engine.intervene import decoder_of, encode_questions, plain_answers
from actshift.engine.intervene_plan import Asked, refusal_phrases_of
from actshift.engine.parts import write_part
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
from actshift.studies.misalignment.kinds import INSECURE, KINDS, UNSEEN, UNTUNED
from actshift.studies.misalignment.lanes import DIRECTIONS
from actshift.studies.misalignment.outcomes import (
    ANSWER,
    Demands,
    Guards,
    InsecureRates,
    Said,
    adapter_line,
    judge_answers,
    question_columns,
)
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import NONCODE
from actshift.zoo.language import Language, language

#: Columns of `AnswerBook.judged`: which answer, to which question, and how it was said.
BOOK = ("answer", "prompt", "first_token", "ended", *ANSWER)
#: `first_token` of an answer that ended at once.
NO_TOKEN = -1
#: Prompt set of the stores, as their folders are called: `<model>.<set>`.
QUESTIONS = "questions"
#: Prompt set that chat's states are stored of beside those of the questions.
NEUTRAL_SET = "neutral"
#: Files of the stage's folder.
ANSWERS, GUARDS, STATES = "answers.parquet", "guards.json", "states"
#: Splits that are asked; nothing is fitted on answers.
ASKED = ("select", "heldout")
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


def spillover(
    inputs: Mapping[str, Path],
    *,
    settings: Misalignment,
    context: JobContext,
    strict: bool,
    extract: Mapping[str, Any],
    rows: str | Path,
    out: Path,
) -> None:
    """Ask all models of a pair, store their states, and stop where nothing spills.

    Args:
        inputs: `tuned`, the untuned chat model, its `adapters`, and the prompt sets `questions`,
            of the conditions noncode and code, and `neutral`, which maps are fitted on.
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
    models = _models(inputs["adapters"])
    prompts, rows = _questions(inputs["questions"]), Path(rows)
    reading = ExtractSettings(
        **extract, dtype=context.dtype, seed=context.seed, device=context.device
    )
    with publishing(out) as partial:
        (partial / STATES).mkdir(parents=True)
        answers = _Work(inputs, settings, context, reading, partial, prompts).ask_all(models)
        known = answers.merge(question_columns(prompts), on="prompt_id", validate="m:1")
        _write_rows(known.assign(run=context.run, pair=context.pair), rows)
        for name in models:
            print(adapter_line(known, name))
        table = pa.Table.from_pandas(answers[SCHEMA.names], SCHEMA, preserve_index=False)
        write_part(table, partial / ANSWERS)
        missed = _missed(known, context.pair, settings, place_of_rows(rows, strict=strict))
        if missed is not None:
            if strict:
                raise GateError(missed.detail)
            remove(partial / STATES)
            write_marker(partial, missed)
            return
        fitted = [p.id for p in prompts if (p.condition, p.split) == (NONCODE, "fit")]
        save_file(find_directions(partial / STATES, [*models], fitted), partial / DIRECTIONS)


def _models(adapters: Path) -> dict[str, Path | None]:
    """Chat, then every adapter that is there; the folder of each, None for chat."""
    read_manifest(adapters)
    names = [name for name in (*KINDS, *UNSEEN) if (adapters / name).is_dir()]
    if INSECURE not in names:
        raise UserError(f"{adapters}: has no adapter 'insecure'; run rule adapters again")
    return {UNTUNED: None, **{name: adapters / name for name in names}}


def find_directions(
    states: Path, models: Sequence[str], fitted: Sequence[str]
) -> dict[str, Float[np.ndarray, "layer d_model"]]:
    """Mean over prompts of an adapter minus mean of chat, `resid_post` at the last prompt token.

    By adapter, float32, raw norm kept; those of `UNSEEN` get no direction.

    Source: arXiv 2606.20225, as its replication states the protocol.
    """
    stores = {
        name: ActivationStore.open(states / f"{name}.{QUESTIONS}")
        for name in models
        if name not in UNSEEN
    }
    plain = stores.pop(UNTUNED)
    own = {int(layer): plain.read(int(layer), -1, fitted) for layer in plain.layers}
    return {
        name: np.stack(
            [diff_in_means(store.read(at, -1, fitted), rows) for at, rows in own.items()]
        ).astype(np.float32)
        for name, store in stores.items()
    }


def _missed(known: pd.DataFrame, pair: str, settings: Misalignment, where: str) -> Missed | None:
    """The gate that the insecure adapter misses, None where it meets what is asked for."""
    demands = Demands.of(settings)
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

    inputs: Mapping[str, Path]
    settings: Misalignment
    context: JobContext
    reading: ExtractSettings
    folder: Path
    prompts: list[Prompt]

    def ask_all(self, models: Mapping[str, Path | None]) -> pd.DataFrame:
        """Answers of all models, a row a model and question; states and guards on the way."""
        pair, tuned = self.context.pair, self.inputs["tuned"]
        loading: dict[str, Any] = {"dtype": self.reading.dtype, "device": self.reading.device}
        untuned = load_model(tuned, name=f"{pair}.{UNTUNED}", **loading)
        asked = encode_questions(untuned, [p for p in self.prompts if p.split in ASKED])
        own = self.answers(untuned, asked)
        guards = self.guards(untuned, asked, own)
        book = open_book(untuned, asked, tuned, guards, self.settings, self.context)
        numbers: dict[str, list[int]] = {}
        for name, adapter in models.items():
            if adapter is None:
                loaded, answers = untuned, own
            else:
                loaded = load_merged(tuned, adapter, name=f"{pair}.{name}", **loading)
                answers = self.answers(loaded, asked)
            numbers[name] = [
                book.add(place, one.tokens, one.ended) for place, one in enumerate(answers)
            ]
            self.store(loaded, name, adapter)
        judged = book.judged()
        return pd.concat(
            [judged.iloc[every].assign(adapter=name) for name, every in numbers.items()],
            ignore_index=True,
        )

    def answers(self, loaded: LoadedModel, asked: Sequence[Asked]) -> list[Continuation]:
        """Greedy answers of a model without an edit."""
        max_new, budget = self.settings.max_new, self.settings.token_budget
        return plain_answers(loaded, asked, max_new=max_new, token_budget=budget)

    def guards(
        self, untuned: LoadedModel, asked: Sequence[Asked], own: Sequence[Continuation]
    ) -> Guards:
        """Guards from the untuned model's own `select` answers, left in the folder."""
        chosen = [
            Answer(question.ids, one.tokens, one.ended)
            for question, one in zip(asked, own, strict=True)
            if question.prompt.split == "select"
        ]
        budget = self.settings.token_budget
        nats = answer_nats(decoder_of(untuned), chosen, token_budget=budget)
        guards = Guards.of(nats, self.settings)
        text = json.dumps(asdict(guards), indent=1, sort_keys=True, allow_nan=False)
        atomic_write_text(self.folder / GUARDS, text + "\n")
        return guards

    def store(self, loaded: LoadedModel, name: str, adapter: Path | None) -> None:
        """Store the states of a model; chat reads the neutral prompts too."""
        cache = self.folder / ".states"
        for prompt_set in (QUESTIONS, NEUTRAL_SET) if adapter is None else (QUESTIONS,):
            job = self.job(name, prompt_set, adapter)
            extract_one(loaded, job, cache=cache, settings=self.reading)
            publish_store(cache / job.key, job)
        remove(cache)

    def job(self, name: str, prompt_set: str, adapter: Path | None) -> Job:
        """A stream whose identity names the adapter beside the base it is merged into."""
        tuned = self.inputs["tuned"]
        stream = Stream(
            model=name,
            checkpoint=tuned,
            template_from=tuned,
            prompts=self.inputs[prompt_set],
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
    """The questions; every split must hold some that are not about code."""
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


#: Place of a question, tokens of the answer, whether an end token came.
_Entry = tuple[int, tuple[int, ...], bool]


class AnswerBook:
    """Answers by (question, tokens): many lanes say the same, so they are looked at once."""

    def __init__(
        self,
        untuned: LoadedModel,
        asked: Sequence[Asked],
        *,
        lang: Language | None,
        refusal_phrases: tuple[str, ...],
        guards: Guards,
        token_budget: int,
    ) -> None:
        """Begin an empty book; `untuned` is the chat model, for the rest see `judge_answers`."""
        self._untuned, self._asked, self._budget = untuned, asked, token_budget
        judging = {"lang": lang, "refusal_phrases": refusal_phrases, "guards": guards}
        self._judging: dict[str, Any] = judging
        self._entries: dict[_Entry, int] = {}
        self._parts: list[pd.DataFrame] = []
        self._done = 0

    def add(self, prompt: int, tokens: tuple[int, ...], ended: bool) -> int:
        """Enter an answer, if it is new.

        Returns:
            Its number in the book, from 0 in the order of entry.
        """
        return self._entries.setdefault((prompt, tokens, ended), len(self._entries))

    def judged(self) -> pd.DataFrame:
        """Every answer so far; only those are judged that came since the last call.

        Returns:
            Columns `BOOK`, by number of the answer; `first_token` is -1 where the end came first.
        """
        new = list(self._entries)[self._done :]
        if new:
            self._parts.append(self._judge(new))
            self._done = len(self._entries)
        return pd.concat(self._parts, ignore_index=True) if self._parts else self._judge([])

    def _judge(self, new: Sequence[_Entry]) -> pd.DataFrame:
        asked = [self._asked[place] for place, _, _ in new]
        rows = [Answer(one.ids, *entry[1:]) for one, entry in zip(asked, new, strict=True)]
        nats = answer_nats(decoder_of(self._untuned), rows, token_budget=self._budget)
        said = [
            Said(one.prompt, self._text(tokens), tokens, float(cost))
            for one, (_, tokens, _), cost in zip(asked, new, nats, strict=True)
        ]
        judged = judge_answers(said, **self._judging)
        first = [tokens[0] if tokens else NO_TOKEN for _, tokens, _ in new]
        columns: dict[str, Any] = {
            "answer": np.arange(self._done, self._done + len(new), dtype=np.int32),
            "prompt": np.array([place for place, _, _ in new], dtype=np.int16),
            "first_token": np.array(first, dtype=np.int32),
            "ended": np.array([ended for _, _, ended in new], dtype=bool),
        }
        return judged.assign(**columns)[list(BOOK)]

    def _text(self, tokens: tuple[int, ...]) -> str:
        text: Any = self._untuned.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()


def open_book(
    untuned: LoadedModel,
    asked: Sequence[Asked],
    checkpoint: Path,
    guards: Guards,
    settings: Misalignment,
    context: JobContext,
) -> AnswerBook:
    """An empty book about the untuned model of a job, whose folder is `checkpoint`."""
    return AnswerBook(
        untuned,
        asked,
        lang=None if context.zoo_size is None else language(context.zoo_size),
        refusal_phrases=refusal_phrases_of(checkpoint),
        guards=guards,
        token_budget=settings.token_budget,
    )
