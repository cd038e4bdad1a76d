"""Columns of the ablation tables (imported by the rules: standard library only)."""

_CHANGE = ("refusal_change", "refusal_change_low", "refusal_change_high")
_TESTS = ("p_sign_flip", "p_mcnemar_independent")
_REFUSAL = ("n", "clusters", "refusal", "refusal_low", "refusal_high", "plain_refusal")
_RANDOM = ("random_refusal_low", "random_refusal_median", "random_refusal_high")
_STATUS = ("judged", "status", "why")

#: Table -> its columns, in the order of the CSV.
COLUMNS: dict[str, tuple[str, ...]] = {
    "ablation_sweep": (
        *("pair", "protocol", "band", "layers", "frame", "edit", "k", "d", "k_over_d", "draws"),
        *("energy_removed", "energy_removed_harmless"),
        *(*_REFUSAL, *_CHANGE, *_TESTS, "design_effect"),
        *("complied", "complied_low", "complied_high", "plain_complied", "complied_gain"),
        *("complied_gain_over_harmless", "complied_gain_low", "complied_gain_high", "p_gain"),
        *("harmless_on_topic", "plain_harmless_on_topic", "harmless_refusal"),
        *(*_RANDOM, "beats_random", "inflation", "inflation_low", "inflation_high"),
        *(*_STATUS, "primary"),
    ),
    "ablation_by_category": (
        *("pair", "category", "band", "frame", "edit", "k", "draws", "n", "clusters"),
        *("plain_refusal", "refusal", "refusal_low", "refusal_high", "complied"),
    ),
    "direction_ablation": (
        *("pair", "band", "frame", "edit", "kind", "directions", "k"),
        *(*_REFUSAL, *_CHANGE, *_TESTS),
        *("complied", "harmless_on_topic", "energy_removed", "self_cosine_min", "interaction"),
        *_STATUS,
    ),
    "ordering": (
        *("pair", "band", "frame", "edit", "test", "stable", "earlier", "later"),
        *("earlier_value", "later_value", "difference", "low", "high", "p", "p_holm", "exceeds"),
        *("pairs_tested", "kendall_tau", *_STATUS),
    ),
    "substitution": (
        *("pair", "lane", "receiver", "donor", "band", "layers", "frame", "k", "d", "k_over_d"),
        *("draws", "shift_share", *_REFUSAL, "donor_refusal", *_CHANGE, "share_of_gap", *_TESTS),
        *("complied", "harmless_on_topic", "harmless_refusal", *_RANDOM, *_STATUS, "primary"),
    ),
    "old_or_new": (
        *("pair", "direction", "band", "edit", "cos_with_tuned", "energy_removed"),
        *(*_REFUSAL, *_CHANGE, *_TESTS, "complied", "harmless_on_topic"),
        *("random_refusal_median", *_STATUS),
    ),
    "side_effects": (
        *("pair", "experiment", "frame", "edit", "band", "k", "directions", "draws"),
        *("n", "clusters", "over_refusal", "over_refusal_change"),
        *("over_refusal_change_low", "over_refusal_change_high", "p_sign_flip"),
        *("on_topic", "on_topic_change", "on_topic_change_low", "on_topic_change_high"),
        *("kl_first", "loss", "loss_change", "distinct_2", "ended"),
    ),
}
#: The published ablations, beside the measured ones.
PUBLISHED_COLUMNS = (
    *("family", "matrix", "band", "kind", "k", "directions", "refusal", "low", "high"),
    "random_refusal",
)
PUBLISHED_TABLE = "ablation_published"
#: Released files that the published table is made of: cumulative and single ablations.
PUBLISHED_FILES = ("ablation_sweep.csv", "per_direction_ablation.csv")
