"""Published claims as data: what a claim says, which cell decides it and what it requires."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from actshift.errors import UserError
from actshift.validation import Section, first_error

#: superiority: above or below a bound. equivalence: within a margin. ratio: superiority of a ratio.
#: inversion: at least one row's value lies above the bound, with its interval above 0.
Kind = Literal["superiority", "equivalence", "inversion", "ratio"]
#: How the rows of a cell (its layers) become one number.
Pool = Literal["median", "mean", "min", "max"]
#: A cell's value of a column; `max` stands for the largest one there is, such as the full n, and
#: nothing (null) for an empty cell.
CellValue = str | bool | int | float | None


class Bound(Section):
    """A condition on a column of the cell's rows."""

    column: str = Field(description="column that is looked at")
    per: list[str] = Field(default=[], description="divide by the smallest of these columns")
    minus: str | None = Field(default=None, description="take |column - this column| instead")
    over: Pool = Field(default="median", description="pooling over the cell's rows")
    at_least: float | None = Field(default=None, description="smallest value that meets it")
    at_most: float | None = Field(default=None, description="largest value that meets it")
    why: str = Field(description="what it means when the condition decides")
    larger_run: bool = Field(default=False, description="whether a run with more draws meets it")

    @model_validator(mode="after")
    def _one_side(self) -> "Bound":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"'{self.column}' needs one of at_least, at_most")
        return self


class Join(Section):
    """A second table whose columns the claim also reads."""

    table: str
    on: list[str] = Field(min_length=1, description="columns that both tables share")


class Claim(Section):
    """One published claim and the rule that decides it."""

    id: str = Field(pattern=r"^[a-z0-9-]+$", description="short name, unique in the file")
    study: str = Field(description="folder of its tables under tables/; Holm runs within it")
    statement: str
    source: str = Field(description="paper, section or table")
    published: str = Field(description="the published value, as text")
    kind: Kind
    table: str = Field(description="name of the table that decides, without .csv")
    join: Join | None = None
    cell: dict[str, CellValue] = Field(description="primary cell: column -> value")
    versus: dict[str, CellValue] | None = Field(
        default=None, description="cell to compare with: the keys that differ from the primary one"
    )
    unit: str = Field(default="pair", description="column that counts k of N")
    across: bool = Field(
        default=False, description="decide by the interval over units (seeds), not one by one"
    )
    over: Pool = Field(default="median", description="pooling over the cell's rows")
    value: str = Field(description="column that is judged")
    per: list[str] = Field(
        default=[], description="divide value and interval by the smallest of these columns"
    )
    interval: tuple[str, str] | None = Field(default=None, description="columns low and high")
    p: str | None = Field(default=None, description="column of p values, corrected by Holm")
    logged: bool = Field(default=False, description="ratio: the columns hold logarithms")
    above: float | None = Field(default=None, description="holds where the interval lies above")
    below: float | None = Field(default=None, description="holds where the interval lies below")
    within: float | None = Field(
        default=None, gt=0, description="equivalence: margin; for versus ratios a factor above 1"
    )
    as_ratio: bool = Field(default=False, description="equivalence: compare by ratio")
    requires: list[Bound] = Field(default_factory=list, description="else: not measured")
    by_construction: Bound | None = Field(
        default=None, description="where it is met, the claim follows from the definition"
    )

    @property
    def is_ratio(self) -> bool:
        """Whether value, interval and bound are compared on the log scale."""
        return self.kind == "ratio" or self.as_ratio

    @model_validator(mode="after")
    def _bound_fits_kind(self) -> "Claim":
        bounds = [key for key in ("above", "below", "within") if getattr(self, key) is not None]
        wanted = {"equivalence": ["within"], "inversion": ["above"]}.get(
            self.kind, ["above", "below"]
        )
        if len(bounds) != 1 or bounds[0] not in wanted:
            raise ValueError(f"kind '{self.kind}' needs exactly one of {', '.join(wanted)}")
        bound = getattr(self, bounds[0])
        if self.is_ratio and (bound <= 0 or (bounds[0] == "within" and bound <= 1)):
            raise ValueError(f"{bounds[0]}: {bound} is no factor to compare a ratio with")
        if self.across and (self.interval or self.p or self.kind == "inversion"):
            raise ValueError("across: units carry a value alone, no interval, p or inversion")
        if self.kind == "inversion" and (self.versus or self.by_construction or not self.interval):
            raise ValueError(
                "kind 'inversion' takes single rows: interval, no versus or by_construction"
            )
        return self


def parse_claims(data: Any, *, origin: str, others: Sequence[Claim] = ()) -> list[Claim]:
    """Check the content of a claims file, a list of mappings, and return its claims in order.

    `others` are claims of other files, whose ids are taken. A UserError names the claim's id and
    the key.
    """
    if not isinstance(data, list) or not data:
        raise UserError(f"{origin}: expected a list of claims")
    claims: list[Claim] = []
    for place, entry in enumerate(data, start=1):
        if not isinstance(entry, Mapping):
            raise UserError(f"{origin}: claim number {place}: expected keys, found {entry!r}")
        name = entry.get("id", f"number {place}")
        try:
            claim = Claim.model_validate(entry)
        except ValidationError as error:
            raise UserError(f"{origin}: claim '{name}': {first_error(error, Claim)}") from None
        if claim.id in {other.id for other in (*others, *claims)}:
            raise UserError(
                f"{origin}: claim '{name}': id: used twice; ids are unique over all studies"
            )
        claims.append(claim)
    return claims


_VERDICT = "holds, fails, inconclusive, by construction or not measured"
_MEASURED = {
    "measured": ("", "value that decides, in the unit of its table"),
    "low": ("", "lower end of its interval"),
    "high": ("", "upper end of its interval"),
}
#: Columns of `claims.csv`: a row a claim.
CLAIM_COLUMNS = {
    "study": ("", "folder of the table that decides the claim"),
    "claim": ("", "id in the claims file of the study"),
    "statement": ("", "what was claimed"),
    "verdict": ("", _VERDICT),
    "holds_in": ("", "pairs or seeds in which it holds, of those that decide"),
    "reason": ("", "why the verdict is not a plain yes or no"),
    **_MEASURED,
    "published": ("", "value in the source"),
    "kind": ("", "superiority, equivalence, inversion or ratio"),
    "decided_by": ("", "rule that decides"),
    "primary_cell": ("", "rows of the table that are read"),
    "table": ("", "file of the table"),
    "source": ("", "where it was published"),
}
#: Columns of `claims_by_pair.csv`: a row a claim and unit.
UNIT_COLUMNS = {
    **{name: CLAIM_COLUMNS[name] for name in ("study", "claim")},
    "unit": ("", "pair or seed"),
    "name": ("", "name of the pair, or the seed"),
    **{name: CLAIM_COLUMNS[name] for name in ("verdict", "reason")},
    **_MEASURED,
    "p": ("", "p-value"),
    "p_holm": ("", "p-value after Holm's correction"),
}
