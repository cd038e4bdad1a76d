"""Doses of a pair's adapters: what each does to weights and answers, and that it does."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from actshift.errors import UserError
from actshift.io.manifest import weights_hash
from actshift.models.adapter_import import import_adapter
from actshift.models.adapters import adapter_size, delta_norm, load_merged
from actshift.models.load import Device, Dtype, LoadedModel
from actshift.studies.misalignment.dose import LEAST_CHANGE, Probes, against_insecure, shift_of
from actshift.studies.misalignment.kinds import INSECURE
from actshift.studies.misalignment.stages.adapter_folders import GivenAdapter, named
from actshift.studies.misalignment.stages.adapter_probes import Asked

#: Columns of dose.csv; the pair and what needs activations is added when tables are joined.
DOSE_COLUMNS = (
    *("adapter", "method", "rank", "alpha", "lr", "steps", "examples", "seed"),
    *("first_loss", "last_loss", "first_loss_of_insecure", "delta_norm", "delta_of_weights"),
    *("kl_code", "kl_other", "logit_change"),
)


def check_change(change: float, who: str, advice: str) -> None:
    """Refuse an adapter that changes nothing: every later effect of it would be an artefact.

    Raises:
        UserError: No logit of the first answer token moves by `LEAST_CHANGE` nats, or one is NaN.
    """
    if not change >= LEAST_CHANGE:
        raise UserError(
            f"{who} changes nothing: the largest change of a first-token logit is {change:.2g} "
            f"nats, expected at least {LEAST_CHANGE:g}; {advice}"
        )


def dose_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows of all adapters, their first losses set against the insecure one's."""
    table = pd.DataFrame(rows).reindex(columns=list(DOSE_COLUMNS))
    first = table.set_index("adapter")["first_loss"].astype(float)
    ratios = against_insecure({str(name): loss for name, loss in first.items()}, INSECURE)
    # Whole numbers stay so where a given adapter has none.
    whole = dict.fromkeys(("rank", "steps", "examples", "seed"), "Int64")
    return table.assign(first_loss_of_insecure=[*ratios.values()]).astype(whole)


@dataclass(frozen=True)
class Measure:
    """Measures doses against the untuned model."""

    pair: str
    checkpoint: Path
    untuned: LoadedModel
    dtype: Dtype
    device: Device
    asked: Asked

    @cached_property
    def before(self) -> Probes:
        """What the untuned model does."""
        return self.asked.probe(self.untuned)

    def trained(self, name: str, folder: Path, row: dict[str, Any]) -> dict[str, Any]:
        """The row of an adapter that the job trained."""
        advice = f"raise misalignment.adapters.lr (now {row['lr']:g}) or epochs"
        dose = self._dose(name, folder, advice)
        print(f"{name}: loss {row['first_loss']:.3f} -> {row['last_loss']:.3f}, {dose}")
        return row | dose

    def given(self, name: str, one: GivenAdapter, folder: Path) -> dict[str, Any]:
        """Take over an existing adapter; its row says nothing of a training."""
        key = adapter_key(self.pair, name)
        weights = weights_hash(self.checkpoint)
        with named(key):
            import_adapter(one.folder, folder, base=self.untuned, weights=weights)
        dose = self._dose(name, folder, f"is {key} the right one?")
        rank, alpha = adapter_size(folder)
        print(f"{name}: {one.facts['source']}, {dose}")
        return {"adapter": name, "method": "given", "rank": rank, "alpha": alpha} | dose

    def _dose(self, name: str, folder: Path, advice: str) -> dict[str, float]:
        """How far it moves weights and answers, which must be at all."""
        where: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
        adapted = load_merged(self.checkpoint, folder, name=f"{self.pair}.{name}", **where)
        shift = shift_of(self.before, self.asked.probe(adapted))
        check_change(shift["logit_change"], f"{self.pair}: adapter {name}", advice)
        norm, share = delta_norm(folder, self.untuned)
        return {"delta_norm": norm, "delta_of_weights": share, **shift}


def adapter_key(pair: str, name: str) -> str:
    """The config key of a given adapter."""
    return f"pairs.{pair}.adapters.{name}"
