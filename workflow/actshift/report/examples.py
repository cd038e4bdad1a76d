"""A few answers of the zoo's models: what stands behind the rates.

Only files under a run's `zoo/` are read, so no answer of any other model reaches the page.
"""

from pathlib import Path
from typing import Literal

import pandas as pd

from actshift.io.missed import was_passed_on
from actshift.io.tables import read_table

ShowText = Literal["none", "redacted", "full"]

_COLUMNS = ("model", "condition", "kind", "prompt", "answer", "refused", "on_topic")
#: Words of a redacted text that stay readable: enough to tell a refusal from an answer.
_WORDS_KEPT = 3


def examples(run_dir: Path, *, show_text: ShowText, per_cell: int = 1) -> pd.DataFrame:
    """The first held-out answers of each zoo model, by condition and kind.

    Args:
        run_dir: the run's folder.
        show_text: none: no rows; redacted: three words of each text; full: as generated.
        per_cell: answers a model, condition and kind.

    Returns:
        Columns model, condition, kind, prompt, answer and the judgements that exist.
    """
    if show_text == "none":
        return pd.DataFrame()
    parts = [_rows(path, per_cell) for path in sorted(run_dir.glob("zoo/*/*.behaviour.csv"))]
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    if show_text == "redacted":
        for column in ("prompt", "answer"):
            table[column] = table[column].map(redact)
    return table


def redact(text: object) -> str:
    """The first words and how many follow."""
    words = str(text).split()
    left = len(words) - _WORDS_KEPT
    head = " ".join(words[:_WORDS_KEPT])
    return f"{head} [{left} more words]" if left > 0 else head


def _rows(path: Path, per_cell: int) -> pd.DataFrame:
    """A few rows of one model's file; none without texts."""
    if was_passed_on(path):
        return pd.DataFrame()
    table = read_table(path)
    if not {"condition", "kind", "prompt", "answer"} <= set(table.columns):
        return pd.DataFrame()
    if "split" in table:
        table = table[table["split"] == "heldout"]
    model = f"{path.parent.name}/{path.name.removesuffix('.behaviour.csv')}"
    few = table.groupby(["condition", "kind"], sort=False).head(per_cell).assign(model=model)
    return few.loc[:, [column for column in _COLUMNS if column in few.columns]]
