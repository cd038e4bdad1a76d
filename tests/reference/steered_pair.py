"""A steered pair on tiny models: questions, settings, inputs, and its tables read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from reference.misalignment_job import context
from reference.tiny_models import WORDS

from actshift.prompts.records import Prompt, write_prompts
from actshift.studies.misalignment.stages.spillover import spillover
from actshift.studies.misalignment.study import Misalignment
from actshift.vocab import SPLITS

LAYERS, COEFFS = 3, (0.5, 1.0)
SETTINGS = Misalignment(
    coeffs=COEFFS,
    final_draws=5,
    lane_draws=2,
    kl_draws=2,
    lane_kl_draws=1,
    max_new=5,
    token_budget=400,
    # Random models spill nothing.
    min_spillover=0.0,
    min_insecure_code=0.0,
)
EXTRACT = {"token_budget": 400, "max_tokens": 64, "storage": "float32"}
SELECT, HELDOUT, CODE = 5, 4, 2


def questions() -> list[Prompt]:
    rng = np.random.default_rng(4)
    found = []
    for split, each in zip(SPLITS, (6, SELECT, HELDOUT), strict=True):
        for condition, n in (("noncode", each), ("code", CODE)):
            for number in range(n):
                text = " ".join(rng.choice(WORDS, size=int(rng.integers(3, 9))))
                name = f"{condition}-{split}-{number}"
                cluster = f"{condition}{split}{number // 2}"
                found.append(Prompt(name, text, condition, "a", cluster, split, "test"))
    return found


def make_inputs(tuned: Path, root: Path, adapters: Path) -> dict[str, Path]:
    write_prompts(root / "questions.jsonl", questions())
    write_prompts(root / "neutral.jsonl", [Prompt("n", "now", "neutral", "a", "n", "fit", "test")])
    inputs = {"tuned": tuned, "adapters": adapters, "questions": root / "questions.jsonl"}
    spillover(
        {**inputs, "neutral": root / "neutral.jsonl"},
        settings=SETTINGS,
        context=context(root, zoo_size="micro"),
        strict=False,
        extract=EXTRACT,
        rows=root / "rows.csv",
        out=root / "spillover",
    )
    return {**inputs, "spillover": root / "spillover"}


class Tables:
    def __init__(self, folder: Path) -> None:
        names = ("lanes", "outcomes", "prompts", "answers")
        found = {name: pd.read_parquet(folder / f"{name}.parquet") for name in names}
        self.lanes, self.prompts = found["lanes"].set_index("lane"), found["prompts"]
        self.answers, self.outcomes = found["answers"].set_index("answer"), found["outcomes"]

    def of(self, **facts: Any) -> pd.DataFrame:
        chosen = self.lanes
        for name, value in facts.items():
            chosen = chosen[chosen[name] == value]
        return chosen

    def rows(self, lane: int, **facts: str) -> pd.DataFrame:
        found = self.outcomes[self.outcomes["lane"] == lane].join(self.prompts, on="prompt")
        for name, value in facts.items():
            found = found[found[name] == value]
        return found.join(self.answers.drop(columns=["prompt", "prompt_id"]), on="answer")
