"""Names of the calibration study's tables and published files (imported by the rules)."""

#: Table -> the published per-seed file it stands beside.
PUBLISHED = {
    "calibration_rank": "calibration_rank_per_seed.csv",
    "calibration_ablation": "calibration_ablation_per_seed.csv",
    "calibration_spectral_gap": "calibration_spectral_gap_per_seed.csv",
}
TABLES = (*PUBLISHED, "calibration_means", "calibration_training")
