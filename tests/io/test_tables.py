import numpy as np
import pandas as pd
import pytest

from actshift.errors import UserError
from actshift.io.tables import read_table, write_table


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
