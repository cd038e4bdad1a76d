"""Calibration networks: settings, tables and figures."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from actshift.studies.contract import Figure, Study, table
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
        default=(0, 1, 2), min_length=1, description="one training job each; published: 0 to 4"
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


TABLES = (
    table(
        "calibration_means",
        "",
        """
        table, variant, lambda, inputs, layer, projection, ablated_rank, honest,
        unsafe, quantity, mean_published, sd_published, seeds_published,
        mean_at_published_seeds, sd_at_published_seeds, seeds_at_published_seeds,
        mean_at_other_seeds, sd_at_other_seeds, seeds_at_other_seeds, mean_all_seeds,
        sd_all_seeds, seeds_all_seeds
        """,
    ),
    table(
        "calibration_ablation",
        "",
        """
        seed, published_seed, variant, lambda, rho_mean, rank_ablated_layer,
        projection, draw, ablated_rank, n, complied, compliance, mean_logit, bias,
        bias_sign, compliance_bias_only, mean_logit_minus_bias, share_below_bias,
        accuracy_control, answered_0_control, compliance_published,
        rho_mean_published, complied_published
        """,
    ),
    table(
        "calibration_rank",
        "",
        """
        seed, published_seed, variant, lambda, inputs, layer, n, rank_eps, rho_eps,
        stable_rank, orthogonality, rank_eps_published, rho_eps_published
        """,
    ),
    table(
        "calibration_spectral_gap",
        "",
        """
        seed, published_seed, honest, unsafe, layer, n, rank_S, sigma_1_S, sigma_r_S,
        frob_S_sq, frob_honest_sq, frob_unsafe_sq, kappa, kappa_bound,
        kappa_over_bound, informative, rank_S_published, kappa_published
        """,
    ),
    table(
        "calibration_training",
        "",
        """
        network, epochs, loss_task, loss_penalty, seed
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
    """The networks of each seed."""
    seeds = plan.config.of(Calibration).seeds
    return {"calibration": {str(seed): str(plan.paths.calibration(seed)) for seed in seeds}}


STUDY = Study(
    name="calibration",
    title="Calibration networks",
    about=(
        "Small networks whose base, safe and unsafe versions are known: does a shift of "
        "higher rank survive projection better? Controls: random directions, the answer "
        "that the readout's bias gives alone, and control inputs under the same projection. "
        "With many directions projected out, compliance is the sign of that bias and not "
        "robustness; a few seeds cannot settle a mean over such coin flips, and nothing "
        "here is about language models."
    ),
    tables=TABLES,
    settings=Calibration,
    folders=_folders,
    join="actshift.studies.calibration.join:join",
    join_settings=("ablation_ranks", "random_draws"),
    published=tuple(PUBLISHED.values()),
    figures=FIGURES,
)


#: Columns of the tables that the table rule makes, by file name.
COLUMNS = STUDY.columns
