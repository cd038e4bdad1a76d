"""Lanes of a patching sweep that run together, one pass over prompts and one over completions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from actshift.hooks.patching.patches import Sources, patched_completion, patched_prompt
from actshift.hooks.patching.resume import Join, run_from, run_last_token
from actshift.hooks.reading.kv_cache import KeyValues, KvCache
from actshift.hooks.reading.model_parts import CausalModel
from actshift.packing import cut_by_length
from actshift.patching import PatchLane

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
