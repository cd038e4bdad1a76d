"""Patched states of a batch of pairs: the edits of `actshift.patching` on prompts and completions.

Source states of the same pairs lie token by token on the receiver's. Those of partners are laid
on from the end of the prompt and from the beginning of the completion; where the source has no
token the receiver keeps its own state.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from actshift.hooks.patching.pair_batch import PairBatch, PairRun, make_batch
from actshift.patching import (
    DONOR,
    RECEIVER,
    Contrast,
    Noise,
    PatchLane,
    Push,
    SourceSide,
    Take,
    TokenPair,
)
from actshift.random_streams import PATCH_NOISE

Part = Literal["prompt", "completion"]
#: States of a part, and where the source has a token.
Read = tuple[Float[Tensor, "row token d_model"], Bool[Tensor, "row token"]]


@dataclass
class Sources:
    """All runs that the edits of a batch read.

    Attributes:
        batch: The pairs.
        receiver: Plain pass of the receiver.
        donor: Plain pass of the donor.
        partners: By name, other pairs in the place of these, and the donor's pass over them.
    """

    batch: PairBatch
    receiver: PairRun
    donor: PairRun
    partners: Mapping[str, tuple[PairBatch, PairRun]] = field(default_factory=dict)

    def read(self, name: str, layer: int, part: Part, side: SourceSide = "own") -> Read:
        """A source's states in the receiver's places.

        Raises:
            ValueError: There is no such source.
        """
        batch, run = self._run(name)
        width = _of(self.receiver, layer, part).shape[1]
        real = batch.prompt_real if part == "prompt" else batch.completion_real
        states, real = (_fit(one, width, part) for one in (_of(run, layer, part), real))
        if part == "completion" and side != "own":
            states, real = (_one_side(one, side) for one in (states, real))
        return states, real

    def of_pairs(self, pairs: slice) -> "Sources":
        """Some pairs that lie side by side, without padding of the others; without partners."""
        batch = make_batch(self.batch.pairs[pairs], self.batch.prompt.device)
        # The last column of the completions may not have been read.
        unread = self.batch.completion.shape[1] - self.receiver.completion[0].shape[1]
        width, tokens = batch.prompt.shape[1], batch.completion.shape[1] - unread
        receiver, donor = (
            run.of_pairs(pairs, width, tokens) for run in (self.receiver, self.donor)
        )
        return Sources(batch, receiver, donor)

    def _run(self, name: str) -> tuple[PairBatch, PairRun]:
        if name in (DONOR, RECEIVER):
            return self.batch, self.donor if name == DONOR else self.receiver
        if name not in self.partners:
            raise ValueError(f"no source {name!r}: give its pairs as partners[{name!r}]")
        return self.partners[name]


def patched_prompt(
    lane: PatchLane, sources: Sources, start: int
) -> Float[Tensor, "pair token d_model"]:
    """The receiver's prompt states at the lane's layer, edited, from column `start` on.

    Raises:
        ValueError: The lane does not act on the prompt, or reads a source that is not there.
    """
    if lane.positions == "completion":
        raise ValueError(f"lane {lane.name} leaves the prompt alone")
    own = sources.receiver.prompt[lane.layer]
    edited, there = _edit(lane, sources, "prompt", own)
    if lane.positions == "last_prompt":
        there = there.clone()
        there[:, :-1] = False
    return torch.where(there[..., None], edited, own)[:, start:]


def patched_completion(lane: PatchLane, sources: Sources) -> Float[Tensor, "row token d_model"]:
    """The receiver's completion states at the lane's layer, edited where the lane acts on them.

    Raises:
        ValueError: The lane reads a source that is not there.
    """
    own = sources.receiver.completion[lane.layer]
    if lane.positions not in ("all", "completion") or own.shape[1] == 0:
        return own
    edited, there = _edit(lane, sources, "completion", own)
    return torch.where(there[..., None], edited, own)


def _edit(lane: PatchLane, sources: Sources, part: Part, own: Tensor) -> Read:
    """The edited states, and where the edit has something to say."""
    edit, layer, h = lane.edit, lane.layer, _wide(own)
    if isinstance(edit, Noise):
        noise = _noise(edit, layer, sources.batch, part, own.shape[1])
        states = _array(edit.mean, h) + _array(edit.std, h) * noise.to(h)
        there = sources.read(RECEIVER, layer, part)[1]
    elif isinstance(edit, Contrast):
        plus, there = sources.read(edit.source, layer, part, "chosen")
        minus, also = sources.read(edit.source, layer, part, "rejected")
        states, there = h + edit.alpha * (_wide(plus) - _wide(minus)), there & also
    elif isinstance(edit, Push):
        source, there = sources.read(edit.source, layer, part)
        length = (_wide(source) - h).norm(dim=-1, keepdim=True)
        states = h + length * _array(edit.direction, h)
    else:
        source, there = sources.read(edit.source, layer, part, edit.side)
        states = _take(edit, h, _wide(source))
    return states.to(own.dtype), there


def _take(edit: Take, h: Tensor, source: Tensor) -> Tensor:
    if edit.basis is None:
        # At full weight the source itself and not h + (s - h), which rounds.
        return source if edit.alpha == 1 else h + edit.alpha * (source - h)
    basis = _array(edit.basis, h)
    if edit.keep_rest:
        return h + edit.alpha * ((source - h) @ basis @ basis.T)
    return h + edit.alpha * (source @ basis @ basis.T - h)


def _noise(
    edit: Noise, layer: int, batch: PairBatch, part: Part, width: int
) -> Float[Tensor, "row token d_model"]:
    """Standard normal draws in the places of real tokens, the same in any batch."""
    out = np.zeros((len(_rows(batch.pairs[0], part)) * len(batch.pairs), width, len(edit.mean)))
    row = 0
    for pair in batch.pairs:
        for index, tokens in enumerate(_rows(pair, part)):
            places = layer, zlib.crc32(pair.id.encode()), part == "prompt", index
            rng = PATCH_NOISE.rng(edit.seed, *places)
            draw = rng.standard_normal((len(tokens), len(edit.mean)))
            if part == "prompt":
                out[row, width - len(tokens) :] = draw
            else:  # the last column, which predicts nothing, may be absent
                out[row, : len(tokens)] = draw[:width]
            row += 1
    return torch.from_numpy(out)


def _rows(pair: TokenPair, part: Part) -> tuple[tuple[int, ...], ...]:
    return (pair.prompt,) if part == "prompt" else pair.sides


def _of(run: PairRun, layer: int, part: Part) -> Tensor:
    return run.prompt[layer] if part == "prompt" else run.completion[layer]


def _wide(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))


def _array(array: np.ndarray, like: Tensor) -> Tensor:
    # Reversed columns, as of an eigenbasis, are a view that torch cannot take.
    return torch.as_tensor(np.ascontiguousarray(array), device=like.device, dtype=like.dtype)


def _one_side(states: Tensor, side: SourceSide) -> Tensor:
    """Both completions of a pair replaced by one of them."""
    index = 0 if side == "chosen" else 1
    return states.unflatten(0, (-1, 2))[:, index].repeat_interleave(2, 0)


def _fit(states: Tensor, width: int, part: Part) -> Tensor:
    """Cut or fill axis 1 to a width, prompts from their end and completions from their start."""
    found = states.shape[1]
    if found >= width:
        return states[:, found - width :] if part == "prompt" else states[:, :width]
    room = states.new_zeros(states.shape[0], width - found, *states.shape[2:])
    return torch.cat([room, states] if part == "prompt" else [states, room], dim=1)
