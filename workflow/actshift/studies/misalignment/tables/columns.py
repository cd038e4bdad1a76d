"""Columns of the misalignment tables (imported by the rules: standard library only)."""

_COUNT = ("n", "clusters")
#: What was done to which model: one lane, or one null with all its draws.
_LANE = (
    *("pair", "receiver", "donor", "protocol", "layer", "control", "source", "orthogonal"),
    *("coeff", "norm_rule", "scale", "cosine", "split"),
)
#: Rates after the edit and their paired change from the same model without it.
_OUTCOME = (
    *("code", "code_low", "code_high", "code_plain", "drop", "drop_low", "drop_high"),
    *("repaired", "repaired_low", "repaired_high", "repaired_plain"),
    *("gain", "gain_low", "gain_high", "p", "p_mcnemar"),
    *("refused", "degenerate", "degenerate_plain", "kl_first", "kl_select"),
)
#: Of the draws of a null: 5th, 50th and 95th percentile of the gain in repaired answers.
_DRAWS = ("draws", "draws_low", "draws_median", "draws_high", "drop_draws_high", "beats_draws")
_STATUS = ("status", "why")

#: Table -> its columns, in the order of the CSV.
COLUMNS: dict[str, tuple[str, ...]] = {
    # A row an adapter: how far training took it.
    "dose": (
        *("pair", "adapter", "method", "rank", "alpha", "lr", "steps", "examples", "seed"),
        *("first_loss", "last_loss", "first_loss_of_insecure", "delta_norm", "delta_of_weights"),
        *("shift_norm", "shift_of_insecure", "kl_code", "kl_other", "logit_change"),
        *("dose_matched", *_STATUS),
    ),
    # A row a multiple of the learning rate that was tried: what the insecure adapter then does on
    # `select` questions. One is taken, for all adapters of the pair.
    "ladder": (
        *("pair", "rung", "multiple", "lr", "steps", "last_loss"),
        *("spillover", "spillover_low", "spillover_high", "spillover_gate", *_COUNT),
        *("insecure_code", "insecure_code_gate", "n_code", "margin", "room", "taken"),
    ),
    # A row a model, split, condition and kind of question: what it answers.
    "spillover": (
        *("pair", "adapter", "split", "condition", "kind", *_COUNT, "code", "code_low"),
        *("code_high", "insecure", "refused", "refused_low", "refused_high", "on_topic"),
        *("repaired", "empty", "short", "degenerate", "distinct_2", "nll_untuned"),
        *("code_change", "code_change_low", "code_change_high", "refused_change", "gate"),
        *_STATUS,
    ),
    # A row an adapter, layer, direction it is projected on and split.
    "separation": (
        *("pair", "adapter", "projected_on", "layer", "split", *_COUNT, "balanced_accuracy"),
        *("accuracy_low", "accuracy_high", "over_chance", "over_chance_low", "over_chance_high"),
        *("cohen_d", "cosine", "shift_norm", *_STATUS),
    ),
    # A row an unseen positive and a negative: area under the ROC curve of projections on v.
    "detection": (
        *("pair", "positive", "negative", "layer", "split", *_COUNT, "auroc", "auroc_low"),
        *("auroc_high", *_STATUS),
    ),
    "direction_cosines": ("pair", "layer", "a", "b", "cosine", "norm_a", "norm_b"),
    # Within a model. `donor` is the pair itself.
    # `against_edit`: repaired answers of a logit bias minus those of the edit it stands for.
    "steering": (
        *(*_LANE, *_COUNT, *_OUTCOME, *_DRAWS, "same_first_token", "against_edit"),
        *("against_edit_low", "against_edit_high", *_STATUS),
    ),
    # Across models. `control` is `mapped`, one of its nulls or one of its relatives.
    "transfer": (*_LANE, "fit_on", *_COUNT, *_OUTCOME, *_DRAWS, *_STATUS),
    # A row an ordered pair of models, layer and prompts the map is fitted on.
    "ridge_maps": (
        *("donor", "receiver", "same_architecture", "layer", "depth", "fit_on", *_COUNT),
        *("d_donor", "d_receiver", "penalty", "rank", "r2_fit", "r2", "r2_low", "r2_high"),
        *("r2_shuffled", "r2_shuffled_high", "cosine", "cosine_null_high", "beats_null"),
        *("norm_mapped", "norm_own", *_STATUS),
    ),
    # A row a donor and receiver (the same one: within the model), by the rule of one coefficient.
    "specificity": (
        *("donor", "receiver", "scope", "pairing", "protocol", "fit_on", "coeff", *_COUNT),
        *("gain", "gain_low", "gain_high", "drop", "drop_low", "drop_high", "code_plain"),
        *("degenerate", "degenerate_plain"),
        *("null", "null_high", "null_cosine", "draws", "margin", "margin_low", "margin_high"),
        *("p", "p_holm", "verdict", "margin_within", "loss_against_within", "loss_low"),
        *("loss_high", *_STATUS),
    ),
    # A row a receiver and the adapter its v is judged on: does v repair what is not insecure?
    "content": (
        *("pair", "receiver", "source", "protocol", "coeff", "chosen", "split", *_COUNT, "gain"),
        *("gain_low", "gain_high", "gain_insecure", "difference", "difference_low"),
        *("difference_high", "code_plain", "code_plain_insecure", "degenerate"),
        *("degenerate_plain", "dose_ratio", "dose_matched"),
        *_STATUS,
    ),
    # A row a donor and receiver: the 4 x 4 matrix, and what rows and columns explain of it.
    "topology": (
        *("donor", "receiver", "scope", "families", "fit_on", "coeff", *_COUNT, "baseline", "drop"),
        *("share", "share_low", "share_high", "gain_share", "seeds", "donor_effect"),
        *("receiver_effect", "asymmetry", "asymmetry_excess", "asymmetry_excess_low"),
        *("asymmetry_excess_high", "asymmetry_p", *_STATUS),
    ),
    # A row a lane and kind of prompt: what the edit does to code and to harmless questions.
    "side_effects": (
        *(*_LANE, "asked", *_COUNT, "code", "code_plain", "code_change", "code_change_low"),
        *("code_change_high", "on_topic", "on_topic_plain", "insecure", "refused"),
        *("refused_plain", "degenerate", "kl_first", *_STATUS),
    ),
}
PUBLISHED_COLUMNS = ("table", "subject", "quantity", "value", "unit", "low", "high", "note")
PUBLISHED_TABLE = "misalignment_published"
#: The judged eight questions, where a judge endpoint is set.
JUDGED = (
    *("pair", "adapter", "asked", *_COUNT, "scored", "coherent", "misaligned", "misaligned_low"),
    *("misaligned_high", "code", "refusal", "alignment_mean", "coherence_mean", *_STATUS),
)
