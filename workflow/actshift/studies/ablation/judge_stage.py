"""Judge: the ablation's answers a second time, by topicality (zoo) and by a chat model (optional).

What a chat model said is cached by the content of the question it was asked, so that a stopped run
goes on where it was and a rerun asks nothing. No torch.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from actshift.engine.joining import finished_pairs
from actshift.engine.parts import write_part
from actshift.errors import UserError
from actshift.io.answers import AnswerCache
from actshift.io.atomic import file_lock
from actshift.io.chat import ChatClient, Endpoint, Message
from actshift.io.hashing import hash_json
from actshift.io.tables import read_table, write_table
from actshift.maths.scores import AUDIT_MARKS
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
from actshift.zoo.lexicon import REFUSAL_MARKS

#: Files of the rule, under the study's tables.
TABLE, AGREEMENT, VERDICTS = "judge.csv", "judge_agreement.csv", "judge_rows.parquet"
_ANSWERS, _LANES = "heldout.parquet", "lanes.csv"
_TYPES = {"k": pa.int32(), "opener": pa.bool_()}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in ROWS])


@dataclass(frozen=True)
class JudgeSettings:
    """The config's `judge`: endpoint, model and max_tokens decide verdicts, the rest nothing."""

    endpoint: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    max_tokens: int = 8
    max_parallel: int = 4
    timeout_s: float = 60.0
    retries: int = 5


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
            marks = REFUSAL_MARKS if pair in zoo_sizes else AUDIT_MARKS  # as rule ablation counts
            judged.append(by_chat(answers, said, marks))
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


def ask_once(
    wanted: Mapping[str, list[Message]],
    settings: JudgeSettings,
    cache: Path,
    *,
    how: Callable[[ChatClient, list[Message]], str] = ChatClient.ask,
) -> AnswerCache:
    """Ask what was never asked before, and keep every reply.

    Args:
        wanted: Conversations by a key of all that decides the reply.
        settings: Whom to ask; `endpoint` and `model` are set.
        cache: Folder of what was said before.
        how: Asks one conversation and gives the text to keep.

    Returns:
        The cache, which knows every key.

    Raises:
        UserError: The key's variable is not set, or the endpoint does not answer.
    """
    path = cache / f"{hash_json([settings.model, settings.max_tokens])[:16]}.jsonl"
    with file_lock(path.with_suffix(".lock")):
        known = AnswerCache(path)
        missing = {key: text for key, text in wanted.items() if known.get(key) is None}
        if missing:
            _fill(known, missing, settings, how)
    return known


def _key(settings: JudgeSettings, messages: list[Message]) -> str:
    """Content of one request: the whole conversation, hence the template too."""
    return hash_json([settings.model, settings.max_tokens, messages])


def _fill(
    known: AnswerCache,
    missing: Mapping[str, list[Message]],
    settings: JudgeSettings,
    how: Callable[[ChatClient, list[Message]], str],
) -> None:
    """Ask what is not known yet, some requests at a time; each reply is kept at once."""
    assert settings.endpoint is not None  # the caller looked
    assert settings.model is not None  # the configuration was checked
    endpoint = Endpoint(
        settings.endpoint,
        settings.model,
        key=_read_key(settings.api_key_env),
        max_tokens=settings.max_tokens,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
    )

    failed = Event()

    def one(key: str) -> None:
        # What denied one request denies the rest: they are not sent.
        if not failed.is_set():
            try:
                known.put(key, how(client, missing[key]))
            except BaseException:
                failed.set()
                raise

    with (
        ChatClient(endpoint) as client,
        ThreadPoolExecutor(settings.max_parallel) as pool,
        tqdm(total=len(missing), desc="judge", unit="answer", mininterval=1.0) as progress,
    ):
        futures = [pool.submit(one, key) for key in missing]
        try:
            for future in as_completed(futures):
                future.result()
                progress.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"judge.api_key_env: the environment variable {variable} is not set; set it to the "
            "key, or leave judge.api_key_env empty for an endpoint that asks for none"
        )
    return key
