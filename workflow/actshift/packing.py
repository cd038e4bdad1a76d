"""Which rows of unequal length go through the model together."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf


def cut_by_length(lengths: Sequence[int], *, weight: int, overhead: int) -> list[list[int]]:
    """Cut rows into passes of similar length, so that little of them is padding.

    The cheapest cut of the rows in order of length, at sum over passes of weight * rows * longest +
    overhead (tokens); each row runs `weight` times, such as lanes. Rows without tokens are in no
    pass. Gives places of the rows of each pass, rising.
    """
    order = sorted(
        (place for place, length in enumerate(lengths) if length), key=lengths.__getitem__
    )
    # best[n]: cost of the n shortest rows, and where their last pass begins. Rows of one length
    # never part: a pass of longer rows would pad some of them.
    best: dict[int, tuple[int, int]] = {0: (0, 0)}
    for stop in range(1, len(order) + 1):
        longest = lengths[order[stop - 1]]
        if stop < len(order) and lengths[order[stop]] == longest:
            continue
        best[stop] = min(
            (cost + weight * longest * (stop - start) + overhead, start)
            for start, (cost, _) in best.items()
        )
    passes, stop = [], len(order)
    while stop:
        start = best[stop][1]
        passes.append(sorted(order[start:stop]))
        stop = start
    return passes[::-1]


def in_budget(
    lengths: Sequence[int],
    *,
    budget: int | float = inf,
    extra: int = 0,
    tokens: int | float = inf,
    rows: int | float = inf,
) -> Iterator[list[int]]:
    """Places in rising order of length, as many at a time as the limits allow, at least one.

    `budget` is the most padded tokens with `extra` more a row, `tokens` the most without them,
    `rows` the most rows.
    """

    def fits(batch: list[int]) -> bool:
        # Lengths rise: the last row is the longest.
        count, longest = len(batch), lengths[batch[-1]]
        return count * (longest + extra) <= budget and count * longest <= tokens and count <= rows

    return greedy(sorted(range(len(lengths)), key=lambda i: (lengths[i], i)), fits)


def greedy(order: Iterable[int], fits: Callable[[list[int]], bool]) -> Iterator[list[int]]:
    """Places in their order, as many at a time as fit, at least one."""
    batch: list[int] = []
    for place in order:
        if batch and not fits([*batch, place]):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
