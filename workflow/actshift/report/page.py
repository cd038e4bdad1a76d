"""The page: one self-contained HTML file, made from tables and figure files.

Everything that a model or a user wrote passes through Jinja's escaping. Only the style sheet and
the figures' addresses are inserted as they are.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from actshift.io.missed import Missed
from actshift.report.cells import Cells
from actshift.report.claim_rows import ClaimRow
from actshift.report.point import Answer

#: Id of the one element that may differ between two equal runs: times, and the machines.
TIMINGS_ID = "actshift-timings"


def drawing_address(svg: bytes) -> Markup:
    """An SVG as a `data:` address: most of it as it stands, which base64 makes a third longer.

    Args:
        svg: the file; nothing in it can end an attribute in double quotes.
    """
    # Browsers need no prefix before href; programs that open the file may.
    text = svg.decode("utf-8").replace("xlink:href", "href")
    return Markup("data:image/svg+xml," + quote(text, safe=" '/=:;,!*@$"))


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A figure as the page shows it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: bytes
    path: str

    @property
    def source(self) -> Markup:
        """The SVG as an address that needs no network; an <img> cannot run scripts."""
        return drawing_address(self.svg)


@dataclass(frozen=True, slots=True)
class StudySection:
    """One study: what it asks and cannot tell, its figures and its tables."""

    name: str
    title: str
    about: str
    figures: Sequence[FigureBlock]
    tables: Sequence[Cells]


@dataclass(frozen=True, slots=True)
class Missing:
    """A configured pair without an answer, and why."""

    pair: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """All that the template shows."""

    run: str
    answers: Sequence[Answer]
    #: The page that follows, where the run still goes on.
    whole: str = ""
    #: What the models are, before anything is said of them.
    models_line: str = ""
    models: Sequence[Mapping[str, str]] = ()
    #: Gates that were missed: results, no failures.
    missed: Sequence[Missed] = ()
    #: Whether a study that answers pair by pair is on.
    answered: bool = True
    claims: Sequence[ClaimRow] = ()
    claims_line: str = ""
    #: Claims of studies that this run does not have.
    other_claims: int = 0
    missing: Sequence[Missing] = ()
    gates: str = ""
    failures: Sequence[Mapping[str, str]] = ()
    studies: Sequence[StudySection] = ()
    #: Of the run as a whole.
    tables: Sequence[Cells] = ()
    examples: Cells | None = None
    text_note: str = ""
    provenance: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    checkpoints: Cells | None = None
    timings: Sequence[Mapping[str, str | float]] = ()
    machines: Sequence[Mapping[str, Any]] = ()

    #: Tables that stand open: short ones that the others rest on.
    opened: Sequence[str] = (
        "tables/rank_audit/summary.csv",
        "tables/localization/preference_margins.csv",
    )

    @property
    def widest(self) -> int:
        """Columns of the widest table."""
        every = [table for study in self.studies for table in study.tables]
        every += [*self.tables, *filter(None, (self.examples, self.checkpoints))]
        return max((len(table.headers) for table in every), default=0)

    def has(self, *names: str) -> bool:
        """Whether one of these studies is on the page, whose words need explaining."""
        return any(study.name in names for study in self.studies)

    def shows(self, path: str) -> bool:
        """Whether this table is on the page, whose columns need explaining."""
        return any(table.path == path for study in self.studies for table in study.tables)


def render_page(content: PageContent) -> str:
    """Render the page; equal content gives equal text.

    Args:
        content: what to show.

    Returns:
        A whole HTML document that refers to nothing outside itself.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("actshift.report")
    template = environment.from_string(folder.joinpath("page.html.j2").read_text("utf-8"))
    return template.render(
        page=content,
        css=Markup(folder.joinpath("page.css").read_text("utf-8")),
        timings_id=TIMINGS_ID,
        timings_json=_script_json({"jobs": content.timings, "machines": content.machines}),
    )


def _script_json(value: object) -> Markup:
    """JSON that cannot end its own <script> element."""
    text = json.dumps(value, ensure_ascii=True, indent=1)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def without_timings(html: str) -> str:
    """The page without its block of times and machines: what two equal runs must agree on."""
    pattern = rf'(<script type="application/json" id="{TIMINGS_ID}">).*?(</script>)'
    return re.sub(pattern, r"\1\2", html, flags=re.DOTALL)


def gates_line(behaviour: pd.DataFrame | None) -> str:
    """How many held-out rates lie within their gates; empty without a zoo."""
    if behaviour is None or "passed" not in behaviour:
        return ""
    rows = behaviour.loc[(behaviour["split"] == "heldout") & behaviour["passed"].notna()]
    if rows.empty:
        return ""
    passed = np.array([str(value).lower() in ("true", "1", "1.0") for value in rows["passed"]])
    line = f"On held-out prompts {passed.sum()} of {len(rows)} rates of the zoo's models are what"
    line += " the studies need (within gates that are decided on other prompts)"
    if passed.all():
        return f"{line}."
    beyond = ", ".join(dict.fromkeys(rows.loc[~passed, "model"].astype(str)))
    return f"{line}; not all of those of {beyond}."
