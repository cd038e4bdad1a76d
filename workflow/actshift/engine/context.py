"""The circumstances of a job, beside its inputs and settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class JobContext:
    """The circumstances of one job.

    Attributes:
        run: Name of the run.
        pair: Name of the pair.
        dtype: Of the forward pass.
        device: Where it runs.
        seed: Of every random draw.
        code: Hash of the code that the job can reach; part of the key of unfinished work.
        staging: Folder of unfinished work, which a rerun goes on from.
        zoo_size: Size of the zoo's language where the tuned model is of the zoo, else None.
    """

    run: str
    pair: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda"]
    seed: int
    code: str
    staging: Path
    zoo_size: str | None = None
