"""What figures and sentences share: strokes, rows of dots and their axes, rows of the tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from actshift.report.panels import PAGE_WIDTH, short
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, Stroke
from actshift.report.tables import first, select
from actshift.studies.misalignment.kinds import INSECURE, MAPPED_NULLS, NULLS
from actshift.vocab import NEUTRAL

#: Untuned model, adapters, and in open markers the adapters that no direction is made from.
ADAPTERS = {
    "chat": Stroke(BLACK, "x", ":", "untuned (chat)"),
    "insecure": Stroke(RED, "o", "-", "insecure"),
    "rare_safe": Stroke(BLUE, "s", "--", "rare_safe"),
    "secure": Stroke(GREEN, "D", "-.", "secure"),
    "shuffled": Stroke(PINK, "v", ":", "shuffled"),
    "benign": Stroke(ORANGE, "^", "--", "benign"),
    "insecure_unseen": Stroke(RED, "P", "-", "insecure_unseen"),
    "rare_safe_unseen": Stroke(BLUE, "X", "--", "rare_safe_unseen"),
}
#: An edit that leaves a tenth more answers degenerate.
BROKEN: dict[str, Any] = {
    "color": RED, "marker": "o", "markerfacecolor": "white", "linestyle": "",
    "label": "open: a tenth more answers degenerate",
}  # fmt: skip
#: Nulls of equal norm: medians of their draws.
NULL_STROKES = {
    "random": Stroke(GREY, "", "-", "random"),
    "random_span": Stroke(SKY, "", "--", "random in the span of activations"),
    "orthogonal": Stroke(GREEN, "", ":", "random orthogonal to v"),
    "shuffled": Stroke(PINK, "", "-.", "shuffled contrast"),
    "mapped_random": Stroke(ORANGE, "", "--", "mapped random"),
    "shuffled_pairing": Stroke(BLUE, "", ":", "map of shuffled pairs"),
}
V = Stroke(RED, "o", "-", "v_insecure")
BIAS = Stroke(BLUE, "D", "--", "the logit bias it equals on average")
PLAIN: dict[str, Any] = {
    "color": BLACK, "linestyle": ":", "linewidth": 1.1, "label": "without an edit",
}  # fmt: skip
FORCED: dict[str, Any] = {
    "color": GREEN, "linestyle": "-.", "linewidth": 1.1, "label": "behind chat's first token",
}  # fmt: skip
DRAWS: dict[str, Any] = {
    "color": GREY, "alpha": 0.35, "linewidth": 8, "solid_capstyle": "butt",
    "label": "5 to 95 % of the draws of a null",
}  # fmt: skip


def open_marker(name: str) -> dict[str, Any]:
    """Line settings of an adapter; what no direction is made from stands open."""
    return {"markerfacecolor": "white"} if name.endswith("_unseen") else {}


def adapters_in(table: pd.DataFrame, column: str = "adapter") -> list[str]:
    """Adapters that a table names, in the figures' order; unknown ones follow."""
    found = [str(one) for one in table[column].dropna().unique()]
    return [name for name in ADAPTERS if name in found] + [n for n in found if n not in ADAPTERS]


def adapter_stroke(name: str) -> Stroke:
    """The stroke of an adapter; grey for one that the project does not know."""
    return ADAPTERS.get(name, Stroke(GREY, "h", "-", name))


def dot_grid(
    pairs: Sequence[str],
    columns: Mapping[str, str],
    labels: Mapping[str, Sequence[str]],
    *,
    sharex: bool = True,
) -> tuple[Figure, np.ndarray]:
    """A row a pair, a column a quantity, and a line of the panel a label.

    Args:
        pairs: rows.
        columns: title -> x label.
        labels: pair -> names beside its rows, first on top.
        sharex: one range of x a column; not where models differ in scale.
    """
    # Beside fewer lines the pair's name and size would run into the next panel.
    heights = [max(6, len(labels[pair])) for pair in pairs]
    size = (PAGE_WIDTH, (0.2 if sharex else 0.22) * sum(heights) + 0.55 * len(pairs) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(
        len(pairs), len(columns), squeeze=False, sharey="row", sharex="col" if sharex else False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for column, (title, xlabel) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        axes[-1, column].set_xlabel(xlabel)
    figure.align_ylabels(axes[:, 0])
    for row, pair in enumerate(pairs):
        count = len(labels[pair])
        axes[row, 0].set_ylabel(short(pair))
        axes[row, 0].set_yticks(range(count), labels[pair])
        axes[row, 0].set_ylim(max(count, 1) - 0.4, -0.6)
        for axis in axes[row]:
            axis.grid(visible=False, axis="y")
            axis.tick_params(axis="y", length=0)
            for at in range(count):
                axis.axhline(at, color="#ececec", linewidth=0.8, zorder=0)
    return figure, axes


def dot(
    axis: Axes, at: float | int, rows: pd.DataFrame, value: str, stroke: Stroke, **changes: Any
) -> None:
    """The first row's value with its interval, where the table has one; nothing without rows.

    What its status calls broken stands open.
    """
    if rows.empty or value not in rows or pd.isna(rows[value].iloc[0]):
        return
    if f"{value}_low" in rows:
        low, high = (float(rows[f"{value}{end}"].iloc[0]) for end in ("_low", "_high"))
        axis.hlines(at, low, high, color=stroke.color, linewidth=1.6)
    look = stroke.line(linestyle="", label=None, markersize=5.5)
    if "status" in rows and str(rows["status"].iloc[0]) == "broken":
        look["markerfacecolor"] = "white"
    axis.plot([float(rows[value].iloc[0])], [at], **{**look, **changes})


def span(axis: Axes, at: float | int, low: float, high: float, *, thin: float = 0.0) -> None:
    """The range of a null's draws; one value stays visible."""
    if np.isnan(low) or np.isnan(high):
        return
    axis.plot([low - thin, high + thin], [at, at], **{**DRAWS, "label": None})


def share_axis(axes: Iterable[Axes], *, low: float = -0.04, high: float = 1.04) -> None:
    """Shares of 1 on the whole range they can take."""
    for axis in axes:
        axis.set_xlim(low, high)


def text_color(image: AxesImage, value: float) -> str:
    """Black or white, whichever stands out from the colour of a value."""
    red, green, blue, _ = image.to_rgba(np.array([value]))[0]
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def counts_label(axis: Axes, pair: str, rows: pd.DataFrame) -> None:
    """The pair's name above the questions and clusters that its rates rest on."""
    text = short(pair)
    if len(rows) and {"n", "clusters"} <= set(rows):
        n, clusters = (f"{rows[column].max():g}" for column in ("n", "clusters"))
        text = f"{text}\nn {n}, {clusters} clusters"
    axis.set_ylabel(text)


#: Edit of the published protocol.
PUBLISHED = "last_token"
#: Name of the rows over all kinds of question.
ALL = "all"
#: An effect has to exceed the strongest null by this share.
MARGIN = 0.1


def heldout(rows: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of held-out questions; no table gives no rows."""
    return select(rows, split="heldout") if rows is None or "split" in rows else rows


def whole(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows over all kinds of question; the only kind where there is one."""
    if rows.empty or (rows["kind"] == ALL).any():
        return select(rows, kind=ALL)
    return rows if rows["kind"].nunique() == 1 else rows.iloc[:0]


def harmful(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of harmful how-to questions, which the untuned model refuses."""
    return rows[rows["kind"].astype(str).str.contains("harmful")] if len(rows) else rows


def judged(
    specificity: pd.DataFrame | None,
    receiver: str,
    *,
    donor: str | None = None,
    protocol: str = PUBLISHED,
) -> pd.DataFrame:
    """The row that the verdict on a receiver and donor, itself unless named, rests on; or none."""
    rows = select(specificity, receiver=receiver, donor=donor or receiver, protocol=protocol)
    return neutral(rows).iloc[:1]


def chosen_coeff(
    specificity: pd.DataFrame | None, receiver: str, *, donor: str | None = None
) -> float:
    """The coefficient of the published edit, chosen on select questions; NaN without a choice."""
    rows = judged(specificity, receiver, donor=donor)
    return first(rows, "coeff") if len(rows) else float("nan")


def own_coeff(
    rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None, protocol: str
) -> float:
    """The coefficient chosen on select questions for one protocol and layer.

    That of `specificity`; else where nulls were drawn, which is at the coefficient chosen before
    (the nearest to the published edit's, if at several); else the published edit's.
    """
    verdict = judged(specificity, pair, protocol=protocol)
    if len(verdict):
        return first(verdict, "coeff")
    published = chosen_coeff(specificity, pair)
    drawn = near(nulls(rows), published)
    return first(drawn, "coeff") if len(drawn) else published


def specific(rows: pd.DataFrame) -> pd.Series:
    """Which rows exceed the strongest null by ten points, beyond chance and with answers whole."""
    return rows["verdict"] == "specific"


def neutral(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of maps that are fitted on neutral prompts alone, and rows without a map."""
    if rows.empty or "fit_on" not in rows:
        return rows
    return rows[rows["fit_on"].isna() | rows["fit_on"].isin([NEUTRAL, ""])]


def near(rows: pd.DataFrame, coeff: float) -> pd.DataFrame:
    """Rows at the coefficient nearest to `coeff`; at the largest where none was chosen."""
    if rows.empty or rows["coeff"].isna().all():
        return rows.iloc[:0]
    at = rows["coeff"].to_numpy(dtype=float)
    goal = float(np.nanmax(at)) if np.isnan(coeff) else coeff
    distance = np.abs(at - goal)
    return rows[np.isclose(distance, np.nanmin(distance))]


def lanes(table: pd.DataFrame | None, pair: str) -> pd.DataFrame:
    """Held-out rows of a pair's edits of the insecure adapter at equal norm."""
    return select(heldout(table), pair=pair, receiver=INSECURE, norm_rule="norm")


def own(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of v_insecure itself."""
    return select(rows, control="direction", source=INSECURE)


def nulls(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of nulls, each with all its draws, of v_insecure."""
    if rows.empty:
        return rows
    drawn = rows[rows["control"].isin((*NULLS, *MAPPED_NULLS))]
    return drawn[drawn["source"].isna() | drawn["source"].isin([INSECURE, ""])]


def ordered_pairs(table: pd.DataFrame | None) -> list[str]:
    """Pairs that a table of donors and receivers names, in its order."""
    if table is None or table.empty:
        return []
    names = zip(table["receiver"], table["donor"], strict=True)
    return list(dict.fromkeys(str(one) for both in names for one in both))


#: How a protocol is called beside a row: from single blocks to the last block's.
PROTOCOL_NAMES = {
    "layer": "layer",
    "all_tokens": "all tokens",
    "last_token": "last token (published)",
    "logit_bias": "logit bias",
}


def at_chosen(rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of the published edit at the coefficient that the receiver is judged at."""
    return near(select(rows, protocol=PUBLISHED), chosen_coeff(specificity, pair))


def protocol_lanes(
    rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Every protocol and layer of one model at its own coefficient: blocks first, then the last.

    Yields:
        Name, and the rows of all controls of that protocol and layer.
    """
    for protocol, name in PROTOCOL_NAMES.items():
        edits = select(rows, protocol=protocol)
        cells = {name: edits}
        if protocol == "layer" and len(edits):
            layers = sorted(int(layer) for layer in edits["layer"].dropna().unique())
            cells = {f"{name} {layer}": select(edits, layer=layer) for layer in layers}
        for label, cell in cells.items():
            chosen = near(cell, own_coeff(cell, pair, specificity, protocol))
            if len(chosen):
                yield label, chosen


def side_lanes(
    rows: pd.DataFrame, pair: str, specificity: pd.DataFrame | None
) -> list[tuple[str, pd.DataFrame]]:
    """Lanes of the insecure adapter: v by protocol, nulls of the published edit, mapped v.

    Returns:
        Name beside the row, and its rows; lanes without rows are left out.
    """
    equal = select(rows, receiver=INSECURE, norm_rule="norm")
    if equal.empty:
        return []
    here = equal[equal["donor"].isin([pair, ""]) | equal["donor"].isna()]
    found = [
        (f"{first(mine, 'coeff'):g} v, {name}", own(mine))
        for name, mine in sorted(
            protocol_lanes(here, pair, specificity), key=lambda one: "published" not in one[0]
        )
    ]
    last = at_chosen(here, pair, specificity)
    found += [(stroke.label, select(last, control=name)) for name, stroke in NULL_STROKES.items()]
    for donor in equal["donor"].dropna().unique():
        mapped = select(equal, donor=donor, control="mapped", protocol=PUBLISHED)
        at = near(mapped, chosen_coeff(specificity, pair, donor=str(donor)))
        if len(at):
            found.append((f"{first(at, 'coeff'):g} mapped v of {donor}", at))
    return [(name, one) for name, one in found if len(one)]
