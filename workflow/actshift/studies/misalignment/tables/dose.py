"""Table `dose`: how far training took each adapter, beside the insecure one."""

import numpy as np

from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.study import COLUMNS
from actshift.studies.misalignment.tables.directions import Shifts
from actshift.studies.misalignment.tables.inputs import PairFiles, Rows

#: An adapter has the dose of the insecure one if its first loss is within a fifth of that one's.
MATCHED = 0.2
_MADE = ("pair", "shift_norm", "shift_of_insecure", "dose_matched", "status", "why")


def dose_rows(files: PairFiles, shifts: Shifts) -> Rows:
    """A row an adapter.

    Args:
        files: Of the pair.
        shifts: Of its models.
    """
    if files.dose is None:
        return []
    given = files.dose
    losses = dict(zip(given["adapter"], given["first_loss"].astype(float), strict=True))
    own = losses.get(INSECURE, float("nan"))
    names = [name for name in COLUMNS["dose"] if name not in _MADE]
    rows = given.reindex(columns=names).to_dict("records")
    return [_row(files, {str(k): v for k, v in row.items()}, own, shifts) for row in rows]


def ladder_rows(files: PairFiles) -> Rows:
    """A row a dose that was tried; none where the insecure adapter was given.

    Args:
        files: Of the pair.
    """
    if files.ladder is None:
        return []
    return [
        {"pair": files.pair, **{str(name): value for name, value in row.items()}}
        for row in files.ladder.to_dict("records")
    ]


def matched_doses(files: PairFiles) -> dict[str, bool | None]:
    """Whether each adapter has the dose of the insecure one: |first loss / its - 1| <= 1/5.

    None where a first loss is not known: the adapter was given, not trained here.

    Args:
        files: Of the pair; empty without doses.
    """
    if files.dose is None:
        return {}
    losses = files.dose.set_index("adapter")["first_loss"].astype(float)
    own = float(losses.get(INSECURE, float("nan")))
    return {str(name): _is_matched(float(loss), own) for name, loss in losses.items()}


def _is_matched(loss: float, own: float) -> bool | None:
    if np.isnan(loss) or np.isnan(own):
        return None
    return bool(abs(loss / own - 1) <= MATCHED) if own > 0 else False


def _row(files: PairFiles, row: dict[str, object], own: float, shifts: Shifts) -> dict[str, object]:
    loss, name = float(str(row["first_loss"])), str(row["adapter"])
    norm, insecure = shifts.last_norm(name), shifts.last_norm(INSECURE)
    known = np.isfinite(norm)
    ratio = float(str(row["first_loss_of_insecure"]))
    return row | {
        "pair": files.pair,
        "first_loss_of_insecure": loss / own if np.isnan(ratio) and own > 0 else ratio,
        "shift_norm": norm,
        "shift_of_insecure": norm / insecure if known and insecure > 0 else float("nan"),
        "dose_matched": _is_matched(loss, own),
        "status": "ok" if known else files.missed or "no shift",
        "why": "" if known else files.why or "no states of this adapter",
    }
