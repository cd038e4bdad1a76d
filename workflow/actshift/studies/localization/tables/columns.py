"""Columns of the localization tables (imported by the rules: standard library only)."""

_CELL = ("pair", "condition", "length")
_COUNT = ("n", "clusters")
#: Margin of the receiver with the edit minus without it, nats; then each side's log-prob apart.
_EFFECT = (
    *("effect", "effect_low", "effect_high", "effect_per_token"),
    *("chosen_change", "chosen_change_low", "chosen_change_high"),
    *("rejected_change", "rejected_change_low", "rejected_change_high"),
    *("logp_chosen", "logp_rejected", "damage"),
)
#: Mean effect over mean difference of donor and receiver: 1 carries the receiver to the donor.
_SHARE = ("share", "share_low", "share_high")
_GAP = ("gap", "gap_low", "gap_high")
_STATUS = ("status", "why")
_TARGET = ("position", "target")

#: Table -> its columns, in the order of the CSV.
COLUMNS: dict[str, tuple[str, ...]] = {
    "patching": (
        *(*_CELL, "direction", "positions", "layer", *_COUNT, *_EFFECT, *_SHARE),
        *("increment", "increment_low", "increment_high", *_GAP, *_STATUS),
    ),
    "controls": (
        *(*_CELL, "direction", "control", "positions", "layer", "draws", *_COUNT, *_EFFECT),
        *(*_SHARE, "draws_low", "draws_median", "draws_high", "largest"),
        *("patch_effect", "difference", "difference_low", "difference_high"),
        *("of_patch", "of_patch_low", "of_patch_high", "beats_draws", *_GAP, *_STATUS),
    ),
    "interpolation": (
        *(*_CELL, "direction", "positions", "layer", "alpha", *_COUNT, *_EFFECT, *_SHARE),
        *("step", "step_low", "step_high", *_GAP, *_STATUS),
    ),
    "sources": (
        *(*_CELL, "direction", "source", "positions", "layer", *_COUNT, *_EFFECT, *_SHARE),
        *(*_GAP, *_STATUS),
    ),
    "low_rank": (
        *(*_CELL, "direction", "positions", "basis", "keep_rest", "rank", "layer", "d"),
        *("k_over_d", *_COUNT, *_EFFECT, "full_effect", "of_full", "of_full_low", "of_full_high"),
        *("over_controls", "over_controls_low", "over_controls_high", "noise_of_full"),
        *("share_of_variance", "share_of_variance_fit", *_GAP, *_STATUS),
    ),
    "positions": (
        *(*_CELL, "direction", "positions", *_COUNT, "peak_layer", "interior"),
        *("peak", "peak_low", "peak_high", "peak_share", "last_layer", "last_layer_low"),
        *("last_layer_high", "last_layer_share", "edge_over_peak", "edge_over_peak_low"),
        *("edge_over_peak_high", "top_quarter", "of_all", "of_all_low", "of_all_high"),
        *(*_GAP, *_STATUS),
    ),
    "distances": (
        *(*_CELL, "position", "layer", *_COUNT, "norm", "norm_low", "norm_high", "norm_sd"),
        "growth",
    ),
    "probe": (
        *(*_CELL, *_TARGET, "layer", *_COUNT, "slope", "slope_low", "slope_high"),
        *("intercept", "r2", "r2_low", "r2_high", "r2_out", "r2_out_low", "r2_out_high"),
    ),
    "lasso": (
        *(*_CELL, *_TARGET, "model", "folds", "layer", *_COUNT, "coefficient", "alpha"),
        *("support", "r2", "r2_out", "r2_out_low", "r2_out_high"),
        *("r2_out_length", "r2_out_with_length", "gain_over_length", "gain_over_length_low"),
        *("gain_over_length_high", *_STATUS),
    ),
    "lasso_stability": (
        *(*_CELL, *_TARGET, "layer", *_COUNT, "half_samples", "permutations"),
        *("null_half_samples", "frequency"),
        *("null_frequency", "null_95", "p", "stable", "stable_layers", "layers_beyond_quarter"),
        *("support", "r2_out", "r2_out_low", "r2_out_high", "gain_over_length_low"),
        *("peak_layer", "distance_to_peak", *_STATUS),
    ),
    "block_swap": (
        *(*_CELL, "operation", "part", "layer", *_COUNT, *_EFFECT, *_SHARE, *_GAP, *_STATUS),
    ),
    "summary": (
        *(*_CELL, "statistic", "operation", "direction", "positions", "layer", *_COUNT),
        *("value", "value_low", "value_high", "peak", "peak_low", "last_layer_share"),
        *("n_eff_over_layers", *_GAP, *_STATUS),
    ),
}
#: Tables that attribution gives; the others come of patches and swaps.
ATTRIBUTION = ("distances", "probe", "lasso", "lasso_stability")
PUBLISHED_COLUMNS = ("table", "subject", "quantity", "value", "unit", "low", "high", "note")
PUBLISHED_TABLE = "localization_published"
