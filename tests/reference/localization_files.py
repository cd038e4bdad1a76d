"""Row files of localization made by hand, for tests of its attribution."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from actshift.studies.localization.tables.inputs import PairFiles

POSITIONS = ("last_prompt", "last_chosen", "last_rejected")


def pair_files(
    gap: np.ndarray,
    norms: Mapping[str, np.ndarray],
    *,
    clusters: Sequence[str],
    lengths: np.ndarray | None = None,
    shares: np.ndarray | None = None,
) -> PairFiles:
    """Files of one condition at natural length.

    Args:
        gap: Wanted margin of tuned minus base, by pair; all of it on the chosen side.
        norms: Distances `[pair, layer]` by position.
        clusters: Of each pair.
        lengths: Tokens of prompt, chosen and rejected; 9, 10 and 12 without.
        shares: Share of the gap that a patch gives back, by layer; no patches without.
    """
    count = len(gap)
    ids = [f"pair-{i:03d}" for i in range(count)]
    tokens = np.tile([9, 10, 12], (count, 1)) if lengths is None else lengths
    rng = np.random.default_rng(99)
    base = -rng.uniform(10, 20, size=(count, 2))
    tuned = base + np.column_stack([gap, np.zeros(count)])
    pairs = pd.DataFrame({"pair_id": ids, "condition": "harmful", "kind": "helpful"})
    pairs["cluster"], pairs["length"], pairs["fold"] = list(clusters), "natural", 0
    pairs[["n_prompt", "n_chosen", "n_rejected"]] = tokens
    plain = pd.concat(
        [
            _scores(ids, scores).assign(model=role)
            for role, scores in (("base", base), ("tuned", tuned))
        ]
    )
    far = [
        pd.DataFrame(
            {
                "pair_id": ids,
                "length": "natural",
                "layer": layer,
                "position": position,
                "norm": norm,
            }
        )
        for position in POSITIONS
        for layer, norm in enumerate(norms[position].T)
    ]
    return PairFiles(
        pairs=pairs,
        plain=plain,
        patches=_patches(ids, base, gap, () if shares is None else shares),
        swaps=_scores([], np.zeros((0, 2))).assign(operation=[], part=[], layer=[]),
        distances=pd.concat(far),
        bases=pd.DataFrame(),
    )


def _patches(
    ids: list[str], base: np.ndarray, gap: np.ndarray, shares: Iterable[float]
) -> pd.DataFrame:
    """Forward patches of all positions and of the last prompt token."""
    patches = [
        _scores(ids, base + np.column_stack([share * gap, np.zeros(len(gap))])).assign(
            lane=f"{positions}@{layer}", layer=layer, positions=positions
        )
        for positions in ("all", "last_prompt")
        for layer, share in enumerate(shares)
    ]
    empty = _scores([], np.zeros((0, 2))).assign(lane=[], layer=[], positions=[])
    found = pd.concat(patches) if patches else empty
    found = found.assign(direction="forward", experiment="patch", alpha=1.0, rank=np.nan)
    return found.assign(basis=None, keep_rest=True, source="donor", draw=np.nan)


def _scores(ids: list[str], scores: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "pair_id": ids,
            "length": "natural",
            "logp_chosen": scores[:, 0],
            "logp_rejected": scores[:, 1],
        }
    )
