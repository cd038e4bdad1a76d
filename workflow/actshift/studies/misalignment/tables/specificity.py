"""Table `specificity`: is an edit better than random ones of equal norm, at one coefficient?"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from actshift.maths.cluster_rows import ClusterRows, columns
from actshift.studies.misalignment.kinds import ACROSS, INSECURE, WITHIN
from actshift.studies.misalignment.tables.lanes import (
    BROKEN,
    Group,
    Lanes,
    PairFiles,
    Rows,
    chosen,
    groups_of,
    select_gain,
)
from actshift.vocab import NONCODE

#: Share of a null's draws that an effect must lie above.
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Null:
    """The draws of one null: gains, and their 95th percentile on each resample.

    Attributes:
        high: 95th percentile of the gains; `high_drawn` on each resample of the clusters.
        cosine: Median |cosine| of the draws with v: near 1 the null is v itself.
    """

    name: str
    gains: Float[np.ndarray, " lane"]
    high: float
    high_drawn: Float[np.ndarray, " draw"]
    cosine: float

    @classmethod
    def of(
        cls,
        name: str,
        gains: Float[np.ndarray, " lane"],
        drawn: Float[np.ndarray, "lane draw"],
        *,
        cosine: float = float("nan"),
    ) -> "Null":
        """Take the percentiles."""
        high = float(percentile(gains[:, None])[0])
        return cls(name, gains, high, percentile(drawn), cosine)


@dataclass(frozen=True, eq=False)
class Margin:
    """Gain of an edit minus the 95th percentile of the null that comes closest to it.

    Attributes:
        value: On the questions as they are.
        drawn: On each resample; the strongest null is found anew on each.
        strongest: The null with the highest 95th percentile.
        p: (1 + draws that gain as much) / (1 + draws), the largest of all nulls.
    """

    value: float
    drawn: Float[np.ndarray, " draw"]
    strongest: Null
    p: float


def percentile(values: Float[np.ndarray, "lane column"]) -> Float[np.ndarray, " column"]:
    """95th percentile of each column, with numpy's linear interpolation.

    `np.partition` on two places: `np.quantile` takes three times as long, and this runs on 999
    draws times as many resamples, for every null.
    """
    place = LEVEL * (len(values) - 1)
    low, high = int(np.floor(place)), int(np.ceil(place))
    ordered = np.partition(values, sorted({low, high}), axis=0)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def margin_over(
    gain: float, drawn: Float[np.ndarray, " draw"], nulls: Sequence[Null]
) -> Margin | None:
    """Hold one gain against all nulls; `drawn` and these are on the same resamples."""
    if not nulls:
        return None
    strongest = max(nulls, key=lambda one: one.high)
    beyond = np.max([one.high_drawn for one in nulls], axis=0)
    # A draw that gains as much but for rounding counts as one that gains as much.
    reached = [(1 + int((one.gains >= gain - 1e-12).sum())) / (1 + len(one.gains)) for one in nulls]
    return Margin(gain - strongest.high, drawn - beyond, strongest, max(reached))


def verdict(value: float, low: float, high: float, *, broken: bool, least: float) -> str:
    """What a margin says.

    Returns:
        specific: at least `least` with its interval above 0; not specific: an interval that lies
        wholly below `least`; broken; else inconclusive.
    """
    if broken:
        return "broken"
    if value >= least and low > 0:
        return "specific"
    return "not specific" if high < least else "inconclusive"


#: Smallest margin over the 95th percentile of a null's draws.
LEAST = 0.1
#: Edits that have nulls of many draws (the first two protocols).
PROTOCOLS = ("last_token", "all_tokens")


@dataclass(frozen=True, eq=False)
class Edit:
    """One edit at the chosen coefficient, measured on held-out non-code questions.

    Attributes:
        code: Whether answers hold code, by question; `code_plain` without the edit.
        whole: Whether they are repaired, and without the edit.
        degenerate: Share of degenerate answers, and without the edit.
        select_gain: Gain in repaired answers on select questions.
    """

    group: Group
    prompt_ids: tuple[str, ...]
    sample: ClusterRows
    code_plain: Float[np.ndarray, " prompt"]
    code: Float[np.ndarray, " prompt"]
    whole_plain: Float[np.ndarray, " prompt"]
    whole: Float[np.ndarray, " prompt"]
    degenerate: float
    degenerate_plain: float
    select_gain: float

    @property
    def why(self) -> str:
        """What is to be said of how its coefficient was chosen."""
        return "" if self.select_gain > 0 else "no coefficient repairs anything on select questions"

    @property
    def coeff(self) -> float:
        """The chosen coefficient."""
        return float(str(self.group.facts["coeff"]))

    @property
    def broken(self) -> bool:
        """Whether it breaks more than a tenth of the answers."""
        return self.degenerate - self.degenerate_plain > BROKEN

    def drawn(self, values: Float[np.ndarray, " prompt"]) -> Float[np.ndarray, " draw"]:
        """A mean over questions on each resample."""
        return self.sample.draws(values[None, :])[0]


@dataclass(frozen=True, eq=False)
class Receiver:
    """The lanes that one model's insecure adapter ran; nulls are worked out once."""

    files: PairFiles
    seed: int
    _nulls: dict[tuple[object, ...], Null] = field(default_factory=dict)

    def edit_of(self, lanes: Lanes, edits: list[Group]) -> Edit | None:
        """The edit at the coefficient chosen on select questions; None where there is none."""
        group = chosen(lanes, edits)
        if group is None or not len(places := _heldout(lanes, group)):
            return None

        def of(name: str, rows: np.ndarray) -> Float[np.ndarray, " prompt"]:
            return lanes.values(name, rows, places).mean(axis=0)

        return Edit(
            group,
            tuple(lanes.prompts["prompt_id"].iloc[places]),
            lanes.sample(places, seed=self.seed),
            of("code", group.plain),
            of("code", group.rows),
            of("repaired", group.plain),
            of("repaired", group.rows),
            float(of("degenerate", group.rows).mean()),
            float(of("degenerate", group.plain).mean()),
            select_gain(lanes, group),
        )

    def nulls(self, lanes: Lanes, groups: Iterable[Group], edit: Edit) -> list[Null]:
        """The nulls among some groups, at the edit's coefficient, that answered its questions."""
        coeff = edit.group.facts["coeff"]
        drawn = [one for one in groups if one.is_null and one.facts["coeff"] == coeff]
        nulls = [self._null(lanes, group, edit) for group in drawn]
        return [null for null in nulls if null is not None]

    def _null(self, lanes: Lanes, group: Group, edit: Edit) -> Null | None:
        key = (id(lanes), *group.key())
        if key not in self._nulls:
            places = _heldout(lanes, group)
            if tuple(lanes.prompts["prompt_id"].iloc[places]) != edit.prompt_ids:
                return None
            plain = lanes.values("repaired", group.plain, places)
            gains = lanes.values("repaired", group.rows, places) - plain
            drawn, name = edit.sample.draws(gains), str(group.facts["control"])
            self._nulls[key] = Null.of(name, gains.mean(axis=1), drawn, cosine=group.cosine)
        return self._nulls[key]


def _heldout(lanes: Lanes, group: Group) -> np.ndarray:
    """Held-out non-code questions that a group and its plain lane were asked."""
    rows = np.concatenate([group.rows, group.plain])
    return lanes.all_asked(rows, lanes.asked(condition=NONCODE, split="heldout"))


@dataclass(frozen=True, eq=False)
class Judged:
    """One row before the correction over rows: an edit, and its margin over the nulls."""

    donor: str
    receiver: str
    protocol: str
    fit_on: str | None
    edit: Edit
    margin: Margin | None
    why: str

    @property
    def within(self) -> bool:
        """Whether the direction is the receiver's own."""
        return self.donor == self.receiver


def judged_edits(receiver: Receiver) -> list[Judged]:
    """Every edit of a receiver's insecure adapter by its own or a mapped direction."""
    judged: list[Judged] = []
    own: dict[str, list[Group]] = {}
    if receiver.files.steering is not None:
        groups = _of_insecure(receiver.files.steering)
        own = {name: [one for one in groups if one.facts["protocol"] == name] for name in PROTOCOLS}
        for protocol, among in own.items():
            judged += _within(receiver, receiver.files.steering, protocol, among)
    if receiver.files.transfer is not None:
        judged += _across(receiver, receiver.files.transfer, own)
    return judged


def specificity_rows(found: list[Judged]) -> Rows:
    """Rows of one receiver; `p_holm` is added over all receivers."""
    own = {one.protocol: one for one in found if one.within}
    return [_row(one, own.get(one.protocol)) for one in found]


def _within(receiver: Receiver, lanes: Lanes, protocol: str, groups: list[Group]) -> list[Judged]:
    edits = [one for one in groups if one.facts["control"] == "direction"]
    # Costly nulls are drawn at one coefficient alone, which was chosen by the same rule.
    held = {one.facts["coeff"] for one in groups if one.is_null}
    edit = receiver.edit_of(lanes, [one for one in edits if one.facts["coeff"] in held] or edits)
    if edit is None:
        return []
    nulls = receiver.nulls(lanes, groups, edit)
    pair = receiver.files.pair
    return [Judged(pair, pair, protocol, None, edit, _margin(edit, nulls), "")]


def _across(receiver: Receiver, lanes: Lanes, own: Mapping[str, list[Group]]) -> list[Judged]:
    groups, found = _of_insecure(lanes), []
    mapped = [one for one in groups if one.facts["control"] == "mapped"]
    for key in dict.fromkeys(_map_of(one) for one in mapped):
        donor, protocol, fit_on = key
        edit = receiver.edit_of(lanes, [one for one in mapped if _map_of(one) == key])
        if edit is None:
            continue
        # Draws of a donor's maps are made for one way to fit them and serve the others too.
        its = [one for one in groups if one.is_null and _map_of(one)[:2] == key[:2]]
        its = [one for one in its if _map_of(one) == key] or its
        nulls = receiver.nulls(lanes, its, edit)
        steering, why = receiver.files.steering, "no nulls of the receiver: no steering"
        if steering is not None:
            nulls += receiver.nulls(steering, own.get(protocol, []), edit)
            why = ""
        judged = _margin(edit, nulls)
        found.append(Judged(donor, receiver.files.pair, protocol, fit_on, edit, judged, why))
    return found


def _margin(edit: Edit, nulls: list[Null]) -> Margin | None:
    gain = edit.whole - edit.whole_plain
    return margin_over(float(gain.mean()), edit.drawn(gain), nulls)


def _of_insecure(lanes: Lanes) -> list[Group]:
    """Groups of equal norm, not made orthogonal, whose vector stands for v of the insecure."""
    return [
        one
        for one in groups_of(lanes)
        if one.facts["receiver"] == INSECURE
        and one.at_norm
        and (one.facts["source"] == INSECURE or one.is_null)
    ]


def _map_of(group: Group) -> tuple[str, str, str]:
    facts = group.facts
    return str(facts["donor"]), str(facts["protocol"]), str(facts.get("fit_on"))


def _row(one: Judged, own: Judged | None) -> dict[str, object]:
    edit, margin = one.edit, one.margin
    gain, drop = edit.whole - edit.whole_plain, edit.code_plain - edit.code
    row: dict[str, object] = {
        **{"donor": one.donor, "receiver": one.receiver, "protocol": one.protocol},
        **{"scope": WITHIN if one.within else ACROSS, "fit_on": one.fit_on},
        **{"coeff": edit.coeff},
        "pairing": None if one.within else f"{one.donor} -> {one.receiver}",
        **edit.sample.facts,
        **edit.sample.change_columns("gain", gain[None])[0],
        **edit.sample.change_columns("drop", drop[None])[0],
        "code_plain": float(edit.code_plain.mean()),
        **{"degenerate": edit.degenerate, "degenerate_plain": edit.degenerate_plain},
    }
    if margin is None:
        return row | {"status": "no nulls", "why": one.why or "no null at this coefficient"}
    low, high = edit.sample.ends(margin.drawn[None])[0]
    found = verdict(margin.value, float(low), float(high), broken=edit.broken, least=LEAST)
    return row | {
        **{"null": margin.strongest.name, "null_high": margin.strongest.high},
        **{"draws": len(margin.strongest.gains), "null_cosine": margin.strongest.cosine},
        **{"p": margin.p, "verdict": found},
        **columns("margin", np.array([margin.value]), np.array([[low, high]]))[0],
        **_loss(one, own),
        "status": "broken" if edit.broken else "ok",
        "why": "; ".join(part for part in (one.why, edit.why) if part),
    }


def _loss(one: Judged, own: Judged | None) -> dict[str, object]:
    """The receiver's own margin minus this one, on the same resamples."""
    if one.within or own is None or own.margin is None or one.margin is None:
        return {}
    if own.edit.prompt_ids != one.edit.prompt_ids:
        return {}
    value = own.margin.value - one.margin.value
    low, high = one.edit.sample.ends((own.margin.drawn - one.margin.drawn)[None])[0]
    return {
        **{"margin_within": own.margin.value, "loss_against_within": value},
        **{"loss_low": float(low), "loss_high": float(high)},
    }
