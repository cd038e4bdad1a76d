"""How far an adapter moved its model: a row of the dose table, from losses, weights and logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actshift.maths.scores import kl_rows

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
