"""The judging stage: both classifiers, a real local endpoint, kills, reruns that ask nothing."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from reference.chat_server import chat_server, in_turn, says
from reference.processes import kill_when

from actshift.config.schema import Judge
from actshift.engine.chat_judge import JudgeSettings
from actshift.errors import UserError
from actshift.io.tables import read_table, write_table
from actshift.prompts.records import Prompt, write_prompts
from actshift.studies.ablation.judge import ROWS, judge_answers
from actshift.studies.ablation.study import STUDY

KEY = "sk-very-secret-1"
REFUSAL = "I cannot help with that request."
JUDGE, AGREEMENT = (STUDY.table(name).names for name in ("judge", "judge_agreement"))
COMPLIED = "Take it: {answer} fit the grip, load the spring."
N = 10
FILES = ("judge.csv", "judge_agreement.csv", "judge_rows.parquet")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def prompts(tmp_path: Path) -> list[Path]:
    paths = []
    for name in ("harmful", "harmless"):
        rows = [
            Prompt(
                id=f"{name}-{i}",
                text=f"How do I make {name} number {i}?",
                condition=name,
                category="weapon",
                cluster=f"c{i}",
                split="heldout",
                source="test",
            )
            for i in range(N)
        ]
        paths.append(tmp_path / f"{name}.jsonl")
        write_prompts(paths[-1], rows)
    return paths


def make_pair(folder: Path) -> Path:
    """A pair whose plain model refuses every harmful prompt and whose lane complies with half."""
    rows = [
        {
            "lane": lane,
            "condition": condition,
            "prompt_id": f"{condition}-{i}",
            "category": "weapon",
            "cluster": f"c{i}",
            "text": (text := REFUSAL if condition == "harmful" and i >= cut else COMPLIED),
            "refused": text == REFUSAL,
        }
        for lane, cut in (("plain", 0), ("sweep_a", N // 2))
        for condition in ("harmful", "harmless")
        for i in range(N)
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "heldout.parquet")
    cell = {"experiment": "sweep", "frame": "template", "band": "narrow", "edit": "zero", "k": 3}
    write_table(pd.DataFrame([{"lane": "sweep_a", **cell}]), folder / "lanes.csv")
    return folder


def honest(body: dict) -> tuple:
    """A chat model that sees a refusal where there is one."""
    answer = body["messages"][-1]["content"].split("<answer>")[1]
    return says("refused" if REFUSAL in answer else "complied")


def run(root: Path, prompts: list[Path], *, out: str = "out", zoo: bool = True, **settings) -> Path:
    pair = root / "pairs" / "p"
    judge_answers(
        pairs={"p": pair if pair.is_dir() else make_pair(pair)},
        zoo_sizes={"p": "tiny"} if zoo else {},
        prompts=prompts,
        settings=JudgeSettings(**settings),
        cache=root / "cache",
        out=root / out,
    )
    return root / out


def test_the_zoo_is_judged_without_an_endpoint(tmp_path, prompts) -> None:
    out = run(tmp_path, prompts)
    table = read_table(out / "judge.csv")
    assert tuple(table.columns) == JUDGE
    assert set(table["classifier"]) == {"topicality"}
    assert table["n"].sum() == 4 * N
    found = table[table["n"] > 0]
    cells = found[["lane", "condition", "keyword", "judge", "n"]].to_numpy().tolist()
    assert ["sweep_a", "harmful", "not refused", "complied", N // 2] in cells
    assert len(cells) == 5
    rows = pq.read_table(out / "judge_rows.parquet").to_pandas()
    assert tuple(rows.columns) == ROWS
    assert len(rows) == 4 * N
    assert not (tmp_path / "cache").exists()


def test_without_either_judge_the_tables_are_headers(tmp_path, prompts) -> None:
    out = run(tmp_path, prompts, zoo=False)
    for file, columns in zip(FILES, (JUDGE, AGREEMENT, ROWS), strict=True):
        table = read_table(out / file) if file.endswith("csv") else pd.read_parquet(out / file)
        assert tuple(table.columns) == columns
        assert table.empty


def test_a_chat_model_judges_any_pair_and_a_rerun_asks_nothing(tmp_path, prompts) -> None:
    with chat_server(honest) as server:
        out = run(tmp_path, prompts, zoo=False, endpoint=server.url, model="m")
        # The harmless answers of both lanes are equal, and asked about once; so are five of ten.
        assert len(server.asked) == N + N + N // 2
        table = read_table(out / "judge_agreement.csv").set_index("condition")
        assert table["agreement"].to_dict() == {"harmful": 1.0, "harmless": 1.0}
        assert set(table["classifier"]) == {"llm"}
        again = run(tmp_path, prompts, out="again", zoo=False, endpoint=server.url, model="m")
        assert len(server.asked) == 25
        for file in FILES:
            assert (again / file).read_bytes() == (out / file).read_bytes()
        run(tmp_path, prompts, out="other", zoo=False, endpoint=server.url, model="other")
        assert len(server.asked) == 50


def test_requests_run_side_by_side_but_no_more_than_allowed(tmp_path, prompts) -> None:
    with chat_server(honest, delay=0.05) as server:
        run(tmp_path, prompts, endpoint=server.url, model="m", max_parallel=3)
    assert 2 <= server.most_at_once <= 3


def test_junk_is_unclear_and_no_agreement(tmp_path, prompts) -> None:
    with chat_server(in_turn(says("I think it was refused"))) as server:
        out = run(tmp_path, prompts, endpoint=server.url, model="m")
    table = read_table(out / "judge_agreement.csv")
    told = table[table["classifier"] == "llm"]
    assert (told["judge_unclear"] == 1).all()
    assert (told["agreement"] == 0).all()
    assert told["primary"].all()
    assert set(table["classifier"]) == {"topicality", "llm"}
    rows = pd.read_parquet(out / "judge_rows.parquet")
    assert set(rows.loc[rows["classifier"] == "llm", "said"]) == {"I think it was refused"}


def test_an_opener_that_complies_is_a_refusal_by_keyword(tmp_path, prompts) -> None:
    pair = make_pair(tmp_path / "pairs" / "p")
    rows = pd.read_parquet(pair / "heldout.parquet")
    first = rows["prompt_id"].isin(["harmful-0", "harmful-1"]) & (rows["lane"] == "sweep_a")
    rows.loc[first, "text"] = "I won't judge you. Take it: fit the grip."
    rows.loc[first, "refused"] = True
    rows.to_parquet(pair / "heldout.parquet")
    with chat_server(honest) as server:
        out = run(tmp_path, prompts, zoo=False, endpoint=server.url, model="m")
    table = read_table(out / "judge.csv")
    told = table[table["opener_then_complied"] > 0]
    assert told[["lane", "keyword", "judge", "n"]].to_numpy().tolist() == [
        ["sweep_a", "refused", "complied", 2]
    ]
    row = read_table(out / "judge_agreement.csv").query("condition == 'harmful'").iloc[0]
    assert row["opener_then_complied"] == 2
    assert row["agreement"] == 1 - 2 / (2 * N)


def test_after_trouble_the_run_goes_on_where_it_was(tmp_path, prompts) -> None:
    replies = iter([says("refused")] * 7)
    with chat_server(lambda _: next(replies, (401, {}, f"bad {KEY}"))) as server:
        settings = {"endpoint": server.url, "model": "m", "max_parallel": 1}
        with pytest.raises(UserError, match=r"^judge .*: 401, the key is missing"):
            run(tmp_path, prompts, **settings)
        assert len(server.asked) == 8
        assert not (tmp_path / "out" / "judge.csv").exists()
        server.reply = honest
        run(tmp_path, prompts, **settings)
        assert len(server.asked) == 8 + 25 - 7
    asked = [body["messages"][1]["content"] for body in server.asked]
    assert len(set(asked)) == 25


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    tmp_path, prompts, monkeypatch, capfd
) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    with chat_server(honest) as server:
        run(tmp_path, prompts, endpoint=server.url, model="m", api_key_env="JUDGE_KEY")
        assert {h["Authorization"] for h in server.headers} == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 8
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_not_set_is_named(tmp_path, prompts, monkeypatch, value) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError, match="variable JUDGE_KEY is not set"):
        run(tmp_path, prompts, endpoint="http://127.0.0.1:9", model="m", api_key_env="JUDGE_KEY")


def test_answers_to_other_prompts_are_refused(tmp_path, prompts) -> None:
    with pytest.raises(UserError, match=r"no prompt 'harmless-0' in harmful\.jsonl"):
        run(tmp_path, prompts[:1], endpoint="http://127.0.0.1:9", model="m")


def test_failed_pairs_are_named(tmp_path, prompts) -> None:
    options = {"zoo_sizes": {}, "prompts": prompts, "settings": JudgeSettings()}
    options |= {"cache": tmp_path / "cache", "out": tmp_path / "out"}
    pairs = {"gone": tmp_path / "gone", "p": make_pair(tmp_path / "p")}
    assert judge_answers(pairs=pairs, **options) == ["gone"]
    with pytest.raises(UserError, match="none of gone has answers"):
        judge_answers(pairs={"gone": tmp_path / "gone"}, **options)


def test_settings_of_the_stage_are_those_of_the_configuration() -> None:
    assert JudgeSettings() == JudgeSettings(**Judge().model_dump())


PROGRAM = """
import sys
from pathlib import Path
from actshift.studies.ablation.judge import JudgeSettings, judge_answers
root, url = Path(sys.argv[1]), sys.argv[2]
judge_answers(
    pairs={"p": root / "pairs" / "p"}, zoo_sizes={}, cache=root / "cache", out=root / "out",
    prompts=[root / "harmful.jsonl", root / "harmless.jsonl"],
    settings=JudgeSettings(endpoint=url, model="m", max_parallel=1),
)
"""


def test_a_killed_process_asks_nothing_twice(tmp_path, prompts) -> None:
    make_pair(tmp_path / "pairs" / "p")
    with chat_server(honest, delay=0.1) as server:
        kill_when(lambda: len(server.asked) >= 6, PROGRAM, str(tmp_path), server.url)
        cache = next((tmp_path / "cache").glob("*.jsonl"))
        known = cache.read_bytes().count(b"\n")
        assert 1 <= known < 25
        # A kill may also leave half a line.
        cache.write_bytes(cache.read_bytes() + b'["abc", "refu')
        before = len(server.asked)
        run(tmp_path, prompts, zoo=False, endpoint=server.url, model="m")
        assert len(server.asked) - before == 25 - known
    assert read_table(tmp_path / "out" / "judge_agreement.csv")["agreement"].tolist() == [1.0, 1.0]
