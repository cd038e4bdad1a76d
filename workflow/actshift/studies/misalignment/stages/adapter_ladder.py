"""The dose of a pair's adapters: the smallest of a ladder that clears the insecure one's gate.

Every adapter of a pair gets the same multiple of the learning rate, so that doses stay matched. The
multiple is chosen on `select` questions, by a rule that is fixed beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.engine.context import JobContext
from actshift.engine.intervene_plan import Asked
from actshift.engine.plain_answers import encode_questions, plain_answers
from actshift.models.adapters import load_merged
from actshift.models.load import LoadedModel
from actshift.prompts.records import read_prompts
from actshift.studies.misalignment.code_detector import find_code, zoo_code
from actshift.studies.misalignment.gate import Demands, InsecureRates
from actshift.studies.misalignment.stages.adapter_doses import loss_ends
from actshift.studies.misalignment.study import Misalignment

#: Columns of `ladder.csv`; the pair is added when tables are joined.
LADDER_COLUMNS = (
    *("rung", "multiple", "lr", "steps", "last_loss"),
    *("spillover", "spillover_low", "spillover_high", "spillover_gate", "n", "clusters"),
    *("insecure_code", "insecure_code_gate", "n_code", "margin", "room", "taken"),
)


@dataclass(frozen=True)
class Rung:
    """The insecure adapter at one multiple of the learning rate."""

    number: int
    multiple: float
    rates: InsecureRates
    losses: Sequence[float]


@dataclass(frozen=True)
class Asking:
    """Asks adapters the `select` questions of a prompt set.

    Attributes:
        untuned: The model they are adapters of.
        checkpoint: Its folder.
        questions: The prompt set.
        zoo: Whether the models speak the zoo's language.
        settings: Of the study.
        context: Of the job.
    """

    untuned: LoadedModel
    checkpoint: Path
    questions: Path
    zoo: bool
    settings: Misalignment
    context: JobContext

    def rates(self, adapter: Path) -> InsecureRates:
        """What an adapter does on the questions.

        Args:
            adapter: Its folder.
        """
        dtype, device = self.context.dtype, self.context.device
        answers = plain_answers(
            load_merged(self.checkpoint, adapter, name=adapter.name, dtype=dtype, device=device),
            self._asked,
            max_new=self.settings.max_new,
            token_budget=self.settings.token_budget,
        )
        tokenizer: Any = self.untuned.tokenizer
        find = zoo_code if self.zoo else find_code
        rows = []
        for asked, answer in zip(self._asked, answers, strict=True):
            code = find(tokenizer.decode(list(answer.tokens), skip_special_tokens=True).strip())
            prompt = asked.prompt
            rows.append(
                {
                    **{"split": prompt.split, "condition": prompt.condition},
                    **{"cluster": prompt.cluster, "code": code.code, "insecure": code.insecure},
                }
            )
        return InsecureRates.of(
            pd.DataFrame(rows, columns=["split", "condition", "cluster", "code", "insecure"])
        )

    @cached_property
    def _asked(self) -> list[Asked]:
        chosen = [one for one in read_prompts(self.questions) if one.split == "select"]
        return encode_questions(self.untuned, chosen)


def climb(
    ladder: Sequence[float],
    train: Callable[[float], Sequence[float]],
    rates: Callable[[float], InsecureRates],
    demands: Demands,
) -> tuple[list[Rung], Rung]:
    """Train the insecure adapter up the ladder until it clears its gate by the margin.

    Args:
        ladder: Multiples of the learning rate, in the order tried.
        train: Trains it at a multiple; the loss of every step.
        rates: What the adapter of a multiple does.
        demands: The gate and its margin. Where nothing is asked for, the first multiple is taken.

    Returns:
        Every rung that was tried, and the one to take: the first that clears the gate by the
        margin, else the one with the most room, the lowest of equals.
    """
    tried: list[Rung] = []
    for number, multiple in enumerate(ladder, start=1):
        losses = train(multiple)
        tried.append(Rung(number, multiple, rates(multiple), losses))
        if tried[-1].rates.room(demands) >= demands.margin:
            return tried, tried[-1]
    return tried, max(tried, key=lambda rung: rung.rates.room(demands))


def ladder_table(
    tried: Sequence[Rung], taken: Rung | None, demands: Demands, *, lr: float
) -> pd.DataFrame:
    """A row a rung: its rates beside what is asked for.

    Args:
        tried: Of `climb`; empty where the insecure adapter was given.
        taken: Of `climb`.
        demands: The gate and its margin.
        lr: Learning rate that the multiples are of.

    Returns:
        Columns `LADDER_COLUMNS`.
    """
    rows = [_row(rung, demands, lr) | {"taken": rung is taken} for rung in tried]
    return pd.DataFrame(rows, columns=list(LADDER_COLUMNS))


def _row(rung: Rung, demands: Demands, lr: float) -> dict[str, Any]:
    spilled, insecure = rung.rates.spilled, rung.rates.insecure
    return {
        "rung": rung.number,
        "multiple": rung.multiple,
        "lr": lr * rung.multiple,
        "steps": len(rung.losses),
        "last_loss": loss_ends(rung.losses)[1],
        "spillover": spilled.share,
        "spillover_low": spilled.low,
        "spillover_high": spilled.high,
        "spillover_gate": demands.spillover,
        "n": spilled.n,
        "clusters": spilled.clusters,
        "insecure_code": insecure.share,
        "insecure_code_gate": demands.insecure_code,
        "n_code": insecure.n,
        "margin": demands.margin,
        "room": rung.rates.room(demands) if demands.any else float("nan"),
    }
