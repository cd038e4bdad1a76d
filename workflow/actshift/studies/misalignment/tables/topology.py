"""Table `topology`: which models give a direction that works, and which take one."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from actshift.maths.cluster_rows import columns
from actshift.random_streams import ASYMMETRY
from actshift.studies.misalignment.kinds import ACROSS, WITHIN
from actshift.studies.misalignment.tables.lanes import Rows
from actshift.studies.misalignment.tables.specificity import Edit, Judged

#: Fewer seeds say nothing of rows, columns or asymmetry.
MIN_SEEDS = 3
#: Random swaps of donor and receiver.
PERMUTATIONS = 4999
PROTOCOL = "last_token"
#: (donor family, receiver family, seed) -> share of the receiver's code that the edit removes.
Shares = Mapping[tuple[str, str, int], float]


@dataclass(frozen=True, slots=True)
class Model:
    """A pair of models by its name: `llama-1` is seed 1 of llama."""

    family: str
    seed: int


@dataclass(frozen=True, slots=True)
class Asymmetry:
    """How far shares depend on which model gives and which takes.

    Attributes:
        value: Root mean square over pairs of families of the mean over seeds of s_ij - s_ji.
        excess: The same minus the median of its permutations.
        low: The same minus their 95th percentile.
        high: The same minus their 5th percentile.
        p: (1 + permutations as large) / (1 + permutations).
    """

    value: float
    excess: float
    low: float
    high: float
    p: float


def models_of(pairs: Sequence[str]) -> dict[str, Model]:
    """Family and seed of every pair of models.

    A name that ends in `-<number>` is a seed of a family where another pair shares the stem; every
    other name is a family of its own, of seed 0.
    """
    parts = {name: re.fullmatch(r"(.+)-s?(\d+)", name) for name in pairs}
    stems = Counter(part[1] for part in parts.values() if part)
    return {
        name: Model(part[1], int(part[2])) if part and stems[part[1]] > 1 else Model(name, 0)
        for name, part in parts.items()
    }


def topology_rows(found: Sequence[Judged], *, pairs: Sequence[str], seed: int) -> Rows:
    """A row a donor, receiver and map: share of the receiver's own code that is removed."""
    models = models_of(list(dict.fromkeys([*pairs, *(one.donor for one in found)])))
    own = [one for one in found if one.protocol == PROTOCOL]
    rows: Rows = []
    for fit_on in dict.fromkeys(one.fit_on for one in own if not one.within):
        cells = [one for one in own if one.fit_on == fit_on and not one.within]
        rows += _of_maps(cells, models, seed)
    done: dict[str, object] = {"status": "ok", "why": ""}
    return [*(_topology_row(one, models) | done for one in own if one.within), *rows]


def asymmetry_of(shares: Shares, *, seed: int) -> Asymmetry | None:
    """Test whether who gives and who takes matters: swap the two within unordered pairs.

    Under the null s_ij and s_ji of one seed have the same distribution, so that their difference
    is as likely the other way round. None without a pair of families in both directions.
    """
    gaps: dict[tuple[str, str], list[float]] = {}
    for (donor, receiver, at), share in sorted(shares.items()):
        back = shares.get((receiver, donor, at))
        if donor < receiver and back is not None:
            gaps.setdefault((donor, receiver), []).append(share - back)
    if not gaps:
        return None
    rng = ASYMMETRY.rng(seed)
    squares = np.zeros(PERMUTATIONS)
    for own in gaps.values():
        signs = 2.0 * rng.integers(0, 2, (PERMUTATIONS, len(own))) - 1.0
        squares += np.square(signs @ np.array(own) / len(own))
    value = float(np.sqrt(np.mean([np.mean(own) ** 2 for own in gaps.values()])))
    null = np.sqrt(squares / len(gaps))
    reached = int((null >= value - 1e-12).sum())
    low, middle, high = np.percentile(null, (5, 50, 95))
    return Asymmetry(
        value, value - middle, value - high, value - low, (1 + reached) / (1 + PERMUTATIONS)
    )


def additive(shares: Shares) -> dict[str, dict[str, float]]:
    """Least squares of share = mean + donor + receiver; the effects of each side sum to 0.

    By side, `donor` and `receiver`, then by family.
    """
    names = sorted({name for key in shares for name in key[:2]})
    design = np.zeros((len(shares), 1 + 2 * len(names)))
    design[:, 0] = 1.0
    for row, (donor, receiver, _) in enumerate(shares):
        design[row, 1 + names.index(donor)] = 1.0
        design[row, 1 + len(names) + names.index(receiver)] = 1.0
    # Two more equations, met exactly: they fix what the shares leave open.
    sums = np.zeros((2, design.shape[1]))
    sums[0, 1 : 1 + len(names)] = sums[1, 1 + len(names) :] = 1.0
    values = np.concatenate([list(shares.values()), np.zeros(2)])
    effects = np.linalg.lstsq(np.vstack([design, sums]), values, rcond=None)[0][1:]
    split = (effects[: len(names)], effects[len(names) :])
    return {
        side: dict(zip(names, own.tolist(), strict=True))
        for side, own in zip(("donor", "receiver"), split, strict=True)
    }


def share_of(edit: Edit) -> tuple[float, Float[np.ndarray, " end"]]:
    """Share of the code without an edit that the edit removes, with an interval.

    The wider of the bootstrap's of the ratio and the interval of the drop over the rate without an
    edit: a bootstrap has no width where an edit removes all code or none. NaN where the model
    writes no code, or none on a resample.
    """
    plain, drop = edit.code_plain, edit.code_plain - edit.code
    if plain.mean() <= 0:
        return float("nan"), np.full(2, np.nan)
    below = edit.drawn(plain)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = edit.drawn(drop) / below
    ends = edit.sample.ends(drawn[None])[0]
    outer = edit.sample.change_ends(drop[None])[0] / plain.mean()
    low, high = min(ends[0], outer[0]), min(1.0, max(ends[1], outer[1]))
    return float(drop.mean() / plain.mean()), np.array([low, high])


def _of_maps(cells: Sequence[Judged], models: Mapping[str, Model], seed: int) -> Rows:
    shares = {
        (models[one.donor].family, models[one.receiver].family, models[one.donor].seed): share
        for one in cells
        if models[one.donor].seed == models[one.receiver].seed
        and np.isfinite(share := share_of(one.edit)[0])
    }
    counts = Counter((donor, receiver) for donor, receiver, _ in shares)
    seeds = min(counts.values(), default=0)
    if seeds < MIN_SEEDS:
        why = f"rows, columns and asymmetry need {MIN_SEEDS} seeds, found {seeds}"
        facts: dict[str, object] = {"seeds": seeds, "status": "not measured", "why": why}
        return [_topology_row(one, models) | facts for one in cells]
    effects, test = additive(shares), _asymmetry_columns(asymmetry_of(shares, seed=seed))
    return [
        _topology_row(one, models)
        | {
            "seeds": seeds,
            "donor_effect": effects["donor"].get(models[one.donor].family),
            "receiver_effect": effects["receiver"].get(models[one.receiver].family),
            **test,
        }
        for one in cells
    ]


def _asymmetry_columns(found: Asymmetry | None) -> dict[str, object]:
    if found is None:
        return {"status": "not measured", "why": "no two models that both give and take"}
    return {
        **{"asymmetry": found.value, "asymmetry_p": found.p, "asymmetry_excess": found.excess},
        **{"asymmetry_excess_low": found.low, "asymmetry_excess_high": found.high},
        **{"status": "ok", "why": ""},
    }


def _topology_row(one: Judged, models: Mapping[str, Model]) -> dict[str, object]:
    edit = one.edit
    share, ends = share_of(edit)
    room = 1 - float(edit.whole_plain.mean())
    gain = float((edit.whole - edit.whole_plain).mean())
    return {
        **{"donor": one.donor, "receiver": one.receiver, "fit_on": one.fit_on},
        "scope": WITHIN if one.within else ACROSS,
        "families": " ".join(sorted({model.family for model in models.values()})),
        **{"coeff": edit.coeff, **edit.sample.facts, "baseline": float(edit.code_plain.mean())},
        "drop": float((edit.code_plain - edit.code).mean()),
        **columns("share", np.array([share]), ends[None])[0],
        "gain_share": gain / room if room > 0 else float("nan"),
    }
