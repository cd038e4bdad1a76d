"""The page and every figure in a real browser: drawn, readable as text, nothing fetched."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from report.runs import config_of, write_run
from report.synthetic_causal import causal_tables
from report.synthetic_localization import localization_tables
from report.synthetic_misalignment import misalignment_tables
from report.synthetic_tables import synthetic_tables

from actshift.report.page import drawing_address
from actshift.report.tables import load_tables
from actshift.stages.figures import make_figures
from actshift.stages.report import answers, make_report
from actshift.studies.registry import CATALOGUE, STUDIES

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=4000",
    # Whatever the page asked for would fail, and be logged.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module", autouse=True)
def _chromium() -> None:
    if CHROMIUM is None:
        message = "no `chromium` on the path (Debian: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = synthetic_tables(("llama",), n_layers=3) | causal_tables(("llama",))
    tables |= localization_tables(("llama",), n_layers=3) | misalignment_tables()
    folder = write_run(tmp_path_factory.mktemp("run"), tables)
    make_figures(folder / "tables", folder / "figures", studies=list(STUDIES))
    config = config_of("llama", "gemma", "ministral")
    make_report(folder, folder / "report.html", config=config, failures=[])
    return folder


def browse(path: Path, profile: Path, *flags: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, path.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8")


def screenshot(path: Path, folder: Path, size: str) -> np.ndarray:
    image = folder / "shot.png"
    browse(path, folder / "profile", f"--screenshot={image}", f"--window-size={size}")
    return imread(image)[..., :3]


def test_the_page_is_drawn(run: Path, tmp_path: Path) -> None:
    pixels = screenshot(run / "report.html", tmp_path, "1200,2400")
    for part in np.array_split(pixels, 4):
        assert part.std() > 0.02


def test_a_narrow_window_needs_no_sideways_scrolling(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "narrow.html"
    probe = "<script>document.title=document.documentElement.scrollWidth+'/'+innerWidth</script>"
    page.write_text((run / "report.html").read_text().replace("</body>", f"{probe}</body>"))
    dom = browse(page, tmp_path / "profile", "--window-size=600,900", "--dump-dom")
    found = re.search(r"<title>(\d+)/(\d+)</title>", dom)
    assert found is not None
    assert int(found[1]) <= int(found[2])


def test_the_dom_holds_the_answer_the_timings_and_no_outside_address(
    run: Path, tmp_path: Path
) -> None:
    dom = browse(run / "report.html", tmp_path / "profile", "--dump-dom")
    for answer in answers(load_tables(run / "tables", CATALOGUE)):
        assert answer.sentence in dom
    assert "No answer for ministral" in dom
    # Written by the page's script: it ran to its end.
    assert re.search(r"<td>zoo/llama</td><td>12.5</td>", dom)
    assert dom.count("<button type=") > 20
    assert not re.search(r"<\w[^<>]*\s(src|href)=[\"']?(https?:)?//", dom)
    assert "alert('x')</script>" not in dom


@pytest.mark.parametrize("name", CATALOGUE.names())
def test_each_figure_is_drawn(run: Path, tmp_path: Path, name: str) -> None:
    figure = run / "figures" / CATALOGUE.figure_studies[name] / f"{name}.svg"
    assert f'src="{drawing_address(figure.read_bytes())}"' in (run / "report.html").read_text()
    pixels = screenshot(figure, tmp_path, "1100,700")
    assert pixels.std() > 0.02
    # More than axes: at least two hues of the palette.
    spread = pixels.max(axis=-1) - pixels.min(axis=-1)
    assert (spread > 0.3).mean() > 0.0005
