"""The run's configuration, typed once.

`config.yaml` is checked against these models before the DAG is built; the JSON schema in
`workflow/schemas` and `docs/reference/config.md` are generated from them (`make schema`).
This module is imported by the Snakefile, so it stays free of numpy, torch and pandas.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, ValidationError, create_model, field_validator, model_validator

from actshift.config.judge import Judge
from actshift.config.prompts import PromptSource, Splits
from actshift.errors import UserError
from actshift.studies.misalignment.kinds import AdapterName
from actshift.studies.registry import STUDIES
from actshift.validation import Count, Least, Name, Section, first_error
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
        description="misalignment: existing adapters of `tuned` by name; the others are trained",
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
        default=4096, description="padded tokens in a batch; affects the last bits of results"
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
    larger_run: str = Field(
        default="", description="command of a larger run, for claims that this one is too small for"
    )


class Conditions(Section):
    """The prompt sets of the two conditions, which several studies compare."""

    harmful: Name = Field(default="harmful", description="prompt set of the treatment condition")
    harmless: Name = Field(default="harmless", description="prompt set of the control condition")


#: Studies that read the two conditions.
_OF_CONDITIONS = {"rank_audit", "refusal_direction", "ablation", "spectral_gap"}
_Settings = TypeVar("_Settings", bound=Section)


class Run(Section):
    """One run: all that belongs to no single study."""

    run: Name = Field(description="results go to results/<run>")
    seed: int = Field(default=0, ge=0, description="seed of every random draw outside training")
    device: Literal["auto", "cuda", "cpu"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )
    only: str = Field(default="", description="comma-separated pairs to run; empty: all")
    studies: tuple[Literal[tuple(STUDIES)], ...] = Field(  # pyright: ignore[reportInvalidTypeForm]
        default=("rank_audit",), description="which studies run"
    )
    pairs: tuple[Pair, ...] = Field(min_length=1, description="what is compared")
    zoo: Zoo = Field(default=Zoo(), description="settings of the zoo")
    strict_gates: bool = Field(
        default=False,
        description="a missed gate fails its job; else what depends on it is not measured",
    )
    prompts: dict[Name, PromptSource] = Field(description="prompt sets by name")
    conditions: Conditions = Field(
        default=Conditions(), description="prompt sets of the two conditions"
    )
    splits: Splits = Field(default=Splits(), description="splits of loaded prompt sets")
    extract: Extract = Field(default=Extract(), description="settings of the extraction")
    judge: Judge = Field(default=Judge(), description="settings of the second judge of answers")
    report: Report = Field(default=Report(), description="settings of the report")

    @model_validator(mode="before")
    @classmethod
    def _moved_keys(cls, data: Any) -> Any:
        audit = data.get("rank_audit") if isinstance(data, Mapping) else None
        for key in Conditions.model_fields:
            if isinstance(audit, Mapping) and key in audit:
                raise ValueError(f"rank_audit.{key}: this key is now conditions.{key}; move it")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> "Run":
        names = [pair.name for pair in self.pairs]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"pairs: two pairs are called '{doubled[0]}'; names must differ")
        for name in self.only_names:
            if name not in names:
                raise ValueError(f"only: no pair '{name}'; allowed: {', '.join(names)}")
        for line in self._lacks():
            raise ValueError(line)
        return self

    def _lacks(self) -> Iterator[str]:
        """Yield a line for everything that the chosen studies need and this lacks."""
        if _OF_CONDITIONS & set(self.studies):
            for key in Conditions.model_fields:
                yield from self.lacks_prompts("conditions", key)
        for study in self.studies:
            needs = STUDIES[study].needs
            if needs is not None:
                yield from needs(self)

    def lacks_prompts(self, section: str, key: str) -> Iterator[str]:
        """Yield a line where a key names no set of prompts.

        Args:
            section: Key of a section.
            key: Key inside it whose value names a prompt set.
        """
        chosen = getattr(getattr(self, section), key)
        if chosen not in self.prompts:
            allowed = ", ".join(sorted(self.prompts))
            yield f"{section}.{key}: no prompt set '{chosen}'; allowed: {allowed}"
        elif self.prompts[chosen].holds_pairs:
            yield f"{section}.{key}: '{chosen}' holds preference pairs, not prompts"

    def of(self, settings: type[_Settings]) -> _Settings:
        """Return the section of one study, typed.

        Args:
            settings: The class of the section, such as `Localization`.
        """
        name = next(study.name for study in STUDIES.values() if study.settings is settings)
        return getattr(self, name)

    @property
    def only_names(self) -> list[str]:
        """The pairs named by `only`."""
        return [name.strip() for name in self.only.split(",") if name.strip()]

    @property
    def chosen_pairs(self) -> list[Pair]:
        """The pairs this run works on: all, or those named by `only`, in config order."""
        return [pair for pair in self.pairs if not self.only or pair.name in self.only_names]


if TYPE_CHECKING:
    Config = Run
else:
    #: A run with the sections of all studies.
    Config = create_model(
        "Config",
        __base__=Run,
        __doc__="One run.",
        **{
            study.name: (
                study.settings,
                Field(default=study.settings(), description=f"settings of {study.title.lower()}"),
            )
            for study in STUDIES.values()
            if study.settings is not None
        },
    )


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
