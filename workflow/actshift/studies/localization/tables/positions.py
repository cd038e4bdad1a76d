"""Table `positions`: each curve over layers as its peak, its last layer and how they compare."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from actshift.studies.localization.tables.effects import Effects, Rows, Sample, blank
from actshift.studies.localization.tables.estimate import Estimate, chosen_rows, peak_of
from actshift.studies.localization.tables.patching import curves, patch_lanes

ALL = "all"


@dataclass(frozen=True, eq=False)
class Curve:
    """Effects of the plain patch over layers, for one direction and choice of positions.

    Attributes:
        layers: Of each row.
        found: What the patches do.
    """

    layers: Int[np.ndarray, " layer"]
    found: Effects

    @classmethod
    def of(cls, sample: Sample, direction: str, positions: str) -> "Curve":
        """Measure a curve.

        Args:
            sample: Of a cell.
            direction: forward or reverse.
            positions: At which tokens.
        """
        lanes = patch_lanes(sample, direction, positions)
        return cls(lanes.layers, sample.effects(lanes.logp, direction))

    @cached_property
    def top(self) -> tuple[Estimate, Int[np.ndarray, " draw"], int]:
        """The peak, taken anew on each resample, and its rows."""
        return peak_of(self.found.towards)

    @property
    def place(self) -> int:
        """Row of the peak."""
        return self.top[2]

    @property
    def peak(self) -> Estimate:
        """Effect at the peak's layer, towards the donor, nats.

        Its interval is that of this one layer: a maximum taken anew would lie above 0 for noise.
        """
        return self.found.towards.at([self.place])

    @property
    def last(self) -> Estimate:
        """Effect at the last layer, towards the donor, nats."""
        return self.found.towards.at([-1])

    @property
    def last_share(self) -> float:
        """Share of the gap at the last layer."""
        return float(self.found.share.value[-1])

    @cached_property
    def edge_over_peak(self) -> Estimate:
        """E(last) / max_l E(l), the maximum taken anew on each resample."""
        return self.over_peak(self.last)

    def over_peak(self, above: Estimate) -> Estimate:
        """A number over the peak; none where the peak is not above 0.

        Args:
            above: One row.
        """
        top = self.top[0]
        return above.over(top).known_as(bool(top.ends[0, 0] > 0))

    def at_peak(self, other: Estimate) -> Estimate:
        """Another curve at the layer of this curve's peak, which each resample has its own of.

        Args:
            other: One row a layer.
        """
        _, places, place = self.top
        return chosen_rows(other, places, place)


def position_rows(sample: Sample) -> Rows:
    """One row a direction and choice of positions.

    Args:
        sample: Of a cell.
    """
    rows: Rows = []
    by_curve = {key: Curve.of(sample, *key) for key in curves(sample)}
    for (direction, positions), curve in by_curve.items():
        everywhere = by_curve.get((direction, ALL))
        facts: dict[str, object] = {
            "direction": direction,
            "positions": positions,
            **_facts(curve, decided=sample.decided),
        }
        measured = [
            curve.peak.columns("peak"),
            curve.last.columns("last_layer"),
            curve.edge_over_peak.columns("edge_over_peak"),
        ]
        of_all = [blank("of_all", "of_all_low", "of_all_high")]
        if everywhere is not None:
            of_all = curve.last.over(everywhere.last).columns("of_all")
        rows += sample.rows([facts], *measured, of_all)
    return rows


def _facts(curve: Curve, *, decided: bool) -> dict[str, object]:
    if not decided:
        return blank("peak_layer", "interior", "peak_share", "last_layer_share", "top_quarter")
    return {
        "peak_layer": int(curve.layers[curve.place]),
        "interior": int(curve.place < len(curve.layers) - 1),
        "peak_share": float(curve.found.share.value[curve.place]),
        "last_layer_share": curve.last_share,
        "top_quarter": top_quarter(curve.found.towards.value),
    }


def top_quarter(effects: Float[np.ndarray, " layer"]) -> float:
    """Positive effects of the best quarter of the layers over all positive effects.

    A diffuse linear ramp has .43 to .52, so it is shown and decides nothing.

    Args:
        effects: One a layer, towards the donor.

    Returns:
        NaN where no effect is positive. A quarter is rounded down, at least one layer.
    """
    kept = np.sort(np.maximum(effects, 0.0))[::-1]
    total = float(kept.sum())
    return float(kept[: max(1, len(kept) // 4)].sum()) / total if total > 0 else float("nan")
