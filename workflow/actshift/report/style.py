"""How every figure looks: colour-blind safe, readable in print, the same bytes on every run.

Colours are Okabe and Ito's; no meaning is carried by colour alone (marker and line differ too).
Figures are built without pyplot: no global state, nothing to close. Drawings are written in fewer
bytes than matplotlib's: marks, order, colours and curves stay, positions keep two decimals.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import matplotlib as mpl
from matplotlib.figure import Figure

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
    """The figure as a file's content (svg or png), without a date or a program version in it.

    The bytes depend on the figure and on the matplotlib release only.
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


_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_DECIMAL = re.compile(r"-?\d+\.\d+")
_MOVE = re.compile(r"translate\((\S+) (\S+)\)")
_CLIP = re.compile(r"url\(#([^)]+)\)")
_TWIN_DIGITS = re.compile(r"#([0-9a-f])\1([0-9a-f])\2([0-9a-f])\3\b")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compact_svg(svg: bytes) -> bytes:
    """Write a drawing of matplotlib again: styles as classes, short names, no empty groups.

    The same drawing on one line, without metadata and comments; it depends on `svg` alone.
    """
    root = ET.fromstring(svg)
    writer = _Writer(root)
    inner = "".join(map(writer.element, root))
    classes = "".join(f".{name}{{{style}}}" for style, name in writer.styles.items())
    spaces = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
    facts = _attributes(root.attrib)
    return f"<svg {spaces}{facts}><style>{classes}</style>{inner}</svg>".encode()


class _Writer:
    """Writes elements, and collects the styles that they share."""

    def __init__(self, root: ET.Element) -> None:
        self.named = {node.attrib["id"]: node for node in root.iter() if "id" in node.attrib}
        self.names: dict[str, str] = {}
        for name in _references(root):
            if name in self.named:
                self.names.setdefault(name, _name(len(self.names)))
        self.styles: dict[str, str] = {}

    def element(self, node: ET.Element) -> str:
        """An element with all that it holds; nothing for what draws nothing."""
        tag = node.tag.removeprefix(_SVG)
        if tag == "metadata":
            return ""
        facts = dict(self._facts(node, tag))
        inner = str(node.text) if tag == "style" else "".join(map(self.element, node))
        if tag == "g" and not facts:
            return inner
        if tag in ("g", "defs") and not inner:
            return ""
        body = f">{inner}</{tag}>" if inner else "/>"
        return f"<{tag}{_attributes(facts)}{body}"

    def _facts(self, node: ET.Element, tag: str) -> Iterator[tuple[str, str]]:
        """Attributes that change what is drawn, in their short form."""
        used = self.named.get(node.get(_HREF, "").removeprefix("#"))
        for key, value in node.attrib.items():
            if key == "id":
                if value in self.names:
                    yield key, self.names[value]
            elif key == _HREF:
                name = self.names.get(value.removeprefix("#"))
                yield "xlink:href", f"#{name}" if name else "".join(value.split())
            elif key == "style":
                # A marker repeats at every place the style that its definition has.
                if used is None or used.get("style") != value:
                    yield "class", self._class(value)
            elif key == "clip-path":
                yield key, _CLIP.sub(lambda match: f"url(#{self.names[match[1]]})", value)
            elif key == "transform":
                yield from _moved(value, alone=tag == "use" and not {"x", "y"} & set(node.attrib))
            elif key == "d":
                yield key, _curve(value)
            else:
                yield key, _rounded(value)

    def _class(self, style: str) -> str:
        """The class of a style, new where no element before had it."""
        short = _TWIN_DIGITS.sub(r"#\1\2\3", re.sub(r"([:;]) ", r"\1", style))
        return self.styles.setdefault(short, _name(len(self.styles)))


def _references(root: ET.Element) -> Iterator[str]:
    """Names that some element refers to, in the order of the file."""
    for node in root.iter():
        if node.get(_HREF, "").startswith("#"):
            yield node.attrib[_HREF][1:]
        for value in node.attrib.values():
            yield from _CLIP.findall(value)


def _name(number: int) -> str:
    """a, b, ... Z, ba, bb, ..."""
    number, last = divmod(number, len(_LETTERS))
    return (_name(number) if number else "") + _LETTERS[last]


def _attributes(facts: Mapping[str, str]) -> str:
    """Attributes as text, in single quotes: they cost nothing inside a page's double ones."""
    return "".join(f""" {key}='{escape(value, {"'": "&#39;"})}'""" for key, value in facts.items())


def _moved(value: str, *, alone: bool) -> Iterator[tuple[str, str]]:
    """A transform; a mere shift of a reference as its place."""
    shift = _MOVE.fullmatch(value) if alone else None
    if shift is None:
        yield "transform", _MOVE.sub(lambda match: _rounded(match[0]), value)
        return
    for key, part in zip("xy", shift.groups(), strict=True):
        if _rounded(part) != "0":
            yield key, _rounded(part)


def _curve(path: str) -> str:
    """A path without the spaces that it can do without."""
    short = re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(_rounded(path).split()))
    return short.replace(" -", "-")


def _rounded(text: str) -> str:
    """Every decimal number to two places."""
    return _DECIMAL.sub(
        lambda match: f"{round(float(match[0]), 2) + 0.0:.2f}".rstrip("0").rstrip("."), text
    )
