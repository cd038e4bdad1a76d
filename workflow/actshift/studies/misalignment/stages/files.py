"""Read what the stages left of one pair (torch-free)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import load_file

from actshift.io.missed import first_missed, has_numbers
from actshift.io.store import ActivationStore
from actshift.io.tables import read_table
from actshift.prompts.records import read_prompts
from actshift.studies.misalignment.kinds import KINDS, UNSEEN, UNTUNED
from actshift.studies.misalignment.outcomes import is_harmful, question_row
from actshift.studies.misalignment.tables.inputs import Lanes, PairFiles

#: Set whose states are stored.
_SET = "questions"


def question_rows(path: Path) -> pd.DataFrame:
    """A row a question, with what it asks for.

    Args:
        path: JSONL of the prompt set.

    Raises:
        UserError: The file is missing or wrong.
    """
    # Harmful how-to, which chat refuses, is a kind of its own.
    return pd.DataFrame(
        question_row(prompt) | ({"kind": "harmful_howto"} if is_harmful(prompt) else {})
        for prompt in read_prompts(path)
    )


def read_pair(pair: str, folders: Mapping[str, Path], questions: pd.DataFrame) -> PairFiles:
    """Read what there is of one pair.

    Args:
        pair: Name.
        folders: Folder of each stage; one that is not there is said in `missing`.
        questions: What `question_rows` gave.

    Raises:
        UserError: Outcomes do not fit their lanes.
        StoreError: States are damaged.
    """
    there = {stage: folder for stage, folder in folders.items() if has_numbers(folder)}
    adapters, spillover = there.get("adapters"), there.get("spillover")
    missed = first_missed(folders.values())
    # Where the gate is missed the answers are there and nothing is made from them.
    answers = folders["spillover"] / "answers.parquet" if "spillover" in folders else None
    states = _Stores(spillover / "states") if spillover else None
    return PairFiles(
        pair=pair,
        questions=questions,
        dose=read_table(adapters / "dose.csv") if adapters else None,
        ladder=read_table(adapters / "ladder.csv") if adapters else None,
        answers=pd.read_parquet(answers) if answers and answers.is_file() else None,
        directions=load_file(spillover / "directions.safetensors") if spillover else None,
        states=states,
        models=states.models if states else (),
        steering=_lanes(there["steering"]) if "steering" in there else None,
        transfer=_lanes(there["transfer"]) if "transfer" in there else None,
        missing=tuple(stage for stage in folders if stage not in there),
        missed="" if missed is None else missed.status,
    )


class _Stores:
    """States of every model of a pair, each layer read once."""

    def __init__(self, folder: Path) -> None:
        self.models = tuple(
            name for name in (UNTUNED, *KINDS, *UNSEEN) if (folder / f"{name}.{_SET}").is_dir()
        )
        self._stores = {
            name: ActivationStore.open(folder / f"{name}.{_SET}") for name in self.models
        }
        self._kept: dict[tuple[str, int], Float[np.ndarray, "prompt d_model"]] = {}
        self._places: dict[str, dict[str, int]] = {}

    def __call__(
        self, model: str, layer: int, prompt_ids: list[str]
    ) -> Float[np.ndarray, "prompt d_model"]:
        store = self._stores[model]
        if (model, layer) not in self._kept:
            self._kept[model, layer] = store.read(layer)
            self._places[model] = {name: at for at, name in enumerate(store.prompt_ids)}
        places = self._places[model]
        if not all(name in places for name in prompt_ids):
            # Says which question is not there.
            return store.read(layer, prompt_ids=prompt_ids)
        return self._kept[model, layer][[places[name] for name in prompt_ids]]


def _lanes(folder: Path) -> Lanes:
    names = ("lanes", "outcomes", "answers", "prompts")
    tables = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
    return Lanes.of(**tables, where=str(folder))
