"""The random streams of a run: what each one decides, and the numbers that seed it.

A stream's seed is `[seed of the run, number, *places]`. The places tell its uses apart, such as
layer and draw, so that a draw depends neither on the order of the work nor on how much is drawn.
A stream without a number is seeded by `[seed, *places]`. NumPy fills a seed up with zeros, so
places of 0 at the end change nothing.
Seeds that are named in words, such as those of the zoo's texts, are not of this register.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Stream:
    """A named stream: where it is drawn from, what it decides (with its places), its number."""

    study: str
    purpose: str
    number: int | None = None

    def rng(self, seed: int, *places: int) -> np.random.Generator:
        """Return the generator of one use, which its places tell from the others."""
        numbered = () if self.number is None else (self.number,)
        return np.random.default_rng([seed, *numbered, *places])


AUDIT_RESAMPLES = Stream("rank_audit", "subsets of the prompts: set of prompts, kind of draw")
HELDOUT_SHARES = Stream("rank_audit", "null and range of held-out shares", 99)

OUTCOMES = Stream("ablation", "resamples and sign patterns of outcomes: set of prompts (0, 1)")
SELF_COSINES = Stream("ablation", "resamples of the directions: layer, frame")
RANDOM_FRAMES = Stream("ablation", "random frames: draw, layer", 1)

STEERING = Stream("calibration", "directions of the steered networks", 1)
RANDOM_SUBSPACES = Stream("calibration", "random subspaces: network, rank, draw", 2)

EFFECT_CONTROLS = Stream("refusal_direction", "random directions; sign patterns of outcomes")
KAPPA_HALVES = Stream("spectral_gap", "halves of the prompts")

PERMUTED_TARGETS = Stream("localization", "permuted targets of the LASSO", 1)
ATTRIBUTION = Stream("localization", "resamples and halves of the pairs")
RANDOM_BASES = Stream("localization", "random bases of the low-rank patches", 51)
RANDOM_PUSHES = Stream("localization", "random directions of a push: draw", 52)
MARGIN_GATE = Stream("localization", "resamples of the margins", 53)
PATCH_EFFECTS = Stream("localization", "resamples of the effects of patches", 54)
PATCH_NOISE = Stream("localization", "noise patches: layer, pair, part, side")

ADAPTER_ROWS = Stream("misalignment", "resamples of the questions: number of clusters")
EXAMPLE_ORDER = Stream("misalignment", "order of an adapter's examples: epoch")
RIDGE_MAPS = Stream("misalignment", "draws and shuffled pairings of the maps: use", 60)
DIRECTION_NULLS = Stream("misalignment", "nulls of a direction: null, layer", 61)
LANE_TESTS = Stream("misalignment", "sign patterns of the edits", 71)
ASYMMETRY = Stream("misalignment", "signs of the transfer matrix", 83)

ZOO_RATES = Stream("zoo", "resamples of a zoo model's rates")
