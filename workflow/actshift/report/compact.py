"""A drawing in fewer bytes: what matplotlib writes out at every mark is said once.

Marks, order, colours and curves stay; positions are kept to a hundredth of a point.
"""

import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_DECIMAL = re.compile(r"-?\d+\.\d+")
_MOVE = re.compile(r"translate\((\S+) (\S+)\)")
_CLIP = re.compile(r"url\(#([^)]+)\)")
_TWIN_DIGITS = re.compile(r"#([0-9a-f])\1([0-9a-f])\2([0-9a-f])\3\b")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compact_svg(svg: bytes) -> bytes:
    """Write a drawing of matplotlib again: styles as classes, short names, no empty groups.

    Args:
        svg: what `Figure.savefig` wrote.

    Returns:
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
