"""Prompts x lanes in one call against sequential `generate()` calls with hooks, in one run.

    python benchmarks/generation.py [--device cpu|cuda|auto] [--rounds 5] [--family llama]

32 prompts of mixed length and 12 lanes (nothing, ablations of rank 1 to 20, steering) on a random
model of the zoo's size with several end tokens. Round by round both ways are timed in turn:

- lanes: one `generate_lanes` call;
- sequential: for each lane the same hooks and the library's `generate()` on the 32 prompts.

Printed are the ratio of the two (median, min-max over rounds; CPU time of the process, on a GPU
wall time), and whether every token is the same; rows that differ are shown with the smallest gap
between the two largest logits along the way. The exit status is 1 where a row differs at a gap
above 1e-3, or lanes are slower.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from actshift.edits import Ablate, Lane, Placed, Steer, everywhere
from actshift.engine.causal import causal_model
from actshift.hooks.lanes.edit import EditState, edited
from actshift.hooks.lanes.generation import Decoder, generate_lanes, left_pad
from actshift.models.families import FAMILIES, Dims, build

PROMPTS, MAX_NEW, NEAR_TIE = 32, 28, 1e-3
DIMS = Dims(vocab_size=1100)
#: Enough of the vocabulary that answers end at different steps.
EOS = frozenset(range(2, 42))


def make_lanes() -> list[Lane]:
    rng = np.random.default_rng(0)
    frames = [np.linalg.qr(rng.standard_normal((DIMS.d_model, 20)))[0] for _ in range(3)]
    lanes = [Lane("plain")]
    for k in (1, 2, 3, 5, 8, 10, 15, 20):
        cuts = tuple(Placed(Ablate(u[:, :k]), layer) for layer, u in enumerate(frames, start=2))
        lanes.append(Lane(f"ablate {k}", cuts))
    lanes.append(everywhere("everywhere", Ablate(frames[0][:, :1]), n_layers=DIMS.n_layers))
    for coeff in (0.5, 1.0):
        vector = rng.standard_normal(DIMS.d_model)
        lanes.append(Lane(f"steer {coeff}", (Placed(Steer(vector, coeff), 3),)))
    return lanes


def make_prompts() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(50, DIMS.vocab_size, size=rng.integers(12, 30)) for _ in range(PROMPTS)]


def sequential(decoder: Decoder, prompts: list[np.ndarray], lanes: list[Lane]) -> list[list[Any]]:
    ids, mask, _ = left_pad(prompts, decoder)
    answers = []
    for lane in lanes:
        state = EditState([(0, len(prompts))])
        with torch.inference_mode(), edited(decoder.sites, [lane], state, dtype=decoder.dtype):
            out = decoder.model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=MAX_NEW,
                eos_token_id=sorted(decoder.eos),
                pad_token_id=decoder.pad,
            )
        answers.append([cut(row) for row in out[:, ids.shape[1] :].tolist()])
    return answers


def cut(tokens: list[int]) -> tuple[int, ...]:
    """Return the tokens before the first end."""
    stop = next((i for i, token in enumerate(tokens) if token in EOS), len(tokens))
    return tuple(tokens[:stop])


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda", "auto"], default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="llama")
    chosen = parser.parse_args()
    name = chosen.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build(chosen.family, DIMS)
    # A tied head would repeat the input; larger weights make the edits matter.
    model.lm_head = torch.nn.Linear(DIMS.d_model, DIMS.vocab_size, bias=False)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    decoder = Decoder(causal_model(model.to(device)), EOS, pad=0)
    prompts, lanes = make_prompts(), make_lanes()
    ratios = []
    found: Any = None
    wanted: list[list[Any]] = []
    for number in range(chosen.rounds + 1):
        one, found = timed(lambda: generate_lanes(decoder, prompts, lanes, max_new=MAX_NEW), device)
        other, wanted = timed(lambda: sequential(decoder, prompts, lanes), device)
        if number:  # the first round warms up
            ratios.append(other / one)
    rows = [
        (lane.name, row, answer)
        for lane, answers, ids in zip(lanes, found.answers, wanted, strict=True)
        for row, (answer, said) in enumerate(zip(answers, ids, strict=True))
        if answer.tokens != said
    ]
    total = len(lanes) * len(prompts)
    print(f"{chosen.family}, {name}: {len(prompts)} prompts x {len(lanes)} lanes, {MAX_NEW} tokens")
    print(
        f"sequential / lanes: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f} over {len(ratios)} rounds)"
    )
    print(f"equal answers: {total - len(rows)} of {total}")
    for lane, row, answer in rows:
        print(f"  {lane}, prompt {row}: smallest gap of the two largest logits {answer.margin:.1e}")
    wrong = [answer for _, _, answer in rows if answer.margin > NEAR_TIE]
    return int(bool(wrong) or statistics.median(ratios) < 1)


if __name__ == "__main__":
    sys.exit(main())
