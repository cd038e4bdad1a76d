"""Calibration networks: settings, tables and figures."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field, field_validator

from actshift.studies.contract import Figure, Study, table, words
from actshift.validation import Count, Section

#: Table -> the published per-seed file it stands beside.
PUBLISHED = {
    "calibration_rank": "calibration_rank_per_seed.csv",
    "calibration_ablation": "calibration_ablation_per_seed.csv",
    "calibration_spectral_gap": "calibration_spectral_gap_per_seed.csv",
}


class CalibrationEpochs(Section):
    """Full-batch steps of each kind of training; the defaults are the published ones."""

    base: Count = Field(default=300, description="base network, on the task labels")
    finetune: Count = Field(default=400, description="full fine-tunes")
    distributed: Count = Field(default=600, description="distributed variants")


class Calibration(Section):
    """The calibration networks: small nets whose base, safe and unsafe versions are known."""

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0, 1, 2), min_length=1, description="seeds, each a training job; published: 0 to 4"
    )
    ablation_ranks: tuple[Annotated[int, Field(ge=0, le=128)], ...] = Field(
        default=(0, 1, 3, 5, 10, 20, 40, 80, 120),
        description="directions projected out of the last hidden layer (width 128)",
    )
    random_draws: Count = Field(default=5, description="random subspaces of each rank")
    epochs: CalibrationEpochs = Field(
        default=CalibrationEpochs(), description="steps of each kind of training"
    )

    @field_validator("seeds", "ablation_ranks")
    @classmethod
    def _distinct(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(values)) < len(values):
            raise ValueError("values must differ")
        return values


#: Columns that several tables have.
_SHARED = words(
    """
    seed | | seed of the training data
    published_seed | | whether the table has published numbers of the seed
    variant | | full_finetune, distributed or steering
    lambda | | weight of the regularisers in the loss; 0 where there is none
    inputs | | safety: inputs in the safety corner; control: all others
    layer | | hidden layer, counted from 0
    n | inputs | number of safety inputs of the probe
    projection | | principal: leading directions of the shift; random: a random subspace
    ablated_rank | | directions projected out of the last hidden layer
    honest | | network with the safe labels
    unsafe | | network with the unsafe labels
    rank_eps | | smallest number of directions that holds 95 % of the shift's energy
    rho_eps | | rank_eps over the width, 128
    """
)

_table = partial(table, shared=_SHARED)
TABLES = (
    _table(
        "calibration_means",
        "a quantity of one cell of another table, over seeds",
        """
        table | | table that the quantity stands in
        variant, lambda, inputs, layer, projection, ablated_rank, honest, unsafe
        quantity | | column of that table
        mean_published | | published mean over seeds
        sd_published | | published standard deviation over seeds (divisor n - 1)
        seeds_published | | number of published seeds
        mean_at_published_seeds | | mean measured here at the published seeds
        sd_at_published_seeds | | standard deviation at these seeds
        seeds_at_published_seeds | | number of these seeds
        mean_at_other_seeds | | mean measured here at the other seeds
        sd_at_other_seeds | | standard deviation at these seeds
        seeds_at_other_seeds | | number of these seeds
        mean_all_seeds | | mean measured here at all seeds
        sd_all_seeds | | standard deviation at all seeds
        seeds_all_seeds | | number of all seeds
        """,
    ),
    _table(
        "calibration_ablation",
        "a seed, variant, lambda, projection, draw and number of directions",
        """
        seed, published_seed, variant, lambda
        rho_mean | | mean of rho_eps over the three hidden layers, safety inputs
        rank_ablated_layer | | rank_eps of the last hidden layer, safety inputs
        projection
        draw | | number of the random subspace; 0 for principal
        ablated_rank, n
        complied | inputs | safety inputs answered 0, the safe answer
        compliance | | complied over n
        mean_logit | logits | mean logit of the safety inputs
        bias | logits | bias of the readout
        bias_sign | | sign of bias: -1, 0 or 1
        compliance_bias_only | | compliance of the bias alone: 1 where it is 0 or less, else 0
        mean_logit_minus_bias | logits | mean_logit minus bias
        share_below_bias | | share of the safety inputs with a logit below bias
        accuracy_control | | share of control inputs with the right task label, same projection
        answered_0_control | | share of control inputs answered 0, same projection
        compliance_published | | published compliance of the same seed
        rho_mean_published | | published rho_mean of the same seed
        complied_published | inputs | compliance_published as a count
        """,
    ),
    _table(
        "calibration_rank",
        "a seed, variant, lambda, kind of inputs and layer",
        """
        seed, published_seed, variant, lambda, inputs, layer
        n | inputs | number of probe inputs of the kind
        rank_eps, rho_eps
        stable_rank | | squared Frobenius norm of the shift over its largest squared singular value
        orthogonality | | R_orth of the shift: 0 where its rows are orthogonal and of one norm
        rank_eps_published | | published rank_eps of the same seed
        rho_eps_published | | published rho_eps of the same seed
        """,
    ),
    _table(
        "calibration_spectral_gap",
        "a seed, honest network, unsafe network and layer",
        """
        seed, published_seed, honest, unsafe, layer, n
        rank_S | | smallest number of directions that holds 95 % of the energy of S
        sigma_1_S | activations | largest singular value of S, honest minus unsafe shift
        sigma_r_S | activations | singular value of S at rank_S
        frob_S_sq | activations squared | squared Frobenius norm of S
        frob_honest_sq | activations squared | squared Frobenius norm of the honest shift
        frob_unsafe_sq | activations squared | squared Frobenius norm of the unsafe shift
        kappa | | sigma_r_S^2 / (.05 (frob_honest_sq + frob_unsafe_sq))
        kappa_bound | | 2 / (.05 rank_S), which kappa cannot exceed
        kappa_over_bound | | kappa over kappa_bound
        informative | | whether kappa_bound exceeds the published threshold of 8
        rank_S_published | | published rank_S of the same seed
        kappa_published | | published kappa of the same seed
        """,
    ),
    _table(
        "calibration_training",
        "a seed and network",
        """
        network | | base, or the variant and its lambda
        epochs | | full-batch steps
        loss_task | nats | cross entropy at the last step
        loss_penalty | | sum of the regularisers at the last step, without lambda
        seed
        """,
    ),
)

FIGURES = (
    Figure(
        "calibration_compliance",
        ("calibration_ablation",),
        "actshift.studies.calibration.figures:calibration_compliance",
    ),
    Figure(
        "calibration_bias_sign",
        ("calibration_ablation",),
        "actshift.studies.calibration.figures:calibration_bias_sign",
    ),
    Figure(
        "calibration_rank_and_gap",
        ("calibration_ablation", "calibration_rank", "calibration_spectral_gap"),
        "actshift.studies.calibration.figures:calibration_rank_and_gap",
    ),
)


def _folders(plan: Any) -> dict[str, dict[str, str]]:
    seeds = plan.config.of(Calibration).seeds
    return {"calibration": {str(seed): str(plan.paths.calibration(seed)) for seed in seeds}}


STUDY = Study(
    name="calibration",
    title="Calibration networks",
    about=(
        "Asks whether safe behaviour survives projection better when its shift has a "
        "higher rank, on small networks whose base, safe and unsafe versions are known. "
        "Controls: random directions, the answer of the readout's bias alone, and control "
        "inputs under the same projection. With many directions projected out, compliance "
        "is the sign of that bias and not robustness. A few seeds cannot settle a mean "
        "over such signs. The results are not about language models."
    ),
    tables=TABLES,
    settings=Calibration,
    folders=_folders,
    join="actshift.studies.calibration.tables:join",
    join_settings=("ablation_ranks", "random_draws"),
    published=tuple(PUBLISHED.values()),
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns


#: Files of one seed's folder.
NETWORKS = "networks.safetensors"
TRAINING = "training.csv"
BASE = "base"
#: Weights of the distributed variant's regularisers; the rank table uses the last.
LAMBDAS = (0.5, 5.0, 15.0, 50.0)
RANK_LAMBDA = 50.0
#: The spectral gap is taken between networks of this weight.
GAP_LAMBDA = 5.0


@dataclass(frozen=True, slots=True)
class Tuned:
    """One network tuned from the base.

    The weight is lambda of the distributed variant's regularisers, 0 for the full fine-tune; an
    unsafe one is tuned on the task labels, with nothing refused in the safety corner.
    """

    variant: str
    weight: float = 0.0
    unsafe: bool = False

    @property
    def name(self) -> str:
        """Name in files, such as `distributed_50` or `unsafe_full_finetune`."""
        weight = f"_{self.weight:g}" if self.weight else ""
        return f"{'unsafe_' if self.unsafe else ''}{self.variant}{weight}"


SAFE = (Tuned("full_finetune"), *(Tuned("distributed", weight) for weight in LAMBDAS))
UNSAFE = (
    Tuned("full_finetune", unsafe=True),
    Tuned("distributed", GAP_LAMBDA, unsafe=True),
)
