"""All misalignment tables: of one pair, then what is said over all pairs."""

from collections.abc import Collection, Sequence

from actshift.maths.paired import holm
from actshift.studies.misalignment.kinds import ACROSS, SAME_ARCHITECTURE
from actshift.studies.misalignment.study import COLUMNS
from actshift.studies.misalignment.tables.content import content_rows
from actshift.studies.misalignment.tables.directions import (
    Shifts,
    cosine_rows,
    detection_rows,
    separation_rows,
)
from actshift.studies.misalignment.tables.dose import dose_rows, ladder_rows
from actshift.studies.misalignment.tables.inputs import PairFiles, Rows
from actshift.studies.misalignment.tables.side_effects import side_effect_rows
from actshift.studies.misalignment.tables.specificity import (
    Judged,
    Receiver,
    judged_edits,
    specificity_rows,
)
from actshift.studies.misalignment.tables.spillover import harmless_ids, spillover_rows
from actshift.studies.misalignment.tables.steering import steering_rows, transfer_rows
from actshift.studies.misalignment.tables.topology import topology_rows


def pair_tables(files: PairFiles, *, seed: int) -> tuple[dict[str, Rows], list[Judged]]:
    """Every table's rows of one pair, and its edits at the chosen coefficients.

    Args:
        files: What the stages left.
        seed: Of resampling.

    Returns:
        Table -> rows, without those over all pairs and without `p_holm`; then the edits.

    Raises:
        StoreError: A question has no state.
    """
    shifts, pair = Shifts(files), files.pair
    found: dict[str, Rows] = {
        "dose": dose_rows(files, shifts),
        "ladder": ladder_rows(files),
        "spillover": spillover_rows(files, seed=seed),
        "direction_cosines": cosine_rows(shifts),
    }
    if files.states is not None:
        found["separation"] = separation_rows(shifts, seed=seed)
        found["detection"] = detection_rows(shifts, seed=seed)
    harmless = harmless_ids(files)
    for lanes in (files.steering, files.transfer):
        if lanes is not None:
            rows = side_effect_rows(lanes, pair=pair, harmless=harmless, seed=seed)
            found["side_effects"] = found.get("side_effects", []) + rows
    if files.steering is not None:
        found["steering"] = steering_rows(files.steering, pair=pair, seed=seed)
        found["content"] = content_rows(files, shifts, seed=seed)
    if files.transfer is not None:
        found["transfer"] = transfer_rows(files.transfer, pair=pair, seed=seed)
    edits = judged_edits(Receiver(files, seed))
    found["specificity"] = specificity_rows(edits)
    return found, edits


def over_pairs(
    tables: dict[str, Rows],
    edits: Sequence[Judged],
    *,
    pairs: Sequence[str],
    kin: Collection[tuple[str, str]],
    seed: int,
) -> dict[str, Rows]:
    """Complete the tables with what is said over all pairs.

    Args:
        tables: Table -> rows of all pairs.
        edits: At the chosen coefficients, of all pairs.
        pairs: Names of the pairs that were tried.
        kin: Donors and receivers of one architecture; what passes between these is not across
            architectures, and claims about that do not read it.
        seed: Of permutations.

    Returns:
        Table -> rows, of every table that is made from pairs.
    """
    done: dict[str, Rows] = {name: tables.get(name, []) for name in COLUMNS}
    topology = topology_rows(edits, pairs=pairs, seed=seed)
    return done | {
        "specificity": with_holm(_with_kin(done["specificity"], kin)),
        "topology": _with_kin(topology, kin),
    }


def _with_kin(rows: Rows, kin: Collection[tuple[str, str]]) -> Rows:
    """Set the scope of what passes between models of one architecture apart.

    Such rows are no `pairing`, which is the unit of claims about architectures.
    """
    return [
        {name: value for name, value in row.items() if name != "pairing"}
        | {"scope": SAME_ARCHITECTURE}
        if row["scope"] == ACROSS and (str(row["donor"]), str(row["receiver"])) in kin
        else row
        for row in rows
    ]


def with_holm(rows: Rows) -> Rows:
    """Correct p over donors and receivers: own directions apart from mapped ones.

    Args:
        rows: Of `specificity`, all receivers.
    """
    families: dict[tuple[object, ...], list[int]] = {}
    for place, row in enumerate(rows):
        key = (row["scope"], row["protocol"], row["fit_on"])
        families.setdefault(key, []).append(place)
    fixed = [dict(row) for row in rows]
    for places in families.values():
        raw = [float(str(rows[place].get("p", "nan"))) for place in places]
        for place, p in zip(places, holm(raw), strict=True):
            fixed[place]["p_holm"] = p
    return fixed
