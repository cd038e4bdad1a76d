"""Table `content`: does subtracting a direction repair what another adapter learnt as well?"""

import numpy as np

from actshift.maths.cluster_rows import columns
from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.tables.directions import Shifts
from actshift.studies.misalignment.tables.dose import matched_doses
from actshift.studies.misalignment.tables.groups import Bucket, Group, buckets, chosen, groups_of
from actshift.studies.misalignment.tables.inputs import Lanes, PairFiles, Rows
from actshift.studies.misalignment.tables.steering import SPLITS
from actshift.vocab import NONCODE

PROTOCOLS = ("last_token", "all_tokens")
#: What a direction of an adapter is called, on its own adapter and on another.
CONTROLS = ("direction", "other_adapter")


def content_rows(files: PairFiles, shifts: Shifts, *, seed: int) -> Rows:
    """Gains beside that of v of the insecure adapter on the insecure adapter.

    A row a coefficient and either another adapter under the same v, or the insecure adapter under
    another adapter's direction.

    Args:
        files: Of the pair.
        shifts: Of its models.
        seed: Of resampling.
    """
    lanes = files.steering
    if lanes is None:
        return []
    rows: Rows = []
    for protocol in PROTOCOLS:
        groups = [one for one in groups_of(lanes) if _counts(one, protocol)]
        own = [one for one in groups if _ends(one) == (INSECURE, INSECURE)]
        best = chosen(lanes, own)
        for edit in own:
            others = [one for one in groups if one not in own and _coeff(one) == _coeff(edit)]
            facts = {"protocol": protocol, "chosen": best is edit}
            rows += [facts | row for row in _against(lanes, edit, others, seed)]
    doses, insecure = matched_doses(files), shifts.last_norm(INSECURE)
    for row in rows:
        other = str(row["receiver"] if row["receiver"] != INSECURE else row["source"])
        row["pair"] = files.pair
        row["dose_ratio"] = shifts.last_norm(other) / insecure if insecure > 0 else float("nan")
        row["dose_matched"] = doses.get(other)
    return rows


def _against(lanes: Lanes, edit: Group, others: list[Group], seed: int) -> Rows:
    rows: Rows = []
    for split in SPLITS:
        asked = lanes.asked(condition=NONCODE, split=split)
        asked = lanes.all_asked(np.concatenate([edit.rows, edit.plain]), asked)
        for bucket in buckets(lanes, others, asked, seed=seed):
            rows += [{"split": split, **row} for row in _rows(bucket, edit)]
    return rows


def _rows(bucket: Bucket, edit: Group) -> Rows:
    own = Bucket(bucket.lanes, (edit,), bucket.columns, bucket.sample)
    gain = bucket.edited("repaired") - bucket.plain("repaired")
    gain_own = own.edited("repaired") - own.plain("repaired")
    # Half of a difference of two changes lies within -1 and 1, as `change_ends` asks.
    half = (gain_own - gain) / 2
    parts = [
        [_facts(one) for one in bucket.groups],
        columns("gain", gain.mean(axis=1), bucket.sample.change_ends(gain)),
        columns("difference", 2 * half.mean(axis=1), 2 * bucket.sample.change_ends(half)),
        [{"code_plain": float(one)} for one in bucket.plain("code").mean(axis=1)],
        [{"degenerate": float(one)} for one in bucket.edited("degenerate").mean(axis=1)],
        [{"degenerate_plain": float(one)} for one in bucket.plain("degenerate").mean(axis=1)],
        bucket.statuses(),
    ]
    same: dict[str, object] = {
        **bucket.sample.facts,
        "gain_insecure": float(gain_own.mean()),
        "code_plain_insecure": float(own.plain("code").mean()),
    }
    return [
        same | {name: value for part in row for name, value in part.items()}
        for row in zip(*parts, strict=True)
    ]


def _counts(group: Group, protocol: str) -> bool:
    facts = group.facts
    return (
        facts["protocol"] == protocol
        and facts["control"] in CONTROLS
        and facts["norm_rule"] == "norm"
        and not facts["orthogonal"]
        and INSECURE in _ends(group)
        # A direction on the adapter it was made from says nothing of another one's content.
        and (_ends(group) == (INSECURE, INSECURE) or len(set(_ends(group))) > 1)
    )


def _ends(group: Group) -> tuple[str, str]:
    return str(group.facts["receiver"]), str(group.facts["source"])


def _coeff(group: Group) -> float:
    return float(str(group.facts["coeff"]))


def _facts(group: Group) -> dict[str, object]:
    return {name: group.facts[name] for name in ("receiver", "source", "coeff")}
