"""calibration: networks whose base, safe and unsafe versions are known.

calibration_networks  a seed             -> results/<run>/calibration/seed-<n>
                      train the base once, then every variant from it
calibration_tables    all seeds' folders -> results/<run>/tables/calibration/*.csv
"""

from actshift.studies.calibration.files import PUBLISHED as CALIBRATION_PUBLISHED
from actshift.studies.calibration.files import TABLES as CALIBRATION_TABLES


rule calibration_networks:
    output:
        directory(PATHS.calibration("{seed}")),
    log:
        PATHS.log("calibration_networks", "{seed}"),
    benchmark:
        PATHS.timing("calibration_networks", "{seed}")
    wildcard_constraints:
        seed=r"\d+",
    # As long as a zoo model and needed by no other study: it fills the cores beside them.
    priority: 40
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        epochs=CONFIG.calibration.epochs.model_dump(),
        code=code("studies.calibration.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/calibration_networks.py"


rule calibration_tables:
    input:
        networks=[PATHS.calibration(seed) for seed in CONFIG.calibration.seeds],
        published=[PUBLISHED / name for name in CALIBRATION_PUBLISHED.values()],
    output:
        [PATHS.study_tables("calibration") / f"{name}.csv" for name in CALIBRATION_TABLES],
    log:
        PATHS.log("calibration_tables"),
    benchmark:
        PATHS.timing("calibration_tables")
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    params:
        ranks=CONFIG.calibration.ablation_ranks,
        random_draws=CONFIG.calibration.random_draws,
        code=code("studies.calibration.join"),
        status=str(PATHS.status),
    script:
        "../scripts/calibration_tables.py"
