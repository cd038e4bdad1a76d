"""What the figures of localization share: panels by condition, curves with intervals, the gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from actshift.report.panels import no_data, pair_rows, pairs_of, short, whole_layers
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, RED, Stroke
from actshift.report.tables import published_value, select, values

#: Which positions are patched, as the figures draw them.
POSITIONS = {
    "all": Stroke(BLUE, "o", "-", "all positions"),
    "completion": Stroke(GREEN, "D", "-.", "completion"),
    "prompt": Stroke(ORANGE, "s", "--", "prompt"),
    "last_prompt": Stroke(RED, "^", "-", "last prompt token"),
}
ZERO = {"color": BLACK, "linewidth": 0.8}
GAP = {"color": BLACK, "linestyle": ":", "linewidth": 1.1, "label": "the whole gap"}
BAND: dict[str, Any] = {"color": GREY, "alpha": 0.25}


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel of a row: its title and the columns that pick its rows."""

    title: str
    cell: Mapping[str, str | bool]

    def of(self, table: pd.DataFrame | None, pair: str) -> pd.DataFrame:
        """The pair's rows of this panel; columns that the table lacks pick nothing out."""
        if table is None or table.empty:
            return pd.DataFrame()
        cell = {column: value for column, value in self.cell.items() if column in table}
        return select(table, pair=pair, **cell)


def conditions_of(table: pd.DataFrame) -> list[str]:
    """Conditions in the order of the table, which is that of the prompt set."""
    return [str(condition) for condition in table["condition"].unique()]


def panels_by(
    table: pd.DataFrame, variants: Mapping[str, Mapping[str, str | bool]], **common: str
) -> list[Panel]:
    """A panel for each condition and variant: harmful and harmless never share one.

    Variants are title -> columns that pick its rows; `common` picks the rows of every panel.
    """
    return [
        Panel(
            f"{condition} pairs{', ' if title else ''}{title}",
            {"condition": condition, **common, **cell},
        )
        for condition in conditions_of(table)
        for title, cell in variants.items()
    ]


def rows_of_panels(
    table: pd.DataFrame,
    panels: Sequence[Panel],
    *,
    unit: str,
    height: float = 2.0,
    sharey: bool = True,
) -> tuple[Figure, list[tuple[Axes, Panel, str]]]:
    """One row a pair, one column a panel, the pairs and clusters beside each row.

    Returns:
        The figure, and (axes, panel, pair) of every cell.
    """
    pairs = pairs_of(table)
    titles = [panel.title for panel in panels]
    figure, axes = pair_rows(pairs, titles, ylabel=unit, height=height, sharey=sharey)
    for row, pair in enumerate(pairs):
        shown = [panel.of(table, pair) for panel in panels]
        axes[row, 0].set_ylabel(f"{sizes(pair, pd.concat(shown))}\n{unit}")
    cells = [
        (axes[row, column], panel, pair)
        for row, pair in enumerate(pairs)
        for column, panel in enumerate(panels)
    ]
    return figure, cells


def sizes(pair: str, rows: pd.DataFrame) -> str:
    """The pair's name above its preference pairs and clusters; conditions may differ in them."""
    if rows.empty:
        return short(pair)
    counts = rows[["n", "clusters"]].drop_duplicates()
    n, clusters = (" / ".join(f"{count:g}" for count in counts[c]) for c in counts)
    return f"{short(pair)}\nn {n}, {clusters} clusters"


def curve(
    axis: Axes,
    rows: pd.DataFrame,
    value: str,
    stroke: Stroke,
    *,
    x: str = "layer",
    shift: float = 0.0,
    **changes: Any,
) -> None:
    """A line with its intervals, where the table has them; nothing without rows."""
    if rows.empty:
        return
    rows = rows.dropna(subset=[x]).sort_values(x)
    at = rows[x].to_numpy(dtype=float) + shift
    look = stroke.line(label=None, linewidth=1.3, markersize=4 if len(rows) <= 16 else 2.5)
    axis.plot(at, rows[value], **{**look, **changes})
    if f"{value}_low" in rows:
        ends = (rows[f"{value}_low"], rows[f"{value}_high"])
        axis.vlines(at, *ends, color=stroke.color, linewidth=0.9, alpha=0.7)


def gap_line(axis: Axes, rows: pd.DataFrame, *, zero_only: bool = False) -> None:
    """Zero, and the donor's margin minus the receiver's, which is the whole gap.

    The tables hold the gap as tuned minus base; in the reverse direction the donor is the base.
    """
    axis.axhline(0, **ZERO)
    gap = values(rows, "gap") if len(rows) else []
    if len(gap) and not zero_only:
        back = "direction" in rows and str(rows["direction"].iloc[0]) == "reverse"
        axis.axhline(-gap[0] if back else gap[0], **{**GAP, "label": None})


def below(axis: Axes, panel: Panel, cells: Sequence[tuple[Axes, Panel, str]], label: str) -> None:
    """The x label of a column, under its last panel only."""
    last = [lowest for lowest, other, _ in cells if other is panel][-1]
    axis.set_xlabel(label if axis is last else "")


def layers_axis(axis: Axes, rows: pd.DataFrame) -> None:
    """Whole layers below; a panel without rows says so."""
    if rows.empty:
        no_data(axis)
    whole_layers(axis)


def published_layer(axis: Axes, layers: int, published: pd.DataFrame | None) -> bool:
    """Shade the published peak layer at its depth among `layers` blocks; False without one.

    Whether the paper counts layers from 0 or from 1 is not said: the band spans both readings.
    """
    peak = published_value(published, "patching", "peak_layer")
    of = len(published_coefficients(published))
    if not np.isfinite(peak) or min(of, layers) < 2:
        return False
    ends = np.array([peak - 1, peak]) / (of - 1) * (layers - 1)
    axis.axvspan(*ends, **{**BAND, "linewidth": 0, "label": None, "zorder": 0})
    return True


def published_coefficients(published: pd.DataFrame | None) -> list[float]:
    """The paper's LASSO coefficients, first layer first."""
    if published is None:
        return []
    named = published["quantity"].str.startswith("coefficient_layer_")
    coefficients = published[(published["table"] == "lasso") & named]
    places = coefficients["quantity"].str.rsplit("_", n=1).str[1].astype(int)
    return [float(value) for value in coefficients["value"].iloc[np.argsort(places)]]
