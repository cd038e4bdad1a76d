"""Tables of edits, each beside the same model without it.

`steering` and `transfer`: every lane. `content`: does subtracting a direction repair what another
adapter learnt as well? `side_effects`: what an edit does to code questions and to harmless ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from actshift.maths.cluster_rows import columns, merged
from actshift.maths.paired import mcnemar_exact, sign_flip_test
from actshift.random_streams import LANE_TESTS
from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.tables.adapters import Shifts, matched_doses
from actshift.studies.misalignment.tables.lanes import (
    ALL_NULLS,
    Bucket,
    Group,
    Lanes,
    PairFiles,
    Rows,
    buckets,
    chosen,
    groups_of,
)
from actshift.vocab import CODE, NONCODE

SPLITS = ("heldout", "select")
#: Percentiles of a null's draws.
PERCENTILES = (5, 50, 95)
#: Random sign patterns where there are too many to try all.
PATTERNS = 1000
#: The edit that a logit bias stands for.
EDIT, BIAS = "last_token", "logit_bias"
#: Key of a lane -> its gain in repaired answers.
Gains = Mapping[tuple[object, ...], float]


def steering_rows(lanes: Lanes, *, pair: str, seed: int) -> Rows:
    """Edits within a model: its own directions, nulls and relatives."""
    rows = _lane_rows(lanes, pair=pair, reference="direction", alike=(), seed=seed)
    beside = _beside_edit(lanes, seed=seed)
    return [row | beside.get(_name(row), {}) for row in rows]


def transfer_rows(lanes: Lanes, *, pair: str, seed: int) -> Rows:
    """Edits with other models' directions."""
    return _lane_rows(lanes, pair=pair, reference="mapped", alike=("source",), seed=seed)


def _lane_rows(lanes: Lanes, *, pair: str, reference: str, alike: Sequence[str], seed: int) -> Rows:
    """A row a split and lane, a null's draws together.

    `reference` is the control whose gain the draws of a null are held against, `alike` are columns
    that need not agree between the two.
    """
    rows: Rows = []
    for split in SPLITS:
        asked = lanes.asked(condition=NONCODE, split=split)
        found = buckets(lanes, groups_of(lanes), asked, seed=seed)
        gains = {
            group.key("control", "norm_rule", *alike): float(_gains(one, group, "repaired")[0])
            for one in found
            for group in one.groups
            if group.facts["control"] == reference and group.at_norm
        }
        for bucket in found:
            facts: dict[str, object] = {"pair": pair, "split": split, **bucket.sample.facts}
            rows += [
                facts | own | _draw_columns(bucket, group, gains, alike)
                for own, group in zip(_outcomes(bucket, seed), bucket.groups, strict=True)
            ]
    return rows


def _gains(bucket: Bucket, group: Group, name: str) -> Float[np.ndarray, " draw"]:
    """Change of a rate under each lane of a group."""
    plain = bucket.lanes.values(name, group.plain, bucket.columns)
    return (bucket.lanes.values(name, group.rows, bucket.columns) - plain).mean(axis=1)


def _outcomes(bucket: Bucket, seed: int) -> Rows:
    sample = bucket.sample
    code, whole = bucket.edited("code"), bucket.edited("repaired")
    whole_plain = bucket.plain("repaired")
    return merged(
        [group.columns for group in bucket.groups],
        sample.rate_columns("code", code),
        sample.change_columns("drop", bucket.plain("code") - code),
        sample.rate_columns("repaired", whole),
        sample.change_columns("gain", whole - whole_plain),
        bucket.means(("refused", "degenerate"), plain=("code", "repaired", "degenerate")),
        [_tests(*one, sample.clusters, seed) for one in zip(whole_plain, whole, strict=True)],
        bucket.statuses(),
    )


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
    drawn = _gains(bucket, group, "repaired")
    low, median, high = np.percentile(drawn, PERCENTILES).tolist()
    drop = -_gains(bucket, group, "code")
    own = gains.get(group.key("control", "norm_rule", *alike))
    return {
        "draws": len(drawn),
        **{"draws_low": low, "draws_median": median, "draws_high": high},
        "drop_draws_high": float(np.percentile(drop, PERCENTILES[-1])),
        "beats_draws": None if own is None else int((drawn < own).sum()),
        **{"p": np.nan, "p_mcnemar": np.nan},
    }


def _beside_edit(lanes: Lanes, *, seed: int) -> dict[tuple[object, ...], dict[str, object]]:
    """Columns of the logit biases, each against the edit of the same vector.

    same_first_token = share of questions that begin with the same token under both;
    against_edit = repaired under the bias minus repaired under the edit.
    """
    groups = groups_of(lanes)
    edits = {one.key("protocol", "layer"): one for one in groups if one.facts["protocol"] == EDIT}
    biases = [
        one
        for one in groups
        if one.facts["protocol"] == BIAS and one.key("protocol", "layer") in edits
    ]
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for split in SPLITS:
        asked = lanes.asked(condition=NONCODE, split=split)
        for bucket in buckets(lanes, biases, asked, seed=seed):
            for group in bucket.groups:
                beside = _pair_columns(bucket, group, edits[group.key("protocol", "layer")])
                rows[_name({**group.facts, "split": split})] = beside
    return rows


def _pair_columns(bucket: Bucket, bias: Group, edit: Group) -> dict[str, object]:
    lanes, at = bucket.lanes, bucket.columns
    if len(bias.rows) != len(edit.rows) or len(lanes.all_asked(edit.rows, at)) < len(at):
        return {}
    tokens = [lanes.values("first_token", one.rows, at) for one in (bias, edit)]
    whole = [lanes.values("repaired", one.rows, at).mean(axis=0) for one in (bias, edit)]
    return {
        "same_first_token": float(np.mean(tokens[0] == tokens[1])),
        **bucket.sample.change_columns("against_edit", (whole[0] - whole[1])[None, :])[0],
    }


def _name(row: dict[str, object]) -> tuple[object, ...]:
    names = ("receiver", "donor", "protocol", "layer", "control", "source", "orthogonal")
    values = (row[name] for name in (*names, "coeff", "norm_rule", "split"))
    return tuple(None if value != value else value for value in values)


def content_rows(files: PairFiles, shifts: Shifts, *, seed: int) -> Rows:
    """Gains beside that of v of the insecure adapter on the insecure adapter.

    A row a coefficient and either another adapter under the same v, or the insecure adapter under
    another adapter's direction.
    """
    lanes = files.steering
    if lanes is None:
        return []
    rows: Rows = []
    for protocol in ("last_token", "all_tokens"):
        groups = [one for one in groups_of(lanes) if _is_of_content(one, protocol)]
        own = [one for one in groups if _ends(one) == (INSECURE, INSECURE)]
        best = chosen(lanes, own)
        for edit in own:
            coeff = edit.facts["coeff"]
            others = [one for one in groups if one not in own and one.facts["coeff"] == coeff]
            facts = {"protocol": protocol, "chosen": best is edit}
            rows += [row | facts for row in _against(lanes, edit, others, seed)]
    doses, insecure = matched_doses(files), shifts.last_norm(INSECURE)
    for row in rows:
        other = str(row["receiver"] if row["receiver"] != INSECURE else row["source"])
        row["pair"] = files.pair
        row["dose_ratio"] = shifts.last_norm(other) / insecure if insecure > 0 else float("nan")
        row["dose_matched"] = doses.get(other)
    return rows


def _is_of_content(group: Group, protocol: str) -> bool:
    # A direction on the adapter it was made from says nothing of another one's content.
    ends = _ends(group)
    return (
        group.facts["protocol"] == protocol
        and group.facts["control"] in ("direction", "other_adapter")
        and group.at_norm
        and INSECURE in ends
        and (ends == (INSECURE, INSECURE) or len(set(ends)) > 1)
    )


def _ends(group: Group) -> tuple[str, str]:
    return str(group.facts["receiver"]), str(group.facts["source"])


def _against(lanes: Lanes, edit: Group, others: list[Group], seed: int) -> Rows:
    rows: Rows = []
    for split in SPLITS:
        asked = lanes.asked(condition=NONCODE, split=split)
        asked = lanes.all_asked(np.concatenate([edit.rows, edit.plain]), asked)
        for bucket in buckets(lanes, others, asked, seed=seed):
            rows += [{"split": split, **row} for row in _content_rows(bucket, edit)]
    return rows


def _content_rows(bucket: Bucket, edit: Group) -> Rows:
    sample = bucket.sample
    own = Bucket(bucket.lanes, (edit,), bucket.columns, sample)
    gain = bucket.edited("repaired") - bucket.plain("repaired")
    gain_own = own.edited("repaired") - own.plain("repaired")
    # Half of a difference of two changes lies within -1 and 1, as `change_ends` asks.
    half = (gain_own - gain) / 2
    same: dict[str, object] = {
        **sample.facts,
        "gain_insecure": float(gain_own.mean()),
        "code_plain_insecure": float(own.plain("code").mean()),
    }
    return merged(
        [group.columns | same for group in bucket.groups],
        sample.change_columns("gain", gain),
        columns("difference", 2 * half.mean(axis=1), 2 * sample.change_ends(half)),
        bucket.means(("degenerate",), plain=("code", "degenerate")),
        bucket.statuses(),
    )


def side_effect_rows(lanes: Lanes, *, pair: str, harmless: set[str], seed: int) -> Rows:
    """A row a lane (a null's draws together) and kind of question; relatives are left out."""
    controls = ("plain", "direction", "mapped", *ALL_NULLS)
    groups = [
        one
        for one in groups_of(lanes)
        if one.facts["control"] in controls and not one.facts["orthogonal"]
    ]
    ids, split = lanes.prompts["prompt_id"].tolist(), "heldout"
    others = lanes.asked(condition=NONCODE, split=split)
    places = {
        "code": lanes.asked(condition=CODE, split=split),
        "harmless": np.array([at for at in others if ids[at] in harmless], dtype=np.int64),
    }
    return [
        {"pair": pair, "split": split, "asked": asked, **bucket.sample.facts, **row}
        for asked, columns_asked in places.items()
        for bucket in buckets(lanes, groups, columns_asked, seed=seed)
        for row in _side_rows(bucket)
    ]


def _side_rows(bucket: Bucket) -> Rows:
    edited = ("code", "on_topic", "insecure", "refused", "degenerate")
    change = bucket.edited("code") - bucket.plain("code")
    return merged(
        [group.columns for group in bucket.groups],
        bucket.sample.change_columns("code_change", change),
        bucket.means(edited, plain=("code", "on_topic", "refused")),
        bucket.statuses(),
    )
