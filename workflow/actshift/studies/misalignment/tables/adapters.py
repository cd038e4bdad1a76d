"""Tables of adapters, from their training, answers, states and mean shifts.

What their states and mean shifts tell, how far training took each, and what they answer.
"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.maths.cluster_rows import ClusterRows, columns, merged
from actshift.maths.directions import cosine, mean_shift
from actshift.studies.misalignment.kinds import INSECURE, UNSEEN, UNTUNED
from actshift.studies.misalignment.study import COLUMNS
from actshift.studies.misalignment.tables.lanes import PairFiles, Rows, known_means, rows_where
from actshift.vocab import NONCODE

SPLITS = ("fit", "heldout")
#: The adapter to be found: of another training seed and dose.
POSITIVE = next(name for name, kind in UNSEEN.items() if kind == INSECURE)
#: An adapter has the dose of the insecure one if its first loss is within a fifth of that one's.
MATCHED = 0.2
#: All kinds of questions together.
ALL = "all"
#: Columns of the table `dose` that `dose.csv` of a pair lacks.
_ADDED = ("pair", "shift_norm", "shift_of_insecure", "dose_matched", "status", "why")
#: Number of an answer -> its column in the table `spillover`.
_MEANS = {
    **{name: name for name in ("insecure", "on_topic", "repaired", "empty", "short")},
    **{"degenerate": "degenerate", "distinct_2": "distinct_2", "nll": "nll_untuned"},
}


@dataclass(frozen=True, eq=False)
class Shifts:
    """Directions of a pair, those of unseen adapters worked out from their states."""

    files: PairFiles
    _worked_out: dict[str, Float[np.ndarray, "layer d_model"]] = field(default_factory=dict)

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
        ids = self.questions(split)["prompt_id"].tolist()
        return self.files.states(model, layer, ids).astype(np.float64)

    def sample(self, split: str, *, seed: int) -> ClusterRows:
        """Resamples of the clusters of the non-code questions of a split."""
        return ClusterRows.of(self.questions(split)["cluster"].astype(str).tolist(), seed=seed)

    def shift(self, adapter: str) -> Float[np.ndarray, "layer d_model"] | None:
        """Mean(adapter) - mean(chat) over non-code questions of split fit, by layer."""
        given = self.files.directions or {}
        if adapter in given:
            return given[adapter].astype(np.float64)
        if adapter not in self.files.models or not given:
            return None
        if adapter not in self._worked_out:
            self._worked_out[adapter] = np.stack(
                [
                    mean_shift(self.states(adapter, at, "fit"), self.states(UNTUNED, at, "fit"))
                    for at in range(self.layers)
                ]
            )
        return self._worked_out[adapter]

    def last_norm(self, adapter: str) -> float:
        """Norm of the shift at the last layer; NaN where there is none."""
        found = self.shift(adapter)
        return float("nan") if found is None else float(np.linalg.norm(found[-1]))


def separation_rows(shifts: Shifts, *, seed: int) -> Rows:
    """A row an adapter, layer, split and direction: v of the insecure adapter, and its own."""
    if shifts.files.states is None:
        return []
    samples = {split: shifts.sample(split, seed=seed) for split in SPLITS}
    rows: Rows = []
    for adapter in shifts.files.models:
        own = shifts.shift(adapter)
        if adapter == UNTUNED or own is None:
            continue
        for layer in range(shifts.layers):
            states = {
                split: [shifts.states(model, layer, split) for model in (UNTUNED, adapter)]
                for split in SPLITS
            }
            for name in dict.fromkeys((INSECURE, adapter)):
                if (direction := shifts.shift(name)) is None:
                    continue
                facts: dict[str, object] = {
                    **{"pair": shifts.files.pair, "adapter": adapter, "projected_on": name},
                    **{"layer": layer, "cosine": cosine(own[layer], direction[layer])},
                    "shift_norm": float(np.linalg.norm(own[layer])),
                }
                rows += [facts | row for row in _by_split(states, direction[layer], samples)]
    return rows


def cosine_rows(shifts: Shifts) -> Rows:
    """A row a layer and two adapters that have directions."""
    given = shifts.files.directions or {}
    rows: Rows = []
    for a, b in combinations(given, 2):
        for layer in range(shifts.layers):
            v, w = (given[name][layer].astype(np.float64) for name in (a, b))
            rows.append(
                {
                    **{"pair": shifts.files.pair, "layer": layer, "a": a, "b": b},
                    **{"cosine": cosine(v, w), "norm_a": float(np.linalg.norm(v))},
                    "norm_b": float(np.linalg.norm(w)),
                }
            )
    return rows


def midpoint_correct(
    chat: Float[np.ndarray, " prompt"],
    adapter: Float[np.ndarray, " prompt"],
    *,
    chat_mean: float,
    adapter_mean: float,
) -> Float[np.ndarray, " prompt"]:
    """Share of each question's two states that lie nearer to their own mean; a tie counts half.

    Its mean over questions is the balanced accuracy of the midpoint threshold. The means are
    projections on the questions of the fit.
    """
    middle, side = (chat_mean + adapter_mean) / 2, np.sign(adapter_mean - chat_mean)
    right = [
        (1 + np.sign((adapter - middle) * side)) / 2,
        (1 + np.sign((middle - chat) * side)) / 2,
    ]
    return np.mean(right, axis=0)


def cohen_d(chat: Float[np.ndarray, " prompt"], adapter: Float[np.ndarray, " prompt"]) -> float:
    """(mean of adapter - mean of chat) / pooled standard deviation; NaN without any spread."""
    count = len(chat) + len(adapter) - 2
    if count < 1:
        return float("nan")
    pooled = np.square(chat - chat.mean()).sum() + np.square(adapter - adapter.mean()).sum()
    spread = float(np.sqrt(pooled / count))
    return float(adapter.mean() - chat.mean()) / spread if spread > 0 else float("nan")


def _by_split(
    states: dict[str, list[Float[np.ndarray, "prompt d_model"]]],
    direction: Float[np.ndarray, " d_model"],
    samples: dict[str, ClusterRows],
) -> Rows:
    projected = {split: [one @ direction for one in both] for split, both in states.items()}
    means = [float(one.mean()) for one in projected["fit"]]
    rows: Rows = []
    for split, (chat, adapter) in projected.items():
        sample = samples[split]
        right = midpoint_correct(chat, adapter, chat_mean=means[0], adapter_mean=means[1])[None]
        value, ends = right.mean(axis=1), sample.wilson(right)
        accuracy = columns("accuracy", value, ends)[0]
        rows.append(
            {
                **{"split": split, **sample.facts, "balanced_accuracy": float(value[0])},
                **{name: accuracy[name] for name in ("accuracy_low", "accuracy_high")},
                **columns("over_chance", value - 0.5, ends - 0.5)[0],
                **{"cohen_d": cohen_d(chat, adapter), "status": "ok", "why": ""},
            }
        )
    return rows


def detection_rows(shifts: Shifts, *, seed: int) -> Rows:
    """A row a layer and other model: area under the ROC curve of projections on v."""
    v, files = shifts.shift(INSECURE), shifts.files
    # The adapter that v was made from is no test of v.
    negatives = [one for one in files.models if one not in (INSECURE, POSITIVE)]
    if v is None or POSITIVE not in files.models:
        return []
    split = "heldout"
    sample = shifts.sample(split, seed=seed)
    rows: Rows = []
    for layer, direction in enumerate(v):
        positive = shifts.states(POSITIVE, layer, split) @ direction
        for name in negatives:
            negative = shifts.states(name, layer, split) @ direction
            value, ends = auroc(positive, negative, sample)
            rows.append(
                {
                    **{"pair": files.pair, "positive": POSITIVE, "negative": name, "layer": layer},
                    **{"split": split, **sample.facts, "status": "ok", "why": ""},
                    **columns("auroc", np.array([value]), ends[None])[0],
                }
            )
    return rows


def auroc(
    positive: Float[np.ndarray, " prompt"],
    negative: Float[np.ndarray, " prompt"],
    sample: ClusterRows,
) -> tuple[float, Float[np.ndarray, " end"]]:
    """P(positive > negative) + P(equal) / 2 over all pairs of questions, with an interval.

    On a resample each pair counts w_i w_j times. A bootstrap has no width at 0 and 1, so the
    interval is the wider of its own and the clustered Wilson interval of each question's part in
    the area (the mean of its wins as a positive and as a negative). Both score the same questions.
    """
    wins = (1 + np.sign(positive[:, None] - negative[None, :])) / 2
    parts = (wins.mean(axis=1) + wins.mean(axis=0)) / 2
    by_cluster = sample.member.T @ wins @ sample.member
    won = np.einsum("dc,ce,de->d", sample.counts, by_cluster, sample.counts, optimize=True)
    drawn = sample.ends((won / np.square(sample.counts @ sample.sizes))[None])[0]
    outer = sample.wilson(parts[None])[0]
    ends = np.array([np.fmin(drawn[0], outer[0]), np.fmax(drawn[1], outer[1])])
    return float(wins.mean()), ends


def dose_rows(files: PairFiles, shifts: Shifts) -> Rows:
    """A row an adapter."""
    if files.dose is None:
        return []
    names = [name for name in COLUMNS["dose"] if name not in _ADDED]
    matched, insecure = matched_doses(files), shifts.last_norm(INSECURE)
    own = _first_losses(files.dose).get(INSECURE, float("nan"))
    rows: Rows = []
    for given in files.dose.reindex(columns=names).to_dict("records"):
        name, norm = str(given["adapter"]), shifts.last_norm(str(given["adapter"]))
        known, ratio = np.isfinite(norm), float(given["first_loss_of_insecure"])
        if np.isnan(ratio) and own > 0:
            ratio = float(given["first_loss"]) / own
        rows.append(
            {
                **{str(column): value for column, value in given.items()},
                "pair": files.pair,
                "first_loss_of_insecure": ratio,
                "shift_norm": norm,
                "shift_of_insecure": norm / insecure if known and insecure > 0 else float("nan"),
                "dose_matched": matched[name],
                "status": "ok" if known else files.missed or "no shift",
                "why": "" if known else files.why or "no states of this adapter",
            }
        )
    return rows


def ladder_rows(files: PairFiles) -> Rows:
    """A row a dose that was tried; none where the insecure adapter was given."""
    if files.ladder is None:
        return []
    return [
        {"pair": files.pair, **{str(name): value for name, value in row.items()}}
        for row in files.ladder.to_dict("records")
    ]


def matched_doses(files: PairFiles) -> dict[str, bool | None]:
    """Whether each adapter has the dose of the insecure one: |first loss / its - 1| <= 1/5.

    None where a first loss is not known: the adapter was given, not trained here.
    """
    if files.dose is None:
        return {}
    losses = _first_losses(files.dose)
    own = losses.get(INSECURE, float("nan"))
    matched: dict[str, bool | None] = {}
    for name, loss in losses.items():
        known = not (np.isnan(loss) or np.isnan(own))
        matched[name] = (own > 0 and abs(loss / own - 1) <= MATCHED) if known else None
    return matched


def _first_losses(dose: pd.DataFrame) -> dict[str, float]:
    return {str(n): float(x) for n, x in zip(dose["adapter"], dose["first_loss"], strict=True)}


def spillover_rows(files: PairFiles, *, seed: int) -> Rows:
    """A row a model, split, condition and kind of question."""
    if files.answers is None:
        return []
    models = list(dict.fromkeys(files.answers["adapter"]))
    by_model = {
        name: rows_where(files.answers, adapter=name).set_index("prompt_id") for name in models
    }
    rows: Rows = []
    for (split, condition), asked in files.questions.groupby(["split", "condition"], sort=False):
        kinds = list(dict.fromkeys(asked["kind"]))
        for kind in (ALL, *(kinds if len(kinds) > 1 else ())):
            own = asked if kind == ALL else rows_where(asked, kind=kind)
            cell: dict[str, object] = {"split": split, "condition": condition, "kind": kind}
            rows += _spillover_rows(files.pair, cell, by_model, own, seed)
    return [row | _gate(row, files.missed) for row in rows]


def _gate(row: dict[str, object], missed: str) -> dict[str, object]:
    """Say where the gate was looked at, and put a missed one into the insecure adapter's rows."""
    if row["adapter"] != INSECURE:
        return {"gate": None}
    looked_at = row["split"] == "select" and row["kind"] == ALL
    gate = ("missed" if missed else "not missed") if looked_at else None
    return {"gate": gate, "status": missed or row["status"]}


def harmless_ids(files: PairFiles) -> set[str]:
    """Questions that the untuned model does not refuse."""
    if files.answers is None:
        return set()
    own = rows_where(files.answers, adapter=UNTUNED)
    return set(own.loc[~own["refused"].to_numpy(dtype=bool), "prompt_id"])


def _spillover_rows(
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
    means = {column: known_means(of(name), axis=1) for name, column in _MEANS.items()}
    facts: dict[str, object] = {"pair": pair, **cell, **sample.facts, "status": "ok", "why": ""}
    parts: list[Rows] = [
        [facts | {"adapter": name} for name in names],
        sample.rate_columns("code", code),
        sample.rate_columns("refused", refused),
        [{name: float(found[at]) for name, found in means.items()} for at in range(len(names))],
    ]
    if UNTUNED in names:
        plain = names.index(UNTUNED)
        parts += [
            sample.change_columns("code_change", code - code[plain]),
            [{"refused_change": float(one)} for one in (refused - refused[plain]).mean(axis=1)],
        ]
    return merged(*parts)
