"""Tables `separation` and `direction_cosines`: how far an adapter's states lie from chat's."""

from itertools import combinations

import numpy as np
from jaxtyping import Float

from actshift.maths.cluster_rows import ClusterRows, columns
from actshift.maths.directions import cosine
from actshift.studies.misalignment.kinds import INSECURE, UNTUNED
from actshift.studies.misalignment.tables.inputs import Rows
from actshift.studies.misalignment.tables.shifts import Shifts

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
