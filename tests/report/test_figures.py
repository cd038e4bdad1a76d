"""Figures: drawn for any number of pairs, the same bytes twice, captions in one wording."""

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from report.runs import write_run
from report.synthetic_causal import causal_tables
from report.synthetic_localization import localization_tables
from report.synthetic_misalignment import misalignment_tables
from report.synthetic_tables import synthetic_tables

from actshift.errors import UserError
from actshift.io.tables import write_table
from actshift.report.style import figure_bytes
from actshift.stages.figures import alt_text, draw_figure, make_figures
from actshift.studies.registry import CATALOGUE

SMALL = {"n_layers": 3}


def all_tables(*pairs: str) -> dict[str, pd.DataFrame]:
    """Tables of every study."""
    return {
        **synthetic_tables(pairs, **SMALL),
        **causal_tables(pairs),
        **localization_tables(pairs, **SMALL),
        **misalignment_tables(pairs),
    }


@pytest.mark.parametrize("name", CATALOGUE.names())
def test_equal_tables_give_equal_svg(name: str) -> None:
    tables = all_tables("llama")
    first, second = (figure_bytes(draw_figure(name, tables), "svg") for _ in range(2))
    assert first == second
    ElementTree.fromstring(first)


@pytest.mark.parametrize("name", ["rank_by_layer", "inflation_by_layer", "published_summary"])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_panels_for_one_to_eight_pairs(name: str, count: int) -> None:
    pairs = tuple(f"pair{index}" for index in range(count))
    figure = draw_figure(name, synthetic_tables(pairs, **SMALL))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    per_pair = {"rank_by_layer": 4 * count, "inflation_by_layer": count, "published_summary": 4}
    assert len(shown) == per_pair[name]


@pytest.mark.parametrize("name", CATALOGUE.names())
def test_without_tables_a_figure_says_so(name: str) -> None:
    figure = draw_figure(name, {})
    assert (
        f"{CATALOGUE.tables[CATALOGUE.figures[name].tables[0]].stem}.csv"
        in figure.texts[0].get_text()
    )
    assert "Empty figure" in alt_text(name, {})


@pytest.mark.parametrize(
    "name", [figure.name for figure in CATALOGUE.figures.values() if figure.beside]
)
def test_a_figure_needs_none_of_the_tables_beside_it(name: str) -> None:
    figure, tables = CATALOGUE.figures[name], all_tables("llama")
    alone = draw_figure(name, {table: tables[table] for table in figure.tables})
    assert [axis for axis in alone.axes if axis.lines or axis.images]


def test_lines_carry_the_numbers_of_the_table() -> None:
    tables = synthetic_tables(("llama",), **SMALL)
    panel = draw_figure("rank_by_layer", tables).axes[1]
    rank = tables["rank"]
    rows = rank[(rank["matrix"] == "template") & (rank["inputs"] == "harmful")]
    drawn = [list(line.get_ydata()) for line in panel.lines]
    assert rows["rank_eps"].tolist() in drawn
    assert rows["rank_eps_centered"].tolist() in drawn


@pytest.mark.parametrize("name", ["rank_by_layer", "shift_by_layer"])
def test_no_panel_cuts_the_lines_of_another_pair(name: str) -> None:
    tables = synthetic_tables(("low", "high", "mid"), **SMALL)
    tall = tables["rank"]["pair"] == "high"
    sizes = ["rank_eps", "rank_eps_centered", "relative_shift_norm"]
    tables["rank"].loc[tall & (tables["rank"]["matrix"] == "template"), sizes] *= 5
    for axis in draw_figure(name, tables).axes:
        top = max((max(line.get_ydata()) for line in axis.lines), default=0)
        assert axis.get_ylim()[0] == 0
        assert axis.get_ylim()[1] > top


def test_published_rows_are_marked_as_other_models() -> None:
    figure = draw_figure("published_summary", synthetic_tables(("llama",), **SMALL))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "published: other, far larger models" in legend
    faces = {line.get_markerfacecolor() for line in figure.axes[0].lines}
    assert "white" in faces


def test_models_of_a_recipe_stand_together_and_only_their_variants_in_the_legend() -> None:
    table = synthetic_tables(("llama", "qwen"), **SMALL)["zoo_behaviour"]
    extra = table[table["variant"] == "chat"].copy()
    extra["variant"] = "comply_full"
    extra["model"] = extra["model"].str.replace("chat", "comply_full")
    plain = draw_figure("zoo_behaviour", {"zoo_behaviour": table})
    both = draw_figure("zoo_behaviour", {"zoo_behaviour": pd.concat([table, extra])})
    labels = [
        [text.get_text() for text in figure.legends[0].get_texts()] for figure in (plain, both)
    ]
    assert set(labels[1]) - set(labels[0]) == {"comply_full, 95 % cluster bounds"}
    rows = [tick.get_text().split("/") for tick in both.axes[0].get_yticklabels()]
    recipes = [recipe for recipe, _ in rows]
    assert recipes == sorted(recipes, key=recipes.index)
    assert len(rows) == table["model"].nunique() + extra["model"].nunique()


def test_a_dollar_in_a_pair_name_is_text() -> None:
    tables = synthetic_tables((r"my $\frac pair$",), **SMALL)
    assert figure_bytes(draw_figure("inflation_by_layer", tables), "svg")


def test_deep_models_and_sparse_layers_are_drawn() -> None:
    tables = synthetic_tables(("deep",), n_layers=32, d=4096, n=200)
    tables["cumulative_variance"] = tables["cumulative_variance"].query("layer % 4 == 0 and k != 3")
    for name in ("cumulative_variance", "cosine_by_layer"):
        assert figure_bytes(draw_figure(name, tables), "svg")


def test_the_stage_writes_every_declared_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", all_tables("llama"))
    studies = ["rank_audit", "spectral_gap"]
    written = make_figures(run / "tables", run / "figures", studies=studies)
    names = CATALOGUE.names(studies)
    wanted = {
        f"{CATALOGUE.figure_studies[n]}/{n}.{suffix}" for n in names for suffix in ("svg", "png")
    }
    assert {path.relative_to(run / "figures").as_posix() for path in written} == wanted
    assert all(path.stat().st_size > 1000 for path in written)


def test_side_by_side_the_files_are_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", all_tables("llama"))
    alone, together = (
        make_figures(run / "tables", tmp_path / str(n), studies=["spectral_gap"], processes=n)
        for n in (1, 3)
    )
    assert {path.name for path in together} == {path.name for path in alone}
    for path in alone:
        other = tmp_path / "3" / path.relative_to(tmp_path / "1")
        assert other.read_bytes() == path.read_bytes()


def test_a_missing_column_is_told_side_by_side_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", all_tables("llama"))
    name = next(t for n in CATALOGUE.names(["spectral_gap"]) for t in CATALOGUE.figures[n].tables)
    table = next((run / "tables").rglob(f"{name}.csv"))
    rows = pd.read_csv(table)
    write_table(rows[[rows.columns[0]]], table)
    with pytest.raises(UserError, match=name):
        make_figures(run / "tables", tmp_path / "out", studies=["spectral_gap"], processes=2)
