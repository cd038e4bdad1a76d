"""Patching the slow way: one sequence, one layer, one full forward with a replacement hook.

The edits are done on plain float64 arrays, token by token, apart from `hooks.patching.patches`.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from actshift.models.families import Dims, blocks_of, build, final_norm_of, head_of
from actshift.patching import Contrast, Noise, PatchLane, Push, Take, TokenPair

FAMILIES = ("llama", "gemma2", "qwen2", "ministral3", "gpt2")
#: Shorter than most prompts, so that sliding-window layers really hide something.
WINDOW = 5


def random_model(family: str, seed: int = 0, *, n_layers: int = 4) -> Any:
    """A random model whose blocks matter; Gemma's even layers see `WINDOW` tokens."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = build(family, Dims(64, d_model=32, n_layers=n_layers, d_head=8, d_mlp=48))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
        else:  # norms and biases of their own, so that exchanging them shows
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    if family == "gemma2":
        model.config.sliding_window = WINDOW
    return model.requires_grad_(False)


def random_pairs(count: int = 5, seed: int = 0) -> list[TokenPair]:
    """Pairs of mixed lengths, one of them with a completion of one token."""
    rng = np.random.default_rng(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(2, 64, size=rng.integers(low, high)).tolist())

    pairs = [TokenPair(f"p{i}", ids(3, 14), ids(2, 8), ids(2, 8)) for i in range(count - 1)]
    return [*pairs, TokenPair("short", ids(3, 14), ids(1, 2), ids(2, 6))]


@lru_cache(maxsize=64)
def outputs(model: Any, ids: tuple[int, ...]) -> list[np.ndarray]:
    """`resid_post` of every block, `[token, d_model]`."""
    seen: list[np.ndarray] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, out: seen.append(out[0].double().numpy()))
        for block in blocks_of(model)
    ]
    model(input_ids=torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return seen


def log_prob(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    """Sum of log-probs of the completion, one full forward."""
    logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
    logp = logits.double().log_softmax(-1)
    return sum(float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(completion))


def patched_log_probs(
    receiver: Any,
    donor: Any,
    pair: TokenPair,
    lane: PatchLane,
    partners: Mapping[str, TokenPair] | None = None,
) -> tuple[float, float]:
    """Log-probs of both completions with the lane's edit made by a hook."""
    sources = {"donor": (donor, pair), "receiver": (receiver, pair)}
    sources |= {name: (donor, other) for name, other in (partners or {}).items()}
    return _side(receiver, donor, pair, lane, sources, 0), _side(
        receiver, donor, pair, lane, sources, 1
    )


def _side(
    receiver: Any, donor: Any, pair: TokenPair, lane: PatchLane, sources: Any, side: int
) -> float:
    plain = outputs(receiver, pair.prompt + pair.sides[side])[lane.layer]
    new = plain.copy()
    n = len(pair.prompt)
    for token in range(len(plain)):
        inside = {
            "all": True,
            "prompt": token < n,
            "completion": token >= n,
            "last_prompt": token == n - 1,
        }
        if inside[lane.positions]:
            new[token] = _edited(lane, plain[token], pair, sources, side, token)

    def put(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(new).to(out)[None]

    handle = blocks_of(receiver)[lane.layer].register_forward_hook(put)
    own = (final_norm_of(receiver), head_of(receiver))
    if lane.head == "donor":
        _set_head(receiver, final_norm_of(donor), head_of(donor))
    try:
        return log_prob(receiver, pair.prompt, pair.sides[side])
    finally:
        _set_head(receiver, *own)
        handle.remove()


def _set_head(model: Any, norm: Any, head: Any) -> None:
    trunk = model.base_model
    setattr(trunk, "ln_f" if hasattr(trunk, "ln_f") else "norm", norm)
    model.lm_head = head


def _edited(
    lane: PatchLane, h: np.ndarray, pair: TokenPair, sources: Any, side: int, token: int
) -> np.ndarray:
    edit, n = lane.edit, len(pair.prompt)

    def state(name: str, which: int) -> np.ndarray | None:
        """The source's state that lies on this token."""
        model, other = sources[name]
        said = other.sides[which]
        place = token - n + len(other.prompt)
        if place < 0 or place >= len(other.prompt) + len(said):
            return None
        return outputs(model, other.prompt + said)[lane.layer][place]

    if isinstance(edit, Noise):
        part, index = (pair.prompt, 0) if token < n else (pair.sides[side], side)
        key = [edit.seed, lane.layer, zlib.crc32(pair.id.encode()), token < n, index]
        draw = np.random.default_rng(key).standard_normal((len(part), len(h)))
        return edit.mean + edit.std * draw[token if token < n else token - n]
    if isinstance(edit, Contrast):
        plus, minus = state(edit.source, 0), state(edit.source, 1)
        return h if plus is None or minus is None else h + edit.alpha * (plus - minus)
    which = side
    if isinstance(edit, Take) and edit.side != "own" and token >= n:
        which = ("chosen", "rejected").index(edit.side)
    s = state(edit.source, which)
    if s is None:
        return h
    if isinstance(edit, Push):
        return h + np.linalg.norm(s - h) * edit.direction
    target = s
    if edit.basis is not None:
        span = edit.basis @ edit.basis.T
        target = span @ s + (h - span @ h if edit.keep_rest else 0)
    return h + edit.alpha * (target - h)
