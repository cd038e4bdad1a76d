"""Figures of ablation: refusal against k, what else the edit does, and single directions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from scipy.stats import rankdata

from actshift.maths.ordering import STABLE_COSINE
from actshift.report.panels import PAGE_WIDTH, legend, no_data, note, pairs_of, sized
from actshift.report.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, Stroke
from actshift.report.tables import first, select, values

#: In the order of drawing: the two that decide lie on top.
FRAMES = {
    "naive": Stroke(ORANGE, "s", "--", "naive"),
    "did": Stroke(GREEN, "D", "-.", "did"),
    "activation": Stroke(PINK, "v", ":", "activation directions (control)"),
    "template_harmless": Stroke(RED, "^", "-", "template, harmless prompts (decisive control)"),
    "template": Stroke(BLUE, "o", "-", "template"),
}
RANDOM = Stroke(GREY, "", "--", "random: median, 5th to 95th percentile")
_STRONG = ("template", "template_harmless")
_COLUMNS = [(band, what) for band in ("narrow", "wide") for what in ("refusal", "complied")]
_TITLES = {"refusal": "refused", "complied": "answered on topic, not refused"}


def ablation_curves(sweep: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Refusal and on-topic compliance against k, both bands, beside random draws."""
    rows = select(sweep, protocol="heldout", edit="zero")
    pairs = pairs_of(rows)
    extra = published is not None and len(published) > 0
    figure = Figure(figsize=(PAGE_WIDTH, 2.05 * (len(pairs) + extra) + 1.3), layout="constrained")
    axes = figure.subplots(len(pairs) + extra, 4, squeeze=False, sharey=True)
    for column, (band, what) in enumerate(_COLUMNS):
        axes[0, column].set_title(f"{band} band:\n{_TITLES[what]}")
        for row, pair in enumerate(pairs):
            _curve_panel(axes[row, column], select(rows, pair=pair, band=band), what)
        axes[len(pairs) - 1, column].set_xlabel("directions projected out, k")
    for row, pair in enumerate(pairs):
        axes[row, 0].set_ylabel(f"{sized(pair, select(rows, pair=pair))}\nshare")
    if published is not None and extra:
        _published_row(axes[-1], published)
    axes[0, 0].set_ylim(-0.04, 1.06)
    legend(figure, _entries(), columns=3)
    return figure


def _entries() -> list[dict[str, Any]]:
    """The legend: frames, random draws, the plain model, and what an open marker means."""
    return [
        *(stroke.line() for stroke in FRAMES.values()),
        RANDOM.line(),
        {"color": BLACK, "linestyle": ":", "linewidth": 1, "label": "without an edit"},
        {"color": GREY, "marker": "o", "markerfacecolor": "white", "linestyle": "",
         "label": "open: decides nothing (shaded: k > d / 8)"},
    ]  # fmt: skip


def _curve_panel(axis: Axes, rows: pd.DataFrame, what: str) -> None:
    log_k(axis, np.unique(rows["k"]) if len(rows) else [])
    if rows.empty or not len(values(rows, what)):
        no_data(axis, "no rows" if rows.empty else "no judge of topics for this model")
        return
    # Shaded: the k that are too large a share of the width to say anything.
    if (limit := first(rows, "d") / 8) < float(rows["k"].max()):
        axis.axvspan(limit, float(rows["k"].max()) * 1.5, color="#f0f0f0", linewidth=0, zorder=0)
    axis.axhline(first(rows, f"plain_{what}"), color=BLACK, linestyle=":", linewidth=1)
    _random_band(axis, select(rows, frame="random"), what)
    for place, (frame, stroke) in enumerate(FRAMES.items()):
        part = select(rows, frame=frame).sort_values("k")
        # A little apart, so that curves at 0 and 1 do not hide each other.
        _frame_curve(axis, part, what, stroke, shift=1 + 0.035 * (place - 2))


def _random_band(axis: Axes, rows: pd.DataFrame, what: str) -> None:
    """Median and percentiles of the draws where there are some; their mean for on-topic rates."""
    rows = rows.sort_values("k")
    if rows.empty:
        return
    if what == "refusal":
        low, high = rows["random_refusal_low"], rows["random_refusal_high"]
        axis.fill_between(rows["k"], low, high, color=GREY, alpha=0.25, linewidth=0)
    middle = rows["random_refusal_median" if what == "refusal" else what]
    axis.plot(rows["k"], middle, **RANDOM.line(label=None, linewidth=1.2))


def _frame_curve(axis: Axes, rows: pd.DataFrame, what: str, stroke: Stroke, shift: float) -> None:
    """One frame's curve; intervals for the two frames that are compared."""
    if rows.empty:
        return
    strong = stroke in [FRAMES[name] for name in _STRONG]
    x, y = rows["k"].to_numpy(dtype=float) * shift, rows[what].to_numpy(dtype=float)
    width = 1.7 if strong else 0.9
    axis.plot(x, y, color=stroke.color, linestyle=stroke.linestyle, linewidth=width)
    if strong and f"{what}_low" in rows:
        axis.vlines(x, rows[f"{what}_low"], rows[f"{what}_high"], color=stroke.color, linewidth=1)
    decided = rows["status"].isin(["decided", "no judge"]).to_numpy()
    for mask, face in ((decided, stroke.color), (~decided, "white")):
        axis.plot(
            x[mask], y[mask], linestyle="", marker=stroke.marker, color=stroke.color,
            markerfacecolor=face, markersize=4.6 if strong else 3.6,
        )  # fmt: skip


def log_k(axis: Axes, ks: Sequence[int] | np.ndarray) -> None:
    """A log axis of k with its own values as ticks."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    if len(ks):
        axis.set_xticks(ks, [str(k) for k in ks])
        axis.set_xlim(min(ks) / 1.2, max(ks) * 1.25)


_FAMILIES = {"llama": "-", "gemma": "--", "qwen": "-."}
_PUBLISHED_MARKS = {"llama": "o", "gemma": "s", "qwen": "D"}


def _published_row(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Published curves of other models, shaded; their single random draw is the thin grey line."""
    rows = table[(table["kind"] == "cumulative") & (table["k"] > 0)]
    axes[0].set_ylabel("published:\nother, larger models")
    for place, (band, what) in enumerate(_COLUMNS):
        axis, curves = axes[place], select(rows, band=band)
        axis.set_facecolor("#f6f6f6")
        if what == "complied" or curves.empty:
            axis.set_axis_off()
            continue
        axis.set_xlabel("directions projected out, k")
        log_k(axis, np.unique(curves["k"]))
        for (family, matrix), curve in curves.groupby(["family", "matrix"], sort=False):
            _published_curve(axis, curve.sort_values("k"), str(family), str(matrix))
        # On-topic rates were not published: their place holds the legend.
        axes[place + 1].legend(
            *axis.get_legend_handles_labels(),
            loc="center left",
            title="published (grey: one random draw)",
            handlelength=3,
        )


def _published_curve(axis: Axes, curve: pd.DataFrame, family: str, matrix: str) -> None:
    """One released curve in its frame's colour, and its single random draw."""
    known = FRAMES.get(matrix)
    color = known.color if known else GREY
    axis.plot(
        curve["k"], curve["refusal"], color=color, linestyle=_FAMILIES.get(family, ":"),
        marker=_PUBLISHED_MARKS.get(family, "P"), markersize=3.2, linewidth=1,
        label=f"{family}, {matrix}",
    )  # fmt: skip
    axis.plot(
        curve["k"], curve["random_refusal"], color=GREY, linestyle=_FAMILIES.get(family, ":"),
        linewidth=0.8, label="_random",
    )  # fmt: skip


_METRICS = (
    ("over_refusal", "harmless prompts refused\n(share)"),
    ("on_topic", "harmless answered on topic\n(share)"),
    ("kl_first", "KL of the first token\n(nats)"),
    ("loss_change", "loss on plain text, change\n(nats a token)"),
)
_EDITS = {
    "zero": Stroke(BLUE, "o", "", "projected to zero (published)"),
    "mean": Stroke(ORANGE, "s", "", "projected to the harmless mean"),
}
_ROWS = ("template", "did", "naive", "template_harmless", "activation", "random")


def side_effects(table: pd.DataFrame, sweep: pd.DataFrame | None) -> Figure:
    """What the edits of the primary k do to harmless prompts and plain text, a row a frame."""
    band, k = primary_cell(table, sweep)
    rows = select(table, experiment="sweep", band=band, k=k)
    pairs = pairs_of(table)
    figure = Figure(figsize=(PAGE_WIDTH, 1.75 * len(pairs) + 1.4), layout="constrained")
    axes = figure.subplots(len(pairs), len(_METRICS), squeeze=False, sharex="col", sharey=True)
    for (column, title), cells in zip(_METRICS, axes.T, strict=True):
        cells[0].set_title(title)
        for axis, pair in zip(cells, pairs, strict=True):
            _side_panel(axis, select(rows, pair=pair), column)
    for row, pair in enumerate(pairs):
        names = [frame.replace("template_harmless", "template (harmless)") for frame in _ROWS]
        axes[row, 0].set_yticks(range(len(_ROWS)), names)
        axes[row, 0].set_ylabel(sized(pair, select(rows, pair=pair)))
    axes[0, 0].set_ylim(len(_ROWS) - 0.5, -0.5)
    for axis in axes[-1, :2]:
        axis.set_xlim(-0.04, 1.04)
    shade = {"color": "#e2e2e2", "linewidth": 8, "label": f"controls; {band} band, k = {k}"}
    legend(figure, [*(stroke.line(markersize=5.5) for stroke in _EDITS.values()), shade])
    return figure


def primary_cell(table: pd.DataFrame, sweep: pd.DataFrame | None) -> tuple[str, int]:
    """Band and k of the cell that was named beforehand; narrow and the smallest k from 3 else."""
    if sweep is not None and "primary" in sweep:
        named = select(sweep, primary=True)
        if len(named):
            return str(named["band"].iloc[0]), int(named["k"].iloc[0])
    ks = sorted(int(k) for k in select(table, experiment="sweep")["k"].unique())
    return "narrow", next((k for k in ks if k >= 3), ks[-1] if ks else 3)


def _side_panel(axis: Axes, rows: pd.DataFrame, column: str) -> None:
    """One pair and metric: both edits of every frame, the controls shaded."""
    axis.axhspan(2.5, 5.5, color="#f0f0f0", linewidth=0, zorder=0)
    axis.grid(visible=False, axis="y")
    if rows.empty or not len(values(rows, column)):
        no_data(axis, "not measured")
        return
    for at, frame in enumerate(_ROWS):
        for edit, stroke in _EDITS.items():
            part = select(rows, frame=frame, edit=edit)
            y = at + (-0.16 if edit == "zero" else 0.16)
            _with_interval(axis, part, column, y, stroke)
    if column == "kl_first":
        axis.set_xscale("symlog", linthresh=0.01)
        axis.xaxis.set_major_formatter("{x:g}")
    note_plain(axis, rows, column)


def _with_interval(axis: Axes, rows: pd.DataFrame, column: str, y: float, stroke: Stroke) -> None:
    """A value, with the interval of its change moved to the value where there is one."""
    for _, row in rows.iterrows():
        change = f"{column}_change"
        if change in row and np.isfinite(row[change]):
            plain = row[column] - row[change]
            ends = np.clip(plain + row[[f"{change}_low", f"{change}_high"]].astype(float), 0, 1)
            axis.hlines(y, *ends, color=stroke.color, linewidth=1.4)
        axis.plot(row[column], y, **stroke.line(label=None, markersize=4.6))


def note_plain(axis: Axes, rows: pd.DataFrame, column: str) -> None:
    """A dotted line where the unedited model stands."""
    change = f"{column}_change"
    if change in rows and len(values(rows, change)):
        plain = float(np.median(values(rows, column) - values(rows, change)))
        axis.axvline(plain, color=BLACK, linestyle=":", linewidth=1)
    elif column in ("kl_first", "loss_change"):
        axis.axvline(0, color=BLACK, linestyle=":", linewidth=1)


_BAND, _FRAME, _EDIT = "narrow", "template", "zero"
_SINGLE_K, _SET_K = 1, 5
_DRAWS: dict[str, Any] = {"color": GREY, "alpha": 0.3, "linewidth": 0}
_UNSTABLE: dict[str, Any] = {
    "color": BLUE, "marker": "s", "linestyle": "", "markersize": 5, "markerfacecolor": "white",
    "zorder": 3,
}  # fmt: skip
_HARMLESS: dict[str, Any] = {"color": RED, "linestyle": "--", "linewidth": 1.4}


def direction_bars(
    directions: pd.DataFrame, ordering: pd.DataFrame | None, sweep: pd.DataFrame | None
) -> Figure:
    """Change of refusal by single direction, causal against variance order, sets of five."""
    cell = {"band": _BAND, "frame": _FRAME, "edit": _EDIT}
    rows = select(directions, **cell)
    pairs = pairs_of(directions)
    figure = Figure(figsize=(PAGE_WIDTH, 2.3 * len(pairs) + 1.4), layout="constrained")
    axes = figure.subplots(
        len(pairs), 3, squeeze=False, gridspec_kw={"width_ratios": (1.15, 0.75, 1.5)}
    )
    titles = ("each direction alone", "causal against variance order", "sets of the first five")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for row, pair in enumerate(pairs):
        of_pair = select(rows, pair=pair)
        singles = select(of_pair, kind="single").copy()
        singles["direction"] = singles["directions"].astype(int)
        singles = singles.sort_values("direction")
        controls = select(sweep, pair=pair, protocol="heldout", band=_BAND, edit=_EDIT)
        axes[row, 0].set_ylabel(f"{sized(pair, of_pair)}\nchange of refusal")
        _bars(axes[row, 0], singles, controls)
        _order(axes[row, 1], singles, select(ordering, pair=pair, **cell))
        _sets(axes[row, 2], of_pair, controls)
        _equal_limits(axes[row, [0, 2]])
    for axis, label in zip(axes[-1], ("direction u_i", "variance order", "directions removed"),
                           strict=True):  # fmt: skip
        axis.set_xlabel(label)
    legend(figure, _bar_entries(), columns=3)
    return figure


def _bar_entries() -> list[dict[str, Any]]:
    return [
        {"color": BLUE, "marker": "s", "linestyle": "", "markersize": 7,
         "label": "change of refusal, 95 % cluster interval"},
        {**_UNSTABLE,
         "label": f"hatched or open: unstable (|cos| < {STABLE_COSINE:g}) or a broken cell"},
        {**_DRAWS, "linewidth": 8, "label": "random draws, 5th to 95th percentile"},
        {**_HARMLESS, "label": "as many directions of the harmless shift"},
        {"color": BLACK, "marker": "D", "linestyle": "", "markerfacecolor": "white",
         "label": "sum of the singles (no interaction)"},
        {"color": RED, "linewidth": 1, "label": "pair in the wrong order, Holm-corrected"},
    ]  # fmt: skip


def _controls(axis: Axes, controls: pd.DataFrame, k: int) -> None:
    """Range of random draws and the harmless shift's own directions at this k, as changes."""
    random = select(controls, frame="random", k=k) if len(controls) else controls
    if len(random):
        plain = first(random, "plain_refusal")
        low, high = first(random, "random_refusal_low"), first(random, "random_refusal_high")
        axis.axhspan(low - plain - 0.004, high - plain + 0.004, **_DRAWS)
    harmless = select(controls, frame="template_harmless", k=k) if len(controls) else controls
    if len(harmless):
        axis.axhline(first(harmless, "refusal_change"), **_HARMLESS)


def _bars(axis: Axes, singles: pd.DataFrame, controls: pd.DataFrame) -> None:
    """A bar a direction in the order of variance."""
    axis.axhline(0, color=BLACK, linewidth=0.8)
    axis.grid(visible=False, axis="x")
    if singles.empty:
        no_data(axis)
        return
    _controls(axis, controls, _SINGLE_K)
    for _, row in singles.iterrows():
        stable = _says_something(row)
        axis.bar(
            row["direction"], row["refusal_change"], width=0.7, edgecolor=BLUE,
            facecolor=BLUE if stable else "white", hatch="" if stable else "////", linewidth=1,
        )  # fmt: skip
        if not stable:  # a bar of no height shows no hatch
            axis.plot(row["direction"], row["refusal_change"], **_UNSTABLE)
    axis.vlines(
        singles["direction"], singles["refusal_change_low"], singles["refusal_change_high"],
        color=BLACK, linewidth=1.2,
    )  # fmt: skip
    axis.set_xticks(singles["direction"].tolist())


def _decides(row: pd.Series) -> bool:
    """Whether the cell's controls held; an answer nobody judged may still count refusals."""
    return row.get("status", "decided") in ("decided", "no judge")


def _says_something(row: pd.Series) -> bool:
    """Whether the direction is the same one over resampled prompts, in a cell that decides."""
    return _decides(row) and row["self_cosine_min"] >= STABLE_COSINE


def _order(axis: Axes, singles: pd.DataFrame, ordering: pd.DataFrame) -> None:
    """Place in the order of lost refusals against place in the order of variance."""
    if singles.empty:
        no_data(axis)
        return
    causal = rankdata(singles["refusal_change"].to_numpy())
    place = dict(zip(singles["direction"], causal, strict=True))
    last = len(singles)
    axis.plot([1, last], [1, last], color=GREY, linestyle="--", linewidth=1)
    tests = select(ordering, test="inversion") if len(ordering) else ordering
    for _, row in tests.iterrows():
        if str(row["exceeds"]).lower() == "true":
            ends = [int(row["earlier"]), int(row["later"])]
            axis.plot(ends, [place[end] for end in ends], color=RED, linewidth=1, alpha=0.8)
    stable = np.array([_says_something(row) for _, row in singles.iterrows()])
    variance = singles["direction"].to_numpy()
    for mask, face in ((stable, BLUE), (~stable, "white")):
        axis.plot(variance[mask], causal[mask], "o", color=BLUE, markerfacecolor=face, markersize=5)
    axis.set(xlim=(0.3, last + 0.7), ylim=(last + 0.7, -0.9), ylabel="causal order")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if len(tests):
        tau = first(tests, "kendall_tau")
        note(axis, f"Kendall's τ {tau:.2f} (not tested)")


def _sets(axis: Axes, rows: pd.DataFrame, controls: pd.DataFrame) -> None:
    """Pairs, leave-one-out sets and all five, beside the sum of their singles' changes."""
    axis.axhline(0, color=BLACK, linewidth=0.8)
    sets = rows[rows["kind"] != "single"]
    if sets.empty:
        no_data(axis)
        return
    _controls(axis, controls, _SET_K)
    x = np.arange(len(sets))
    axis.vlines(
        x, sets["refusal_change_low"], sets["refusal_change_high"], color=BLUE, linewidth=1.4
    )
    sound = np.array([_decides(row) for _, row in sets.iterrows()])
    for mask, face in ((sound, BLUE), (~sound, "white")):
        y = sets["refusal_change"].to_numpy(dtype=float)
        axis.plot(x[mask], y[mask], "s", color=BLUE, markerfacecolor=face, markersize=4.5)
    total = np.maximum(sets["refusal_change"] - sets["interaction"], -1.0)
    axis.plot(x + 0.22, total, "D", color=BLACK, markerfacecolor="white", markersize=3.6)
    axis.set_xticks(x, [_set_name(row) for _, row in sets.iterrows()], rotation=90, fontsize=7)
    axis.grid(visible=False, axis="x")


def _set_name(row: pd.Series) -> str:
    """`1+2`, `no 3` for what is left out of the first five, `all five`."""
    if row["kind"] == "all_five":
        return "all five"
    if row["kind"] == "leave_one_out":
        left = set("12345") - set(str(row["directions"]).split("+"))
        return f"no {''.join(sorted(left))}"
    return str(row["directions"])


def _equal_limits(axes: np.ndarray) -> None:
    """One scale for a pair's bars and sets, from all that is drawn."""
    low = min(axis.get_ylim()[0] for axis in axes)
    high = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(max(low, -1.08), min(high, 1.08))
