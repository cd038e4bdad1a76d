"""Tables `steering` and `transfer`."""

import numpy as np

from actshift.maths.cluster_rows import columns
from actshift.studies.misalignment.tables.groups import Bucket, Group, buckets, groups_of
from actshift.studies.misalignment.tables.inputs import Lanes, Rows
from actshift.studies.misalignment.tables.lane_rows import SPLITS, lane_rows
from actshift.vocab import NONCODE

#: The edit that a logit bias stands for.
EDIT, BIAS = "last_token", "logit_bias"


def steering_rows(lanes: Lanes, *, pair: str, seed: int) -> Rows:
    """Edits within a model: its own directions, nulls and relatives.

    Args:
        lanes: Of the pair's `steering`.
        pair: Its name.
        seed: Of resampling.
    """
    rows = lane_rows(lanes, pair=pair, reference="direction", alike=(), seed=seed)
    beside = _beside_edit(lanes, seed=seed)
    return [row | beside.get(_name(row), {}) for row in rows]


def transfer_rows(lanes: Lanes, *, pair: str, seed: int) -> Rows:
    """Edits with other models' directions.

    Args:
        lanes: Of the receiver's `transfer`.
        pair: The receiver.
        seed: Of resampling.
    """
    return lane_rows(lanes, pair=pair, reference="mapped", alike=("source",), seed=seed)


def _beside_edit(lanes: Lanes, *, seed: int) -> dict[tuple[object, ...], dict[str, object]]:
    """Columns of the logit biases, each against the edit of the same vector.

    same_first_token = share of questions that begin with the same token under both;
    against_edit = repaired under the bias minus repaired under the edit.
    """
    groups = groups_of(lanes)
    edits = {_of_vector(one): one for one in groups if one.facts["protocol"] == EDIT}
    biases = [one for one in groups if one.facts["protocol"] == BIAS and edits.get(_of_vector(one))]
    found: dict[tuple[object, ...], dict[str, object]] = {}
    for split in SPLITS:
        asked = lanes.asked(condition=NONCODE, split=split)
        for bucket in buckets(lanes, biases, asked, seed=seed):
            for group in bucket.groups:
                beside = _pair_columns(bucket, group, edits[_of_vector(group)])
                found[_name({**group.facts, "split": split})] = beside
    return found


def _pair_columns(bucket: Bucket, bias: Group, edit: Group) -> dict[str, object]:
    lanes, at = bucket.lanes, bucket.columns
    if len(bias.rows) != len(edit.rows) or len(lanes.all_asked(edit.rows, at)) < len(at):
        return {}
    tokens = [lanes.values("first_token", one.rows, at) for one in (bias, edit)]
    whole = [lanes.values("repaired", one.rows, at).mean(axis=0) for one in (bias, edit)]
    gap = (whole[0] - whole[1])[None, :]
    return {
        "same_first_token": float(np.mean(tokens[0] == tokens[1])),
        **columns("against_edit", gap.mean(axis=1), bucket.sample.change_ends(gap))[0],
    }


def _of_vector(group: Group) -> tuple[object, ...]:
    return group.key("protocol", "layer")


def _name(row: dict[str, object]) -> tuple[object, ...]:
    names = ("receiver", "donor", "protocol", "layer", "control", "source", "orthogonal")
    values = (row[name] for name in (*names, "coeff", "norm_rule", "split"))
    return tuple(None if value != value else value for value in values)
