"""The studies there are, in the order of the page: an import and a line for each."""

from actshift.claims.columns import CLAIM_COLUMNS, UNIT_COLUMNS
from actshift.studies.ablation.study import STUDY as ABLATION
from actshift.studies.calibration.study import STUDY as CALIBRATION
from actshift.studies.contract import Catalogue, table
from actshift.studies.localization.study import STUDY as LOCALIZATION
from actshift.studies.misalignment.study import STUDY as MISALIGNMENT
from actshift.studies.rank_audit.study import STUDY as RANK_AUDIT
from actshift.studies.refusal_direction.study import STUDY as REFUSAL_DIRECTION
from actshift.studies.spectral_gap.study import STUDY as SPECTRAL_GAP

_STUDIES = (
    RANK_AUDIT,
    REFUSAL_DIRECTION,
    ABLATION,
    SPECTRAL_GAP,
    CALIBRATION,
    LOCALIZATION,
    MISALIGNMENT,
)
#: Tables that belong to no single study.
_OF_THE_RUN = (
    table(
        "zoo_behaviour",
        "a zoo model, split, condition and metric",
        "model, variant, split, condition, metric, rate, low, high",
    ),
    table(
        "zoo_attempts",
        "a training of a zoo model",
        "model, attempt, schedule, seed, steps, nearest_gate, rate, room, missed, taken",
    ),
    table("claims", "a published claim", ", ".join(CLAIM_COLUMNS)),
    table("claims_by_pair", "a claim and pair or seed", ", ".join(UNIT_COLUMNS)),
)

CATALOGUE = Catalogue({study.name: study for study in _STUDIES}, _OF_THE_RUN)
STUDIES = CATALOGUE.studies
