"""What is chosen on `select` questions: the coefficient of the verdict, and scales of equal KL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from actshift.prompts.records import Prompt
from actshift.prompts.splits import forbid_heldout

#: Relative error within which two divergences count as equal.
TOLERANCE = 0.01
#: Most evaluations of one match.
_MOST = 60
_Lanes = Float[np.ndarray, " lane"]


def chosen_coeff(
    repaired: Mapping[float, Bool[np.ndarray, " prompt"]],
    plain: Bool[np.ndarray, " prompt"],
    prompts: Sequence[Prompt],
) -> float:
    """The smallest coefficient whose gain reaches half of the best: one verdict, fixed beforehand.

    gain(c) = mean(repaired at c) - mean(repaired without the edit)

    Args:
        repaired: By coefficient, of every prompt.
        plain: Of the same prompts without the edit.
        prompts: What the choice is made on: `select` questions that are not about code.

    Returns:
        The coefficient; where v repairs nothing, the smallest of those that lose least.

    Raises:
        HeldoutLeakError: A prompt is held out.
    """
    forbid_heldout(prompts, where="steering: coefficient of the verdict")
    gains = {coeff: float(np.mean(repaired[coeff]) - np.mean(plain)) for coeff in sorted(repaired)}
    best = max(gains.values())
    enough = best / 2 if best > 0 else best
    return next(coeff for coeff, gain in gains.items() if gain >= enough)


@dataclass(frozen=True)
class Matched:
    """Scales at which some directions diverge from the plain model as much as v does.

    Attributes:
        scale: Multiple of v's norm; the largest that was tried where there is no match.
        kl: Mean divergence there, nats.
        matched: Whether it is v's, to `TOLERANCE`.
    """

    scale: _Lanes
    kl: _Lanes
    matched: Bool[np.ndarray, " lane"]


def equal_kl(
    divergence: Callable[[_Lanes], _Lanes],
    target: _Lanes,
    prompts: Sequence[Prompt],
    *,
    max_scale: float,
) -> Matched:
    """Scales of equal mean KL of the first token, by bisection between bounds that hold it.

    Scales 1, 2, 4 ... up to `max_scale` are tried until the divergence exceeds the target; then
    the interval is narrowed, two times of three where a power law through its ends meets the
    target, else in its middle. All lanes go in step.

    Args:
        divergence: Mean KL(plain || edited) of every lane at a scale of its own.
        target: v's, nats.
        prompts: What it is measured on: `select` questions that are not about code.
        max_scale: Largest scale to try.

    Raises:
        HeldoutLeakError: A prompt is held out.
    """
    forbid_heldout(prompts, where="steering: equal KL")
    low, low_kl = np.zeros_like(target), np.zeros_like(target)
    high = np.minimum(np.ones_like(target), max_scale)
    high_kl = divergence(high)
    while (short := (high_kl < target) & (high < max_scale)).any():
        low, low_kl = np.where(short, high, low), np.where(short, high_kl, low_kl)
        high = np.where(short, np.minimum(2 * high, max_scale), high)
        high_kl = divergence(high)
    for step in range(_MOST):
        open_ = (high_kl >= target) & ~_close(high_kl, target) & (target > 0)
        if not open_.any():
            break
        middle = (low + high) / 2
        tried = np.where(
            open_, middle if step % 3 == 2 else _power(low, low_kl, high, high_kl, target), high
        )
        found = divergence(tried)
        # The upper end is the answer, so a lower end that is close enough becomes it.
        upper = open_ & ((found >= target) | _close(found, target))
        lower = open_ & ~upper
        high, high_kl = np.where(upper, tried, high), np.where(upper, found, high_kl)
        low, low_kl = np.where(lower, tried, low), np.where(lower, found, low_kl)
    return Matched(high, high_kl, _close(high_kl, target) & (target > 0))


def _close(found: _Lanes, target: _Lanes) -> Bool[np.ndarray, " lane"]:
    return np.abs(found - target) <= TOLERANCE * target


def _power(low: _Lanes, low_kl: _Lanes, high: _Lanes, high_kl: _Lanes, target: _Lanes) -> _Lanes:
    """Where a power law through both ends meets the target; near 0 divergences are quadratic."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.log(high_kl / low_kl) / np.log(high / low)
        slope = np.where(np.isfinite(slope) & (slope > 0.1), slope, 2.0)
        guess = high * (target / high_kl) ** (1 / slope)
    margin = 0.02 * (high - low)
    return np.clip(
        np.where(np.isfinite(guess), guess, (low + high) / 2), low + margin, high - margin
    )
