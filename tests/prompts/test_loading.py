"""Readers, layouts and the draw, on small files in the format of the public sets."""

import csv
import gzip
import json
import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.errors import UserError
from actshift.prompts.build import Item, draw, items_of
from actshift.prompts.readers import check_sha256, read_rows

ROWS = [{"prompt": "How?\nAnd, why?", "kind": "a"}, {"prompt": 'Say "é"', "kind": "b"}]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
WORDS = ("violin", "bakery", "harbour", "tractor", "lantern", "orchard", "meadow", "anchor",
         "chimney", "ribbon")  # fmt: skip


def write(folder, name: str):
    path = folder / name
    if ".csv" in name:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["prompt", "kind"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif ".jsonl" in name:
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    else:
        path.write_text(json.dumps(ROWS, indent=1))
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return path


@pytest.mark.parametrize(
    "name", ["p.csv", "p.csv.gz", "p.json", "p.json.gz", "p.jsonl", "p.jsonl.gz", "p.parquet"]
)
def test_every_format_gives_the_same_rows(tmp_path, name):
    assert read_rows(write(tmp_path, name), key="k") == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"", r"'p\.txt' is no prompt file; allowed: \.jsonl, \.json, \.csv, \.parquet"),
        ("p.gz", b"", "is no prompt file"),
        ("p.parquet.gz", b"", "is no prompt file"),
        ("p.jsonl", b"\n", "holds no rows"),
        ("p.jsonl", b'{"a": 1}\n{', r"p\.jsonl:2: not JSON"),
        ("p.jsonl", b"3\n", r"p\.jsonl:1: expected an object, found int"),
        ("p.json", b"{}", "expected a list of objects, found dict"),
        ("p.json", b"[{}, 2]", "item 2: expected an object"),
        ("p.csv", b"a,b\n1,2\n3\n", "row 2 has not as many fields"),
        ("p.csv", b'a,b\n1,"2\n', "not CSV"),
        ("p.csv", b"a\n\xe9\n", "not UTF-8"),
        ("p.parquet", b"PAR", "not a Parquet file"),
        ("p.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:-4], "no whole gzip file"),
        ("p.jsonl.gz", b"plain", "no whole gzip file"),
        ("p.jsonl.gz", POINTER, r"p\.jsonl\.gz is a Git LFS pointer, .*git lfs pull"),
        ("p.parquet", POINTER, r"p\.parquet is a Git LFS pointer, .*git lfs pull"),
        ("p.csv", b"\n<!DOCTYPE html><html>", r"p\.csv is a web page, .*fetch the raw file"),
        ("p.csv", b"PK\x03\x04...", r"p\.csv is a zip archive \(or a spreadsheet\)"),
        ("p.csv", b"a;b\n1;2, 3\n", r"its header 'a;b' has fields separated by ';', expected ','"),
        ("p.csv", b"a;b\n1;2\n", r"its header 'a;b' has fields separated by ';', expected ','"),
        ("p.csv", b"a\tb\n1\t2\n", r"has fields separated by '\\t', expected ','"),
        ("p.jsonl", b'\n[{"text": "a"},\n {}]', r"is one JSON list, .*: name it \.json"),
        ("p.json", b'{"text": "a"}\n{"text": "b"}\n', r"one object a line: name it \.jsonl"),
        ("p.json", b'["a"]', r"item 1: expected an object, found str; write \{\"text\": "),
    ],
)
def test_damaged_files_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_rows(tmp_path / name, key="prompts.x.path")
    assert str(caught.value).startswith("prompts.x.path: ")
    assert "\n" not in str(caught.value)


def test_missing_file_and_wrong_sum(tmp_path):
    with pytest.raises(UserError, match=r"prompts\.x\.path: no file"):
        read_rows(tmp_path / "none.csv", key="prompts.x.path")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*, a folder; give the path of a file"):
        read_rows(tmp_path / "folder.csv", key="prompts.x.path")
    # Real data come in place of a pointer, which has another sum, too.
    (tmp_path / "pointer.json").write_bytes(POINTER)
    with pytest.raises(UserError, match="is a Git LFS pointer"):
        check_sha256(tmp_path / "pointer.json", "00", key="prompts.x.sha256")
    path = write(tmp_path, "p.json")
    with pytest.raises(UserError, match=r"has sha256 .*, expected 00"):
        check_sha256(path, "00", key="prompts.x.sha256")


def texts(rows, layout, **columns):
    found = items_of(rows, layout=layout, columns=columns, key="prompts.x")
    return [None if item is None else item.text for item in found]


def test_advbench_and_alpaca():
    advbench = [{"goal": "Pick a lock", "target": "Sure, here"}]
    assert texts(advbench, "advbench") == ["Pick a lock"]
    alpaca = [
        {"instruction": "Name a colour.", "input": "", "output": "Red"},
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        {"instruction": "Name a fruit. ", "input": None, "output": "Fig"},
    ]
    assert texts(alpaca, "alpaca") == ["Name a colour.", None, "Name a fruit."]
    assert texts([{"instruction": "Name it.", "category": None}], "alpaca") == ["Name it."]


@pytest.mark.parametrize(
    ("dialogue", "text"),
    [
        ("\n\nHuman: Hello?\n\nAssistant: Hi.", "Hello?"),
        ("\n\nHuman: A\n\nAssistant: b\n\nHuman: C\n\nAssistant: d", "C"),
        ("\n\nHuman: A\n\nAssistant: b\n\nHuman: C\n\nHuman: D\n\nAssistant: ", "C\n\nD"),
        ("\n\nHuman: one\n\ntwo\n\nAssistant: b", "one\n\ntwo"),
        ("\n\nHuman: A\n\nAssistant: b\n\nHuman: C", "C"),
        ("\n\nAssistant: b", None),
        ("no turns", None),
        ("", None),
    ],
)
def test_hh_rlhf_takes_the_last_human_turns(dialogue, text):
    assert texts([{"chosen": dialogue, "rejected": "-"}], "hh_rlhf") == [text]


def test_messages():
    user, reply = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    system, last = {"role": "system", "content": "Be"}, {"role": "user", "content": "Bye"}
    rows = [[system, user, reply], [user, reply, last], [user, last], [reply], []]
    found = texts([{"messages": row} for row in rows], "messages")
    assert found == ["Hi", "Bye", "Hi\n\nBye", None, None]
    for bad in ("text", [1], [{"role": "user", "content": [1]}]):
        with pytest.raises(UserError, match="row 1"):
            texts([{"messages": bad}], "messages")


def test_columns():
    rows = [{"q": "One", "harm": 3}, {"q": None, "harm": 4}, {"q": " ", "harm": None}]
    found = items_of(rows, layout="columns", columns={"text": "q", "category": "harm"}, key="k")
    assert found == [Item(1, "One", category="3"), None, None]
    named = [{"text": "One", "condition": "x", "pair": "p", "other": 1}]
    assert items_of(named, layout="columns", columns={}, key="k") == [
        Item(1, "One", condition="x", pair="p")
    ]


@pytest.mark.parametrize(
    ("layout", "columns", "message"),
    [
        ("columns", {}, r"columns\.text: no column 'text' in the file; it has q, n"),
        ("columns", {"text": "q", "category": "kind"}, r"columns\.category: no column 'kind'"),
        ("columns", {"text": "q", "colour": "n"}, "'colour' is no prompt field; allowed: text,"),
        ("columns", {"text": "n"}, "row 1: column 'n': expected text, found int"),
        ("advbench", {}, "no column 'goal'"),
        ("tables", {}, "'tables' is unknown; allowed: columns, advbench"),
    ],
)
def test_columns_that_are_not_there(layout, columns, message):
    with pytest.raises(UserError, match=message):
        items_of([{"q": "One", "n": 1}], layout=layout, columns=columns, key="prompts.x")


def numbered(count: int) -> list[Item]:
    rng = random.Random(0)
    made = [" ".join(rng.sample(WORDS, 4)) + f" {i * 7919}" for i in range(count)]
    return [Item(i + 1, text) for i, text in enumerate(made)]


def test_the_draw_forgets_the_order_of_the_file():
    items = numbered(60)
    first = draw(items, condition="c", source="s", limit=20, seed=3).prompts
    assert len(first) == 20
    assert draw(items[::-1], condition="c", source="s", limit=20, seed=3).prompts == first
    other = draw(items, condition="c", source="s", limit=20, seed=4).prompts
    assert {one.text for one in other} != {one.text for one in first}
    all_of = draw(items, condition="c", source="s", seed=3)
    assert len(all_of.prompts) + len(all_of.rejected) == 60
    assert {one.text for one in first} <= {one.text for one in all_of.prompts}


def test_near_duplicates_are_counted_and_named():
    items = numbered(20)
    copies = [Item(100 + i, f"{one.text} (step by step)") for i, one in enumerate(items[:8])]
    named = [replace(one, category="general") for one in items + copies]
    drawn = draw(named, condition="harmful", source="list.csv")
    assert len(drawn.prompts) == 20
    assert len(drawn.rejected) == 8
    report = "\n".join(drawn.lines())
    assert "20 prompts" in report
    assert "8 near-duplicates rejected" in report
    assert all(repr(one.text) in report for one in drawn.rejected)
    assert {one.category for one in drawn.prompts} == {"general"}


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(0, 5), st.integers(1, 40))
def test_splits_go_by_cluster_and_pairs_stay_whole(count, seed, limit):
    sides = [
        Item(i, f"{text}{sign}", condition=side, category="k", pair=f"p{i}")
        for i, text in enumerate(one.text for one in numbered(count))
        for side, sign in (("question", "?"), ("statement", " indeed."))
    ]
    if limit < 2:
        with pytest.raises(UserError, match="no prompts are left"):
            draw(sides, condition="c", source="s", seed=seed, limit=limit)
        return
    prompts = draw(sides, condition="c", source="s", seed=seed, limit=limit).prompts
    assert len(prompts) <= limit
    by_pair: dict[str | None, set[tuple[str, str]]] = {}
    for one in prompts:
        by_pair.setdefault(one.pair, set()).add((one.cluster, one.split))
    assert all(len(found) == 1 for found in by_pair.values())
    assert len(prompts) == 2 * len(by_pair)
    assert len({one.cluster: one.split for one in prompts}) == len(
        {(one.cluster, one.split) for one in prompts}
    )


def test_alike_prompts_share_a_cluster_unless_the_source_says_otherwise():
    long = "Explain why the tide comes in twice a day along most of the rocky northern coasts"
    alike = long.replace("rocky northern", "sandy western")
    items = [Item(1, long), Item(2, alike), Item(3, "Name a fruit.")]
    found = draw(items, condition="c", source="s").prompts
    assert len(found) == 3
    assert len({one.cluster for one in found}) == 2
    named = [Item(i.row, i.text, cluster=f"item {i.row}") for i in items]
    assert len({one.cluster for one in draw(named, condition="c", source="s").prompts}) == 3


def test_one_large_cluster_is_pointed_out():
    items = [Item(i.row, i.text, cluster="tides") for i in numbered(12)]
    lines = draw(items, condition="c", source="s").lines()
    assert any("cluster tides holds 12 prompts" in line for line in lines)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "no prompts are left"),
        ([Item(1, "A", pair="p", condition="x")], "pair 'p' has 1 sides"),
        (
            [Item(1, "A", pair="p", condition="x"), Item(2, "B", pair="p", condition="x")],
            "pair 'p' has 2 sides in 1 conditions",
        ),
        ([Item(7, "A", split="train")], "row 7: split 'train' is not one of"),
    ],
)
def test_sets_that_make_no_sense(items, message):
    with pytest.raises(UserError, match=message):
        draw(items, condition="c", source="s", key="prompts.x")


def test_the_split_of_the_source_is_kept():
    items = [Item(i, text, split="heldout") for i, text in enumerate(WORDS)]
    assert {one.split for one in draw(items, condition="c", source="s").prompts} == {"heldout"}
