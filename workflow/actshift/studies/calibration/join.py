"""Tables of the calibration study: every seed's networks in, joined tables out (torch-free)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from safetensors.numpy import load_file

from actshift.errors import UserError
from actshift.io.tables import read_table, write_table
from actshift.studies.calibration.files import PUBLISHED
from actshift.studies.calibration.measure import ablation_rows, gap_rows, rank_rows, unpack
from actshift.studies.calibration.names import NETWORKS, TRAINING
from actshift.studies.calibration.summary import joined_tables


def calibration_tables(
    *,
    folders: Sequence[Path],
    published: Path,
    ranks: Sequence[int],
    random_draws: int,
    out: Path,
) -> dict[str, int]:
    """Measure every seed's networks and write the study's tables.

    Args:
        folders: `seed-<n>` folders of rule calibration_networks, in the order wanted.
        published: Folder of the published CSV files.
        ranks: Directions projected out of the last hidden layer.
        random_draws: Random subspaces for each rank.
        out: Folder of the tables.

    Returns:
        Rows by table.

    Raises:
        UserError: A folder lacks its networks.
    """
    measured: dict[str, list[pd.DataFrame]] = {name: [] for name in PUBLISHED}
    for folder in folders:
        file = folder / NETWORKS
        if not file.is_file():
            raise UserError(f"{file}: no such file; see the log of rule calibration_networks")
        nets = unpack(load_file(file), int(folder.name.rpartition("-")[2]))
        rows = (
            rank_rows(nets),
            ablation_rows(nets, ranks=ranks, random_draws=random_draws),
            gap_rows(nets),
        )
        for name, made in zip(PUBLISHED, rows, strict=True):
            measured[name].append(pd.DataFrame(made))
    released = {name: read_table(published / file) for name, file in PUBLISHED.items()}
    tables = joined_tables(measured, released)
    ends = [read_table(folder / TRAINING) for folder in folders]
    tables["calibration_training"] = pd.concat(ends, ignore_index=True)
    for name, table in tables.items():
        write_table(table, out / f"{name}.csv")
    return {name: len(table) for name, table in tables.items()}
