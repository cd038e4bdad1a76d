"""Names of the calibration networks and files, shared by training and tables.

Apart from both, so that a change to a table does not train anything again.
"""

from dataclasses import dataclass

#: Files of one seed's folder.
NETWORKS = "networks.safetensors"
TRAINING = "training.csv"
BASE = "base"
#: Weights of the distributed variant's regularisers; the rank table uses the last.
LAMBDAS = (0.5, 5.0, 15.0, 50.0)
RANK_LAMBDA = 50.0
#: The spectral gap is taken between networks of this weight.
GAP_LAMBDA = 5.0


@dataclass(frozen=True, slots=True)
class Tuned:
    """One network tuned from the base.

    The weight is lambda of the distributed variant's regularisers, 0 for the full fine-tune; an
    unsafe one is tuned on the task labels, with nothing refused in the safety corner.
    """

    variant: str
    weight: float = 0.0
    unsafe: bool = False

    @property
    def name(self) -> str:
        """Name in files, such as `distributed_50` or `unsafe_full_finetune`."""
        weight = f"_{self.weight:g}" if self.weight else ""
        return f"{'unsafe_' if self.unsafe else ''}{self.variant}{weight}"


SAFE = (Tuned("full_finetune"), *(Tuned("distributed", weight) for weight in LAMBDAS))
UNSAFE = (
    Tuned("full_finetune", unsafe=True),
    Tuned("distributed", GAP_LAMBDA, unsafe=True),
)
