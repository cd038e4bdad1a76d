"""Tables `steering` and `transfer`: an edit beside the same model without it."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from actshift.maths.cluster_rows import columns
from actshift.maths.paired import mcnemar_exact, sign_flip_test
from actshift.random_streams import LANE_TESTS
from actshift.studies.misalignment.tables.groups import Bucket, Group, buckets, groups_of
from actshift.studies.misalignment.tables.inputs import Lanes, Rows
from actshift.vocab import NONCODE

SPLITS = ("heldout", "select")
#: Percentiles of a null's draws.
PERCENTILES = (5, 50, 95)
#: Random sign patterns where there are too many to try all.
PATTERNS = 1000
#: Key of a lane -> its gain in repaired answers.
Gains = Mapping[tuple[object, ...], float]


def lane_rows(lanes: Lanes, *, pair: str, reference: str, alike: Sequence[str], seed: int) -> Rows:
    """A row a split and lane, a null's draws together.

    Args:
        lanes: Of one pair.
        pair: Its name.
        reference: Control whose gain the draws of a null are held against.
        alike: Columns that need not agree between a null and its reference.
        seed: Of resampling.

    Returns:
        All columns of the two tables but those of `logit_bias`.
    """
    rows: Rows = []
    groups = groups_of(lanes)
    for split in SPLITS:
        asked = lanes.asked(condition=NONCODE, split=split)
        found = buckets(lanes, groups, asked, seed=seed)
        gains = _gains_of(found, reference, alike)
        for bucket in found:
            facts: dict[str, object] = {"pair": pair, "split": split, **bucket.sample.facts}
            rows += [
                facts | own | _draw_columns(bucket, group, gains, alike)
                for own, group in zip(_outcomes(bucket, seed), bucket.groups, strict=True)
            ]
    return rows


def gains_of_draws(bucket: Bucket, group: Group, name: str) -> Float[np.ndarray, " draw"]:
    """Change of a rate under each lane of a group."""
    plain = bucket.lanes.values(name, group.plain, bucket.columns)
    return (bucket.lanes.values(name, group.rows, bucket.columns) - plain).mean(axis=1)


def _gains_of(found: Sequence[Bucket], reference: str, alike: Sequence[str]) -> Gains:
    return {
        group.key("control", "norm_rule", *alike): float(gains_of_draws(one, group, "repaired")[0])
        for one in found
        for group in one.groups
        if group.facts["control"] == reference
        and group.facts["norm_rule"] == "norm"
        and not group.facts["orthogonal"]
    }


def _outcomes(bucket: Bucket, seed: int) -> Rows:
    sample = bucket.sample
    code, code_plain = bucket.edited("code"), bucket.plain("code")
    whole, whole_plain = bucket.edited("repaired"), bucket.plain("repaired")
    drop, gain = code_plain - code, whole - whole_plain
    parts = [
        [_lane_facts(group) for group in bucket.groups],
        columns("code", code.mean(axis=1), sample.wilson(code)),
        columns("drop", drop.mean(axis=1), sample.change_ends(drop)),
        columns("repaired", whole.mean(axis=1), sample.wilson(whole)),
        columns("gain", gain.mean(axis=1), sample.change_ends(gain)),
        _column("code_plain", code_plain.mean(axis=1)),
        _column("repaired_plain", whole_plain.mean(axis=1)),
        _column("refused", bucket.edited("refused").mean(axis=1)),
        _column("degenerate", bucket.edited("degenerate").mean(axis=1)),
        _column("degenerate_plain", bucket.plain("degenerate").mean(axis=1)),
        _column("kl_first", bucket.kl),
        [_tests(*one, sample.clusters, seed) for one in zip(whole_plain, whole, strict=True)],
        bucket.statuses(),
    ]
    return [_merged(*row) for row in zip(*parts, strict=True)]


def _lane_facts(group: Group) -> dict[str, object]:
    means = {"scale": group.scale, "cosine": group.cosine, "kl_select": group.kl_select}
    return {**group.facts, **means}


def _tests(
    plain: Float[np.ndarray, " prompt"],
    edited: Float[np.ndarray, " prompt"],
    clusters: Sequence[str],
    seed: int,
) -> dict[str, object]:
    """Tests of one lane; the mean over a null's draws is no lane and has none of its own."""
    if not np.isin(edited, (0, 1)).all():
        return {"p": np.nan, "p_mcnemar": np.nan}
    rng = LANE_TESTS.rng(seed)
    test = sign_flip_test(plain, edited, clusters, draws=PATTERNS, rng=rng)
    return {"p": test.p_two_sided, "p_mcnemar": mcnemar_exact(plain, edited)}


def _draw_columns(
    bucket: Bucket, group: Group, gains: Gains, alike: Sequence[str]
) -> dict[str, object]:
    if not group.is_null:
        return {}
    drawn = gains_of_draws(bucket, group, "repaired")
    ends = dict(
        zip(
            ("draws_low", "draws_median", "draws_high"),
            np.percentile(drawn, PERCENTILES).tolist(),
            strict=True,
        )
    )
    drop = -gains_of_draws(bucket, group, "code")
    own = gains.get(group.key("control", "norm_rule", *alike))
    return {
        "draws": len(drawn),
        **ends,
        "drop_draws_high": float(np.percentile(drop, PERCENTILES[-1])),
        "beats_draws": None if own is None else int((drawn < own).sum()),
        "p": np.nan,
        "p_mcnemar": np.nan,
    }


def _column(name: str, values: Float[np.ndarray, " row"]) -> Rows:
    return [{name: float(value)} for value in values]


def _merged(*parts: dict[str, object]) -> dict[str, object]:
    return {name: value for part in parts for name, value in part.items()}


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
