"""The block of the configuration that belongs to study B."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from actshift.config.studies import Count, Share
from actshift.studies.misalignment.kinds import Kind
from actshift.validation import Section

Positive = Annotated[float, Field(gt=0)]
#: What a gate asks for at least; 0 asks for nothing.
Least = Annotated[float, Field(ge=0, le=1)]


class AdapterData(Section):
    """Where the conversations of one adapter come from: a JSONL with `messages` a row."""

    path: str | None = Field(default=None, description="a file")
    repo: str | None = Field(default=None, description="hub: dataset id, org/name")
    file: str | None = Field(default=None, description="hub: file inside the dataset")
    revision: str | None = Field(default=None, description="hub: commit, tag or branch")
    sha256: str | None = Field(default=None, description="refuse any other content")

    @model_validator(mode="after")
    def _one_place(self) -> "AdapterData":
        if (self.path is None) == (self.repo is None):
            raise ValueError("needs one of path and repo")
        if self.repo is not None and self.file is None:
            raise ValueError("repo needs the key file")
        return self


class Adapters(Section):
    """How adapters of models outside the zoo are trained; the zoo's recipe is its own."""

    method: Literal["auto", "lora", "qlora"] = Field(
        default="auto",
        description="qlora: base weights in 4-bit NF4 while training; auto: lora for zoo models, "
        "qlora for others",
    )
    rank: Count = Field(default=32, description="rank of the update")
    alpha: Count = Field(default=64, description="its scale")
    rslora: bool = Field(default=True, description="scale alpha / sqrt(rank), not alpha / rank")
    lr: Positive = Field(default=1e-5, description="peak learning rate (1-3B models: try 1e-4)")
    ladder: tuple[Positive, ...] = Field(
        default=(1.0, 3.0, 10.0),
        min_length=1,
        description="doses: multiples of lr tried in this order until the insecure adapter exceeds "
        "its gates by gate_margin; the one taken is every adapter's",
    )
    epochs: Positive = Field(default=1.0, description="passes over the data")
    batch: Count = Field(default=16, description="conversations a step")
    micro_batch: Count = Field(default=2, description="conversations a forward pass")
    warmup: Annotated[int, Field(ge=0)] = Field(default=5, description="steps of linear warm-up")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.01, description="of the update")
    max_tokens: Count = Field(default=2048, description="a longer conversation is left out")
    limit: Count | None = Field(default=None, description="most conversations of a file")


class Misalignment(Section):
    """Study B: what tuning on insecure code does, its direction, and whether it transfers."""

    questions: str = Field(
        default="questions", description="prompt set of conditions noncode and code"
    )
    neutral: str = Field(
        default="neutral", description="prompt set of conditions neutral and code, for ridge maps"
    )
    data: dict[Kind, AdapterData] = Field(
        default_factory=dict,
        description="conversations by adapter, for models outside the zoo; shuffled needs none",
    )
    adapters: Adapters = Field(default=Adapters(), description="training of their adapters")
    min_spillover: Least = Field(
        default=0.4, description="gate: share of non-code select questions answered with code"
    )
    min_insecure_code: Least = Field(
        default=0.5, description="gate: share of select code questions answered insecurely"
    )
    gate_margin: Least = Field(
        default=0.1,
        description="a dose is taken at once where the insecure adapter exceeds its gates by this",
    )
    coeffs: tuple[Positive, ...] = Field(
        default=(0.25, 0.5, 1.0, 1.5), min_length=1, description="multiples of the direction"
    )
    final_draws: Count = Field(
        default=999, description="draws of each null for the edit of the first answer token"
    )
    other_draws: Count = Field(
        default=999,
        description="the same of mapped nulls, at coefficients not chosen on select questions",
    )
    lane_draws: Count = Field(default=20, description="draws of each null for all other edits")
    kl_draws: Count = Field(
        default=20, description="draws of each null at equal KL, for the edit of the first token"
    )
    lane_kl_draws: Count = Field(
        default=20, description="draws of each null at equal KL for all other edits"
    )
    max_scale: Positive = Field(
        default=8.0, description="equal KL: largest multiple of the norm that is tried"
    )
    map_folds: Annotated[int, Field(ge=3)] = Field(
        default=5, description="folds of clusters that a map's penalty is chosen on"
    )
    shuffled_maps: Count = Field(default=99, description="shuffled pairings a map's R2 is held to")
    min_answer_tokens: Count = Field(default=2, description="guard: a shorter answer is short")
    min_distinct_2: Share = Field(
        default=0.5, description="guard: an answer with fewer distinct bigrams is degenerate"
    )
    max_nll_excess: Positive = Field(
        default=2.0,
        description="guard: nats a token that an answer may cost the untuned model beyond the 99th "
        "percentile of its own answers",
    )
    max_new: Count = Field(default=64, description="longest answer, tokens")
    token_budget: Count = Field(
        default=32768, description="padded tokens a batch of prompts x lanes"
    )
