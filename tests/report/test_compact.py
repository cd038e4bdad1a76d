"""Figures in fewer bytes: the same marks, an address that can end nothing, short enough a page."""

import io
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from reference.drawings import marks
from report.runs import HOSTILE
from report.synthetic_causal import causal_tables
from report.synthetic_localization import localization_tables
from report.synthetic_misalignment import misalignment_tables
from report.synthetic_tables import synthetic_tables

from actshift.report.page import drawing_address
from actshift.report.style import compact_svg, figure_bytes, print_style
from actshift.stages.figures import draw_figure
from actshift.studies.registry import CATALOGUE

TABLES = {
    **synthetic_tables(("llama", HOSTILE), n_layers=3),
    **causal_tables(("llama",)),
    **localization_tables(("llama",), n_layers=3),
    **misalignment_tables(),
}


def plain_svg(name: str) -> bytes:
    """What matplotlib itself writes."""
    buffer = io.BytesIO()
    with print_style():
        draw_figure(name, TABLES).savefig(buffer, format="svg")
    return buffer.getvalue()


@pytest.mark.parametrize("name", CATALOGUE.names())
def test_every_mark_stays_where_and_as_it_was(name: str) -> None:
    before = plain_svg(name)
    after = compact_svg(before)
    assert len(after) < 0.6 * len(before)
    assert b"script" not in after, "names of pairs are drawn, not written"
    wanted, found = marks(before), marks(after)
    assert len(wanted) > 40
    assert [mark.kind for mark in found] == [mark.kind for mark in wanted]
    for one, two in zip(found, wanted, strict=True):
        assert one.style == two.style
        # Letters are drawn large and scaled down: what counts is where they end up.
        np.testing.assert_allclose(one.place, two.place, atol=0.02)
        np.testing.assert_allclose(one.numbers, two.numbers, atol=0.0051)
        assert [len(clip) for clip in one.clips] == [len(clip) for clip in two.clips]
        for clip, other in zip(one.clips, two.clips, strict=True):
            np.testing.assert_allclose(clip, other, atol=0.0051)


def test_figure_files_are_written_short() -> None:
    assert len(figure_bytes(draw_figure("spillover", TABLES), "svg")) < 0.6 * len(
        plain_svg("spillover")
    )


def test_an_address_holds_the_whole_drawing_and_ends_no_attribute() -> None:
    svg = f"<svg><use xlink:href='#a' y='50%'/><t a=\"1\">{HOSTILE}\n&amp;</t></svg>"
    address = drawing_address(svg.encode())
    assert not set('"<>&#\n(') & set(address)
    assert unquote(address.split(",", 1)[1]) == svg.replace("xlink:href", "href")

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            assert (tag, attrs) == ("img", [("src", address)])

    Images().feed(f'<img src="{address}">')


def test_only_a_reference_may_say_its_shift_as_a_place() -> None:
    shape = '<path id="p" d="M 0 0 L 1.5 2"/><path id="q" d="M 0 0 L 9 9"/>'
    body = (
        f"<defs>{shape}</defs>"
        '<g transform="translate(1.25 2)"><path d="M 0 0 L 3 3"/></g>'
        '<use xlink:href="#p" transform="translate(4.5 -0.001)"/>'
        '<use xlink:href="#q" x="1" transform="translate(4.5 2)"/>'
    )
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f"<svg {spaces}>{body}</svg>".encode()
    places = [mark.place[:2, 2].tolist() for mark in marks(compact_svg(svg))]
    assert places == [[1.25, 2.0], [4.5, 0.0], [5.5, 2.0]]
