"""Staircase patching against full forwards, one way after the other in one run.

    python benchmarks/patching.py [--device cpu|cuda|auto] [--rounds 5] [--shape small|llama-1b]

A random Llama of 16 layers and a noisy copy as donor; pairs of prompts and two completions of
mixed lengths. Every way patches the donor's states into the receiver at every layer and scores
both completions, also under the plain receiver, which an effect is measured from; one pass of
the donor is counted in every way. Round by round all are timed in turn (CPU time of the process,
on a GPU wall time), with an allocator that keeps freed memory:

- staircase: `patch_sweep`;
- one by one: one sequence and one layer at a time, a full forward with a replacement hook, as
  published;
- batched: a full forward a layer over all sequences at once, right-padded;
- batched, head at completions: the same, logits only from the first token before a completion.

Printed are ratios to the staircase (median, min-max over rounds), the largest difference of any
summed log-prob, and on a GPU the peak memory. The exit status is 1 where a difference exceeds
1e-4 relative, or a ratio stays below its aim: one by one 4, batched 2, batched with completion
positions 3.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from actshift.engine.causal import causal_model
from actshift.hooks.patching.staircase import patch_sweep
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.hooks.reading.model_parts import CausalModel
from actshift.hooks.reading.record import hidden_of
from actshift.models.families import Dims, build
from actshift.patching import PatchLane, PatchPositions, Take, TokenPair

#: Sizes of model and pairs. The small model's head weighs 2.7 of its blocks (Llama-3.2-1B's 4.3).
SHAPES = {
    "small": (Dims(4096, d_model=128, n_layers=16, d_head=32, d_mlp=384), (16, 45, 65, 15, 26)),
    "llama-1b": (
        Dims(128256, 2048, 16, n_heads=32, n_kv_heads=8, d_head=64, d_mlp=8192, max_positions=512),
        (8, 120, 200, 30, 80),
    ),
}
#: Ratio to the staircase that is aimed at, by way and patched positions.
AIMS = {("one by one", "all"): 4, ("batched", "all"): 2, ("batched", "completion"): 3}
CLOSE = 1e-4


def make_pairs(count: int, low: int, high: int, least: int, most: int) -> list[TokenPair]:
    rng = np.random.default_rng(0)

    def ids(bounds: tuple[int, int]) -> tuple[int, ...]:
        return tuple(rng.integers(2, 1000, size=rng.integers(*bounds)).tolist())

    said = (least, most)
    return [TokenPair(f"{i}", ids((low, high)), ids(said), ids(said)) for i in range(count)]


def make_models(
    dims: Dims, device: torch.device, dtype: torch.dtype
) -> tuple[CausalModel, CausalModel]:
    torch.manual_seed(0)
    receiver = build("llama", dims)
    for parameter in receiver.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim == 2 and dims.d_model < 1000:
            parameter.mul_(4)  # at the library's init, blocks of a narrow model do little
    donor = build("llama", dims)
    donor.load_state_dict(receiver.state_dict())
    for parameter in donor.parameters():
        parameter.requires_grad_(False)
        parameter.add_(0.2 * parameter.std() * torch.randn_like(parameter))
    return causal_model(receiver.to(device, dtype)), causal_model(donor.to(device, dtype))


Rows = list[tuple[tuple[int, ...], tuple[int, ...]]]


def full_forwards(
    receiver: CausalModel,
    donor: CausalModel,
    rows: Rows,
    positions: PatchPositions,
    *,
    group: int,
    head_at_completions: bool = False,
) -> np.ndarray:
    """Sums by layer (the last row: unpatched) and sequence, a full forward a layer and group."""
    out = np.empty((receiver.n_layers + 1, len(rows)))
    for start in range(0, len(rows), group):
        part = rows[start : start + group]
        ids = pad_sequence([torch.tensor(p + c) for p, c in part], batch_first=True)
        ids = ids.to(receiver.device)
        prompts = torch.tensor([[len(p)] for p, _ in part], device=ids.device)
        ends = torch.tensor([[len(p) + len(c)] for p, c in part], device=ids.device)
        place = torch.arange(ids.shape[1], device=ids.device)
        at = (place >= prompts) if positions == "completion" else (place >= 0).expand(len(part), -1)
        scored = (place[1:] >= prompts) & (place[1:] < ends)
        first = int(prompts.min()) - 1 if head_at_completions else 0
        states: list[torch.Tensor] = []
        with each_output(donor, states.append):
            donor.trunk(input_ids=ids, use_cache=False)
        for layer in range(receiver.n_layers + 1):
            with replaced(receiver, layer, states, at):
                keep = ids.shape[1] - first
                logits = receiver.model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits
            logp = logits[:, :-1].float().log_softmax(-1)
            logp = logp.gather(2, ids[:, first + 1 :, None])[..., 0]
            out[layer, start : start + len(part)] = (logp * scored[:, first:]).sum(1).cpu().numpy()
    return out


@contextmanager
def each_output(causal: CausalModel, keep: Callable[[torch.Tensor], None]) -> Iterator[None]:
    handles = [
        block.register_forward_hook(lambda _m, _a, out: keep(hidden_of(out)))
        for block in causal.blocks
    ]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def replaced(
    causal: CausalModel, layer: int, states: list[torch.Tensor], at: torch.Tensor
) -> Iterator[None]:
    if layer == causal.n_layers:
        yield
        return
    handle = causal.blocks[layer].register_forward_hook(
        lambda _m, _a, out: torch.where(at[..., None], states[layer], hidden_of(out))
    )
    yield
    handle.remove()


def staircase(
    models: tuple[CausalModel, CausalModel],
    pairs: list[TokenPair],
    lanes: list[PatchLane],
    budget: int,
) -> np.ndarray:
    sweep = patch_sweep(*models, pairs, lanes, token_budget=budget)
    return np.concatenate([sweep.lanes.logp, sweep.receiver.logp[None]]).reshape(len(lanes) + 1, -1)


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    with torch.inference_mode():
        result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result


def compare(
    models: tuple[CausalModel, CausalModel],
    pairs: list[TokenPair],
    positions: PatchPositions,
    *,
    rounds: int,
    token_budget: int,
) -> bool:
    """Time all ways in turn and print; whether all is close and as fast as aimed at."""
    receiver, device = models[0], models[0].device
    lanes = [
        PatchLane(f"patch@{layer}", layer, Take(), positions) for layer in range(receiver.n_layers)
    ]
    rows: Rows = [(pair.prompt, side) for pair in pairs for side in pair.sides]
    ways: dict[str, Callable[[], np.ndarray]] = {
        "staircase": lambda: staircase(models, pairs, lanes, token_budget),
        "one by one": lambda: full_forwards(*models, rows, positions, group=1),
        "batched": lambda: full_forwards(*models, rows, positions, group=len(rows)),
        "batched, head at completions": lambda: full_forwards(
            *models, rows, positions, group=len(rows), head_at_completions=True
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, np.ndarray] = {}
    peak: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, work in ways.items():
            took, found[name] = timed(work, device)
            if device.type == "cuda":
                peak[name] = torch.cuda.max_memory_allocated() / 2**30
            if number:  # the first round warms up
                seconds[name].append(took)
    print(f"{positions} positions:")
    good = True
    for name in list(ways)[1:]:
        ratios = [a / b for a, b in zip(seconds[name], seconds["staircase"], strict=True)]
        apart = np.abs(found[name] - found["staircase"])
        relative = float((apart / np.abs(found[name])).max())
        aim = AIMS.get((name, positions))
        median = statistics.median(ratios)
        good &= relative <= CLOSE and median >= (aim or 0)
        print(
            f"  {name} / staircase: {median:.2f} ({min(ratios):.2f}-{max(ratios):.2f} over "
            f"{len(ratios)} rounds{f', aim {aim}' if aim else ''}); largest difference "
            f"{apart.max():.1e} nats, {relative:.1e} relative"
        )
    print(f"  staircase: {statistics.median(seconds['staircase']):.3f} s")
    for name, size in peak.items():
        print(f"  peak memory, {name}: {size:.2f} GiB")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--token-budget", type=int, default=2**15)
    chosen = parser.parse_args()
    name = chosen.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = False
    dims, sizes = SHAPES[chosen.shape]
    models = make_models(dims, torch.device(name), torch.float32)
    pairs = make_pairs(*sizes)
    print(
        f"{chosen.shape} ({dims.n_layers} layers, d {dims.d_model}, {name}): {len(pairs)} pairs, "
        f"prompts {min(len(p.prompt) for p in pairs)}-{max(len(p.prompt) for p in pairs)} tokens"
    )
    both: tuple[PatchPositions, ...] = ("all", "completion")
    good = [
        compare(models, pairs, positions, rounds=chosen.rounds, token_budget=chosen.token_budget)
        for positions in both
    ]
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
