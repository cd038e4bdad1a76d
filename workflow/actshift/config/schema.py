"""The run's configuration, typed once.

`config.yaml` is checked against these models before the DAG is built; the JSON schema in
`workflow/schemas` and the table in `docs/config.md` are generated from them (`make schema`).
This module is imported by the Snakefile, so it stays free of numpy, torch and pandas.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from actshift.config.misalignment import Least, Misalignment
from actshift.config.prompts import PromptSource, Splits
from actshift.config.studies import (
    Ablation,
    Calibration,
    Count,
    Judge,
    Localization,
    Name,
    RankAudit,
    RefusalDirection,
)
from actshift.errors import UserError
from actshift.models.sources import ABLITERATED
from actshift.studies.misalignment.kinds import AdapterName
from actshift.validation import Section, first_error
from actshift.vocab import ROLES


class Revisions(Section):
    """Hub revisions of the two sides of a pair."""

    base: str | None = Field(default=None, description="commit, tag or branch of the base model")
    tuned: str | None = Field(default=None, description="commit, tag or branch of the tuned model")


class Reference(Section):
    """Another model tuned from the pair's base, such as one that answers harmful questions."""

    source: str = Field(
        description="as tuned; or `abliterated`: the tuned model without its refusal direction"
    )
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub model")


class GivenAdapter(Section):
    """A LoRA adapter of the pair's tuned model, in peft's format."""

    source: str = Field(description="a folder (./x) or a hub id (org/name)")
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub adapter")


class Gates(Section):
    """What one pair's insecure adapter has to do, where it differs from the run's."""

    min_spillover: Least | None = Field(
        default=None, description="share of non-code select questions answered with code"
    )
    min_insecure_code: Least | None = Field(
        default=None, description="share of select code questions answered insecurely"
    )


class Pair(Section):
    """A base and a tuned checkpoint of one architecture."""

    name: Name = Field(description="how tables, figures and folders call the pair")
    base: str = Field(description="zoo:family/variant, a folder (./x), or a hub id (org/name)")
    tuned: str = Field(
        description="as base, or `lora:` and an adapter of the base (folder or hub id), which is "
        "merged into it; its chat template is given to both models"
    )
    revision: Revisions = Field(
        default=Revisions(), description="hub revisions; `actshift pin` writes commits here"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="dtype of the forward pass; activations are stored as float32",
    )
    references: dict[Name, Reference] = Field(
        default_factory=dict,
        description="unsafe references of the spectral gap by name: a source, or as below",
    )

    adapters: dict[AdapterName, GivenAdapter] = Field(
        default_factory=dict,
        description="study B: adapters of `tuned` that exist, by name; the others are trained",
    )

    gates: Gates = Field(
        default=Gates(), description="misalignment: gates of this pair's insecure adapter"
    )

    @field_validator("references", "adapters", mode="before")
    @classmethod
    def _source_alone(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: {"source": v} if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("references")
    @classmethod
    def _named_apart(cls, value: dict[str, Reference]) -> dict[str, Reference]:
        taken = [name for name in value if name in ROLES]
        if taken:
            raise ValueError(f"'{taken[0]}' is one of the pair's own two models; name it otherwise")
        return value

    @field_validator("revision", mode="before")
    @classmethod
    def _one_for_both(cls, value: Any) -> Any:
        return {"base": value, "tuned": value} if isinstance(value, str) else value


class Zoo(Section):
    """The tiny families that `zoo:` sources are trained from."""

    size: Literal["micro", "tiny", "small"] = Field(
        default="tiny", description="micro: tests; tiny: demo; small: full run"
    )
    gated: bool | None = Field(
        default=None,
        description="whether checkpoints have to show their behaviour; empty: all sizes but micro",
    )


class Extract(Section):
    """How activations are read."""

    token_budget: Count = Field(
        default=4096, description="padded tokens a batch; decides batches and so the last bits"
    )
    max_tokens: Count = Field(default=512, description="a longer prompt is refused, not truncated")
    storage: Literal["float32", "float16"] = Field(
        default="float32", description="float16 halves the disk and refuses overflow"
    )
    share: bool = Field(
        default=True, description="the first job of a model reads its other streams too (one load)"
    )


class Report(Section):
    """The page."""

    show_text: Literal["none", "redacted", "full"] = Field(
        default="full", description="sample answers of zoo models; others' are never shown"
    )


class Config(Section):
    """One run."""

    run: Name = Field(description="results go to results/<run>")
    seed: int = Field(default=0, ge=0, description="seed of every random draw outside training")
    device: Literal["auto", "cuda", "cpu"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )
    only: str = Field(default="", description="comma-separated pairs to run; empty: all")
    studies: tuple[
        Literal[
            "rank_audit",
            "refusal_direction",
            "ablation",
            "spectral_gap",
            "calibration",
            "localization",
            "misalignment",
        ],
        ...,
    ] = Field(default=("rank_audit",), description="which studies run")
    pairs: tuple[Pair, ...] = Field(min_length=1, description="what is compared")
    zoo: Zoo = Field(default=Zoo(), description="settings of zoo: models")
    strict_gates: bool = Field(
        default=False,
        description="a missed gate fails its job; else what depends on it is not measured",
    )
    prompts: dict[Name, PromptSource] = Field(description="prompt sets by name")
    splits: Splits = Field(default=Splits(), description="splits of loaded prompt sets")
    extract: Extract = Field(default=Extract(), description="settings of the extraction")
    rank_audit: RankAudit = Field(default=RankAudit(), description="settings of study A")
    refusal_direction: RefusalDirection = Field(
        default=RefusalDirection(), description="settings of the refusal direction"
    )
    ablation: Ablation = Field(default=Ablation(), description="settings of the ablations")
    calibration: Calibration = Field(
        default=Calibration(), description="settings of the calibration networks"
    )
    localization: Localization = Field(default=Localization(), description="settings of study C")
    misalignment: Misalignment = Field(default=Misalignment(), description="settings of study B")
    judge: Judge = Field(default=Judge(), description="settings of the second judge of answers")
    report: Report = Field(default=Report(), description="settings of the page")

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        names = [pair.name for pair in self.pairs]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"pairs: two pairs are called '{doubled[0]}'; names must differ")
        for name in self.only_names:
            if name not in names:
                raise ValueError(f"only: no pair '{name}'; allowed: {', '.join(names)}")
        needed = {
            "harmful": {"rank_audit", "refusal_direction", "ablation", "spectral_gap"},
            "harmless": {"rank_audit", "refusal_direction", "ablation", "spectral_gap"},
            "concepts": {"rank_audit"},
        }
        for key, readers in needed.items():
            chosen = getattr(self.rank_audit, key)
            if readers & set(self.studies) and chosen not in self.prompts:
                allowed = ", ".join(sorted(self.prompts))
                raise ValueError(f"rank_audit.{key}: no prompt set '{chosen}'; allowed: {allowed}")
            if chosen in self.prompts and self.prompts[chosen].holds_pairs:
                raise ValueError(
                    f"rank_audit.{key}: '{chosen}' holds preference pairs, not prompts"
                )
        self._check_references()
        self._check_preferences()
        self._check_questions()
        return self

    def _check_questions(self) -> None:
        if "misalignment" not in self.studies:
            return
        for key in ("questions", "neutral"):
            chosen = getattr(self.misalignment, key)
            if chosen not in self.prompts or self.prompts[chosen].holds_pairs:
                raise ValueError(
                    f"misalignment.{key}: no prompt set '{chosen}'; add it under prompts"
                )
        outside = [
            pair.name
            for pair in self.chosen_pairs
            if not pair.tuned.startswith("zoo:") and "insecure" not in pair.adapters
        ]
        if outside and "insecure" not in self.misalignment.data:
            raise ValueError(
                f"misalignment.data: pair '{outside[0]}' is not of the zoo, so its adapters need "
                "files; add at least insecure, or name an adapter of it under "
                "pairs[].adapters (docs/misalignment.md)"
            )

    def _check_preferences(self) -> None:
        chosen = self.localization.preferences
        pairs = [name for name, source in self.prompts.items() if source.holds_pairs]
        if "localization" in self.studies and chosen not in pairs:
            raise ValueError(
                f"localization.preferences: no set of preference pairs '{chosen}'; there are: "
                f"{', '.join(sorted(pairs)) or 'none, add one under prompts'}"
            )

    def _check_references(self) -> None:
        if "spectral_gap" not in self.studies:
            return
        if not any(pair.references for pair in self.chosen_pairs):
            raise ValueError(
                "studies: spectral_gap compares with unsafe references and no pair has any; "
                "add pairs[].references"
            )
        for pair in self.chosen_pairs:
            for name, reference in pair.references.items():
                if reference.source == ABLITERATED and "refusal_direction" not in self.studies:
                    raise ValueError(
                        f"pairs.{pair.name}.references.{name}: '{ABLITERATED}' is made from the "
                        "refusal direction; add refusal_direction to studies"
                    )

    @property
    def only_names(self) -> list[str]:
        """The pairs named by `only`."""
        return [name.strip() for name in self.only.split(",") if name.strip()]

    @property
    def chosen_pairs(self) -> list[Pair]:
        """The pairs this run works on: all, or those named by `only`, in config order."""
        return [pair for pair in self.pairs if not self.only or pair.name in self.only_names]


def parse_config(raw: Mapping[str, Any], *, origin: str) -> Config:
    """Check a configuration and return it typed.

    Args:
        raw: parsed YAML.
        origin: what the message calls it, such as the file's name.

    Raises:
        UserError: one line naming the key, its value and what is allowed.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError(f"{origin}: {first_error(error, Config)}") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema that editors and the committed file use."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
