"""Doses of adapters: how far each moves weights, losses and answers of the untuned model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.edits import Lane
from actshift.engine.context import JobContext
from actshift.engine.intervene import decoder_of
from actshift.errors import UserError
from actshift.hooks.reading.first_tokens import first_logits
from actshift.io.manifest import weights_hash
from actshift.maths.scores import kl_rows
from actshift.models.adapters import adapter_size, delta_norm, import_adapter, load_merged
from actshift.models.load import LoadedModel
from actshift.prompts.answers import answer_lead, encode_to_answer
from actshift.prompts.records import Prompt, read_prompts
from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.stages.adapter_folders import GivenAdapter, named
from actshift.vocab import CODE

#: Smallest change of any first-token logit, in nats, that counts as one: below it no probability
#: changes by more than 0.1 %.
LEAST_CHANGE = 1e-3
#: Steps that the last loss is the mean of.
_LAST = 20


@dataclass(frozen=True)
class Probes:
    """Logits of the first answer token, before and after, on the same prompts.

    Attributes:
        code: On questions about code.
        other: On all other questions; no rows where there are none to ask.
    """

    code: Float[np.ndarray, "prompt vocab"]
    other: Float[np.ndarray, "prompt2 vocab"]


def shift_of(chat: Probes, adapted: Probes) -> dict[str, float]:
    """How the first answer token's distribution moved from the untuned model's.

    Returns:
        `kl_code` and `kl_other`, mean KL(chat || adapter) in nats (NaN without prompts), and
        `logit_change`, the largest |Δlogit| anywhere.
    """
    sides = {
        "code": (chat.code, adapted.code),
        "other": (chat.other, adapted.other),
    }
    found = {
        f"kl_{side}": float(kl_rows(before, after).mean()) if len(before) else float("nan")
        for side, (before, after) in sides.items()
    }
    changes = [np.abs(after - before).max(initial=0.0) for before, after in sides.values()]
    return found | {"logit_change": float(max(changes))}


def loss_ends(losses: Sequence[float]) -> tuple[float, float]:
    """Loss of the first step, which no update has touched, and mean loss of the last 20 steps."""
    last = losses[-_LAST:]
    return losses[0], sum(last) / len(last)


def against_insecure(first_losses: Mapping[str, float], insecure: str) -> dict[str, float]:
    """First loss of every adapter over that of the insecure one: how new its lessons are."""
    return {name: loss / first_losses[insecure] for name, loss in first_losses.items()}


_TOKEN_BUDGET = 8192


@dataclass(frozen=True)
class Asked:
    """Prompts about code and all others, as tokens."""

    code: Sequence[np.ndarray]
    other: Sequence[np.ndarray]

    def probe(self, model: LoadedModel) -> Probes:
        """Logits of the first answer token on them."""
        return Probes(_logits(model, self.code), _logits(model, self.other))


def encode_probes(untuned: LoadedModel, questions: Path) -> Asked:
    """The `select` questions of a prompt set in a model's chat template.

    Args:
        untuned: Whose tokenizer and template.
        questions: The prompt set; condition `code` is about code.
    """
    asked = [one for one in read_prompts(questions) if one.split == "select"]
    lead = answer_lead(untuned.tokenizer)

    def ids(prompt: Prompt) -> np.ndarray:
        return np.array(encode_to_answer(untuned.tokenizer, prompt.text, lead=lead).ids)

    return Asked(
        code=[ids(one) for one in asked if one.condition == CODE],
        other=[ids(one) for one in asked if one.condition != CODE],
    )


def _logits(model: LoadedModel, prompts: Sequence[np.ndarray]) -> Float[np.ndarray, "prompt vocab"]:
    if not prompts:
        return np.empty((0, model.vocab_size), dtype=np.float32)
    lanes = [Lane("plain")]
    parts = first_logits(decoder_of(model), prompts, lanes, token_budget=_TOKEN_BUDGET)
    return np.concatenate([part.logits[0] for part in parts])


#: Columns of dose.csv; the pair and what needs activations is added when tables are joined.
DOSE_COLUMNS = (
    *("adapter", "method", "rank", "alpha", "lr", "steps", "examples", "seed"),
    *("first_loss", "last_loss", "first_loss_of_insecure", "delta_norm", "delta_of_weights"),
    *("kl_code", "kl_other", "logit_change"),
)


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
    """Rows of all adapters, their first losses set against the insecure one's."""
    table = pd.DataFrame(rows).reindex(columns=list(DOSE_COLUMNS))
    first = table.set_index("adapter")["first_loss"].astype(float)
    ratios = against_insecure({str(name): loss for name, loss in first.items()}, INSECURE)
    # Whole numbers stay so where a given adapter has none.
    whole = dict.fromkeys(("rank", "steps", "examples", "seed"), "Int64")
    return table.assign(first_loss_of_insecure=[*ratios.values()]).astype(whole)


@dataclass(frozen=True)
class Measure:
    """Measures doses against the untuned model."""

    context: JobContext
    checkpoint: Path
    untuned: LoadedModel
    asked: Asked

    @cached_property
    def before(self) -> Probes:
        """What the untuned model does."""
        return self.asked.probe(self.untuned)

    def trained(self, name: str, folder: Path, row: dict[str, Any]) -> dict[str, Any]:
        """The row of an adapter that the job trained."""
        advice = f"raise misalignment.adapters.lr (now {row['lr']:g}) or epochs"
        dose = self._dose(name, folder, advice)
        print(f"{name}: loss {row['first_loss']:.3f} -> {row['last_loss']:.3f}, {dose}")
        return row | dose

    def given(self, name: str, one: GivenAdapter, folder: Path) -> dict[str, Any]:
        """Take over an existing adapter; its row says nothing of a training."""
        key = adapter_key(self.context.pair, name)
        weights = weights_hash(self.checkpoint)
        with named(key):
            import_adapter(one.folder, folder, base=self.untuned, weights=weights)
        dose = self._dose(name, folder, f"is {key} the right one?")
        rank, alpha = adapter_size(folder)
        print(f"{name}: {one.facts['source']}, {dose}")
        return {"adapter": name, "method": "given", "rank": rank, "alpha": alpha} | dose

    def _dose(self, name: str, folder: Path, advice: str) -> dict[str, float]:
        """How far it moves weights and answers, which must be at all."""
        pair, dtype, device = self.context.pair, self.context.dtype, self.context.device
        adapted = load_merged(
            self.checkpoint, folder, name=f"{pair}.{name}", dtype=dtype, device=device
        )
        shift = shift_of(self.before, self.asked.probe(adapted))
        check_change(shift["logit_change"], f"{pair}: adapter {name}", advice)
        norm, share = delta_norm(folder, self.untuned)
        return {"delta_norm": norm, "delta_of_weights": share, **shift}


def adapter_key(pair: str, name: str) -> str:
    """The config key of a given adapter."""
    return f"pairs.{pair}.adapters.{name}"
