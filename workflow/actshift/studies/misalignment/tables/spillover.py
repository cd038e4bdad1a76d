"""Table `spillover`: what every model answers without an edit."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.maths.cluster_rows import ClusterRows, columns
from actshift.studies.misalignment.kinds import INSECURE, UNTUNED
from actshift.studies.misalignment.tables.groups import known_means
from actshift.studies.misalignment.tables.inputs import PairFiles, Rows, rows_where

#: All kinds of questions together.
ALL = "all"
_MEANS = {
    **{name: name for name in ("insecure", "on_topic", "repaired", "empty", "short")},
    **{"degenerate": "degenerate", "distinct_2": "distinct_2", "nll": "nll_untuned"},
}


def spillover_rows(files: PairFiles, *, seed: int) -> Rows:
    """A row a model, split, condition and kind of question.

    Args:
        files: Of the pair.
        seed: Of resampling.
    """
    if files.answers is None:
        return []
    models = list(dict.fromkeys(files.answers["adapter"]))
    by_model = {name: _by_question(files.answers, name) for name in models}
    rows: Rows = []
    for (split, condition), asked in files.questions.groupby(["split", "condition"], sort=False):
        kinds = list(dict.fromkeys(asked["kind"]))
        for kind in (ALL, *(kinds if len(kinds) > 1 else ())):
            own = asked if kind == ALL else rows_where(asked, kind=kind)
            cell: dict[str, object] = {"split": split, "condition": condition, "kind": kind}
            rows += _rows(files.pair, cell, by_model, own, seed)
    return [_judged(row, files.missed) for row in rows]


def _judged(row: dict[str, object], missed: str) -> dict[str, object]:
    """Say where the gate was looked at, and put a missed one into the insecure adapter's rows."""
    if row["adapter"] != INSECURE:
        return row | {"gate": None}
    looked_at = row["split"] == "select" and row["kind"] == ALL
    gate = ("missed" if missed else "not missed") if looked_at else None
    return row | {"gate": gate, "status": missed or row["status"]}


def harmless_ids(files: PairFiles) -> set[str]:
    """Questions that the untuned model does not refuse.

    Args:
        files: Of the pair; empty without answers.
    """
    if files.answers is None:
        return set()
    own = rows_where(files.answers, adapter=UNTUNED)
    return set(own.loc[~own["refused"].to_numpy(dtype=bool), "prompt_id"])


def _by_question(answers: pd.DataFrame, model: str) -> pd.DataFrame:
    return rows_where(answers, adapter=model).set_index("prompt_id")


def _rows(
    pair: str,
    cell: dict[str, object],
    by_model: dict[str, pd.DataFrame],
    asked: pd.DataFrame,
    seed: int,
) -> Rows:
    ids = asked["prompt_id"].tolist()
    names = [name for name, own in by_model.items() if set(ids) <= set(own.index)]
    if not names:
        return []
    own = [by_model[name].loc[ids] for name in names]
    sample = ClusterRows.of(asked["cluster"].astype(str).tolist(), seed=seed)

    def of(name: str) -> Float[np.ndarray, "model prompt"]:
        return np.stack([one[name].to_numpy(np.float64) for one in own])

    code, refused = of("code"), of("refused")
    means = {told: known_means(of(name), axis=1) for name, told in _MEANS.items()}
    parts: list[Rows] = [
        [{"adapter": name} for name in names],
        columns("code", code.mean(axis=1), sample.wilson(code)),
        columns("refused", refused.mean(axis=1), sample.wilson(refused)),
        [{told: float(found[at]) for told, found in means.items()} for at in range(len(names))],
    ]
    if UNTUNED in names:
        plain = names.index(UNTUNED)
        change = code - code[plain]
        parts += [
            columns("code_change", change.mean(axis=1), sample.change_ends(change)),
            [{"refused_change": float(one)} for one in (refused - refused[plain]).mean(axis=1)],
        ]
    facts: dict[str, object] = {"pair": pair, **cell, **sample.facts, "status": "ok", "why": ""}
    return [
        {name: value for part in (facts, *row) for name, value in part.items()}
        for row in zip(*parts, strict=True)
    ]
