"""The sign-flip test the slow way: every pattern by itertools."""

from itertools import product


def sign_flip_p(a: list[float], b: list[float], clusters: list[str]) -> tuple[float, float, float]:
    """Two-sided, greater and less, over all sign patterns of all clusters."""
    sums: dict[str, float] = {}
    for before, after, cluster in zip(a, b, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + after - before
    observed = sum(sums.values())
    totals = [
        sum(sign * one for sign, one in zip(signs, sums.values(), strict=True))
        for signs in product((1, -1), repeat=len(sums))
    ]
    tie = 1e-9
    counts = (
        sum(abs(total) >= abs(observed) - tie for total in totals),
        sum(total >= observed - tie for total in totals),
        sum(total <= observed + tie for total in totals),
    )
    two, greater, less = (count / len(totals) for count in counts)
    return two, greater, less
