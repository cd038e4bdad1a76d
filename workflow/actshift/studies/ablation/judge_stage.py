"""Judge: the ablation's answers a second time, by topicality (zoo) and by a chat model (optional).

What a chat model said is cached by the content of the question it was asked, so that a stopped run
goes on where it was and a rerun asks nothing. No torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from actshift.engine.chat_judge import JudgeSettings, ask_once
from actshift.engine.joining import finished_pairs
from actshift.engine.parts import write_part
from actshift.engine.refusal_phrases import refusal_phrases_for
from actshift.errors import UserError
from actshift.io.chat import Message
from actshift.io.hashing import hash_json
from actshift.io.tables import read_table, write_table
from actshift.maths.scores import AUDIT_PHRASES
from actshift.prompts.records import read_prompts
from actshift.studies.ablation.judge import (
    ROWS,
    agreement_table,
    answers_to_judge,
    by_chat,
    by_topicality,
    judge_messages,
    judge_table,
)
from actshift.zoo.language import language

#: Files of the rule, under the study's tables.
TABLE, AGREEMENT, VERDICTS = "judge.csv", "judge_agreement.csv", "judge_rows.parquet"
_ANSWERS, _LANES = "heldout.parquet", "lanes.csv"
_TYPES = {"k": pa.int32(), "opener": pa.bool_()}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in ROWS])


def judge_answers(
    *,
    pairs: Mapping[str, Path],
    zoo_sizes: Mapping[str, str],
    prompts: Sequence[Path],
    settings: JudgeSettings,
    cache: Path,
    out: Path,
) -> list[str]:
    """Judge the published comparison's answers of every pair and compare with the keywords.

    Args:
        pairs: Folder of each pair's ablation, in the order wanted; a failed pair has none.
        zoo_sizes: Size of the zoo's language for each pair whose tuned model is of the zoo.
        prompts: Prompt sets that the questions are from.
        settings: The chat model to ask; without an endpoint zoo pairs alone are judged.
        cache: Folder of what was said before.
        out: Folder of `judge.csv`, `judge_agreement.csv` and `judge_rows.parquet`.

    Returns:
        Names of the missing pairs.

    Raises:
        UserError: No pair has its folder, a prompt is unknown, the key's variable is not set, or
            the endpoint does not answer.

    Source: arXiv 2605.24583 v1, LLM-judge cross-check (150 generations, three conditions).
    """
    present = finished_pairs(pairs, rule="ablation", needed="answers to judge", asker="judge")
    judged = []
    for pair, folder in present.items():
        rows = pd.read_parquet(folder / _ANSWERS)
        answers = answers_to_judge(rows, read_table(folder / _LANES), pair)
        if pair in zoo_sizes:
            judged.append(by_topicality(answers, language(zoo_sizes[pair])))
        if settings.endpoint is not None:
            said = _ask(answers, prompts, settings, cache)
            phrases = refusal_phrases_for(pair in zoo_sizes, published=AUDIT_PHRASES)
            judged.append(by_chat(answers, said, phrases))
    table = pd.concat(judged) if judged else pd.DataFrame(columns=list(ROWS))
    out.mkdir(parents=True, exist_ok=True)
    write_part(pa.Table.from_pylist(table.to_dict("records"), schema=_SCHEMA), out / VERDICTS)
    write_table(judge_table(table), out / TABLE)
    write_table(agreement_table(table), out / AGREEMENT)
    print(f"judge: {len(table)} verdicts on {len(present)} pairs")
    return [pair for pair in pairs if pair not in present]


def _ask(
    answers: pd.DataFrame, prompts: Sequence[Path], settings: JudgeSettings, cache: Path
) -> list[str]:
    """What the chat model says of every answer, from the cache where it was asked before."""
    questions = {one.id: one.text for path in prompts for one in read_prompts(path)}
    unknown = sorted(set(answers["prompt_id"]) - set(questions))
    if unknown:
        raise UserError(
            f"judge: no prompt '{unknown[0]}' in {', '.join(path.name for path in prompts)}; the "
            "answers are of other prompts, run rule ablation again"
        )
    conversations = [
        judge_messages(questions[row["prompt_id"]], row["text"])
        for row in answers.to_dict("records")
    ]
    keys = [_key(settings, messages) for messages in conversations]
    # Equal answers to one question are asked about once.
    wanted = dict(zip(keys, conversations, strict=True))
    known = ask_once(wanted, settings, cache)
    return [known.get(key) or "" for key in keys]


def _key(settings: JudgeSettings, messages: list[Message]) -> str:
    """Content of one request: the whole conversation, hence the template too."""
    return hash_json([settings.model, settings.max_tokens, messages])
