"""Directions of a pair's adapters, from the stores of their states (no torch)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from actshift.io.store import ActivationStore
from actshift.maths.directions import diff_in_means
from actshift.studies.misalignment.kinds import UNSEEN, UNTUNED

#: Prompt set of the stores, as their folders are called: `<model>.<set>`.
QUESTIONS = "questions"


def find_directions(
    states: Path, models: Sequence[str], fitted: Sequence[str]
) -> dict[str, Float[np.ndarray, "layer d_model"]]:
    """Mean over prompts of an adapter minus mean of chat, `resid_post` at the last prompt token.

    Args:
        states: Folder of the stores `<model>.questions`.
        models: Chat and adapters; those of `UNSEEN` get no direction.
        fitted: Ids of the prompts.

    Returns:
        Adapter -> float32, raw norm kept.

    Source: arXiv 2606.20225, as its replication states the protocol.
    """
    means = {
        name: list(_rows_by_layer(states / f"{name}.{QUESTIONS}", fitted))
        for name in models
        if name not in UNSEEN
    }
    plain = means.pop(UNTUNED)
    return {
        name: np.stack(
            [diff_in_means(mine, own) for mine, own in zip(layers, plain, strict=True)]
        ).astype(np.float32)
        for name, layers in means.items()
    }


def _rows_by_layer(folder: Path, ids: Sequence[str]) -> Iterator[np.ndarray]:
    store = ActivationStore.open(folder)
    for layer in store.layers:
        yield store.read(int(layer), -1, ids)
