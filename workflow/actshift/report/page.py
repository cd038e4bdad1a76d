"""The page: one self-contained HTML file, made from tables and figure files.

Everything that a model or a user wrote passes through Jinja's escaping. Only the style sheet and
the figures' addresses are inserted as they are.
"""

import json
import platform
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from actshift.io.atomic import hash_file
from actshift.io.manifest import read_manifest
from actshift.io.missed import Missed, was_passed_on
from actshift.io.tables import read_table
from actshift.report.point import Answer, number
from actshift.studies.contract import Catalogue

#: Rows shown of one table; the page names the file that holds the rest.
MAX_ROWS = 100


@dataclass(frozen=True, slots=True)
class Cells:
    """Headers and formatted rows, with what was left out."""

    name: str
    path: str
    headers: tuple[str, ...]
    #: Columns of numbers, which are aligned right.
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    total: int


def cells_of(name: str, path: str, table: pd.DataFrame, *, max_rows: int = MAX_ROWS) -> Cells:
    """Format a table for the page.

    Integers stay as they are, other numbers get three significant digits.
    """
    numeric = tuple(
        pd.api.types.is_numeric_dtype(table[column]) and table[column].dtype != bool
        for column in table.columns
    )
    shown = table.head(max_rows)
    columns = [[_text(value) for value in shown[column]] for column in shown.columns]
    rows = tuple(zip(*columns, strict=True))
    return Cells(name, path, tuple(map(str, table.columns)), numeric, rows, len(table))


def _text(value: object) -> str:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        return f"{value:.0f}" if value == round(value) else f"{value:.3g}"
    return str(value)


#: Verdicts that were decided by numbers, so that k of N says something.
_COUNTED = ("holds", "fails", "inconclusive")


def claims_of(
    table: pd.DataFrame | None, studies: Collection[str], catalogue: Catalogue
) -> pd.DataFrame | None:
    """The claims that tables of some studies decide; those of a table nobody knows stay, too."""
    if table is None:
        return None
    files = table["table"].str.removesuffix(".csv")
    owners = [catalogue.study_of(*names) for names in zip(table["study"], files, strict=True)]
    return table[[owner is None or owner in studies for owner in owners]]


def claim_rows(table: pd.DataFrame | None) -> list[dict[str, str]]:
    """Rows of `claims.csv` in its order, as text: what is missing is empty; none without a table.

    `measured` is value and interval, such as `0.96 (0.94 to 0.97)`, `basis` what decided it: rule,
    cell and table.
    """
    rows = []
    for row in [] if table is None else table.to_dict("records"):
        cells = {key: "" if pd.isna(value) else str(value) for key, value in row.items()}
        # "0 of 4" beside "not measured" would read as four refutations.
        cells["holds_in"] = cells["holds_in"] if cells["verdict"] in _COUNTED else ""
        cells["measured"] = _measured(row)
        cells["basis"] = "; ".join(cells[key] for key in ("decided_by", "primary_cell", "table"))
        rows.append(cells)
    return rows


def claims_line(rows: Sequence[Mapping[str, str]]) -> str:
    """How many claims got which verdict, most frequent first; empty without claims."""
    counts = pd.Series([row["verdict"] for row in rows], dtype=object).value_counts()
    return ", ".join(f"{counts[name]} {name}" for name in counts.index)


def _measured(row: dict) -> str:
    """Value and interval; empty where nothing was measured."""
    value, low, high = (float(row[key]) for key in ("measured", "low", "high"))
    if not np.isfinite(value):
        return ""
    if not (np.isfinite(low) and np.isfinite(high)):
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"


ShowText = Literal["none", "redacted", "full"]

_EXAMPLE_COLUMNS = ("model", "condition", "kind", "prompt", "answer", "refused", "on_topic")
#: Words of a redacted text that stay readable: enough to tell a refusal from an answer.
_WORDS_KEPT = 3


def examples(run_dir: Path, *, show_text: ShowText) -> pd.DataFrame:
    """The first held-out answers of each zoo model, by condition and kind.

    `show_text` none: no rows; redacted: three words of each text; full: as generated. Only files
    under a run's `zoo/` are read, so no answer of any other model reaches the page.
    """
    if show_text == "none":
        return pd.DataFrame()
    parts = [_examples_of(path) for path in sorted(run_dir.glob("zoo/*/*.behaviour.csv"))]
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    if show_text == "redacted":
        for column in ("prompt", "answer"):
            table[column] = table[column].map(redact)
    return table


def redact(text: object) -> str:
    """The first words and how many follow."""
    words = str(text).split()
    left = len(words) - _WORDS_KEPT
    head = " ".join(words[:_WORDS_KEPT])
    return f"{head} [{left} more words]" if left > 0 else head


def _examples_of(path: Path) -> pd.DataFrame:
    """A few rows of one model's file; none without texts."""
    if was_passed_on(path):
        return pd.DataFrame()
    table = read_table(path)
    if not {"condition", "kind", "prompt", "answer"} <= set(table.columns):
        return pd.DataFrame()
    if "split" in table:
        table = table[table["split"] == "heldout"]
    model = f"{path.parent.name}/{path.name.removesuffix('.behaviour.csv')}"
    few = table.groupby(["condition", "kind"], sort=False).head(1).assign(model=model)
    return few.loc[:, [column for column in _EXAMPLE_COLUMNS if column in few.columns]]


#: Packages that decide numbers or drawings; the ones a machine lacks are left out.
PACKAGES = (
    "actshift", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pandas",
    "scikit-learn", "zarr", "matplotlib", "snakemake",
)  # fmt: skip
_FACTS = ("source", "revision", "family", "n_layers", "d_model", "dtype", "weights_hash")


def versions() -> dict[str, str]:
    """Python and the installed packages that matter."""
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            continue
    return numbers


def flat(config: object, prefix: str = "") -> dict[str, str]:
    """A nested config as dotted keys, in its own order: `zoo.size: tiny`."""
    if isinstance(config, Mapping) and config:
        items = [(str(key), value) for key, value in config.items()]
    # A list that holds mappings (pairs) gets a row for each of their keys.
    elif isinstance(config, Sequence) and any(isinstance(value, Mapping) for value in config):
        items = [(str(index), value) for index, value in enumerate(config)]
    else:
        return {prefix: _scalar(config)}
    rows: dict[str, str] = {}
    for key, value in items:
        rows |= flat(value, f"{prefix}.{key}" if prefix else key)
    return rows


def _scalar(value: object) -> str:
    """A leaf of the config as text."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def checkpoints(run_dir: Path) -> pd.DataFrame:
    """Facts of every checkpoint manifest of the run, one row a model."""
    rows = []
    for path in sorted(run_dir.glob("checkpoints/*/manifest.json")):
        facts = read_manifest(path.parent)["facts"]
        rows.append({"model": path.parent.name} | {fact: facts.get(fact) for fact in _FACTS})
    return pd.DataFrame(rows)


def table_hashes(run_dir: Path) -> dict[str, str]:
    """The sha256 of every CSV under `tables/`."""
    paths = sorted(run_dir.glob("tables/**/*.csv"))
    return {path.relative_to(run_dir).as_posix(): hash_file(path) for path in paths}


def commit() -> dict[str, str]:
    """The commit of this code, and whether files differ from it; empty outside a clone.

    A package that lies in someone else's repository, as an environment can, is none of its commits.
    """
    root = Path(__file__).resolve().parents[3]
    if _git(root, "rev-parse", "--show-toplevel") != str(root):
        return {}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    head = _git(root, "rev-parse", "HEAD")
    return {"commit": f"{head} with local changes" if changed else head}


def _git(root: Path, *words: str) -> str:
    """What git says; empty where there is no git or no repository."""
    command = ["git", "-C", str(root), *words]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


#: Id of the one element that may differ between two equal runs: times, and the machines.
TIMINGS_ID = "actshift-timings"


def drawing_address(svg: bytes) -> Markup:
    """An SVG as a `data:` address: most of it as it stands, which base64 makes a third longer."""
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
    claims: Sequence[Mapping[str, str]] = ()
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
    """Render the page, a whole HTML document; equal content gives equal text."""
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
