import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from actshift.errors import UserError
from actshift.io.tables import checksum_of, read_table, table_damage, write_table


def test_a_table_survives_the_round_trip(tmp_path):
    table = pd.DataFrame(
        {"pair": ["None", "NA"], "x": [1 / 3, np.inf], "n": [1, 2], "y": [np.nan, 1e-300]}
    )
    write_table(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv"), table, rtol=1e-9)


def test_equal_tables_are_equal_bytes(tmp_path):
    for name in "ab":
        write_table(pd.DataFrame({"x": [0.1 + 0.2], "s": ["é"]}), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() == "x,s\n0.3,é\n".encode()


def test_missing_and_empty_tables_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no such table"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").touch()
    with pytest.raises(UserError, match="not a CSV table"):
        read_table(tmp_path / "t.csv")


def test_an_edited_table_is_refused_and_a_table_without_a_checksum_is_read(tmp_path):
    path = tmp_path / "t.csv"
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, 0.25]})
    write_table(table, path)
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert table_damage(path) == [f"{path}: content differs from its sha256 in t.csv.sha256"]
    with pytest.raises(UserError, match=r"t\.csv: content differs .* undo the edit"):
        read_table(path)
    write_table(table, path)
    assert table_damage(path) == []
    checksum_of(path).unlink()
    pd.testing.assert_frame_equal(read_table(path), table)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_reads_the_checksum(tmp_path):
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")
    check = ["sha256sum", "--status", "-c", "t.csv.sha256"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "t.csv").write_text("a\n2\n")
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 1
