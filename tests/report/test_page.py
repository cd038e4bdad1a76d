"""The page: self-contained, escaped, the same twice, and made from whatever finished."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from report.runs import HOSTILE, config_of, with_figures, write_record, write_run
from report.synthetic_causal import causal_tables
from report.synthetic_localization import localization_tables
from report.synthetic_misalignment import misalignment_tables
from report.synthetic_tables import synthetic_tables

from actshift.io.tables import write_table
from actshift.report.page import TIMINGS_ID, examples, flat, redact
from actshift.report.tables import load_tables
from actshift.stages.report import answers, make_report
from actshift.studies.registry import CATALOGUE, STUDIES


def without_timings(html: str) -> str:
    """The page without its block of times and machines: what two equal runs must agree on."""
    pattern = rf'(<script type="application/json" id="{TIMINGS_ID}">).*?(</script>)'
    return re.sub(pattern, r"\1\2", html, flags=re.DOTALL)


class Outline(HTMLParser):
    """Tags with their attributes, and whether every element was closed."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = synthetic_tables(("llama", "qwen"), n_layers=3)
    return with_figures(write_run(tmp_path_factory.mktemp("run"), tables))


def page_of(run: Path, tmp_path: Path, **changes: object) -> str:
    settings: dict = {"config": config_of("llama", "qwen"), "failures": []} | changes
    make_report(run, tmp_path / "report.html", **settings)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_opens_with_every_sentence(run: Path, tmp_path: Path) -> None:
    html = page_of(run, tmp_path)
    for answer in answers(load_tables(run / "tables", CATALOGUE)):
        place = html.index(answer.sentence.replace("'", "&#39;"))
        assert place < html.index('id="figures"') < html.index('id="provenance"')


def test_the_page_is_well_formed_and_accessible(run: Path, tmp_path: Path) -> None:
    outline = Outline(page_of(run, tmp_path))
    assert outline.open == []
    assert ("html", {"lang": "en"}) in outline.tags
    images = [attrs for tag, attrs in outline.tags if tag == "img"]
    assert len(images) == len(CATALOGUE.names(["rank_audit"]))
    assert all(len(attrs["alt"]) > 40 for attrs in images)
    assert all("scope" in attrs for tag, attrs in outline.tags if tag == "th")
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"][1:] for tag, attrs in outline.tags if tag == "a"}
    assert links <= set(ids)


def test_every_study_has_a_section_with_its_figures_and_tables(tmp_path: Path) -> None:
    tables = synthetic_tables(("llama",), n_layers=2) | causal_tables(("llama",))
    tables |= localization_tables(("llama",), n_layers=2) | misalignment_tables(("llama",))
    run = with_figures(write_run(tmp_path / "run", tables), studies=STUDIES)
    html = page_of(run, tmp_path)
    assert Outline(html).open == []
    for study, spec in STUDIES.items():
        section = html.split(f'id="figures-{study}"')[1].split("</section>")[0]
        assert spec.title.replace("'", "&#39;") in section
        assert spec.about.replace("'", "&#39;") in section
        found = re.findall(r'<figure id="figure-(\w+)">', section)
        assert found == list(CATALOGUE.names([study]))
        assert f'href="#figures-{study}"' in html
        assert f'href="#tables-{study}"' in html
    ablation = html.split('id="tables-ablation"')[1].split("</section>")[0]
    names = re.findall(r'<span class="name">(\w+)</span>', ablation)
    assert names[:3] == ["ablation_sweep", "direction_ablation", "ordering"]
    assert "first 100 shown" in ablation
    assert '<details class="table" open' not in ablation


def test_a_study_that_did_not_run_has_no_section(run: Path, tmp_path: Path) -> None:
    html = page_of(run, tmp_path)
    assert 'id="figures-rank_audit"' in html
    assert "figures-ablation" not in html
    assert "Calibration networks" not in html


def test_localization_alone_is_a_whole_page(tmp_path: Path) -> None:
    run = with_figures(
        write_run(tmp_path / "run", localization_tables(("llama", "qwen"))),
        studies=["localization"],
    )
    failure = {"rule": "localization", "job": "pair=gemma", "message": "gap 0.2, -1 to 1.4"}
    config = config_of("llama", "qwen", "gemma") | {"studies": ["localization"]}
    html = page_of(run, tmp_path, config=config, failures=[failure])
    assert Outline(html).open == []
    for answer in answers(load_tables(run / "tables", CATALOGUE)):
        assert answer.sentence.replace("'", "&#39;") in html
    assert re.search(r"No answer for gemma\.\s+gap 0\.2, -1 to 1\.4", html)
    assert "rank audit" not in html.lower()
    assert "<dt>naive</dt>" not in html
    assert "<dt>effective units</dt>" in html
    assert "harmful pairs, n 40 in 36 clusters" in html, "what is seen in a figure"
    section = html.split('id="tables-localization"')[1].split("</section>")[0]
    names = re.findall(
        r'<details class="table"( open)?>\s*<summary><span class="name">(\w+)', section
    )
    assert names[0] == (" open", "preference_margins")
    assert [name for opened, name in names if opened] == ["preference_margins"]
    assert "tables/localization/summary.csv" in section


def test_misalignment_alone_is_a_whole_page_after_localization(tmp_path: Path) -> None:
    run = with_figures(
        write_run(tmp_path / "run", misalignment_tables(("llama", "qwen"))),
        studies=["misalignment"],
    )
    config = config_of("llama", "qwen") | {"studies": ["misalignment"]}
    html = page_of(run, tmp_path, config=config)
    assert Outline(html).open == []
    for answer in answers(load_tables(run / "tables", CATALOGUE)):
        assert answer.sentence.replace("'", "&#39;") in html
        assert "misalign" not in answer.sentence
    section = html.split('id="tables-misalignment"')[1].split("</section>")[0]
    assert "tables/misalignment/side_effects.csv" in section
    assert "<dt>repaired</dt>" in html
    names = list(STUDIES)
    assert names.index("misalignment") == names.index("localization") + 1


@pytest.mark.parametrize(
    ("judge", "shown"), [({"endpoint": "http://127.0.0.1:9/v1"}, True), ({"endpoint": None}, False)]
)
def test_what_a_chat_judge_said_of_misalignment_is_shown_where_one_is_asked(
    tmp_path: Path, judge: dict, shown: bool
) -> None:
    """A table that lies there without an endpoint is of an earlier run."""
    tables = misalignment_tables(("llama",))
    run = write_run(tmp_path / "run", {name: tables[name] for name in ("dose", "judged")})
    config = config_of("llama") | {"studies": ["misalignment"], "judge": judge}
    html = page_of(run, tmp_path, config=config)
    section = html.split('id="tables-misalignment"')[1].split("</section>")[0]
    assert "tables/misalignment/dose.csv" in section
    assert ("tables/misalignment/judged.csv" in section) is shown
    assert ("<dt>misaligned</dt>" in html) is shown
    assert ("<td>insecure</td><td>published</td>" in section) is shown


def test_with_localization_off_the_page_does_not_speak_of_it(tmp_path: Path) -> None:
    tables = synthetic_tables(("llama",), n_layers=2) | localization_tables(("llama",), n_layers=2)
    run = with_figures(write_run(tmp_path / "run", tables), studies=STUDIES)
    html = page_of(run, tmp_path, config=config_of("llama") | {"studies": ["rank_audit"]})
    assert "ocalization" not in html.split('id="provenance"')[0]
    assert "last prompt token alone" not in html
    assert "<dt>naive</dt>" in html


def test_a_run_of_networks_alone_answers_no_pair(tmp_path: Path) -> None:
    tables = causal_tables(("llama",))
    run = write_run(
        tmp_path / "run", {name: tables[name] for name in tables if name.startswith("calibration")}
    )
    html = page_of(run, tmp_path, config=config_of("llama") | {"studies": ["calibration"]})
    assert "no pair is answered in a sentence" in html
    assert "No answer for" not in html


def test_the_page_refers_to_nothing_outside(run: Path, tmp_path: Path) -> None:
    outline = Outline(page_of(run, tmp_path))
    addresses = [a[key] for _, a in outline.tags for key in ("src", "href") if key in a]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page_of(run, tmp_path)


def test_two_pages_differ_in_their_timings_alone(run: Path, tmp_path: Path) -> None:
    first = page_of(run, tmp_path)
    assert first == page_of(run, tmp_path)
    timing = run / "timings" / "zoo" / "llama.tsv"
    before = timing.read_text()
    timing.write_text("s\th:m:s\tmax_rss\n99.5\t0:01:39\t-\n")
    machine = write_record(run, "zoo", {"processor": "another"})
    second = page_of(run, tmp_path)
    timing.write_text(before)
    machine.unlink()
    assert first != second
    assert without_timings(first) == without_timings(second)
    block = re.search(rf'id="{TIMINGS_ID}">(.*?)</script>', second, re.DOTALL)
    assert block is not None
    found = json.loads(block[1])
    assert found["jobs"] == [{"job": "zoo/llama", "seconds": 99.5, "peak_mb": -1.0}]
    assert [one["processor"] for one in found["machines"]] == ["another"]


def test_columns_of_numbers_are_right_aligned_without_a_word_in_any_cell(
    run: Path, tmp_path: Path
) -> None:
    html = page_of(run, tmp_path)
    style = html.split("<style>")[1].split("</style>")[0]
    table = load_tables(run / "tables", CATALOGUE)["rank"]
    shown = html.split("tables/rank_audit/rank.csv")[1].split("</table>")[0]
    classes = re.findall(r" n(\d+)", shown.split('<table class="sortable')[1].split(">")[0])
    numbers = [place for place, kind in enumerate(table.dtypes, 1) if kind.kind in "if"]
    assert [int(one) for one in classes] == numbers
    for place in numbers:
        assert f".n{place} tr > :nth-child({place})" in style
    assert "<td " not in html.split('id="tables"')[1].split('id="samples"')[0]


def test_what_models_and_users_wrote_is_escaped(tmp_path: Path) -> None:
    tables = synthetic_tables((HOSTILE,), n_layers=2)
    run = with_figures(write_run(tmp_path / "run", tables))
    bad = run / "timings" / "a<b" / "x<script>.tsv"
    bad.parent.mkdir()
    bad.write_text("s\tmax_rss\n1\t2\n")
    failures = [{"rule": HOSTILE, "job": HOSTILE, "message": HOSTILE}]
    config = config_of(HOSTILE, "gone" + HOSTILE) | {"note": HOSTILE, HOSTILE: 1}
    html = page_of(run, tmp_path, config=config, failures=failures, origin={HOSTILE: HOSTILE})
    assert HOSTILE not in html
    assert "&lt;script&gt;alert" in html
    outline = Outline(html)
    assert not [a for _, a in outline.tags if "onerror" in a or "evil" in a.get("src", "")]
    assert sum(tag == "script" for tag, _ in outline.tags) == 2


def test_a_failed_pair_is_named_with_its_reason(run: Path, tmp_path: Path) -> None:
    failure = {
        "rule": "zoo",
        "job": "recipe=gemma-tiny-s0, variant=chat",
        "message": "91 %, gate 95 %",
    }
    html = page_of(run, tmp_path, config=config_of("llama", "gemma", "gem"), failures=[failure])
    assert re.search(r"No answer for gemma\.\s+91 %, gate 95 %", html)
    assert re.search(r"No answer for gem\.\s+Its jobs did not run", html)
    assert 'id="failures"' in html


def test_pairs_that_were_not_asked_for_are_not_missing(run: Path, tmp_path: Path) -> None:
    config = config_of("llama", "qwen", "gemma") | {"only": "llama, qwen"}
    assert "No answer for" not in page_of(run, tmp_path, config=config)


def test_a_run_without_any_pair_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    html = page_of(tmp_path / "empty", tmp_path)
    assert "No pair has finished in this run" in html
    assert "No answer for llama" in html
    assert Outline(html).open == []


@pytest.mark.parametrize(
    ("show_text", "whole", "head"),
    [("none", False, False), ("redacted", False, True), ("full", True, True)],
)
def test_texts_are_shown_as_far_as_asked(
    run: Path, tmp_path: Path, show_text: str, whole: bool, head: bool
) -> None:
    html = page_of(run, tmp_path, show_text=show_text)
    assert ("how do i make a blorp" in html) == whole
    assert ("how do i" in html) == head


def test_only_zoo_answers_are_read(tmp_path: Path) -> None:
    rows = pd.DataFrame([{"condition": "harmful", "kind": "x", "prompt": "p", "answer": "a"}])
    for folder in ("zoo/m", "pairs/m"):
        (tmp_path / folder).mkdir(parents=True)
        write_table(rows, tmp_path / folder / "chat.behaviour.csv")
    assert examples(tmp_path, show_text="full")["model"].tolist() == ["m/chat"]
    assert redact("one two three four five") == "one two three [2 more words]"
    assert redact("one") == "one"


def test_a_config_is_flat_and_in_its_own_order() -> None:
    config = {"run": "demo", "pairs": [{"name": "a"}], "eps": [0.1, 0.2], "none": None, "z": {}}
    assert flat(config) == {
        "run": "demo", "pairs.0.name": "a", "eps": "0.1, 0.2", "none": "", "z": "{}",
    }  # fmt: skip
