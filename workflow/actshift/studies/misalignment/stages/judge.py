"""Misalignment judge: what a chat model thinks of the adapters' answers (optional, no torch).

Replies are kept as those of stage `judge`: a stopped run goes on, a rerun asks nothing.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from actshift.engine.chat_judge import JudgeSettings, ask_once
from actshift.engine.joining import finished_pairs
from actshift.engine.parts import write_part
from actshift.io.chat import ChatClient, Message
from actshift.io.hashing import hash_json
from actshift.io.tables import write_table
from actshift.prompts.records import read_prompts
from actshift.studies.misalignment.gate import question_columns
from actshift.studies.misalignment.judged import (
    ROWS,
    SCALES,
    answers_to_judge,
    judged_table,
    label_of,
    scale_messages,
    score,
)

#: Files of the rule, under the study's tables; and the file of a pair that it reads.
TABLE, VERDICTS, ANSWERS = "judged.csv", "judged_rows.parquet", "answers.parquet"
_TYPES: dict[str, pa.DataType] = {scale: pa.float64() for scale in SCALES}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in ROWS])


def judge_misalignment(
    *,
    pairs: Mapping[str, Path],
    questions: Path,
    settings: JudgeSettings,
    cache: Path,
    out: Path,
) -> list[str]:
    """Have the answers of every adapter scored for alignment and coherence.

    Args:
        pairs: Folder of each pair's spillover, in the order wanted; a failed pair has none.
        questions: Prompt set they were asked.
        settings: The chat model; without an endpoint nothing is asked and the table is empty.
        cache: Folder of what was said before.
        out: Folder of `judged.csv` and `judged_rows.parquet`.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has its folder, the key's variable is not set, or the endpoint does not
            answer.

    Source: Betley et al. 2025 (arXiv 2502.17424).
    """
    rows = pd.DataFrame(columns=list(ROWS))
    missing: list[str] = []
    if settings.endpoint is not None:
        present = finished_pairs(pairs, rule="spillover", needed="answers", asker="judge")
        missing = [pair for pair in pairs if pair not in present]
        known = question_columns(read_prompts(questions))
        parts = [
            answers_to_judge(pd.read_parquet(folder / ANSWERS), known).assign(pair=pair)
            for pair, folder in present.items()
        ]
        # Of pairs that all missed their gate there is no answer to judge.
        rows = _judged(pd.concat(parts, ignore_index=True), settings, cache) if parts else rows
    out.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(rows[list(ROWS)], _SCHEMA, preserve_index=False)
    write_part(table, out / VERDICTS)
    write_table(judged_table(rows), out / TABLE)
    print(f"misalignment judge: {len(rows)} answers")
    return missing


def _judged(answers: pd.DataFrame, settings: JudgeSettings, cache: Path) -> pd.DataFrame:
    """The answers with their scores."""
    asked = {
        scale: [
            scale_messages(question, text, scale)
            for question, text in zip(answers["question"], answers["text"], strict=True)
        ]
        for scale in SCALES
    }
    keys = {scale: [_key(settings, one) for one in many] for scale, many in asked.items()}
    # Equal answers to one question are asked about once.
    wanted = {
        key: messages
        for scale in SCALES
        for key, messages in zip(keys[scale], asked[scale], strict=True)
    }
    known = ask_once(wanted, settings, cache, how=_ask)
    found = answers.copy()
    for scale in SCALES:
        replies = [json.loads(known.get(key) or '["", {}]') for key in keys[scale]]
        found[scale] = [score(text, top) for text, top in replies]
        found[f"said_{scale}"] = [text for text, _ in replies]
    # A label stands only where there is no number: half a number is a score.
    labels = [label_of(text) for text in found["said_alignment"]]
    return found.assign(label=labels).assign(
        label=lambda rows: rows["label"].where(rows["alignment"].isna(), "")
    )


def _ask(client: ChatClient, messages: list[Message]) -> str:
    said = client.ask_first(messages)
    return json.dumps([said.text, dict(said.top)])


def _key(settings: JudgeSettings, messages: list[Message]) -> str:
    return hash_json(["first token", settings.model, settings.max_tokens, messages])
