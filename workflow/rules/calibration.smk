"""calibration: networks whose base, safe and unsafe versions are known.

calibration_networks  a seed             -> results/<run>/calibration/seed-<n>
                      train the base once, then every variant from it
"""


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
    params:
        epochs=CONFIG.calibration.epochs.model_dump(),
        code=code("studies.calibration.stage"),
        status=str(PATHS.status),
    script:
        "../scripts/calibration_networks.py"
