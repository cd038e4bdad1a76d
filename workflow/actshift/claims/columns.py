"""Columns of the claims tables, for those that write them and those that read them."""

#: Columns of `claims.csv`: a row a claim.
CLAIM_COLUMNS = (
    "study",
    "claim",
    "statement",
    "verdict",
    "holds_in",
    "reason",
    "measured",
    "low",
    "high",
    "published",
    "kind",
    "decided_by",
    "primary_cell",
    "table",
    "source",
)
#: Columns of `claims_by_pair.csv`: a row a claim and unit.
UNIT_COLUMNS = (
    "study",
    "claim",
    "unit",
    "name",
    "verdict",
    "reason",
    "measured",
    "low",
    "high",
    "p",
    "p_holm",
)
