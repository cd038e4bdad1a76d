"""Staircase patching: all lanes of a sweep in few passes, each entered at its lane's layer.

What the receiver does below a patch is either overwritten or the same as in its plain run. So the
plain runs of receiver and donor are made once, and a lane patched at layer l is the patched state
pushed through blocks l+1 and up: L(L-1)/2 block evaluations for a lane at each of L layers and not
L^2. The two completions of a pair share each lane's prompt; a lane that leaves the beginning of
the prompt alone takes the receiver's own keys and values for it and carries the rest only. Logits
exist where completions are scored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from actshift.hooks.patching.pair_batch import make_batch, run_pairs
from actshift.hooks.patching.patches import Sources, patched_completion, patched_prompt
from actshift.hooks.patching.resume import Join, run_from, run_last_token
from actshift.hooks.reading.kv_cache import KeyValues, KvCache
from actshift.hooks.reading.memory import in_batches, in_halves
from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.scoring import run_sums, side_sums, token_counts
from actshift.packing import cut_by_length
from actshift.patching import DONOR, RECEIVER, PairScores, PatchLane, Sweep, TokenPair

#: Numbers in the stream of a pass (tokens x d_model): few on a CPU, for its cache, else many more.
_NUMBERS, _NUMBERS_CPU = 2**24, 2**20
#: What one more pass over completions costs, in tokens.
_PASS_TOKENS = 2**7


@dataclass(frozen=True)
class Group:
    """Lanes that run together, in the order of layers, and their patched states.

    Attributes:
        receiver: The model.
        sources: The batch, and the runs it is patched from.
        lanes: The lanes.
        start: First column of the prompt that they carry; before it they are the receiver.
        prompts: Patched states of the prompt from `start` on, by lane.
        completions: Patched states of the completions, by lane.
    """

    receiver: CausalModel
    sources: Sources
    lanes: Sequence[PatchLane]
    start: int
    prompts: Sequence[Float[Tensor, "pair token d"]]
    completions: Sequence[Float[Tensor, "row read d"]]

    def unchanged(self) -> Bool[np.ndarray, "lane pair"]:
        """Where the edit changed no bit of the stream, so that nothing can follow from it."""
        plain = self.sources.receiver
        out = np.ones((len(self.lanes), len(self.sources.batch.pairs)), dtype=bool)
        for index, lane in enumerate(self.lanes):
            same = plain.completion[lane.layer] == self.completions[index]
            out[index] &= same.flatten(1).all(1).view(-1, 2).all(1).cpu().numpy()
            if self.prompts:
                same = plain.prompt[lane.layer][:, self.start :] == self.prompts[index]
                out[index] &= same.flatten(1).all(1).cpu().numpy()
        return out

    def of_pairs(self, pairs: slice) -> "Group":
        """Some pairs that lie side by side, without the padding that the others need."""
        sources, rows = self.sources.of_pairs(pairs), slice(2 * pairs.start, 2 * pairs.stop)
        saved = self.sources.batch.prompt.shape[1] - sources.batch.prompt.shape[1]
        start = max(0, self.start - saved)
        columns = sources.batch.prompt.shape[1] - start
        reads = sources.receiver.completion[0].shape[1]
        return replace(
            self,
            sources=sources,
            start=start,
            prompts=[states[pairs, -columns:] for states in self.prompts],
            completions=[states[rows, :reads] for states in self.completions],
        )

    def run(self) -> tuple[Float[Tensor, "lane pair d"], Float[Tensor, "lane row read d"]]:
        """Last block's output at the last prompt token, and at the completions; 0 at padding."""
        batch, plain, count = self.sources.batch, self.sources.receiver, len(self.lanes)
        kv_cache = KvCache(self.start, self._plain_prefix(slice(None)), keep=True)
        if self.prompts:
            segment = batch.prompt_segment(self.start)
            ends = run_last_token(self.receiver, segment, self._joins(self.prompts), kv_cache)
            ends = ends.unflatten(0, (count, -1))
        else:
            ends = plain.prompt[-1][:, -1].expand(count, -1, -1)
        read = batch.scored.sum(1).tolist()
        out = ends.new_zeros(count, *self.completions[0].shape)
        for rows in cut_by_length(read, weight=count, overhead=_PASS_TOKENS):
            tokens = max(read[row] for row in rows)
            joins = self._joins([lane[rows, :tokens] for lane in self.completions])
            segment = batch.completion_segment(tokens, rows)
            behind = KvCache(segment.prefix, self._prefix(_places(rows), kv_cache))
            states = run_from(self.receiver, segment, joins, behind)
            out[:, rows, :tokens] = states.unflatten(0, (count, len(rows)))
        return ends, out

    def _joins(self, states: Sequence[Tensor]) -> dict[int, Join]:
        """Lanes by the block above their layer."""
        by_block: dict[int, list[Tensor]] = {}
        for lane, rows_of_lane in zip(self.lanes, states, strict=True):
            by_block.setdefault(lane.layer + 1, []).append(rows_of_lane)
        rows = torch.arange(len(states[0]), device=states[0].device)
        return {
            block: Join(torch.cat(parts), rows.repeat(len(parts)))
            for block, parts in by_block.items()
        }

    def _alive(self, layer: int) -> int:
        """Lanes in the batch at a block."""
        return sum(lane.layer < layer for lane in self.lanes)

    def _plain_prefix(self, pairs: slice | list[int]) -> Callable[[int], list[KeyValues]]:
        """The receiver's own prompts up to `start`, for all lanes alike."""

        def look_up(layer: int) -> list[KeyValues]:
            lanes = self._alive(layer)
            keys, values = (
                part[pairs, :, : self.start].expand(lanes, -1, -1, -1, -1)
                for part in self.sources.receiver.kv_cache[layer]
            )
            return [(keys, values)]

        return look_up

    def _prefix(
        self, pairs: slice | list[int], kv_cache: KvCache
    ) -> Callable[[int], list[KeyValues]]:
        """The receiver's prompts up to `start`, then each lane's own, if it carries any."""
        plain = self._plain_prefix(pairs)

        def look_up(layer: int) -> list[KeyValues]:
            prefix = plain(layer)
            if self.prompts:
                lanes = self._alive(layer)
                keys, values = (part.unflatten(0, (lanes, -1)) for part in kv_cache.kept[layer])
                prefix.append((keys[:, pairs], values[:, pairs]))
            return prefix

        return look_up


def _places(rows: Sequence[int]) -> slice | list[int]:
    """The pair of each row; a slice, which copies nothing, where they are side by side."""
    pairs = [row // 2 for row in rows]
    beside = pairs == list(range(pairs[0], pairs[0] + len(pairs)))
    return slice(pairs[0], pairs[0] + len(pairs)) if beside else pairs


def make_group(
    receiver: CausalModel, sources: Sources, lanes: Sequence[PatchLane], start: int
) -> Group:
    """Make the patched states of lanes; there are none of a part that no lane carries."""
    carries = start < sources.batch.prompt.shape[1]
    prompts = [patched_prompt(lane, sources, start) for lane in lanes if carries]
    completions = [patched_completion(lane, sources) for lane in lanes]
    return Group(receiver, sources, lanes, start, prompts, completions)


def some_of(group: Group, keep: Sequence[int]) -> Group:
    """Some of the lanes, in the same order."""
    return replace(
        group,
        lanes=[group.lanes[i] for i in keep],
        prompts=[group.prompts[i] for i in keep if group.prompts],
        completions=[group.completions[i] for i in keep],
    )


@dataclass(frozen=True)
class _Models:
    """The two models and how to run them."""

    receiver: CausalModel
    donor: CausalModel
    token_budget: int
    run_unchanged: bool


def patch_sweep(
    receiver: CausalModel,
    donor: CausalModel,
    pairs: Sequence[TokenPair],
    lanes: Sequence[PatchLane],
    *,
    partners: Mapping[str, Sequence[TokenPair]] | None = None,
    token_budget: int = 2**15,
    run_unchanged: bool = False,
) -> Sweep:
    """Score every pair in every lane.

    Args:
        receiver: The model that is patched.
        donor: The model whose states are patched in, of the same depth and width.
        pairs: Prompts and completions.
        lanes: The conditions, with unique names.
        partners: For each further source, the pair that stands in for each of `pairs`: of the
            same condition (genericity), or of the other one (the null).
        token_budget: Most tokens whose edits exist at one time, lanes and padding counted; passes
            are cut finer. It changes rounding only. Where memory runs out, first lanes and then
            pairs are halved.
        run_unchanged: Run also what an edit left bit for bit as it was (identity, alpha 0). Left
            alone, it has the plain receiver's scores, hence an effect of exactly zero; run, it
            shows what the engine's rounding is worth.

    Returns:
        Scores of the plain models and of every lane, lanes and pairs in the order given.

    Raises:
        ValueError: Names repeat, a layer or source does not exist, or the models differ in depth.
        UserError: One lane of one pair alone does not fit into memory.
    """
    partners = partners or {}
    models = _Models(receiver, donor, token_budget, run_unchanged)
    _check(receiver, donor, pairs, lanes, partners)

    def work(places: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        with torch.inference_mode():
            sources = _sources(receiver, donor, pairs, partners, places)
            plain = run_sums(receiver, sources.batch, sources.receiver)
            other = run_sums(donor, sources.batch, sources.donor)
            patched, halved = _all_lanes(models, sources, lanes, plain[0])
        return plain[0], other[0], patched, halved

    # A batch is small enough that a lane at each layer goes in one pass.
    budget = token_budget // receiver.n_layers
    batches = in_batches(work, pairs, token_budget=budget)
    plain, other = np.empty((len(pairs), 2)), np.empty((len(pairs), 2))
    patched = np.empty((len(lanes), len(pairs), 2))
    halved = batches.halved
    for places, result in batches.done:
        index = list(places)
        plain[index], other[index], patched[:, index] = result[:3]
        halved += result[3]
    tokens = token_counts(pairs)
    scores = (PairScores(logp, tokens) for logp in (plain, other, patched))
    return Sweep(*scores, halved=halved)


def _check(
    receiver: CausalModel,
    donor: CausalModel,
    pairs: Sequence[TokenPair],
    lanes: Sequence[PatchLane],
    partners: Mapping[str, Sequence[TokenPair]],
) -> None:
    if receiver.n_layers != donor.n_layers:
        raise ValueError(f"receiver has {receiver.n_layers} blocks, donor {donor.n_layers}")
    if len({lane.name for lane in lanes}) < len(lanes):
        raise ValueError("two lanes share a name")
    for lane in lanes:
        if not 0 <= lane.layer < receiver.n_layers:
            raise ValueError(f"lane {lane.name}: layer {lane.layer} of {receiver.n_layers}")
    for name, others in partners.items():
        if name in (DONOR, RECEIVER) or len(others) != len(pairs):
            raise ValueError(f"partners {name!r}: a free name and one partner a pair are needed")


def _sources(
    receiver: CausalModel,
    donor: CausalModel,
    pairs: Sequence[TokenPair],
    partners: Mapping[str, Sequence[TokenPair]],
    places: Sequence[int],
) -> Sources:
    batch = make_batch([pairs[i] for i in places], receiver.device)
    plain = run_pairs(receiver, batch, last=False)
    # Nothing continues the donor's prompts: its keys and values can go.
    other = replace(run_pairs(donor, batch, last=False), kv_cache=())
    stand_ins = {}
    for name, others in partners.items():
        their = make_batch([others[i] for i in places], donor.device)
        stand_ins[name] = (their, replace(run_pairs(donor, their), kv_cache=()))
    return Sources(batch, plain, other, stand_ins)


def _all_lanes(
    models: _Models, sources: Sources, lanes: Sequence[PatchLane], plain: np.ndarray
) -> tuple[Float[np.ndarray, "lane pair side"], int]:
    """Run the lanes in groups that fit; also returns how often a group was halved."""
    out = np.repeat(plain[None], len(lanes), axis=0)
    halved = 0
    for start, groups in _groups(lanes, sources, models.token_budget):
        batches = in_halves(
            partial(_scored, models, sources, lanes, start),
            groups,
            lambda place: MemoryError(f"lane {lanes[place].name} does not fit into memory"),
        )
        for group, (scores, changed) in batches.done:
            out[list(group)] = np.where(changed[..., None], scores, out[list(group)])
        halved += batches.halved
    return out, halved


def _groups(
    lanes: Sequence[PatchLane], sources: Sources, token_budget: int
) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
    """Lanes of one pass: the same first column of the prompt, in the order of layers."""
    width = sources.batch.prompt.shape[1]
    completions = 2 * sources.receiver.completion[0].shape[1]
    # The first column of the prompt that the lane carries itself.
    starts = {"all": 0, "prompt": 0, "last_prompt": width - 1, "completion": width}
    for start in sorted(set(starts.values())):
        members = [i for i, lane in enumerate(lanes) if starts[lane.positions] == start]
        members.sort(key=lambda i: lanes[i].layer)
        each = len(sources.batch.pairs) * (width - start + completions)
        size = max(1, token_budget // max(1, each))
        firsts = range(0, len(members), size)
        yield start, [tuple(members[first : first + size]) for first in firsts]


def _scored(
    models: _Models,
    sources: Sources,
    lanes: Sequence[PatchLane],
    start: int,
    places: tuple[int, ...],
) -> tuple[Float[np.ndarray, "lane pair side"], Bool[np.ndarray, "lane pair"]]:
    """Run some lanes as one group, score it with the heads they ask for, and say what changed."""
    lanes = [lanes[place] for place in places]
    group = make_group(models.receiver, sources, lanes, start)
    own_head = np.array([lane.head == "receiver" for lane in lanes])
    changed = ~(group.unchanged() & own_head[:, None])
    if models.run_unchanged:
        changed[:] = True
    out = np.empty((*changed.shape, 2))
    running = np.flatnonzero(changed.any(1)).tolist()
    if running:
        group = some_of(group, running)
        for pairs in _passes(models, group):
            out[running, pairs] = _run(models, group.of_pairs(pairs))
    return out, changed


def _passes(models: _Models, group: Group) -> Iterator[slice]:
    """Cut the pairs of a group into as many passes as are full: fewer pairs need less padding."""
    batch = group.sources.batch
    count = len(batch.pairs)
    numbers = _NUMBERS_CPU if batch.prompt.device.type == "cpu" else _NUMBERS
    full = min(models.token_budget, numbers // group.completions[0].shape[-1])
    each = batch.prompt.shape[1] - group.start + 2 * batch.completion.shape[1]
    size = max(1, full // (each * len(group.lanes)))
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


def _run(models: _Models, group: Group) -> Float[np.ndarray, "lane pair side"]:
    """Run and score a group, each lane with the head it asks for."""
    ends, completions = group.run()
    batch = group.sources.batch
    out = np.empty((len(group.lanes), len(batch.pairs), 2))
    for head, model in (("receiver", models.receiver), ("donor", models.donor)):
        chosen = [index for index, lane in enumerate(group.lanes) if lane.head == head]
        if chosen:
            out[chosen] = side_sums(model, batch, ends[chosen], completions[chosen])
    return out
