"""What an SVG draws, mark by mark: every reference followed, every style and place worked out."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_PLACE = ("x", "y", "width", "height")


@dataclass(frozen=True)
class Mark:
    """One thing that is drawn: commands or picture, numbers, where, how, and what cuts it."""

    kind: str
    numbers: tuple[float, ...]
    place: np.ndarray
    style: Mapping[str, str]
    clips: tuple[tuple[float, ...], ...]


def marks(svg: bytes) -> list[Mark]:
    """Every mark in the order of drawing."""
    root = ET.fromstring(svg)
    named = {one.attrib["id"]: one for one in root.iter() if "id" in one.attrib}
    text = " ".join(one.text or "" for one in root.iter(f"{_SVG}style"))
    classes = {name: _style(body) for name, body in re.findall(r"\.(\w+)\s*\{([^}]*)\}", text)}
    return [
        mark
        for one in root
        for mark in _below(one, np.eye(3), {}, (), named=named, classes=classes)
    ]


def _below(
    one: ET.Element,
    place: np.ndarray,
    style: Mapping[str, str],
    clips: tuple[tuple[float, ...], ...],
    **known: Mapping,
) -> Iterator[Mark]:
    tag = one.tag.removeprefix(_SVG)
    if tag in ("defs", "metadata", "style", "clipPath"):
        return
    place = place @ _transform(one.get("transform", ""))
    style = {**style, **known["classes"].get(one.get("class"), {}), **_style(one.get("style", ""))}
    if "clip-path" in one.attrib:
        name = one.attrib["clip-path"].removeprefix("url(#").removesuffix(")")
        clips = (*clips, tuple(n for part in known["named"][name] for n in _numbers(part)))
    if tag == "use":
        shift = _transform(f"translate({one.get('x', 0)} {one.get('y', 0)})")
        below = [known["named"][one.attrib[_HREF][1:]]]
        place = place @ shift
    elif tag == "g":
        below = list(one)
    else:
        kind = re.sub(r"[^A-Za-z]", "", one.get("d", "")) or "".join(one.get(_HREF, tag).split())
        yield Mark(kind, tuple(_numbers(one)), place, style, clips)
        return
    for child in below:
        yield from _below(child, place, style, clips, **known)


def _numbers(one: ET.Element) -> Iterator[float]:
    for key in ("d", *_PLACE):
        yield from map(float, re.findall(r"-?\d+(?:\.\d+)?", one.get(key, "")))


def _style(text: str) -> dict[str, str]:
    pairs = (part.split(":", 1) for part in text.split(";") if ":" in part)
    return {key.strip(): _colour("".join(value.split())) for key, value in pairs}


def _colour(value: str) -> str:
    short = re.fullmatch(r"#([0-9a-f])([0-9a-f])([0-9a-f])", value)
    return "#" + "".join(2 * digit for digit in short.groups()) if short else value


def _transform(text: str) -> np.ndarray:
    place = np.eye(3)
    for kind, inside in re.findall(r"(\w+)\(([^)]*)\)", text):
        n = [float(part) for part in re.split(r"[ ,]+", inside.strip())]
        step = np.eye(3)
        if kind == "translate":
            step[:2, 2] = n
        elif kind == "scale":
            step[[0, 1], [0, 1]] = n if len(n) == 2 else n * 2
        elif kind == "matrix":
            step[:2] = np.reshape(n, (3, 2)).T
        else:
            assert kind == "rotate"
            cos, sin = np.cos(np.deg2rad(n[0])), np.sin(np.deg2rad(n[0]))
            step[:2, :2] = [[cos, -sin], [sin, cos]]
        place = place @ step
    return place
