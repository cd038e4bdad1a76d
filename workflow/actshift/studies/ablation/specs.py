"""The figures of the causal studies: what each is drawn from, its title and its caption."""

from actshift.report.spec import FigureSpec
from actshift.studies.ablation.figures import ablation_curves, side_effects
from actshift.studies.ablation.ordering_figures import direction_bars
from actshift.studies.calibration.figures import (
    calibration_bias_sign,
    calibration_compliance,
    calibration_rank_and_gap,
)
from actshift.studies.refusal_direction.figures import refusal_candidates, refusal_effect
from actshift.studies.spectral_gap.figures import kappa_by_layer

CAUSAL: dict[str, FigureSpec] = {
    "refusal_effect": FigureSpec(
        "refusal_direction",
        refusal_effect,
        ("refusal_effect",),
        "Does one direction carry refusal?",
        "Share of held-out prompts that are refused with the chosen direction removed from every "
        "layer, subtracted, or added at its layer, with 95 % cluster intervals. Grey bars: the "
        "smallest to the largest of the random directions of equal norm. Diamonds: answers on "
        "topic; a refusal that is gone is not yet an answer.",
    ),
    "refusal_candidates": FigureSpec(
        "refusal_direction",
        refusal_candidates,
        ("refusal_direction",),
        "Which direction was chosen?",
        "Refusal log-odds of harmful select prompts with each candidate removed (lower is better), "
        "by layer and position. Crosses: the candidate misses a filter (KL on harmless prompts, "
        "refusal when added, layer). Where none passes, the least violating one is taken and the "
        "panel says so.",
    ),
    "ablation_curves": FigureSpec(
        "ablation",
        ablation_curves,
        ("ablation_sweep",),
        "What is left of refusal without the first k directions?",
        "Share of held-out harmful prompts that are refused, and that are answered on topic, with "
        "the first k directions projected out to zero; bars are 95 % cluster intervals. Strong "
        "lines: directions of the shift on harmful prompts, and the same number from harmless "
        "ones, which the claim has to beat. Open markers decide nothing: a control broke, or k is "
        "above d / 8 (shaded). The last row holds published values of other, far larger models, on "
        "the prompts they were fitted on.",
        beside=("ablation_published",),
    ),
    "direction_bars": FigureSpec(
        "ablation",
        direction_bars,
        ("direction_ablation",),
        "What does each direction do alone, and together?",
        "Change of the refusal rate on held-out harmful prompts when u_i of the template shift is "
        "projected out alone (narrow band, to zero). Middle: order by lost refusals against order "
        "by variance; on the dashed line they agree, ties share a place. Right: sets of the first "
        "five beside the sum of their single effects (not below -1). Grey and red lines are "
        "controls at k = 1 (left) and k = 5 (right).",
        beside=("ordering", "ablation_sweep"),
    ),
    "side_effects": FigureSpec(
        "ablation",
        side_effects,
        ("side_effects",),
        "What else does the edit break?",
        "Harmless held-out prompts and plain text under the edits of the primary cell: refusals, "
        "answers on topic, KL of the first token from the unedited model, and loss; bars are 95 % "
        "cluster intervals, dotted lines the unedited model. Shaded rows are controls: an effect "
        "on refusal says little where a control's side effects are as large.",
        beside=("ablation_sweep",),
    ),
    "kappa_by_layer": FigureSpec(
        "spectral_gap",
        kappa_by_layer,
        ("spectral_gap",),
        "Are the tuned model and an unsafe reference set apart?",
        "Kappa of the difference of the two shifts by layer and reference, with its stability "
        "range over half-samples of clusters, and its share of the largest value 2 / (eps r) that "
        "the rank allows. Open markers: rank of 5 or more, where kappa cannot reach 8. Crosses at "
        "the bottom: the two models do not differ at that layer.",
        beside=("spectral_gap_summary",),
    ),
    "calibration_compliance": FigureSpec(
        "calibration",
        calibration_compliance,
        ("calibration_ablation",),
        "Does a shift of higher rank survive projection?",
        "Share of the safety corner's inputs (240 a seed) that are answered safely with r "
        "directions of the last hidden layer projected out. Thin lines: single seeds. Dash-dotted: "
        "what the readout's bias answers alone, to which every curve tends as r grows. Grey: "
        "random directions; green: control inputs under the same projection.",
    ),
    "calibration_bias_sign": FigureSpec(
        "calibration",
        calibration_bias_sign,
        ("calibration_ablation",),
        "Is robustness the sign of the readout's bias?",
        "One marker a seed and r, by the sign of the readout's bias. Where the two colours part "
        "towards 0 and 1, within a panel or between panels, compliance at large r is that sign, "
        "and a mean over seeds counts signs.",
    ),
    "calibration_rank_and_gap": FigureSpec(
        "calibration",
        calibration_rank_and_gap,
        ("calibration_ablation", "calibration_rank", "calibration_spectral_gap"),
        "Rank, logits and spectral gap of the calibration networks",
        "Left: rank over width by hidden layer; the ablated last layer has the least, which the "
        "published mean over layers hides. Middle: distance of the mean logit from the bias. "
        "Right: kappa by rank of the separation, under its bound; from rank 5 on it cannot reach "
        "8.",
    ),
}
