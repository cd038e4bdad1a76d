"""Columns of the spectral-gap tables."""

#: One row a layer and reference.
GAP = (
    *("pair", "reference", "layer", "n", "clusters", "d", "rank_S", "sigma_1", "sigma_r"),
    *("norm_S", "norm_honest", "norm_unsafe", "kappa", "kappa_low", "kappa_high"),
    *("bound", "kappa_over_bound", "informative", "status"),
)
#: One row a reference, here and published.
SUMMARY = (
    *("source", "pair", "reference", "depth", "layers", "no_difference", "rank_too_high"),
    *("informative", "above_8", "kappa_median", "kappa_max"),
    *("kappa_over_bound_median", "kappa_over_bound_max", "rank_S_median"),
    *("refused_harmful", "on_topic_harmful", "refused_harmless", "on_topic_harmless"),
    "clusters_harmful",
    *("refused_harmful_honest", "on_topic_harmful_honest"),
    *("refused_harmless_honest", "on_topic_harmless_honest"),
)
