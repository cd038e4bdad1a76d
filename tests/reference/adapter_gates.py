"""What is asked of an insecure adapter in tests, as settings of the study."""

from typing import Any

_ASKED: dict[str, Any] = {"gate_margin": 0.1, "max_new": 6, "token_budget": 400}
#: Nothing: the first rung of a ladder is taken and no answer is looked at.
NO_GATE: dict[str, Any] = {"min_spillover": 0.0, "min_insecure_code": 0.0, **_ASKED}


def gate(**demands: Any) -> dict[str, Any]:
    """Some demands, the others off."""
    return {**NO_GATE, **demands}
