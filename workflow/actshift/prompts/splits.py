"""Splits by cluster, and the guard that keeps `heldout` out of every choice.

Directions are fitted on `fit`, everything chosen (layer, coefficient, band, dose) is chosen on
`select`, claims are judged on `heldout`.
"""

import hashlib
from collections.abc import Iterable, Mapping

from actshift.errors import UserError
from actshift.prompts.records import Prompt
from actshift.vocab import SPLITS, Split

#: Shares of the clusters.
DEFAULT_FRACTIONS: Mapping[str, float] = {"fit": 0.6, "select": 0.15, "heldout": 0.25}


class HeldoutLeakError(RuntimeError):
    """A `heldout` prompt reached a function that chooses something: a fault in the code."""


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Refuse shares that are not shares of the three splits.

    Raises:
        UserError: naming the key.
    """
    unknown = sorted(set(fractions) - set(SPLITS))
    if unknown:
        raise UserError(f"splits: unknown split {', '.join(unknown)}; use {', '.join(SPLITS)}")
    bad = [f"{key}: {value}" for key, value in fractions.items() if not 0 <= value <= 1]
    total = sum(fractions.values())
    if bad or abs(total - 1) > 1e-9:
        fault = ", ".join(bad) or f"a sum of {total:g}"
        raise UserError(f"splits: shares must lie in 0..1 and sum to 1, found {fault}")


def split_of(
    cluster: str, *, fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int = 0
) -> Split:
    """Split of a cluster: a function of its name and the seed alone.

    u = sha256(seed, cluster) read as a number in [0, 1); the split is the one whose share, in the
    order fit, select, heldout, contains u. Other prompts play no part, so adding prompts never
    moves one from `heldout` to `fit`. The shares in `fractions` sum to 1.
    """
    check_fractions(fractions)
    digest = hashlib.sha256(f"{seed}\0{cluster}".encode()).digest()
    place = int.from_bytes(digest[:7], "big") / 2**56
    bound = 0.0
    used: list[Split] = [split for split in SPLITS if fractions.get(split, 0) > 0]
    for split in used:
        bound += fractions[split]
        if place < bound:
            return split
    return used[-1]


def forbid_heldout(prompts: Iterable[Prompt], *, where: str) -> None:
    """Call this first in every function that chooses something; `where` names the choice.

    Raises:
        HeldoutLeakError: One of the prompts is held out.
    """
    leaked = [prompt.id for prompt in prompts if prompt.split == "heldout"]
    if leaked:
        more = f" and {len(leaked) - 3} more" if len(leaked) > 3 else ""
        raise HeldoutLeakError(f"{where}: chosen on heldout prompts {', '.join(leaked[:3])}{more}")
