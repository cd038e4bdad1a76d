"""Doses of adapters: how far each moves the untuned model, and which rung of the ladder is taken.

Every adapter of a pair gets the same multiple of the learning rate, so that doses stay matched. The
multiple is chosen on `select` questions, by a rule that is fixed beforehand: the smallest that
clears the gate of the insecure adapter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.edits import Lane
from actshift.engine.intervene import decoder_of, encode_questions, plain_answers
from actshift.engine.intervene_plan import Asked
from actshift.errors import UserError
from actshift.hooks.reading.first_tokens import first_logits
from actshift.maths.scores import kl_rows
from actshift.models.adapters import delta_norm
from actshift.models.load import LoadedModel
from actshift.prompts.records import read_prompts
from actshift.studies.misalignment.code_detector import find_code, zoo_code
from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.outcomes import Demands, InsecureRates
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import CODE

#: Smallest change of any first-token logit, in nats, that counts as one: below it no probability
#: changes by more than 0.1 %.
LEAST_CHANGE = 1e-3
#: Steps that the last loss is the mean of.
_LAST = 20
_TOKEN_BUDGET = 8192
#: Columns of dose.csv; the pair and what needs activations is added when tables are joined.
DOSE_COLUMNS = (
    *("adapter", "method", "rank", "alpha", "lr", "steps", "examples", "seed"),
    *("first_loss", "last_loss", "first_loss_of_insecure", "delta_norm", "delta_of_weights"),
    *("kl_code", "kl_other", "logit_change"),
)
#: Columns of `ladder.csv`; the pair is added when tables are joined.
LADDER_COLUMNS = (
    *("rung", "multiple", "lr", "steps", "last_loss"),
    *("spillover", "spillover_low", "spillover_high", "spillover_gate", "n", "clusters"),
    *("insecure_code", "insecure_code_gate", "n_code", "margin", "room", "taken"),
)
#: First-token logits by kind of question: `code`, and `other`, which may have no rows.
Logits = Mapping[str, Float[np.ndarray, "prompt vocab"]]


def loss_ends(losses: Sequence[float]) -> tuple[float, float]:
    """Loss of the first step, which no update has touched, and mean loss of the last 20 steps."""
    last = losses[-_LAST:]
    return losses[0], sum(last) / len(last)


def encode_probes(untuned: LoadedModel, questions: Path) -> dict[str, list[np.ndarray]]:
    """The `select` questions about code and all others, in a model's chat template."""
    prompts = [prompt for prompt in read_prompts(questions) if prompt.split == "select"]
    asked = encode_questions(untuned, prompts)
    return {
        "code": [one.ids for one in asked if one.prompt.condition == CODE],
        "other": [one.ids for one in asked if one.prompt.condition != CODE],
    }


class Measure:
    """Measures doses against the untuned model, on the `select` questions of a prompt set."""

    def __init__(self, pair: str, untuned: LoadedModel, questions: Path) -> None:
        """Ask the untuned model."""
        self._pair, self._untuned = pair, untuned
        self._probes = encode_probes(untuned, questions)
        self._before = self._logits(untuned)

    def _logits(self, model: LoadedModel) -> Logits:
        return {kind: _first_logits(model, ids) for kind, ids in self._probes.items()}

    def dose(self, adapted: LoadedModel, folder: Path, advice: str) -> dict[str, float]:
        """How far an adapter moves weights and answers, which must be at all.

        Returns:
            `delta_norm`, `delta_of_weights`; of the first answer token `kl_code` and `kl_other`,
            mean KL(chat || adapter) in nats (NaN without prompts), and `logit_change`, the largest
            change of a logit.
        """
        after = self._logits(adapted)
        sides = [(kind, before, after[kind]) for kind, before in self._before.items()]
        shift = {
            f"kl_{kind}": float(kl_rows(before, now).mean()) if len(before) else float("nan")
            for kind, before, now in sides
        }
        change = float(max(np.abs(now - before).max(initial=0.0) for _, before, now in sides))
        check_change(change, f"{self._pair}: adapter {folder.name}", advice)
        norm, share = delta_norm(folder, self._untuned)
        return {"delta_norm": norm, "delta_of_weights": share, **shift, "logit_change": change}


def _first_logits(
    model: LoadedModel, prompts: Sequence[np.ndarray]
) -> Float[np.ndarray, "prompt vocab"]:
    if not prompts:
        return np.empty((0, model.vocab_size), dtype=np.float32)
    lanes = [Lane("plain")]
    parts = first_logits(decoder_of(model), prompts, lanes, token_budget=_TOKEN_BUDGET)
    return np.concatenate([part.logits[0] for part in parts])


def check_change(change: float, who: str, advice: str) -> None:
    """Refuse an adapter that changes nothing: every later effect of it would be an artefact.

    Raises:
        UserError: No logit of the first answer token moves by `LEAST_CHANGE` nats, or one is NaN.
    """
    if not change >= LEAST_CHANGE:
        raise UserError(
            f"{who} changes nothing: the largest change of a first-token logit is {change:.2g} "
            f"nats, expected at least {LEAST_CHANGE:g}; {advice}"
        )


def dose_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of all adapters, with their first loss over the insecure one's: how new the data is."""
    table = pd.DataFrame(rows).reindex(columns=list(DOSE_COLUMNS))
    losses = [float(loss) for loss in table["first_loss"]]
    insecure = losses[table["adapter"].tolist().index(INSECURE)]
    # Whole numbers stay so where a given adapter has none.
    whole = dict.fromkeys(("rank", "steps", "examples", "seed"), "Int64")
    return table.assign(first_loss_of_insecure=[loss / insecure for loss in losses]).astype(whole)


@dataclass(frozen=True)
class Rung:
    """The insecure adapter at one multiple of the learning rate."""

    number: int
    multiple: float
    rates: InsecureRates
    losses: Sequence[float]


def insecure_rates(
    adapted: LoadedModel, asked: Sequence[Asked], settings: Misalignment, *, zoo: bool
) -> InsecureRates:
    """What a model does on questions."""
    answers = plain_answers(
        adapted, asked, max_new=settings.max_new, token_budget=settings.token_budget
    )
    tokenizer: Any = adapted.tokenizer
    rows = []
    for question, answer in zip(asked, answers, strict=True):
        text = tokenizer.decode(list(answer.tokens), skip_special_tokens=True).strip()
        found, prompt = (zoo_code if zoo else find_code)(text), question.prompt
        cell = (prompt.split, prompt.condition, prompt.cluster, found.code, found.insecure)
        rows.append(cell)
    columns = ["split", "condition", "cluster", "code", "insecure"]
    return InsecureRates.of(pd.DataFrame(rows, columns=columns))


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

    Returns:
        Columns `LADDER_COLUMNS`.
    """
    rows = [
        {
            "rung": rung.number,
            "multiple": rung.multiple,
            "lr": lr * rung.multiple,
            "steps": len(rung.losses),
            "last_loss": loss_ends(rung.losses)[1],
            "spillover": rung.rates.spilled.share,
            "spillover_low": rung.rates.spilled.low,
            "spillover_high": rung.rates.spilled.high,
            "spillover_gate": demands.spillover,
            "n": rung.rates.spilled.n,
            "clusters": rung.rates.spilled.clusters,
            "insecure_code": rung.rates.insecure.share,
            "insecure_code_gate": demands.insecure_code,
            "n_code": rung.rates.insecure.n,
            "margin": demands.margin,
            "room": rung.rates.room(demands) if demands.any else float("nan"),
            "taken": rung is taken,
        }
        for rung in tried
    ]
    return pd.DataFrame(rows, columns=list(LADDER_COLUMNS))
