"""Join the calibration networks of all seeds (torch-free)."""

import pandas as pd
from safetensors.numpy import load_file

from actshift.engine.joining import JoinContext, finished_pairs
from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.studies.calibration.measure import ablation_rows, gap_rows, rank_rows, unpack
from actshift.studies.calibration.names import NETWORKS, TRAINING
from actshift.studies.calibration.study import PUBLISHED, Calibration
from actshift.studies.calibration.summary import joined_tables


def join(context: JoinContext) -> dict[str, pd.DataFrame]:
    """Measure the networks of every seed that is there, beside the published numbers.

    Raises:
        UserError: No seed has its folder, or a folder lacks its networks.
    """
    settings = Calibration(**context.settings)
    seeds = context.folders["calibration"]
    needed = "its networks"
    folders = [*finished_pairs(seeds, rule="calibration_networks", needed=needed).values()]
    measured: dict[str, list[pd.DataFrame]] = {name: [] for name in PUBLISHED}
    for folder in folders:
        file = folder / NETWORKS
        if not file.is_file():
            raise UserError(f"{file}: no such file; see the log of rule calibration_networks")
        nets = unpack(load_file(file), int(folder.name.rpartition("-")[2]))
        ablated = ablation_rows(
            nets, ranks=settings.ablation_ranks, random_draws=settings.random_draws
        )
        rows = (rank_rows(nets), ablated, gap_rows(nets))
        for name, made in zip(PUBLISHED, rows, strict=True):
            measured[name].append(pd.DataFrame(made))
    released = {name: read_table(context.published / file) for name, file in PUBLISHED.items()}
    tables = joined_tables(measured, released)
    ends = [read_table(folder / TRAINING) for folder in folders]
    return {**tables, "calibration_training": pd.concat(ends, ignore_index=True)}
