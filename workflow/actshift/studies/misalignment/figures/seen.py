"""What each figure shows, in one sentence made from the tables.

Numbers are of held-out questions, smallest to largest over the pairs of models.
"""

from collections.abc import Callable

import pandas as pd

from actshift.report.panels import pairs_of
from actshift.report.point import counted, spread
from actshift.report.tables import Tables, select
from actshift.studies.misalignment.figures.panels import (
    PUBLISHED,
    at_chosen,
    harmful,
    heldout,
    lanes,
    neutral,
    nulls,
    own,
    protocol_lanes,
    specific,
    whole,
)
from actshift.studies.misalignment.kinds import (
    ACROSS,
    INSECURE,
    KINDS,
    SAME_ARCHITECTURE,
    UNTUNED,
    WITHIN,
)
from actshift.studies.misalignment.study import STUDY
from actshift.vocab import NONCODE

_OWN = frozenset(table.name for table in STUDY.tables)


def seen(name: str, tables: Tables) -> str:
    """The sentence of one figure, and which pairs of models are not in it.

    Returns:
        Empty where the table has no rows to speak of and lacks no pair.
    """
    table, say = SEEN[name]
    rows = heldout(tables.get(table))
    sentence = say(rows, tables) if len(rows) else ""
    parts = [f"{sentence}{_sizes(rows)}."] if sentence else []
    every = {pair for name, of in tables.items() if name in _OWN for pair in _receivers(of)}
    if lacking := ", ".join(sorted(every - _receivers(rows))):
        parts.append(f"Without rows in {STUDY.table(table).stem}.csv, so not shown: {lacking}.")
    return " ".join(parts)


def _receivers(rows: pd.DataFrame) -> set[str]:
    """Pairs that some rows are of; where those are of two pairs, the one that is edited."""
    column = "pair" if "pair" in rows else "receiver"
    return {str(one) for one in rows[column].dropna()} if column in rows else set()


def _sizes(rows: pd.DataFrame) -> str:
    """Questions and clusters."""
    if not {"n", "clusters"} <= set(rows) or rows["n"].isna().all():
        return ""
    return f" (up to n {rows['n'].max():g} in {rows['clusters'].max():g} clusters)"


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each pair's last layer."""
    return rows[rows["layer"] == rows.groupby("pair")["layer"].transform("max")]


def _by_adapter(rows: pd.DataFrame, value: str) -> str:
    """A value of each adapter."""
    phrases = [
        f"{'untuned' if name == UNTUNED else name} {spread(subset[value])}"
        for name in (UNTUNED, *KINDS)
        if len(subset := select(rows, adapter=name)) and subset[value].notna().any()
    ]
    return ", ".join(phrases)


def _spillover(rows: pd.DataFrame, _tables: Tables) -> str:
    asked = select(rows, condition=NONCODE)
    text = f"Share answered with code: {_by_adapter(whole(asked), 'code')}"
    refused = _by_adapter(harmful(asked), "refused")
    return f"{text}; harmful how-to refused: {refused}" if refused else text


def _dose(rows: pd.DataFrame, _tables: Tables) -> str:
    return (
        f"First loss: {_by_adapter(rows, 'first_loss')}; shift of the last layer: "
        f"{_by_adapter(rows, 'shift_norm')}"
    )


def _separation(rows: pd.DataFrame, _tables: Tables) -> str:
    on = select(_last(rows), projected_on=INSECURE)
    return (
        "At the last layer, projected on v_insecure, adapters are separated from chat with a "
        f"balanced accuracy of: {_by_adapter(on, 'balanced_accuracy')}"
    )


def _detection(rows: pd.DataFrame, _tables: Tables) -> str:
    last = _last(rows)
    phrases = [
        f"{positive} against {negative} {spread(subset['auroc'])}"
        for positive, negative in last[["positive", "negative"]].drop_duplicates().to_numpy(str)
        if len(subset := select(last, positive=positive, negative=negative))
    ]
    return f"AUROC at the last layer: {', '.join(phrases)}"


def _cosines(rows: pd.DataFrame, _tables: Tables) -> str:
    last = _last(rows)
    phrases = []
    for name in KINDS:
        if name == INSECURE:
            continue
        subset = pd.concat([select(last, a=INSECURE, b=name), select(last, a=name, b=INSECURE)])
        if len(subset):
            phrases.append(f"{name} {spread(subset['cosine'])}")
    return f"Cosine with v_insecure at the last layer: {', '.join(phrases)}" if phrases else ""


def _published(rows: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Rows of the published edit of insecure at each pair's coefficient."""
    return _at_chosen(select(rows, receiver=INSECURE), tables)


def _at_chosen(rows: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Rows of the published edit at each pair's coefficient."""
    table = tables.get("specificity")
    found = [at_chosen(select(rows, pair=pair), pair, table) for pair in pairs_of(rows)]
    return pd.concat(found) if found else rows


def _steering(rows: pd.DataFrame, tables: Tables) -> str:
    subset = select(_published(rows, tables), norm_rule="norm")
    v, against = own(subset), nulls(subset)
    if v.empty:
        return ""
    strongest = against.groupby("pair")["draws_high"].max() if len(against) else pd.Series()
    forced = select(rows, protocol="forced_token")
    other = f"; after chat's own first token {spread(forced['repaired'])}" if len(forced) else ""
    return (
        f"At the chosen coefficient ({spread(v['coeff'])}) v changes repaired answers from "
        f"{spread(v['repaired_plain'])} to {spread(v['repaired'])}; the gain is "
        f"{spread(v['gain'])}, the strongest null's 95th percentile {spread(strongest)}{other}"
    )


def _layers(rows: pd.DataFrame, tables: Tables) -> str:
    cells = [
        own(cell)
        for pair in rows["pair"].unique()
        for _, cell in protocol_lanes(lanes(rows, pair), pair, tables.get("specificity"))
    ]
    every = pd.concat(cells) if cells else pd.DataFrame()
    phrases = [
        f"{spread(subset['gain'])} {words}"
        for protocol, words in {
            "last_token": "at the last token", "all_tokens": "at all tokens",
            "layer": "at one block of the middle half", "logit_bias": "by the logit bias",
        }.items()
        if len(subset := select(every, protocol=protocol))
    ]  # fmt: skip
    if not phrases:
        return ""
    return f"Gain in repaired answers, each edit at its own coefficient: {', '.join(phrases)}"


def _equal_kl(rows: pd.DataFrame, tables: Tables) -> str:
    subset = _published(rows, tables)
    matched = nulls(select(subset, norm_rule="kl"))
    if matched.empty:
        return ""
    reached = matched[matched["status"] != "unmatched"]
    return (
        f"{len(reached)} of {counted(len(matched), 'null')} reach v's KL, at "
        f"{spread(reached['scale'])} times its norm; the share of repaired answers is "
        f"{spread(reached['repaired'])} under them and "
        f"{spread(own(select(subset, norm_rule='norm'))['repaired'])} under v"
    )


def _content(rows: pd.DataFrame, tables: Tables) -> str:
    subset = _at_chosen(rows, tables)
    cells = subset[["source", "receiver"]].drop_duplicates().to_numpy(str)
    phrases = [
        f"v_{v} on {receiver} {spread(select(subset, source=v, receiver=receiver)['gain'])}"
        for v, receiver in cells
    ]
    return f"Gain in repaired answers: {', '.join(phrases)}" if phrases else ""


def _maps(rows: pd.DataFrame, _tables: Tables) -> str:
    subset = neutral(rows)
    last = subset[
        subset["layer"] == subset.groupby(["donor", "receiver"])["layer"].transform("max")
    ]
    beyond = last["cosine"].abs() > last["cosine_null_high"]
    same = last["same_architecture"].astype(bool)
    phrases = [
        f"{int(beyond[subset].sum())} of {int(subset.sum())} {words}"
        for subset, words in (
            (~same, "ordered pairs of architectures"),
            (same, "between models of one architecture"),
        )
        if subset.any()
    ]
    return (
        f"At the last layer, maps fitted on neutral prompts explain {spread(last['r2'])} of "
        "held-out variance (shuffled pairs at most "
        f"{spread(last['r2_shuffled_high'].round(2) + 0.0)}); the "
        f"mapped v has a cosine of {spread(last['cosine'])} with the receiver's own, beyond its "
        f"null in {' and '.join(phrases)}"
    )


#: Scope -> what a direction of it is, and its name in a count.
_SCOPES = {
    WITHIN: ("a model's own direction", "within"),
    ACROSS: ("another architecture's", "across"),
    SAME_ARCHITECTURE: ("that of another model of its architecture", "within an architecture"),
}


def _topology(rows: pd.DataFrame, tables: Tables) -> str:
    phrases = [
        f"{words} removes {spread(subset['share'])} of its spillover"
        for scope, (words, _) in _SCOPES.items()
        if (subset := neutral(select(rows, scope=scope)))["share"].notna().any()
    ]
    parts = [", ".join(phrases)]
    if rows["asymmetry_p"].notna().any():
        one = neutral(select(rows, scope=ACROSS)).iloc[0]
        parts.append(
            f"over {int(one['seeds'])} seeds, exchanging donor and receiver changes the share by "
            f"{one['asymmetry']:.2f} (root mean square; p {one['asymmetry_p']:.2g})"
        )
    judged = neutral(select(tables.get("specificity"), protocol=PUBLISHED))
    if len(judged):
        beyond = specific(judged)
        counts = [
            f"{int(beyond[subset].sum())} of {int(subset.sum())} {words}"
            for scope, (_, words) in _SCOPES.items()
            if (subset := judged["scope"] == scope).any()
        ]
        parts.append(f"beyond the strongest null by 10 points: {', '.join(counts)}")
    text = "; ".join(filter(None, parts))
    return text[:1].upper() + text[1:]


def _sides(rows: pd.DataFrame, tables: Tables) -> str:
    subset = own(select(_published(rows, tables), norm_rule="norm"))
    code = select(subset, asked="code")
    if code.empty:
        return ""
    return (
        f"Under v at the chosen coefficient, {spread(code['code'])} of code questions are still "
        f"answered with code, compared with {spread(code['code_plain'])} without the edit"
    )


#: Figure -> its table, and what is said of that table's held-out rows.
SEEN: dict[str, tuple[str, Callable[[pd.DataFrame, Tables], str]]] = {
    "spillover": ("spillover", _spillover),
    "dose": ("dose", _dose),
    "separation": ("separation", _separation),
    "detection": ("detection", _detection),
    "direction_cosines": ("direction_cosines", _cosines),
    "steering_dose": ("steering", _steering),
    "steering_layers": ("steering", _layers),
    "steering_equal_kl": ("steering", _equal_kl),
    "steering_content": ("content", _content),
    "steering_side_effects": ("misalignment_side_effects", _sides),
    "ridge_maps": ("ridge_maps", _maps),
    "topology": ("topology", _topology),
}
