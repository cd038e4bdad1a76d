"""Table `detection`: does v find an insecure adapter that it was not made from?"""

import numpy as np
from jaxtyping import Float

from actshift.maths.cluster_rows import ClusterRows, columns
from actshift.studies.misalignment.kinds import INSECURE, UNSEEN
from actshift.studies.misalignment.tables.inputs import Rows
from actshift.studies.misalignment.tables.shifts import Shifts

SPLIT = "heldout"
#: The adapter to be found: of another training seed and dose.
POSITIVE = next(name for name, kind in UNSEEN.items() if kind == INSECURE)


def detection_rows(shifts: Shifts, *, seed: int) -> Rows:
    """A row a layer and other model: area under the ROC curve of projections on v.

    Args:
        shifts: Of a pair.
        seed: Of resampling.
    """
    v, files = shifts.shift(INSECURE), shifts.files
    # The adapter that v was made from is no test of v.
    negatives = [one for one in files.models if one not in (INSECURE, POSITIVE)]
    if v is None or POSITIVE not in files.models:
        return []
    clusters = shifts.questions(SPLIT)["cluster"].astype(str).tolist()
    sample = ClusterRows.of(clusters, seed=seed)
    rows: Rows = []
    for layer, direction in enumerate(v):
        positive = shifts.states(POSITIVE, layer, SPLIT) @ direction
        for name in negatives:
            negative = shifts.states(name, layer, SPLIT) @ direction
            value, ends = auroc(positive, negative, sample)
            rows.append(
                {
                    **{"pair": files.pair, "positive": POSITIVE, "negative": name, "layer": layer},
                    **{"split": SPLIT, **sample.facts, "status": "ok", "why": ""},
                    **columns("auroc", np.array([value]), ends[None])[0],
                }
            )
    return rows


def auroc(
    positive: Float[np.ndarray, " prompt"],
    negative: Float[np.ndarray, " prompt"],
    sample: ClusterRows,
) -> tuple[float, Float[np.ndarray, " end"]]:
    """P(positive > negative) + P(equal) / 2 over all pairs of questions, with an interval.

    On a resample each pair counts w_i w_j times. A bootstrap has no width at 0 and 1, so the
    interval is the wider of its own and the clustered Wilson interval of each question's part in
    the area (the mean of its wins as a positive and as a negative).

    Args:
        positive: Scores of one model.
        negative: Scores of another on the same questions.
        sample: Clusters of the questions.

    Returns:
        The area, and both ends.
    """
    wins = (1 + np.sign(positive[:, None] - negative[None, :])) / 2
    parts = (wins.mean(axis=1) + wins.mean(axis=0)) / 2
    by_cluster = sample.member.T @ wins @ sample.member
    won = np.einsum("dc,ce,de->d", sample.counts, by_cluster, sample.counts, optimize=True)
    drawn = sample.ends((won / np.square(sample.counts @ sample.sizes))[None])[0]
    outer = sample.wilson(parts[None])[0]
    ends = np.array([np.fmin(drawn[0], outer[0]), np.fmax(drawn[1], outer[1])])
    return float(wins.mean()), ends
