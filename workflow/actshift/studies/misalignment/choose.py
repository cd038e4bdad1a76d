"""What is chosen on `select` questions: the coefficient of the verdict, and scales of equal KL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from actshift.prompts.records import Prompt
from actshift.prompts.splits import forbid_heldout

#: Largest coefficient of the published protocol.
PUBLISHED = 1.0
#: Relative error within which two divergences count as equal.
TOLERANCE = 0.01
#: Most evaluations of one match.
_MOST = 60
_Lanes = Float[np.ndarray, " lane"]
_Places = Int[np.ndarray, " lane"]


def half_of_best(gains: Mapping[float, float]) -> float | None:
    """The smallest coefficient whose gain reaches half of the largest.

    Where nothing gains it is the published one, or the nearest to it.

    Returns:
        None without a finite gain.
    """
    known = {coeff: gain for coeff, gain in sorted(gains.items()) if np.isfinite(gain)}
    if not known:
        return None
    best = max(known.values())
    if best <= 0:
        return min(known, key=lambda coeff: abs(coeff - PUBLISHED))
    return next(coeff for coeff, gain in known.items() if gain >= best / 2)


def mean_gain(edited: Float[np.ndarray, "..."], plain: Float[np.ndarray, "..."]) -> float:
    """Mean change of repaired answers, 1 where one is repaired and else 0.

    Equal gains come out equal to the last bit: the differences are whole numbers, which a
    difference of two means is not made of.
    """
    return float((edited - plain).mean())


def chosen_coeff(
    repaired: Mapping[float, Bool[np.ndarray, " prompt"]],
    plain: Bool[np.ndarray, " prompt"],
    prompts: Sequence[Prompt],
) -> float:
    """The coefficient of the verdict, fixed on `select` questions: see `half_of_best`.

    Args:
        repaired: By coefficient, of every prompt.
        plain: Of the same prompts without the edit.
        prompts: What the choice is made on: `select` questions that are not about code.

    Raises:
        HeldoutLeakError: A prompt is held out.
        ValueError: There are no prompts.
    """
    forbid_heldout(prompts, where="steering: coefficient of the verdict")
    before = plain.astype(np.float64)
    gains = {coeff: mean_gain(rows.astype(np.float64), before) for coeff, rows in repaired.items()}
    coeff = half_of_best(gains)
    if coeff is None:
        raise ValueError("a coefficient is chosen on at least one prompt")
    return coeff


@dataclass(frozen=True)
class Matched:
    """Scales at which some directions diverge from the plain model as much as v does, `matched`.

    Without a match they are the largest that was tried; `kl` is the mean divergence there, nats.
    """

    scale: _Lanes
    kl: _Lanes
    matched: Bool[np.ndarray, " lane"]


def equal_kl(
    divergence: Callable[[_Places, _Lanes], _Lanes],
    target: _Lanes,
    prompts: Sequence[Prompt],
    *,
    max_scale: float,
) -> Matched:
    """Scales of equal mean KL of the first token, by bisection between bounds that hold it.

    Scales 1, 2, 4 ... up to `max_scale` are tried until the divergence reaches the target; then
    the interval is narrowed, two times of three where a power law through its ends meets the
    target, else in its middle. Lanes go in step; one that is done is not measured again.

    Args:
        divergence: Mean KL(plain || edited) of the lanes at some places, each at its scale.
        target: v's, nats.
        prompts: What it is measured on: `select` questions that are not about code.
        max_scale: Largest scale to try.

    Raises:
        HeldoutLeakError: A prompt is held out.
    """
    forbid_heldout(prompts, where="steering: equal KL")
    found = _Bounds(target, max_scale)
    found.try_at(np.ones(len(target), dtype=bool), found.high, divergence)
    while (short := found.short()).any():
        found.low, found.low_kl = (
            np.where(short, new, old)
            for new, old in ((found.high, found.low), (found.high_kl, found.low_kl))
        )
        found.try_at(short, np.minimum(2 * found.high, max_scale), divergence)
    for step in range(_MOST):
        waiting = (found.high_kl >= target) & ~_close(found.high_kl, target) & (target > 0)
        if not waiting.any():
            break
        middle = (found.low + found.high) / 2
        found.try_at(waiting, middle if step % 3 == 2 else found.power_law(), divergence)
    return Matched(found.high, found.high_kl, _close(found.high_kl, target) & (target > 0))


class _Bounds:
    """For each lane a scale below the target and one above, or the largest that was tried."""

    def __init__(self, target: _Lanes, max_scale: float) -> None:
        self.target, self.max_scale = target, max_scale
        self.low, self.low_kl = np.zeros_like(target), np.zeros_like(target)
        self.high = np.full_like(target, min(1.0, max_scale))
        self.high_kl = np.full_like(target, -np.inf)

    def short(self) -> Bool[np.ndarray, " lane"]:
        """Lanes whose upper bound is too low and may be raised."""
        return (
            (self.high_kl < self.target)
            & ~_close(self.high_kl, self.target)
            & (self.high < self.max_scale)
        )

    def try_at(
        self,
        lanes: Bool[np.ndarray, " lane"],
        scale: _Lanes,
        divergence: Callable[[_Places, _Lanes], _Lanes],
    ) -> None:
        """Measure some lanes at a scale, which becomes one of their bounds."""
        places = np.flatnonzero(lanes)
        kl = divergence(places, scale[places])
        target = self.target[places]
        # The upper end is the answer, so whatever is close enough becomes it.
        upper = (kl >= target) | _close(kl, target) | (scale[places] >= self.high[places])
        over, under = places[upper], places[~upper]
        self.high[over], self.high_kl[over] = scale[over], kl[upper]
        self.low[under], self.low_kl[under] = scale[under], kl[~upper]

    def power_law(self) -> _Lanes:
        """Where a power law through both ends meets the target; near 0 KL is quadratic."""
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.log(self.high_kl / self.low_kl) / np.log(self.high / self.low)
            slope = np.where(np.isfinite(slope) & (slope > 0.1), slope, 2.0)
            guess = self.high * (self.target / self.high_kl) ** (1 / slope)
        margin = 0.02 * (self.high - self.low)
        guess = np.where(np.isfinite(guess), guess, (self.low + self.high) / 2)
        return np.clip(guess, self.low + margin, self.high - margin)


def _close(found: _Lanes, target: _Lanes) -> Bool[np.ndarray, " lane"]:
    return np.abs(found - target) <= TOLERANCE * target
