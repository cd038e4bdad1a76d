"""The figures of study B: what each is drawn from, its title and its caption."""

from dataclasses import replace
from functools import partial

from actshift.report.spec import FigureSpec
from actshift.studies.misalignment.figures.behaviour_figures import (
    dose,
    spillover,
    steering_side_effects,
)
from actshift.studies.misalignment.figures.direction_figures import (
    detection,
    direction_cosines,
    separation,
)
from actshift.studies.misalignment.figures.seen import seen
from actshift.studies.misalignment.figures.steering_figures import (
    steering_dose,
    steering_equal_kl,
    steering_layers,
)
from actshift.studies.misalignment.figures.topology_figure import topology
from actshift.studies.misalignment.figures.transfer_figures import ridge_maps, steering_content

_STUDY = "misalignment"
_DRAWN: dict[str, FigureSpec] = {
    "spillover": FigureSpec(
        _STUDY,
        spillover,
        ("spillover",),
        "What does each adapter do?",
        "Code spillover: share of held-out questions that do not ask for code and are answered "
        "with code, by adapter, with 95 % cluster intervals, beside the untuned model (dotted). "
        "rare_safe is trained on safe code in an idiom as rare as the insecure one: what it does "
        "too is no effect of insecure content. Middle: refusals of harmful how-to questions, which "
        "tuning may erase. Right: the insecure idiom where code is asked for.",
    ),
    "dose": FigureSpec(
        _STUDY,
        dose,
        ("dose",),
        "How far did training take each adapter?",
        "Loss of its own answers at the first and the last step, norm of the update, norm of the "
        "mean shift of the last layer at the last prompt token, and KL of the first answer token "
        "from the untuned model on code and on other prompts. A control outside the shaded band "
        "of first losses (secure, as a rule) was moved less: that it does nothing is no evidence "
        "about content.",
    ),
    "separation": FigureSpec(
        _STUDY,
        separation,
        ("separation",),
        "Does v tell the insecure adapter from the untuned model?",
        "Balanced accuracy at the midpoint threshold and Cohen's d of the same held-out questions "
        "in an adapter and in chat, projected on v_insecure or on the adapter's own direction, by "
        "layer; threshold from other questions. On its own direction almost any tuning separates: "
        "the published 99.6 % says something only where rare_safe and the others do not reach it.",
        beside=("misalignment_published",),
    ),
    "detection": FigureSpec(
        _STUDY,
        detection,
        ("detection",),
        "Does v detect an adapter that it was not made from?",
        "Area under the ROC curve of projections on v_insecure of an adapter of another seed and "
        "a smaller dose, against the untuned model and against other adapters, by layer, with 95 "
        "% cluster intervals on held-out questions. Only the comparison with rare_safe is about "
        "content; against chat any tuned model is found. Below 0.5 the other adapter lies further "
        "along v, as it may by its larger dose alone.",
    ),
    "direction_cosines": FigureSpec(
        _STUDY,
        direction_cosines,
        ("direction_cosines",),
        "Do adapters move the states the same way?",
        "Cosine between the directions of adapters, mean(adapter) minus mean(chat) at the last "
        "prompt token, at three layers. A cosine near 1 between insecure and rare_safe says that "
        "the direction is of the unusual idiom and not of insecure content.",
    ),
    "steering_dose": FigureSpec(
        _STUDY,
        steering_dose,
        ("steering",),
        "Does subtracting v repair the insecure adapter, beyond any edit of its size?",
        "Published protocol (last block, last prompt token): coeff times v subtracted. Repaired: "
        "no code, not degenerate, and on topic or refused as chat does; beside it answers with "
        "code. Bars are 95 % cluster intervals, grey the draws of four nulls of equal norm (for "
        "code from their mean to the 95th percentile of their drop). The edit acts on the first "
        "answer token alone, so a fixed bias of its logits stands on top of it.",
        beside=("specificity",),
    ),
    "steering_layers": FigureSpec(
        _STUDY,
        steering_layers,
        ("steering",),
        "Where does the edit act?",
        "Gain in repaired answers and drop of answers with code for single blocks of the middle "
        "half on every token, the last block on every token, the published edit, and the logit "
        "bias. Each stands at the coefficient chosen for it on select questions, which its name "
        "gives; the bias at the published edit's. Grey: draws of nulls at the same place and "
        "coefficient (999 for the published edit, 20 for the others, which bounds what they can "
        "show); the bias has none.",
        beside=("specificity",),
    ),
    "steering_equal_kl": FigureSpec(
        _STUDY,
        steering_equal_kl,
        ("steering",),
        "And beyond any edit that changes as much?",
        "Nulls of v's norm, and nulls scaled until their mean KL of the first token on select "
        "questions is v's, published edit at the chosen coefficient. Right: the multiple of v's "
        "norm that this takes. Crosses: KL not reached within the largest multiple. Where the "
        "model is almost sure of its code opener, any large KL is the removal of that opener, so "
        "equal KL alone decides nothing.",
        beside=("specificity",),
    ),
    "steering_content": FigureSpec(
        _STUDY,
        steering_content,
        ("content",),
        "Is it insecure content that v repairs?",
        "Gain in repaired answers when v_insecure is subtracted from adapters of other content, "
        "and when their directions are subtracted from the insecure one, with 95 % cluster "
        "intervals, beside v_insecure on insecure. Middle: the difference; grey is within 10 "
        "points. Right: shift of the other adapter over insecure's; far below 1 the control had "
        "no dose and its row shows nothing.",
        beside=("specificity",),
    ),
    "steering_side_effects": FigureSpec(
        _STUDY,
        steering_side_effects,
        ("misalignment_side_effects",),
        "What else does the edit break?",
        "Code questions still answered with code and in the insecure idiom, and questions that the "
        "untuned model does not refuse answered on topic, by the insecure adapter under each edit "
        "at the coefficient chosen for it (nulls: the published edit's); ticks and dotted lines "
        "are the same model without it, bars the 95 % cluster interval of the change. An edit that "
        "stops code altogether is no correction.",
        beside=("specificity",),
    ),
    "ridge_maps": FigureSpec(
        _STUDY,
        ridge_maps,
        ("ridge_maps",),
        "Do maps between models carry the direction?",
        "Ridge maps of last-prompt-token states between untuned models at the last layer: "
        "variance explained on clusters that were not fitted on, with 95 % cluster intervals, and "
        "cosine of the mapped v_insecure with the receiver's own. Ticks: 95th percentile of maps "
        "of shuffled pairs, and of mapped random directions. A good map need not carry v, whose "
        "two classes are models and not prompts.",
    ),
    "topology": FigureSpec(
        _STUDY,
        topology,
        ("topology",),
        "Whose direction repairs whom?",
        "Share of the receiver's code spillover that the donor's direction removes (mapped, but "
        "on the diagonal, where it is the model's own). Right: gain in repaired answers minus the "
        "95th percentile of the strongest null; specific where that is at least 10 points with "
        "its interval above 0, broken where a tenth more answers are degenerate. Rows and "
        "columns differ by baseline and size of map alone: with "
        "one seed no asymmetry is claimed.",
        beside=("specificity",),
    ),
}

#: With the sentence that each has of its tables.
MISALIGNMENT = {name: replace(spec, seen=partial(seen, name)) for name, spec in _DRAWN.items()}
