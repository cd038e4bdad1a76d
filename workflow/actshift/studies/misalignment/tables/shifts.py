"""Mean shifts of every adapter from chat, and states on demand."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.maths.directions import mean_shift
from actshift.studies.misalignment.kinds import UNTUNED
from actshift.studies.misalignment.tables.inputs import PairFiles, rows_where
from actshift.vocab import NONCODE


@dataclass(frozen=True, eq=False)
class Shifts:
    """Directions of a pair, those of unseen adapters worked out from their states.

    Attributes:
        files: Of the pair.
        made: Shifts that were already worked out.
        ids: Questions of a split that were already looked up.
    """

    files: PairFiles
    made: dict[str, Float[np.ndarray, "layer d_model"]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)

    @property
    def layers(self) -> int:
        """Decoder blocks; 0 without directions."""
        found = self.files.directions
        return len(next(iter(found.values()))) if found else 0

    def questions(self, split: str) -> pd.DataFrame:
        """Non-code questions of a split."""
        return rows_where(self.files.questions, condition=NONCODE, split=split)

    def states(self, model: str, layer: int, split: str) -> Float[np.ndarray, "prompt d_model"]:
        """States of the non-code questions of a split, float64.

        Raises:
            StoreError: A question has no state.
        """
        assert self.files.states is not None  # callers ask `layers` first
        if split not in self.ids:
            self.ids[split] = self.questions(split)["prompt_id"].tolist()
        return self.files.states(model, layer, self.ids[split]).astype(np.float64)

    def shift(self, adapter: str) -> Float[np.ndarray, "layer d_model"] | None:
        """Mean(adapter) - mean(chat) over non-code questions of split fit, by layer."""
        given = self.files.directions or {}
        if adapter in given:
            return given[adapter].astype(np.float64)
        if adapter not in self.files.models or not given:
            return None
        if adapter not in self.made:
            self.made[adapter] = np.stack(
                [
                    mean_shift(self.states(adapter, at, "fit"), self.states(UNTUNED, at, "fit"))
                    for at in range(self.layers)
                ]
            )
        return self.made[adapter]

    def last_norm(self, adapter: str) -> float:
        """Norm of the shift at the last layer; NaN where there is none."""
        found = self.shift(adapter)
        return float("nan") if found is None else float(np.linalg.norm(found[-1]))
