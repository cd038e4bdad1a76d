"""The blocks of the configuration that say where prompts come from and how they are split."""

from typing import Literal

from pydantic import Field, model_validator

from actshift.validation import Count, Section, Share
from actshift.vocab import PositionRule


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
