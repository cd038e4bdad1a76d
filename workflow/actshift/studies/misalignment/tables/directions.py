"""Tables `separation`, `direction_cosines` and `detection`, from states and mean shifts."""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from actshift.maths.cluster_rows import ClusterRows, columns
from actshift.maths.directions import cosine, mean_shift
from actshift.studies.misalignment.kinds import INSECURE, UNSEEN, UNTUNED
from actshift.studies.misalignment.tables.inputs import PairFiles, Rows, rows_where
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


SPLITS = ("fit", "heldout")


def separation_rows(shifts: Shifts, *, seed: int) -> Rows:
    """A row an adapter, layer, split and direction: v of the insecure adapter, and its own.

    Args:
        shifts: Of a pair.
        seed: Of resampling.
    """
    samples = {split: _sample(shifts, split, seed) for split in SPLITS}
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
                direction = shifts.shift(name)
                if direction is None:
                    continue
                facts: dict[str, object] = {
                    **{"pair": shifts.files.pair, "adapter": adapter, "projected_on": name},
                    **{"layer": layer, "cosine": cosine(own[layer], direction[layer])},
                    "shift_norm": float(np.linalg.norm(own[layer])),
                }
                rows += [facts | one for one in _by_split(states, direction[layer], samples)]
    return rows


def cosine_rows(shifts: Shifts) -> Rows:
    """A row a layer and two adapters that have directions.

    Args:
        shifts: Of a pair.
    """
    given = shifts.files.directions or {}
    return [
        {
            **{"pair": shifts.files.pair, "layer": layer, "a": a, "b": b},
            "cosine": cosine(*(given[name][layer].astype(np.float64) for name in (a, b))),
            "norm_a": float(np.linalg.norm(given[a][layer].astype(np.float64))),
            "norm_b": float(np.linalg.norm(given[b][layer].astype(np.float64))),
        }
        for a, b in combinations(given, 2)
        for layer in range(shifts.layers)
    ]


def midpoint_correct(
    chat: Float[np.ndarray, " prompt"],
    adapter: Float[np.ndarray, " prompt"],
    *,
    chat_mean: float,
    adapter_mean: float,
) -> Float[np.ndarray, " prompt"]:
    """Share of each question's two states that lie nearer to their own mean; a tie counts half.

    Its mean over questions is the balanced accuracy of the midpoint threshold.

    Args:
        chat: Projections of chat.
        adapter: Projections of the adapter on the same questions.
        chat_mean: Mean projection of chat on the questions of the fit.
        adapter_mean: That of the adapter.
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


def _sample(shifts: Shifts, split: str, seed: int) -> ClusterRows:
    return ClusterRows.of(shifts.questions(split)["cluster"].astype(str).tolist(), seed=seed)


SPLIT = "heldout"
#: The adapter to be found: of another training seed and dose.
POSITIVE = next(name for name, kind in UNSEEN.items() if kind == INSECURE)


def detection_rows(shifts: Shifts, *, seed: int) -> Rows:
    """A row a layer and other model: area under the ROC curve of projections on v.

    Args:
        shifts: Of a pair.
        seed: Of resampling.
    """
    v, files = shifts.shift(INSECURE), shifts.files
    # The adapter that v was made from is no test of v.
    negatives = [one for one in files.models if one not in (INSECURE, POSITIVE)]
    if v is None or POSITIVE not in files.models:
        return []
    clusters = shifts.questions(SPLIT)["cluster"].astype(str).tolist()
    sample = ClusterRows.of(clusters, seed=seed)
    rows: Rows = []
    for layer, direction in enumerate(v):
        positive = shifts.states(POSITIVE, layer, SPLIT) @ direction
        for name in negatives:
            negative = shifts.states(name, layer, SPLIT) @ direction
            value, ends = auroc(positive, negative, sample)
            rows.append(
                {
                    **{"pair": files.pair, "positive": POSITIVE, "negative": name, "layer": layer},
                    **{"split": SPLIT, **sample.facts, "status": "ok", "why": ""},
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
    the area (the mean of its wins as a positive and as a negative).

    Args:
        positive: Scores of one model.
        negative: Scores of another on the same questions.
        sample: Clusters of the questions.

    Returns:
        The area, and both ends.
    """
    wins = (1 + np.sign(positive[:, None] - negative[None, :])) / 2
    parts = (wins.mean(axis=1) + wins.mean(axis=0)) / 2
    by_cluster = sample.member.T @ wins @ sample.member
    won = np.einsum("dc,ce,de->d", sample.counts, by_cluster, sample.counts, optimize=True)
    drawn = sample.ends((won / np.square(sample.counts @ sample.sizes))[None])[0]
    outer = sample.wilson(parts[None])[0]
    ends = np.array([np.fmin(drawn[0], outer[0]), np.fmax(drawn[1], outer[1])])
    return float(wins.mean()), ends
