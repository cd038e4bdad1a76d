"""How every figure looks: colour-blind safe, readable in print, the same bytes on every run.

Colours are Okabe and Ito's; no meaning is carried by colour alone (marker and line differ too).
Figures are built without pyplot: no global state, nothing to close.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from actshift.report.compact import compact_svg

BLACK = "#1a1a1a"
GREY = "#767676"
BLUE = "#0072B2"
SKY = "#56B4E9"
GREEN = "#009E73"
ORANGE = "#E69F00"
RED = "#D55E00"
PINK = "#CC79A7"


class Stroke(NamedTuple):
    """Colour, marker and line of one series: any one of the three is enough to tell it apart."""

    color: str
    marker: str
    linestyle: str
    label: str

    def line(self, **changes: Any) -> dict[str, Any]:
        """The keyword arguments of `Axes.plot`, with `changes` on top."""
        return {**self._asdict(), **changes}


INPUTS = {
    "harmful": Stroke(RED, "o", "-", "harmful prompts"),
    "harmless": Stroke(BLUE, "s", "-", "harmless prompts"),
}
MATRICES = {
    "naive": Stroke(ORANGE, "s", "--", "naive"),
    "template": Stroke(BLUE, "o", "-", "template"),
    "aligned": Stroke(PINK, "^", ":", "aligned"),
    "did": Stroke(GREEN, "D", "-.", "did"),
}
#: What each matrix subtracts; `aligned` never uses the base model, so it is no alignment shift.
MATRIX_TITLES = {
    "naive": "naive\ntuned (chat) minus base (raw)",
    "template": "template\ntuned minus base (both chat)",
    "aligned": "aligned (a template shift\ninside the tuned model)",
    "did": "did\ntemplate minus harmless mean",
}

_RC: dict[Any, Any] = {
    "svg.hashsalt": "actshift",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    # Pair names come from a user's config: a "$" there must not start a formula.
    "text.parse_math": False,
}


@contextmanager
def print_style() -> Iterator[None]:
    """Matplotlib settings for drawing and for saving (the hash salt is read when saving)."""
    with mpl.rc_context(_RC):
        yield


def figure_bytes(figure: Figure, suffix: str) -> bytes:
    """The figure as a file's content, without a date or a program version in it.

    Args:
        figure: what to save.
        suffix: "svg" or "png".

    Returns:
        Bytes that depend on the figure and on the matplotlib release only.
    """
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[suffix]
    buffer = io.BytesIO()
    with print_style():
        figure.savefig(buffer, format=suffix, metadata=metadata)
    return compact_svg(buffer.getvalue()) if suffix == "svg" else buffer.getvalue()


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<folder>/<name>.svg` and `.png`; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    # Both files share one layout: solving it is most of the work, and it may differ by the dpi.
    with print_style():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    paths = [folder / f"{name}.{suffix}" for suffix in ("svg", "png")]
    for path in paths:
        path.write_bytes(figure_bytes(figure, path.suffix[1:]))
    return paths
