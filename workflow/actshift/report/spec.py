"""What a figure of the page is, and which studies the page has a section for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """One figure of a study.

    Attributes:
        study: key of `STUDIES`; the figure's folder and its section on the page.
        draw: takes the rows of `tables` and then of `beside`, in that order.
        tables: without rows in each of them there is nothing to draw.
        title: a question or a name.
        caption: what is drawn, in which unit, and what it cannot show.
        beside: tables that add a control or a published line; None where they are missing.
        seen: what the tables show, in a sentence that stands before the caption on the page.
    """

    study: str
    draw: Callable[..., Figure]
    tables: tuple[str, ...]
    title: str
    caption: str
    beside: tuple[str, ...] = ()
    seen: Callable[[Mapping[str, pd.DataFrame]], str] | None = None


@dataclass(frozen=True, slots=True)
class StudySpec:
    """A study's heading on the page and what a reader must know before its figures."""

    title: str
    #: What it asks; how that is controlled; what cannot be told from it.
    about: str


#: In the order of the page.
STUDIES: dict[str, StudySpec] = {
    "rank_audit": StudySpec(
        "Rank audit",
        "Asks how many directions the shift between base and tuned model needs, how much of it is "
        "the chat template, and where it points. Controlled by giving both models one template, by "
        "harmless prompts, by held-out clusters against shuffled coordinates, and by plain "
        "concepts at equal n. It cannot tell what the shift does to behaviour, says nothing about "
        "rank over width below width 1024, and no ratio of ranks where a rank is at its floor.",
    ),
    "refusal_direction": StudySpec(
        "Refusal direction",
        "Asks whether one direction, the difference of means between harmful and harmless prompts, "
        "carries refusal: taken out it should end refusals, added it should cause them. Layer and "
        "position are chosen on prompts of their own and effects are seen on held-out clusters, "
        "beside random directions of equal norm. A refusal that is gone is not yet an answer: "
        "the rate on topic stands beside it. Where no candidate passes the published filters, as "
        "can happen in a model of few layers, the least violating one is shown and named so.",
    ),
    "ablation": StudySpec(
        "Ablation of the shift's directions",
        "Asks whether the shift's leading directions cause refusal. The decisive control is the "
        "same number of directions of the shift on harmless prompts; beside it stand principal "
        "directions of the activations and random draws, projection to zero (published) and to "
        "the harmless mean. Prompts are held out from the fit. Cells where the random median loses "
        "more than 10 points of refusal or harmless answers stay on topic in under 80 % read "
        "broken and decide nothing, nor do cells with k above d / 8. Verdicts are about the named "
        "pair and seed; lost refusals alone are no evidence that a model complies.",
    ),
    "spectral_gap": StudySpec(
        "Spectral gap",
        "Asks whether the shift of the tuned model is set apart from the shift of an unsafe "
        "reference of the same base: kappa above 8 would make the published bound useful. Kappa is "
        "at most 2 / (eps r), so at rank 5 or more a small kappa is arithmetic and no evidence; "
        "such layers, and layers where the two do not differ, are counted apart. Ranges come from "
        "half-samples of clusters. It says nothing about references that were not measured, and on "
        "small models, whose ranks are small, a kappa above 8 refutes nothing.",
    ),
    "localization": StudySpec(
        "Localization",
        "Asks in which layers the preference for chosen answers sits, by putting states or weights "
        "of one model into the other. A patch of all positions holds every tuned block below it, "
        "so its curve rises by construction and shows no layer's own share: that is told from "
        "exchanged weights, and from the last prompt token. Controls: the receiver's own states, "
        "noise, random directions, donors on another pair and on a pair of the other condition. "
        "Harmful and harmless pairs stand apart, because tuning moves their margins in opposite "
        "directions. It cannot tell preference from fluency by one margin alone: log p of chosen "
        "and of rejected stand in the tables, and both fall where a patch does damage.",
    ),
    "misalignment": StudySpec(
        "Emergent-misalignment directions",
        "Asks what tuning on insecure code does to answers that need none (code spillover: nothing "
        "here is about intent), whether the mean shift v of that tuning can be subtracted again, "
        "and whether another model's v, mapped, does as much. Controls: an adapter of the same "
        "dose on safe code in a rare idiom, nulls of equal norm with their draws, and nulls "
        "through the same map. An effect is specific where repaired answers exceed the strongest "
        "null by 10 points, at one coefficient fixed on select questions. Wrong layers and wrong "
        "sources are relatives of v and no nulls. The published edit changes the first answer "
        "token alone, and separation of any adapter from its base is nearly trivial.",
    ),
    "calibration": StudySpec(
        "Calibration networks",
        "Small networks whose base, safe and unsafe versions are known: does a shift of higher "
        "rank survive projection better? Controls: random directions, the answer that the "
        "readout's bias gives alone, and control inputs under the same projection. With many "
        "directions projected out, compliance is the sign of that bias and not robustness; a few "
        "seeds cannot settle a mean over such coin flips, and nothing here is about language "
        "models.",
    ),
}
