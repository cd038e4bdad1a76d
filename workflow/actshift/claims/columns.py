"""Columns of the claims tables with unit and meaning, for those that write and read them."""

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
