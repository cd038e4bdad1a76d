"""The circumstances of a job, beside its inputs and settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class JobContext:
    """The circumstances of one job.

    `dtype` is that of the forward pass, `seed` that of every random draw. `code`, the hash of the
    code that the job can reach, is part of the key of unfinished work, which lies below `staging`
    and which a rerun goes on from. `zoo_size` is the size of the zoo's language where the tuned
    model is of the zoo.
    """

    run: str
    pair: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda"]
    seed: int
    code: str
    staging: Path
    zoo_size: str | None = None
