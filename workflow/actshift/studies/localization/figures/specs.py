"""The figures of localization: what each is drawn from, its title and its caption."""

from dataclasses import replace
from functools import partial

from actshift.report.spec import FigureSpec
from actshift.studies.localization.figures.attribution_figures import (
    lasso_coefficients,
    lasso_stability,
    state_distances,
)
from actshift.studies.localization.figures.dose_figures import (
    patch_interpolation,
    patch_low_rank,
    patch_positions,
)
from actshift.studies.localization.figures.figures import (
    patch_controls,
    patch_forward,
    patch_reverse,
    patch_sources,
)
from actshift.studies.localization.figures.seen import seen
from actshift.studies.localization.figures.swap_figures import swap_shares

_DRAWN: dict[str, FigureSpec] = {
    "patch_forward": FigureSpec(
        "localization",
        patch_forward,
        ("patching",),
        "What do the tuned model's states do in the base, layer by layer?",
        "Change of the base's margin, log p(chosen) minus log p(rejected), when the tuned model's "
        "states replace its own at one layer; bars are 95 % cluster intervals, dotted is the whole "
        "gap. All, prompt and completion positions hold everything below the layer, so their "
        "curves are cumulative; only the last prompt token's curve may come down again. Grey "
        "lines: the same patch with a donor that reads a pair of the other condition.",
        beside=("controls", "localization_published"),
    ),
    "patch_reverse": FigureSpec(
        "localization",
        patch_reverse,
        ("patching",),
        "And the base's states in the tuned model?",
        "The same with the base as donor: minus the gap is all that can be lost. With all "
        "positions of the last block replaced either direction moves most of the gap by "
        "construction, so one-sidedness can be seen at the last prompt token alone.",
        beside=("controls",),
    ),
    "patch_controls": FigureSpec(
        "localization",
        patch_controls,
        ("controls",),
        "Is it the preference, or any change of the state?",
        "Tuned states in the base beside every control, all positions and the last prompt token. "
        "The receiver's own states must change exactly nothing. Where a donor on another pair of "
        "the same condition does as much, the patch is generic; noise that does as much says that "
        "the effect is damage of the base's preference and no transfer.",
        beside=("patching",),
    ),
    "patch_interpolation": FigureSpec(
        "localization",
        patch_interpolation,
        ("interpolation",),
        "Does the effect rise with the dose?",
        "Effect of h + alpha (donor minus h) at all positions of one layer, for four layers and "
        "their mean over all layers with 95 % cluster intervals. A monotone curve is what any "
        "smooth model gives between two ends; its ends are the plain model and the full patch.",
    ),
    "patch_sources": FigureSpec(
        "localization",
        patch_sources,
        ("sources",),
        "What must the donor have read?",
        "Tuned states at the completion tokens of pairs cut to equal length: from the chosen or "
        "from the rejected answer for both sides, or their difference added. At prompt tokens the "
        "difference is exactly zero. States that were read on the same answer for both sides also "
        "take the base's own difference away, so an effect below zero need not be preference.",
    ),
    "patch_low_rank": FigureSpec(
        "localization",
        patch_low_rank,
        ("low_rank",),
        "How many directions carry the patch?",
        "Effect of patches cut to k directions over that of the full patch, mean over layers, with "
        "95 % cluster intervals; bases are fitted on other clusters. Rest kept: the receiver keeps "
        "what lies outside. Part alone: it is dropped, as published, which also removes the "
        "base's state. Right: share of the variance that k directions hold, the other reading of "
        "the published ratio. The star is of another, larger model.",
        beside=("localization_published",),
    ),
    "patch_positions": FigureSpec(
        "localization",
        patch_positions,
        ("positions",),
        "Which positions carry it?",
        "Largest effect over layers, with that layer's number, and the last layer's effect, for "
        "each choice of positions; bars are 95 % cluster intervals, dotted is the whole gap. The "
        "largest of several layers is biased upwards. Only where the last layer falls well below "
        "the largest is there a place to speak of.",
    ),
    "swap_shares": FigureSpec(
        "localization",
        swap_shares,
        ("block_swap",),
        "Whose weights carry the preference?",
        "Share of the gap when one unit of the tuned model is put into the base, and when one of "
        "the base is put into the tuned model, with 95 % cluster intervals: the only share of a "
        "layer that does not hold everything below it. Effective units: (sum of e)² over the sum "
        "of e², positive shares; as many as there are units would be an even spread. Shares need "
        "not add up to 1.",
        beside=("localization_summary",),
    ),
    "state_distances": FigureSpec(
        "localization",
        state_distances,
        ("distances",),
        "Where do the two models' states part, and does that predict anything?",
        "Norm of tuned minus base at single tokens, mean over pairs, by layer; it grows with the "
        "norm of the stream itself. Beside it R² of each layer's norm alone, at the last chosen "
        "token, on clusters that were not fitted on, with 95 % cluster intervals: at or below "
        "zero the distance predicts nothing.",
        beside=("probe",),
    ),
    "lasso_coefficients": FigureSpec(
        "localization",
        lasso_coefficients,
        ("lasso",),
        "Which layers does a sparse fit choose?",
        "Coefficients (per standard deviation of each layer's distance at the last chosen token) "
        "of LassoCV as published, and of an elastic net, for each target. Each panel says how "
        "many layers the lasso kept and its R² on unseen clusters: without an R² above zero the "
        "chosen layers mean nothing, and the paper gives none.",
        beside=("localization_published",),
    ),
    "lasso_stability": FigureSpec(
        "localization",
        lasso_stability,
        ("lasso_stability",),
        "Would it choose them again?",
        "How often each layer is chosen on half-samples of clusters drawn without replacement. "
        "The dashed line is what the most often chosen layer reaches with permuted targets in 95 "
        "% of draws: bars below it are chance. The triangle is the layer whose patch does most.",
    ),
}

#: With the sentence that each has of its tables.
LOCALIZATION = {name: replace(spec, seen=partial(seen, name)) for name, spec in _DRAWN.items()}
