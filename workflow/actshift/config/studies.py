"""The blocks of the configuration that belong to one study each; what all blocks are made of."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from actshift.validation import Section
from actshift.vocab import DEFAULT_EPS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


def _rising(values: tuple[int | float, ...]) -> tuple[int | float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("values must rise")
    return values


_Rising = AfterValidator(_rising)


class RankAudit(Section):
    """Study A: effective rank of the shift."""

    harmful: str = Field(default="harmful", description="prompt set of the treatment condition")
    harmless: str = Field(default="harmless", description="prompt set of the control condition")
    concepts: str = Field(default="concepts", description="prompt set of paired concepts")
    eps: Share = Field(default=DEFAULT_EPS, description="energy that rank_eps leaves out")
    eps_grid: tuple[Share, ...] = Field(
        default=(0.01, 0.05, 0.10, 0.20), description="eps_sensitivity"
    )
    bootstrap_draws: Count = Field(default=200, description="bootstrap.csv: resamples")
    half_sample_draws: Count = Field(
        default=200, description="inflation.csv: half-samples by cluster"
    )
    n_sweep: tuple[Count, ...] = Field(
        default=(50, 100, 200), description="sizes of the nested subsets"
    )
    n_sweep_draws: Count = Field(default=50, description="random nested subsets a size")
    null_draws: Count = Field(
        default=200, description="heldout_rank.csv: draws of the shuffled-coordinates null"
    )
    heldout_k: Count = Field(default=20, description="heldout_rank.csv: largest k")
    cumulative_k: Count = Field(default=64, description="cumulative_variance.csv: largest k")
    concept_n: Count = Field(
        default=50, description="concept_baseline.csv: pairs of the baseline as published"
    )
    control_concept: str = Field(
        default="question_statement", description="concept of cosine.csv's control contrast"
    )


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


class RefusalDirection(Section):
    """The refusal direction of every tuned model (Arditi et al. 2024) and what it does."""

    openers: tuple[str, ...] = Field(
        default=("I",), min_length=1, description="how a refusal opens; their first tokens count"
    )
    n_fit: Count = Field(default=128, description="prompts a condition that directions are made of")
    n_select: Count = Field(default=32, description="prompts a condition that they are chosen on")
    n_heldout: Count = Field(
        default=100, description="prompts a condition that effects are seen on"
    )
    max_kl: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="filter: KL on harmless prompts when ablated, nats"
    )
    min_induce: float = Field(
        default=0.0, description="filter: refusal log-odds of harmless prompts when added"
    )
    layer_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="filter: layers below this share of the depth"
    )
    max_new: Count = Field(default=64, description="longest answer, tokens")
    token_budget: Count = Field(
        default=32768, description="padded tokens a batch of prompts x lanes"
    )


class Judge(Section):
    """A chat model that judges the ablation's answers a second time; without an endpoint, none."""

    endpoint: str | None = Field(
        default=None,
        description="base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; "
        "questions and answers are sent there, harmful ones too",
    )
    model: str | None = Field(default=None, description="name of the model there")
    api_key_env: str | None = Field(
        default=None, description="environment variable that holds the key; never the key itself"
    )
    max_tokens: Count = Field(default=8, description="longest verdict; one word is asked for")
    max_parallel: Count = Field(default=4, description="requests at a time")
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="longest wait for one verdict, seconds"
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        default=5, description="further tries after 429, a 5xx, a time-out or no connection"
    )

    @field_validator("endpoint")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)  # raises ValueError where it cannot be read
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL such as http://localhost:8000/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:
            # It is written to the report and the results: nothing secret may stand in it.
            raise ValueError("a URL without user, password or query; keys go into api_key_env")
        return value.rstrip("/").removesuffix("/chat/completions")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            # Capitals only, and the value is not told: who writes the key itself here must find it
            # neither in a message nor in the report.
            raise ValueError("expected the name of an environment variable, such as JUDGE_KEY")
        return value

    @model_validator(mode="after")
    def _has_a_model(self) -> "Judge":
        if self.endpoint is not None and self.model is None:
            raise ValueError("endpoint needs the key model")
        return self


class Ablation(Section):
    """Test 2 of study A: what ablating the leading directions of the shift does."""

    ks: Annotated[tuple[Count, ...], _Rising] = Field(
        default=(1, 3, 5, 10, 20, 50),
        min_length=1,
        description="numbers of leading directions; those above the width are left out",
    )
    directions: Count = Field(default=10, description="single directions that are ablated alone")
    random_draws: Count = Field(default=20, description="random frames beside the fitted ones")
    patch_draws: Count = Field(
        default=5, description="random frames of the substitution and mode-toggle lanes"
    )
    n_heldout: Count = Field(default=100, description="held-out prompts a condition")
    n_fitted: Count = Field(
        default=100, description="prompts a condition of the protocol as published"
    )
    published_protocol: bool = Field(
        default=True, description="also ask the prompts that the frames were fitted on"
    )
    plain_text: str | None = Field(
        default=None,
        description="file of plain texts, one a line; none: zoo sentences, else harmless prompts",
    )
    max_new: Count = Field(default=64, description="longest answer, tokens (published: 100)")
    token_budget: Count = Field(
        default=32768, description="padded tokens a batch of prompts x lanes"
    )


class Localization(Section):
    """Study C: where in the layers the preference for the chosen answers sits."""

    preferences: str = Field(
        default="preferences", description="prompt set of kind preferences that is scored"
    )
    n_pairs: Count = Field(default=80, description="pairs, where the set has no limit of its own")
    random_draws: Count = Field(default=20, description="random directions of matched norm")
    noise_draws: Count = Field(default=3, description="draws of Gaussian noise")
    ranks: Annotated[tuple[Count, ...], _Rising] = Field(
        default=(1, 2, 4, 8, 16, 32),
        min_length=1,
        description="ranks of low-rank patches; those not below the width are left out",
    )
    alphas: Annotated[tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...], _Rising] = Field(
        default=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        min_length=1,
        description="weights of the donor's states in interpolations",
    )
    folds: Annotated[int, Field(ge=2)] = Field(
        default=4, description="folds of clusters; a basis is fitted on the other folds"
    )
    token_budget: Count = Field(
        default=32768, description="tokens edited at one time, lanes and padding counted"
    )
    max_tokens: Count = Field(
        default=512, description="most tokens of a prompt with its longer answer; else left out"
    )
