"""The run's configuration, typed once.

`config.yaml` is checked against these models before the DAG is built; the JSON schema in
`workflow/schemas` and `docs/reference/config.md` are generated from them (`make schema`).
This module is imported by the Snakefile, so it stays free of numpy, torch and pandas.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, create_model, field_validator, model_validator

from actshift.errors import UserError
from actshift.studies.misalignment.kinds import AdapterName
from actshift.studies.registry import STUDIES
from actshift.validation import Count, Least, Name, Section, Share, first_error
from actshift.vocab import ROLES, PositionRule


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


class PromptSource(Section):
    """Where one prompt set comes from and how it is read."""

    source: Literal["zoo", "file", "hub", "resource"] = Field(description="kind of source")
    kind: Literal["prompts", "preferences"] = Field(
        default="prompts",
        description="preferences: pairs of answers, of zoo `preferences` or layout hh_rlhf",
    )
    name: str | None = Field(default=None, description="zoo or resource: which set")
    path: str | None = Field(default=None, description="file: its path")
    sha256: str | None = Field(default=None, description="file: refuse any other content")
    repo: str | None = Field(default=None, description="hub: dataset id, org/name")
    file: str | None = Field(default=None, description="hub: file inside the dataset")
    revision: str | None = Field(default=None, description="hub: commit, tag or branch")
    layout: Literal["columns", "advbench", "alpaca", "hh_rlhf", "messages"] = Field(
        default="columns", description="how rows become prompts"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="prompt field -> column, e.g. {text: goal}"
    )
    condition: str | None = Field(
        default=None, description="condition given to every row without one"
    )
    category: str | None = Field(
        default=None, description="category given to every row without one"
    )
    where: dict[str, str | list[str]] = Field(
        default_factory=dict, description="keep rows whose column has this value, or one of these"
    )
    min_chars: Count | None = Field(default=None, description="drop shorter prompts")
    max_chars: Count | None = Field(default=None, description="drop longer prompts")
    limit: Count | None = Field(
        default=None, description="keep this many prompts, drawn with `seed`"
    )
    positions: PositionRule = Field(
        default="last_prompt", description="token positions that are stored"
    )
    extract: bool = Field(
        default=True,
        description="whether base and tuned get stores of it; false where a study reads it itself",
    )

    @model_validator(mode="after")
    def _needs(self) -> "PromptSource":
        needed = {
            "zoo": ("name",),
            "resource": ("name",),
            "file": ("path",),
            "hub": ("repo", "file"),
        }[self.source]
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            raise ValueError(f"source '{self.source}' needs the key {missing[0]}")
        if self.source == "resource" and self.kind == "preferences":
            raise ValueError("kind 'preferences' has the sources zoo, file and hub")
        if self.source == "zoo" and self.kind == "preferences" and not self._zoo_pairs:
            raise ValueError("kind 'preferences' of the zoo has the name preferences")
        if self.source in ("file", "hub") and self.holds_pairs and self.layout != "hh_rlhf":
            raise ValueError("kind 'preferences' needs the layout hh_rlhf")
        return self

    @property
    def holds_pairs(self) -> bool:
        """Whether the set holds preference pairs, which no activations are extracted of."""
        return self.kind == "preferences" or self._zoo_pairs

    @property
    def _zoo_pairs(self) -> bool:
        return (self.source, self.name) == ("zoo", "preferences")


class Splits(Section):
    """Shares of clusters in each split of a loaded (not zoo) prompt set; the rest is held out."""

    fit: Share = Field(default=0.6, description="directions are fitted here")
    select: Share = Field(
        default=0.15, description="layers, coefficients and gates are chosen here"
    )

    @model_validator(mode="after")
    def _leaves_some(self) -> "Splits":
        if self.fit + self.select >= 1:
            raise ValueError("fit + select must leave a share for heldout")
        return self


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
        """Yield a line where the key of a section names no set of prompts."""
        chosen = getattr(getattr(self, section), key)
        if chosen not in self.prompts:
            allowed = ", ".join(sorted(self.prompts))
            yield f"{section}.{key}: no prompt set '{chosen}'; allowed: {allowed}"
        elif self.prompts[chosen].holds_pairs:
            yield f"{section}.{key}: '{chosen}' holds preference pairs, not prompts"

    def of(self, settings: type[_Settings]) -> _Settings:
        """Return the section of one study, typed, by its class, such as `Localization`."""
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
    """Check a configuration, parsed YAML, and return it typed.

    `origin` is what the message calls it, such as the file's name. A UserError is one line that
    names the key, its value and what is allowed.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError(f"{origin}: {first_error(error, Config)}") from None


def schema_text() -> str:
    """Return the JSON schema that editors use, as the committed file spells it."""
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(draft | Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
