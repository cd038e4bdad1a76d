"""Rows are cut into passes at the least cost; every row with tokens is in exactly one."""

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.packing import cut_by_length


def cost(passes: list[list[int]], lengths: list[int], weight: int, overhead: int) -> int:
    longest = [max(lengths[row] for row in rows) for rows in passes]
    sizes = [len(rows) for rows in passes]
    return sum(weight * a * b + overhead for a, b in zip(longest, sizes, strict=True))


def cheapest(lengths: list[int], weight: int, overhead: int) -> int:
    """Over every way to cut the sorted rows."""
    rows = sorted((place for place, one in enumerate(lengths) if one), key=lambda i: lengths[i])
    if not rows:
        return 0
    ways = [
        [rows[a:b] for a, b in pairwise([0, *cuts, len(rows)])]
        for count in range(len(rows))
        for cuts in combinations(range(1, len(rows)), count)
    ]
    return min(cost(way, lengths, weight, overhead) for way in ways)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=7), st.integers(1, 20), st.integers(0, 500))
def test_the_cut_is_the_cheapest_and_leaves_no_row_out(
    lengths: list[int], weight: int, overhead: int
) -> None:
    passes = cut_by_length(lengths, weight=weight, overhead=overhead)
    assert sorted(row for rows in passes for row in rows) == [
        place for place, one in enumerate(lengths) if one
    ]
    assert all(rows == sorted(rows) and rows for rows in passes)
    assert cost(passes, lengths, weight, overhead) == cheapest(lengths, weight, overhead)


def test_short_and_long_answers_go_apart_where_that_pays() -> None:
    lengths = [6, 14] * 3
    assert cut_by_length(lengths, weight=10, overhead=100) == [[0, 2, 4], [1, 3, 5]]
    assert cut_by_length(lengths, weight=10, overhead=1000) == [[0, 1, 2, 3, 4, 5]]


def test_rows_of_one_length_stay_together_however_many_there_are() -> None:
    lengths = [place % 40 + 1 for place in range(30_000)]
    passes = cut_by_length(lengths, weight=1, overhead=256)
    met = [{lengths[row] for row in rows} for rows in passes]
    assert sum(map(len, met)) == len(set().union(*met)) == 40
    assert sum(map(len, passes)) == 30_000
