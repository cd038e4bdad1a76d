"""One pair: activation stores of both models -> the norm of the shift, layer by layer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.engine.context import JobContext
from actshift.engine.stores import FolderStores
from actshift.io.atomic import publishing
from actshift.io.tables import write_table
from actshift.maths.intervals import mean_t_interval
from actshift.studies.example.study import Example


def shift_norm(
    base: Float[np.ndarray, "prompt d_model"], tuned: Float[np.ndarray, "prompt d_model"]
) -> dict[str, float]:
    """Mean norm of the shift, its Student interval over prompts, and its size relative to base.

    A study of its own would resample clusters: prompts of one cluster are alike.
    """
    norms = np.linalg.norm(tuned - base, axis=1).astype(np.float64)
    low, high = mean_t_interval(norms)
    scale = float(np.linalg.norm(base, axis=1).mean())
    mean = float(norms.mean())
    return {"norm": mean, "norm_low": low, "norm_high": high, "relative": mean / scale}


def measure(
    inputs: Mapping[str, list[Path]],
    *,
    settings: Example,
    context: JobContext,
    out: Path,
    prompt_set: str,
) -> None:
    """Write `norms.csv` of one pair.

    Args:
        inputs: `stores`: the pair's activation stores.
        settings: Settings of the study.
        context: Circumstances of the job.
        out: Folder of the table; it appears whole or not at all.
        prompt_set: Name of the prompt set that is read.

    Raises:
        UserError: A store is missing or damaged.
    """
    stores = FolderStores(inputs["stores"])
    base, tuned = (stores.open(role, prompt_set, "chat") for role in ("base", "tuned"))
    ids = base.prompt_ids
    rows = []
    for layer in map(int, base.layers):
        sides = (store.read(layer, settings.position, ids) for store in (base, tuned))
        rows.append({"pair": context.pair, "layer": layer, "n": len(ids), **shift_norm(*sides)})
    with publishing(out) as folder:
        folder.mkdir(parents=True)
        write_table(pd.DataFrame(rows), folder / "norms.csv")
