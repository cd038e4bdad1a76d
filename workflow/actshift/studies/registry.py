"""The studies there are, in the order of the page: an import and a line for each."""

from functools import partial

from actshift.claims.file import CLAIM_COLUMNS, UNIT_COLUMNS
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
_IN_WORDS = {"model": ("", "recipe and variant of a zoo model"), **CLAIM_COLUMNS, **UNIT_COLUMNS}
_table = partial(table, shared=_IN_WORDS)
#: Tables that belong to no single study.
_OF_THE_RUN = (
    _table(
        "zoo_behaviour",
        "a zoo model, template, split, condition, kind of prompt and metric",
        """
        model
        family | | family of architectures
        variant | | base, chat or an unsafe reference
        size | | size of the zoo's language: micro, tiny or small
        seed | | seed of the training
        template | | raw or chat
        split
        condition | | harmful or harmless
        kind | | kind of prompt, or all
        metric | | refused or on_topic
        n, clusters
        rate | | share of answers that refuse, or stay on topic
        low | | lower end of its 95 % interval
        high | | upper end of its 95 % interval
        new_cluster_bound | | exact 95 % bound for a new cluster, where all or no answers count
        gate | | what is demanded of the rate, if anything
        passed | | whether the rate meets it
        """,
        made_by="zoo_behaviour",
    ),
    _table(
        "zoo_attempts",
        "a training of a zoo model",
        """
        model
        attempt | | number of the training, counted from 1
        schedule | | length of the training as a multiple of the recipe's
        seed | | seed of the training
        steps | | optimizer steps
        first_loss | nats a token | loss of the first step
        last_loss | nats a token | mean loss of the last 20 steps
        nearest_gate | | gate that the model clears least or misses most
        rate | | rate of that gate on `select` prompts
        room | | distance of the rate to the right side of the limit; negative if missed
        margin | | room at which no further training is tried
        missed | | gates that are missed, with rates and limits
        taken | | whether this training is the one that is used
        """,
        made_by="zoo_behaviour",
    ),
    _table("claims", "a claim", ", ".join(CLAIM_COLUMNS), made_by="claims"),
    _table(
        "claims_by_pair",
        "a claim and pair or seed",
        ", ".join(UNIT_COLUMNS),
        made_by="claims",
    ),
)

CATALOGUE = Catalogue({study.name: study for study in _STUDIES}, _OF_THE_RUN)
STUDIES = CATALOGUE.studies
