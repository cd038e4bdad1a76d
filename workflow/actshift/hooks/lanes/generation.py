"""Greedy generation of prompts x lanes in one batch, left-padded, with a key-value cache."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from actshift.edits import Lane
from actshift.hooks.lanes.edit import EditState, donor_places, edited, recorded
from actshift.hooks.lanes.fork import Fork, forked, shared_blocks
from actshift.hooks.reading.model_parts import CausalModel, Sites

#: Finished rows leave the batch once they are this share of it: copying the cache costs too.
_DROP_AT = 0.125


@dataclass(frozen=True)
class Decoder:
    """A causal language model, and how its answers begin and end.

    Attributes:
        causal: The model and its parts.
        eos: Token ids that end an answer.
        pad: Token id to fill up with, on the left.
    """

    causal: CausalModel
    eos: frozenset[int]
    pad: int

    @property
    def model(self) -> Any:
        """Maps `input_ids`, mask and positions to logits and a cache."""
        return self.causal.model

    @property
    def sites(self) -> Sites:
        """Its modules by site."""
        return self.causal.sites

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.causal.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the forward pass."""
        return self.causal.dtype


@dataclass(frozen=True)
class Continuation:
    """The answer of one row of the batch.

    Attributes:
        tokens: Generated ids, without the end token.
        ended: Whether an end token came before `max_new` was reached.
        margin: Smallest difference between the two largest logits along the way: below about
            1e-4 another batch shape may choose another token.
    """

    tokens: tuple[int, ...]
    ended: bool
    margin: float


@dataclass(frozen=True)
class LaneBatch:
    """The continuations of a batch, and the logits of every first token.

    Attributes:
        answers: By lane, then prompt.
        first_logits: `[lane, prompt, vocab]`, float32, on the CPU.
    """

    answers: list[list[Continuation]]
    first_logits: Float[np.ndarray, "lane prompt vocab"]


@dataclass
class _Rows:
    """The rows still running, and the groups (prompt and answer so far) that they belong to."""

    lane: Tensor
    index: Tensor
    group: Tensor
    mask: Tensor
    position: Tensor
    depth: int
    caches: list[Any] = field(default_factory=list)

    def bounds(self, lanes: int) -> list[tuple[int, int]]:
        """First and past-the-last row of each lane; rows stay sorted by lane."""
        counts = torch.bincount(self.lane, minlength=lanes).cumsum(0).tolist()
        return list(zip([0, *counts[:-1]], counts, strict=True))

    def advance(self, chosen: Int[Tensor, " row"], rows: Int[Tensor, " kept"]) -> Tensor:
        """Append a token to each kept row; rows that now read alike are one group.

        `rows` are those that go on. Returns the token of every new group, `[group, 1]`.
        """
        span = int(chosen.max()) + 1
        keys = self.group[rows] * span + chosen[rows]
        distinct, group = torch.unique(keys, return_inverse=True)
        parent = distinct // span
        for number, cache in enumerate(self.caches):
            # The last cache is the receiver's: its upper layers hold rows. A donor is never edited.
            last = number + 1 == len(self.caches)
            for place, layer in enumerate(cache.layers):
                if last and place >= self.depth:
                    _select(layer, rows, len(self.group))
                else:
                    _select(layer, parent, len(self.mask))
        self.lane, self.index = (part[rows.to(part.device)] for part in (self.lane, self.index))
        self.group = group
        mask = self.mask[parent]
        self.mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        self.position = self.position[parent, -1:] + 1
        return (distinct % span)[:, None]


def _select(layer: Any, kept: Int[Tensor, " kept"], size: int) -> None:
    """Keep some entries of one layer's cache, if they are not simply all of them."""
    if len(kept) != size or not torch.equal(kept, torch.arange(size).to(kept.device)):
        layer.batch_select_indices(kept)


class _Answers:
    """The answers of all rows of the batch so far."""

    def __init__(self, rows: int, receiver: Decoder) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.ended = torch.zeros(rows, dtype=torch.bool)
        self.margin = torch.full((rows,), torch.inf)
        self.first: Tensor | None = None
        self._eos = torch.tensor(sorted(receiver.eos), device=receiver.device)

    def add(self, logits: Float[Tensor, "row vocab"], rows: Int[Tensor, " row"]) -> Tensor:
        """Choose the next token of the given rows and return it, also for rows that are over."""
        if self.first is None:
            self.first = logits.cpu()
        best = logits.topk(2, dim=-1)
        chosen = best.indices[:, 0]
        running = ~self.ended[rows]
        margin = (best.values[:, 0] - best.values[:, 1]).cpu()
        self.margin[rows[running]] = self.margin[rows[running]].minimum(margin[running])
        self.ended[rows] |= torch.isin(chosen, self._eos).cpu()
        for row, token in zip(rows.tolist(), chosen.tolist(), strict=True):
            if not self.ended[row]:
                self.tokens[row].append(token)
        return chosen

    def batch(self, lanes: int) -> LaneBatch:
        """Everything, by lane and prompt."""
        assert self.first is not None
        answers = [
            Continuation(tuple(tokens), bool(ended), float(margin))
            for tokens, ended, margin in zip(self.tokens, self.ended, self.margin, strict=True)
        ]
        each = len(answers) // lanes
        parts = [answers[lane * each : (lane + 1) * each] for lane in range(lanes)]
        return LaneBatch(parts, self.first.view(lanes, each, -1).numpy())


@torch.inference_mode()
def generate_lanes(
    receiver: Decoder,
    prompts: Sequence[Int[np.ndarray, " _"]],
    lanes: Sequence[Lane],
    *,
    max_new: int,
    donor: Decoder | None = None,
) -> LaneBatch:
    """Continue every prompt in every lane, greedily, in one batch.

    Rows that meet an end token leave the batch. A lane with a patch reads the donor, which is run
    on the same tokens one module call ahead of the receiver. A lane without edits is the plain
    model. The donor is of the same width and depth.

    Raises:
        ValueError: A lane patches and there is no donor, or a lane names a layer that is not there.
    """
    places = donor_places(lanes)
    if places and donor is None:
        name = next(lane.name for lane in lanes if lane.needs_donor)
        raise ValueError(f"lane {name} patches from a donor, and none was given")
    models = [donor, receiver] if donor is not None and places else [receiver]
    blocks = receiver.sites["resid_post"]
    fork = Fork(shared_blocks(lanes, len(blocks)))
    ids, rows = _start(receiver, prompts, len(lanes), fork.depth)
    state = EditState(rows.bounds(len(lanes)))
    answers = _Answers(len(lanes) * len(prompts), receiver)
    with ExitStack() as stack:
        stack.enter_context(forked(blocks, fork))
        stack.enter_context(edited(receiver.sites, lanes, state, dtype=receiver.dtype))
        if len(models) == 2:
            stack.enter_context(recorded(models[0].sites, places, state.donor))
        for step in range(max_new):
            fork.set(rows.group, len(ids))
            state.group = fork.group
            logits = _forward(models, ids, rows)
            state.prefill = False
            chosen = answers.add(logits, rows.index)
            over = answers.ended[rows.index]
            if bool(over.all()) or step + 1 == max_new:
                break
            dropping = float(over.float().mean()) >= _DROP_AT
            kept = torch.nonzero(~over).flatten() if dropping else torch.arange(len(over))
            ids = rows.advance(chosen, kept.to(receiver.device))
            if dropping:
                state.rows = rows.bounds(len(lanes))
    return answers.batch(len(lanes))


def left_pad(
    prompts: Sequence[Int[np.ndarray, " _"]], decoder: Decoder
) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention mask and positions, each `[prompt, token]`, on the model's device."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), decoder.pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(np.asarray(prompt)).long()
        mask[row, longest - len(prompt) :] = 1
    # As the library's own generate: counted from the mask, padding at 1.
    position = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    return ids.to(decoder.device), mask.to(decoder.device), position.to(decoder.device)


def _start(
    receiver: Decoder, prompts: Sequence[Int[np.ndarray, " _"]], lanes: int, depth: int
) -> tuple[Tensor, _Rows]:
    """Left-pad the prompts, which are the first groups; each has a row in every lane."""
    ids, mask, position = left_pad(prompts, receiver)
    rows = _Rows(
        lane=torch.arange(lanes).repeat_interleave(len(prompts)),
        index=torch.arange(lanes * len(prompts)),
        group=torch.arange(len(prompts), device=ids.device).repeat(lanes),
        mask=mask,
        position=position,
        depth=depth,
    )
    return ids, rows


def _forward(models: Sequence[Decoder], ids: Tensor, rows: _Rows) -> Tensor:
    """Run the donor, if any, and the receiver; return the last token's logits, float32."""
    out: Any = None
    caches = rows.caches or [None] * len(models)
    kept = []
    for decoder, cache in zip(models, caches, strict=True):
        out = decoder.model(
            input_ids=ids,
            attention_mask=rows.mask,
            position_ids=rows.position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        kept.append(out.past_key_values)
    rows.caches = kept
    return out.logits[:, -1].float()
