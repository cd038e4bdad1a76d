"""The points of an answer: each looks at one table, checks what it requires, then speaks."""

from math import exp, pi, sqrt

import numpy as np
import pandas as pd

from actshift.report.point import (
    COSINE_MARGIN,
    MIN_CLUSTERS,
    RANK_FLOOR,
    RHO_MIN_WIDTH,
    SAMPLE_SHARE,
    Point,
    counted,
    not_measured,
    number,
    percent,
    spans,
    unit,
)
from actshift.report.tables import Tables, first, mean, median, select, values

_PREDICTED = "cos_refusal_from_means"


def points(tables: Tables, pair: str) -> list[Point]:
    """What the tables say about one pair."""
    return [
        low_rank_point(tables, pair),
        template_point(tables, pair),
        layers_point(tables, pair),
        direction_point(tables, pair),
        heldout_point(tables, pair),
        concepts_point(tables, pair),
    ]


def low_rank_point(tables: Tables, pair: str) -> Point:
    """How many directions the template-matched shift needs, and what bounds that number."""
    question = "How low-rank is the shift?"
    rows = _rank_rows(tables, pair)
    if rows.empty:
        return not_measured(question, "rank")
    n, d = int(first(rows, "n")), int(first(rows, "d"))
    bound = min(n, d)
    average = mean(rows, "rank_eps")
    clause = (
        f"over {n} harmful prompts the tuned-minus-base shift (both under the chat template) "
        f"needs {number(average)} of at most {bound} directions on the average layer"
    ) + _otherwise(tables, pair, rows)
    bounded = median(rows, "rank_eps") >= bound * SAMPLE_SHARE
    if bounded:
        clause += ", too near that bound to call it low or high"
    detail = f"Its first direction alone holds {percent(median(rows, 'top_share'))} of the energy"
    if "mean_share" in rows:
        detail += f", the mean over prompts {percent(median(rows, 'mean_share'))}"
    layers = counted(len(rows), "layer")
    detail += f" (median over {layers}). {_centred(rows)} {_rho(average, d)}"
    basis = f"{n} prompts, d {d}; in sample: see the held-out point for what carries over."
    verdict = "cannot be told" if bounded else "measured"
    return Point(question, verdict, clause, detail, basis, f"{number(average)} of {bound}")


def _rank_rows(tables: Tables, pair: str) -> pd.DataFrame:
    """Template matrix, harmful prompts, all categories together: a row a layer."""
    return select(
        tables.get("rank"), pair=pair, matrix="template", inputs="harmful", category="all"
    )


def _otherwise(tables: Tables, pair: str, ranks: pd.DataFrame) -> str:
    """The same without the shared mean, and without the rule of layers that hardly move."""
    centred = f"{number(mean(ranks, 'rank_eps_centered'))} without the mean over prompts"
    rows = select(
        tables.get("summary"), pair=pair, source="measured", matrix="template", inputs="harmful"
    )
    rows = select(rows, pooling="last_prompt") if len(rows) else rows
    if rows.empty or not np.isfinite(first(rows, "weighted_rank_eps")):
        return f" ({centred})"
    weighted = number(first(rows, "weighted_rank_eps"))
    return f" ({weighted} with layers weighted by relative energy; {centred})"


def _centred(rows: pd.DataFrame) -> str:
    """Rank after the mean over prompts is removed; a ratio only above the floor."""
    centred = mean(rows, "rank_eps_centered")
    text = f"Without the mean over prompts it needs {number(centred)}"
    if median(rows, "rank_eps") < RANK_FLOOR:
        return f"{text}; no ratio is given at an uncentred rank below {RANK_FLOOR}."
    return f"{text}, {number(centred / mean(rows, 'rank_eps'))} times as many."


def _rho(mean: float, d: int) -> str:
    """Rank over width, where a narrow model can say anything about it."""
    if d >= RHO_MIN_WIDTH:
        return f"Rank / d is {number(mean / d)}."
    return f"Rank / d is not compared with published values: at d {d} a rank of 1 is {1 / d:.3f}."


def template_point(tables: Tables, pair: str) -> Point:
    """How much of the naive rank goes away once both models see the same template."""
    question = "How much of the naive rank is the chat template?"
    rows = select(tables.get("inflation"), pair=pair, inputs="harmful")
    if rows.empty:
        return not_measured(question, "inflation")
    naive, template = median(rows, "rank_naive"), median(rows, "rank_template")
    basis = (
        f"{int(first(rows, 'n'))} prompts, equal n in both; stability range over "
        f"{int(first(rows, 'draws'))} half-samples of clusters, not a confidence interval."
    )
    ranks = f"median naive rank {number(naive)}, template rank {number(template)}"
    if min(naive, template) < RANK_FLOOR:
        clause = (
            f"how much of the naive rank is template cannot be told at the rank floor ({ranks})"
        )
        detail = f"A ratio needs a median rank of {RANK_FLOOR} or more in both matrices."
        brief = f"floor: {number(naive)} / {number(template)}"
        return Point(question, "cannot be told", clause, detail, basis, brief)
    return _ratio_point(question, rows, ranks, basis)


def _ratio_point(question: str, rows: pd.DataFrame, ranks: str, basis: str) -> Point:
    """The ratio of ranks above the floor, with the layers whose range leaves 1."""
    low, high = exp(median(rows, "log_ratio_low")), exp(median(rows, "log_ratio_high"))
    ratio = f"{number(median(rows, 'ratio'))} (range {number(low)} to {number(high)})"
    layers = len(rows)
    above = int(np.sum(values(rows, "log_ratio_low") > 0))
    below = int(np.sum(values(rows, "log_ratio_high") < 0))
    detail = (
        f"{ranks[0].upper()}{ranks[1:]}; the range lies above 1 at {above} and below 1 at "
        f"{below} of {counted(layers, 'layer')}."
    )
    if above > layers / 2:
        clause = f"the naive matrix inflates the rank {ratio} times"
    elif below > layers / 2:
        clause = f"the naive rank is smaller than the template one, {ratio} times it"
    else:
        clause = f"whether the template inflates the naive rank is open, ratio {ratio}"
        return Point(question, "inconclusive", clause, detail, basis, ratio)
    return Point(question, "measured", clause, detail, basis, ratio)


def layers_point(tables: Tables, pair: str) -> Point:
    """Where the shift is large beside the activations."""
    question = "Which layers carry the shift?"
    rows = _rank_rows(tables, pair)
    if rows.empty:
        return not_measured(question, "rank")
    rows = rows.dropna(subset=["relative_shift_norm"])
    if rows.empty:
        return not_measured(question, "rank")
    size, layers = values(rows, "relative_shift_norm"), values(rows, "layer").astype(int)
    peak, top = layers[size.argmax()], float(size.max())
    half = layers[size >= top / 2].tolist()
    clause = f"the shift is largest at layer {peak} ({unit(top)} of the activations' norm)"
    detail = (
        f"At least half of that at layers {spans(half)}; smallest at layer "
        f"{layers[size.argmin()]} ({unit(float(size.min()))})."
    )
    basis = (
        f"{int(first(rows, 'n'))} prompts. A block's output carries what earlier blocks wrote: "
        "this is cumulative, not a layer's own share."
    )
    return Point(question, "measured", clause, detail, basis, f"layer {peak} ({unit(top)})")


def direction_point(tables: Tables, pair: str) -> Point:
    """The first did direction against the refusal direction and against what means predict."""
    question = "Does the first direction recover the refusal direction?"
    rows = select(tables.get("cosine"), pair=pair, matrix="did", inputs="harmful")
    if _PREDICTED in rows:
        rows = rows.dropna(subset=["cos_refusal", _PREDICTED])
    if rows.empty or _PREDICTED not in rows:
        return not_measured(question, "cosine")
    rows = rows.assign(**{name: rows[name].abs() for name in ("cos_refusal", _PREDICTED)})
    measured, predicted = median(rows, "cos_refusal"), median(rows, _PREDICTED)
    apart = np.abs(values(rows, "cos_refusal") - values(rows, _PREDICTED)) > COSINE_MARGIN
    beyond = values(rows, "layer").astype(int)[apart].tolist()
    clause = f"the first did direction is at |cos| {unit(measured)} with the refusal direction"
    if not beyond:
        clause += f", as the means alone predict ({unit(predicted)})"
    else:
        clause += (
            f", where the means alone predict {unit(predicted)} "
            f"(more than {COSINE_MARGIN} apart at {'layer' if len(beyond) == 1 else 'layers'} "
            f"{spans(beyond)})"
        )
    verdict = "measured" if 2 * len(beyond) > len(rows) else "by construction"
    basis = _cosine_basis(tables, rows, pair)
    brief = f"{unit(measured)}, means {unit(predicted)}"
    return Point(question, verdict, clause, _algebra(rows), basis, brief)


def _algebra(rows: pd.DataFrame) -> str:
    """What decides the cosine: the size of the base model's own difference."""
    text = (
        "By algebra mean(did) = refusal direction minus the base's own harmful-harmless "
        f"difference, whose norm is {number(median(rows, 'base_difference_ratio'))} of the "
        "refusal direction's: that size is the finding, not the recovery. After centring, |cos| is "
        f"{unit(float(np.median(np.abs(values(rows, 'cos_refusal_centered')))))}."
    )
    if "cos_control_from_means" not in rows or not len(values(rows, "cos_control_from_means")):
        return text
    control = float(np.median(np.abs(values(rows, "cos_control_from_means"))))
    return f"{text} The means predict {unit(control)} for question against statement."


def _cosine_basis(tables: Tables, rows: pd.DataFrame, pair: str) -> str:
    """Layers, chance level and the lack of an interval."""
    basis = f"Medians over {counted(len(rows), 'layer')}; no interval is computed for this cosine."
    sizes = _rank_rows(tables, pair)
    if sizes.empty:
        return basis
    n, d = int(first(sizes, "n")), int(first(sizes, "d"))
    # E|cos| of a fixed and a random direction in d dimensions.
    chance = sqrt(2 / (pi * d))
    return f"{n} prompts. {basis} A random direction would be at {unit(chance)} (d {d})."


def heldout_point(tables: Tables, pair: str) -> Point:
    """How many fitted directions beat a shuffled null on clusters they were not fitted on."""
    question = "How many directions carry over to unseen clusters?"
    rows = select(tables.get("heldout_rank"), pair=pair, matrix="template", inputs="harmful")
    if rows.empty:
        return not_measured(question, "heldout_rank")
    by_layer = rows.drop_duplicates("layer")
    clusters = int(values(by_layer, "clusters_heldout").min())
    knee, last_k = median(by_layer, "knee"), values(rows, "k").max()
    basis = (
        f"Fitted on {first(rows, 'n_fit'):g}, judged on {first(rows, 'n_heldout'):g} "
        f"prompts in {counted(clusters, 'held-out cluster')}; null: shuffled coordinates."
    )
    knees = values(by_layer, "knee")
    span = dict.fromkeys((f"{knees.min():g}", f"{knees.max():g}"))
    detail = f"Knee {' to '.join(span)} over layers"
    at_knee = rows.loc[rows["k"] == rows["knee"].clip(lower=1)]
    detail += (
        f"; there {percent(median(at_knee, 'share_heldout'))} of the held-out energy "
        f"(null {percent(median(at_knee, 'share_null'))})." if len(at_knee) else "."
    )  # fmt: skip
    if clusters < MIN_CLUSTERS:
        clause = (
            f"{counted(clusters, 'held-out cluster')} cannot tell how many directions carry over"
        )
        return Point(question, "cannot be told", clause, detail, basis, f"{clusters} clusters")
    most = "at least " if knee >= last_k else ""
    carry = "direction carries" if knee == 1 else "directions carry"
    clause = f"{most}{number(knee)} fitted {carry} over to {clusters} unseen clusters"
    if knee < 1:
        clause = f"no fitted direction beats a shuffled null on {clusters} unseen clusters"
    return Point(question, "measured", clause, detail, basis, f"{most}{number(knee)}")


def concepts_point(tables: Tables, pair: str) -> Point:
    """Rank of the shift beside paired concepts inside one model, at the same n."""
    question = "Is the shift of lower rank than plain concept differences?"
    rows = select(tables.get("concept_baseline"), pair=pair, matched=True)
    if rows.empty:
        return not_measured(question, "concept_baseline")
    shift, concept, n = (
        median(rows, "rank_template"),
        median(rows, "rank_eps"),
        values(rows, "n").min(),
    )
    basis = f"Matched n {n:g}; {_words(rows, 'concept')}; in the {_words(rows, 'role')} model."
    brief = f"{number(shift)}, concepts {number(concept)}"
    detail = f"Median rank {number(shift)} for the shift, {number(concept)} for the concepts."
    if max(shift, concept) >= n * SAMPLE_SHARE:
        detail += f" From a third of n = {n:g} on, a rank is set by the sample."
        return Point(question, "cannot be told", "", detail, basis, brief)
    if min(shift, concept) < RANK_FLOOR:
        detail += f" Below {RANK_FLOOR} a comparison of ranks is at the floor."
        return Point(question, "cannot be told", "", detail, basis, brief)
    lower = int(np.sum(values(rows, "log_ratio_low") > 0))
    detail += f" The range of the ratio puts the shift below at {lower} of {len(rows)} cells."
    verdict = "measured" if lower > len(rows) / 2 else "inconclusive"
    word = "is" if verdict == "measured" else "is not clearly"
    clause = (
        f"at matched n its rank ({number(shift)}) {word} below that of plain concepts "
        f"({number(concept)})"
    )
    return Point(question, verdict, clause, detail, basis, brief)


def _words(rows: pd.DataFrame, column: str) -> str:
    """A column's distinct values as a list."""
    return ", ".join(dict.fromkeys(str(value) for value in rows[column].to_numpy()))
