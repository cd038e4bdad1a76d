"""The page of a run in which a pair missed its gate."""

import re
from pathlib import Path

from report.runs import config_of, write_run
from report.synthetic_tables import synthetic_tables

from actshift.io.missed import Missed, mark_missed
from actshift.stages.report import make_report


def test_a_pair_whose_models_missed_their_gate_is_named_with_it_once(tmp_path: Path) -> None:
    write_run(tmp_path / "run", synthetic_tables(("llama",), n_layers=2))
    missed = Missed("zoo gemma-tiny-s0/chat", "gate missed, refused 91 % of 95 %", "All.", "zoo")
    for stage in ("rank_audit", "spillover"):
        mark_missed(tmp_path / "run" / "pairs" / "gemma" / stage, missed)
    page = tmp_path / "report.html"
    make_report(tmp_path / "run", page, config=config_of("llama", "gemma", "gem"), failures=[])
    html = page.read_text(encoding="utf-8")
    told = "zoo gemma-tiny-s0/chat: gate missed, refused 91 % of 95 %."
    assert re.search(rf"No answer for gemma\.\s+{re.escape(told)}\s*</p>", html)
    assert re.search(r"No answer for gem\.\s+Its jobs did not run", html)
    assert 'id="failures"' not in html
