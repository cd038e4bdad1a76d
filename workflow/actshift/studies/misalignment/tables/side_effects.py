"""Table `side_effects`: what an edit does to code questions and to harmless ones."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from actshift.maths.cluster_rows import columns
from actshift.studies.misalignment.tables.groups import (
    ALL_NULLS,
    Bucket,
    Group,
    buckets,
    groups_of,
    known_means,
)
from actshift.studies.misalignment.tables.inputs import Lanes, Rows
from actshift.vocab import CODE, NONCODE

#: Edits whose side effects are told; relatives are not.
CONTROLS = ("plain", "direction", "mapped", *ALL_NULLS)
SPLIT = "heldout"


def side_effect_rows(lanes: Lanes, *, pair: str, harmless: set[str], seed: int) -> Rows:
    """A row a lane (a null's draws together) and kind of question.

    Args:
        lanes: Of one pair.
        pair: Its name.
        harmless: Questions that the untuned model does not refuse.
        seed: Of resampling.
    """
    groups = [one for one in groups_of(lanes) if _is_told(one)]
    rows: Rows = []
    for asked, places in _asked(lanes, harmless):
        facts: dict[str, object] = {"pair": pair, "split": SPLIT, "asked": asked}
        for bucket in buckets(lanes, groups, places, seed=seed):
            rows += [facts | row for row in _rows(bucket)]
    return rows


def _is_told(group: Group) -> bool:
    return group.facts["control"] in CONTROLS and not group.facts["orthogonal"]


def _asked(lanes: Lanes, harmless: set[str]) -> Iterator[tuple[str, Int[np.ndarray, " prompt"]]]:
    yield "code", lanes.asked(condition=CODE, split=SPLIT)
    places = lanes.asked(condition=NONCODE, split=SPLIT)
    ids: Sequence[str] = lanes.prompts["prompt_id"].tolist()
    yield "harmless", np.array([at for at in places if ids[at] in harmless], dtype=np.int64)


def _rows(bucket: Bucket) -> Rows:
    code, plain = bucket.edited("code"), bucket.plain("code")
    change = code - plain
    means = {
        **{name: bucket.edited(name) for name in ("on_topic", "insecure", "refused", "degenerate")},
        **{f"{name}_plain": bucket.plain(name) for name in ("on_topic", "refused")},
        **{"code": code, "code_plain": plain},
    }
    told = {name: known_means(values, axis=1) for name, values in means.items()}
    parts = [
        [_facts(one) for one in bucket.groups],
        columns("code_change", change.mean(axis=1), bucket.sample.change_ends(change)),
        [
            {"kl_first": float(kl), **{name: float(one[at]) for name, one in told.items()}}
            for at, kl in enumerate(bucket.kl)
        ],
        bucket.statuses(),
    ]
    return [
        bucket.sample.facts | {name: value for part in row for name, value in part.items()}
        for row in zip(*parts, strict=True)
    ]


def _facts(group: Group) -> dict[str, object]:
    return {**group.facts, "scale": group.scale, "cosine": group.cosine}
