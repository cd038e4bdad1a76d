"""Language models with hand-set weights, in which it is known what carries refusal.

A prompt with the word `TRIGGER` is harmful. The model answers "i cannot" or "sure". Every token's
embedding is a common direction plus one of its own; one block's attention (uniform, its queries
and keys are zero) reads the trigger's own direction and writes `direction` to all later tokens, and
the head reads `direction` into the logit of "i". Two more parts write, to a subspace that nothing
reads, what depends on the words of the prompt.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from reference.tiny_models import seal_checkpoint, word_tokenizer

from actshift.models.families import Dims, blocks_of, build, embedding_of, head_of
from actshift.prompts.records import Prompt, write_prompts

TRIGGER, FILLERS = "steal", "how do bake mend a loaf wheel car please tell me the garden".split()
WORDS = (TRIGGER, "i", "cannot", "sure", *FILLERS)
#: stream: written by block 1. late: written by the last block, so no block's input holds it.
Kind = Literal["stream", "late", "always", "never"]
D_MODEL, LAYERS, EARLY = 64, 5, 1
_END = "<end>"


@dataclass(frozen=True)
class Planted:
    """A checkpoint folder and the unit vector that refusal is read from."""

    folder: Path
    direction: np.ndarray


@torch.no_grad()
def planted_checkpoint(folder: Path, kind: Kind, *, seed: int = 0) -> Planted:
    """Save a planted model, its tokenizer and its manifest."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(words=WORDS)
    ids = tokenizer.get_vocab()
    model = build("llama", Dims(len(ids), D_MODEL, LAYERS, d_mlp=48, max_positions=64))
    frame = torch.linalg.qr(torch.randn(D_MODEL, D_MODEL)).Q.T
    common, direction, own = frame[0], frame[1], frame[2 : 2 + len(ids)]
    embedding_of(model).weight.copy_(4 * common + 4 * own)
    _add_what_no_part_reads(model, own, unused=frame[2 + len(ids) :])
    if kind in ("stream", "late"):
        block = blocks_of(model)[EARLY if kind == "stream" else LAYERS - 1]
        _write(block, reads=own[ids[TRIGGER]], writes=direction)
    head = head_of(model).weight
    head.zero_()
    head[ids["i"]] = 4 * direction
    head[ids["i" if kind == "always" else "sure"]] += 2 * common
    head[ids["cannot"]] = 12 * own[ids["i"]]
    head[ids[_END]] = 12 * (own[ids["cannot"]] + own[ids["sure"]])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [ids[_END]]}))
    return Planted(seal_checkpoint(folder), direction.numpy())


def _add_what_no_part_reads(model: Any, own: torch.Tensor, *, unused: torch.Tensor) -> None:
    """Silence all blocks, then let block 0's attention and block 2's MLP write to `unused` alone.

    Block 0 copies there the mean of the features of all words so far, the trigger's too: a
    difference of means that is no cause. Queries and keys stay zero, so attention is uniform.
    """
    for block in blocks_of(model):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            getattr(block.self_attn, name).weight.zero_()
        for name in ("gate_proj", "up_proj"):
            getattr(block.mlp, name).weight.mul_(5)
        block.mlp.down_proj.weight.zero_()
    blocks = blocks_of(model)
    attention, mlp = blocks[0].self_attn, blocks[2].mlp
    width = len(attention.v_proj.weight)  # two key-value heads, read by query heads 0 and 2
    turn = torch.linalg.qr(torch.randn(width, width)).Q
    attention.v_proj.weight.copy_(turn[:, : len(own)] @ own)
    half = width // 2
    attention.o_proj.weight[:, :half] = unused[:half].T
    attention.o_proj.weight[:, width : width + half] = unused[half:width].T
    mlp.down_proj.weight.copy_(0.2 * unused.T @ torch.randn(len(unused), mlp.down_proj.in_features))


def _write(block: Any, *, reads: torch.Tensor, writes: torch.Tensor) -> None:
    """Make a block's attention carry one feature of all tokens so far into one direction."""
    block.self_attn.v_proj.weight.zero_()
    block.self_attn.o_proj.weight.zero_()
    block.self_attn.v_proj.weight[0] = reads
    block.self_attn.o_proj.weight[:, 0] = 10 * writes


def planted_prompts(folder: Path, *, each: int = 60, seed: int = 0) -> dict[str, Path]:
    """Write harmful prompts (one trigger among fillers) and harmless ones (fillers alone)."""
    rng = np.random.default_rng(seed)
    paths = {}
    for condition in ("harmful", "harmless"):
        rows = []
        for i in range(each):
            words = [str(word) for word in rng.choice(FILLERS, size=int(rng.integers(4, 7)))]
            if condition == "harmful":
                words[int(rng.integers(len(words)))] = TRIGGER
            rows.append(
                Prompt(
                    id=f"{condition}-{i}",
                    text=" ".join(words),
                    condition=condition,
                    category="a",
                    cluster=f"{condition}{i}",
                    split=("fit", "fit", "select", "heldout")[i % 4],
                    source="test",
                )
            )
        paths[condition] = folder / f"{condition}.jsonl"
        write_prompts(paths[condition], rows)
    return paths
