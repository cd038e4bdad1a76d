"""Extraction against plain Hugging Face forwards of the same prompts, in one run.

    python benchmarks/extraction.py [--device cpu|cuda|auto] [--rounds 5] [--prompts 256]

Three methods are timed in turn, round by round, on one random Llama and the same mixed-length
prompts, tokenising included and loading excluded:

- store: last token of all layers, written to an activation store (batches by token budget, head
  skipped, files written);
- plain: the ordinary forward in the order given, right-padded with a mask, logits of all
  positions, nothing kept. Its batches hold as many rows as the store's do on average;
- hidden states: plain with `output_hidden_states`, last tokens copied to memory, nothing written.

Printed are ratios to plain in prompts/s (median, min-max over rounds), by CPU time of the process
(on a GPU by wall time), then peak memory of whole extractions of 256 and 4096 prompts. The exit
status is 1 where the store is slower than plain or the peaks differ by more than 10 %.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from actshift.engine.extract import ExtractSettings, Job, Stream, extract, plan_job
from actshift.engine.extract_stream import extract_one
from actshift.io.manifest import write_manifest
from actshift.models.families import Dims, build
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.records import Prompt, write_prompts

VOCAB = 4096
LENGTHS = (16, 96)
PEAK_SIZES = (256, 4096)


def make_checkpoint(folder: Path, dims: Dims) -> None:
    torch.manual_seed(0)
    build("llama", dims).save_pretrained(folder)
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="w0").save_pretrained(folder)
    names = "source revision family weights_hash config_hash tokenizer_hash".split()
    write_manifest(folder, kind="checkpoint", facts=dict.fromkeys(names, "bench"))


def make_stream(root: Path, n: int) -> Stream:
    draw = random.Random(0)
    prompts: list[Prompt] = []
    for i in range(n):
        text = " ".join(f"w{draw.randrange(VOCAB)}" for _ in range(draw.randint(*LENGTHS)))
        prompts.append(
            Prompt(
                id=f"p{i}",
                text=text,
                condition="harmful",
                category="a",
                cluster=f"c{i}",
                split="fit",
                source="bench",
            )
        )
    path = root / f"{n}.jsonl"
    write_prompts(path, prompts)
    out = root / "out" / str(n)
    return Stream("bench", root / "model", None, path, str(n), "raw", "last_prompt", out)


def by_store(loaded: LoadedModel, job: Job, root: Path, settings: ExtractSettings) -> int:
    """Write the store; return how many batches it took."""
    cache = root / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    extract_one(loaded, job, cache=cache, settings=settings)
    attributes = json.loads((cache / job.key / "acts.zarr" / "zarr.json").read_text())
    return attributes["attributes"]["n_batches"]


@torch.inference_mode()
def by_library(loaded: LoadedModel, texts: list[str], rows: int, *, hidden: bool) -> None:
    for start in range(0, len(texts), rows):
        batch = loaded.tokenizer(
            texts[start : start + rows], padding=True, padding_side="right", return_tensors="pt"
        ).to(loaded.device)
        out = loaded.model(**batch, use_cache=False, output_hidden_states=hidden)
        if hidden:
            last = batch["attention_mask"].sum(1) - 1
            at = torch.arange(len(last), device=last.device)
            torch.stack([state[at, last] for state in out.hidden_states[1:]]).float().cpu()
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    function()
    return clock() - began


def compare(root: Path, args: argparse.Namespace, settings: ExtractSettings) -> float:
    """Time the methods in turn; return the median ratio of the store to plain."""
    loaded = load_model(root / "model", name="bench", dtype=args.dtype, device=args.device)
    job = plan_job(make_stream(root, args.prompts), settings, code="bench")
    # The order of the file, not of the store.
    texts = [prompt.text for prompt in sorted(job.prompts, key=lambda one: int(one.id[1:]))]
    rows = -(-len(texts) // by_store(loaded, job, root, settings))
    methods: dict[str, Callable[[], object]] = {
        "plain": lambda: by_library(loaded, texts, rows, hidden=False),
        "hidden states": lambda: by_library(loaded, texts, rows, hidden=True),
        "store": lambda: by_store(loaded, job, root, settings),
    }
    clock = time.perf_counter if loaded.device.type == "cuda" else time.process_time
    for method in methods.values():
        method()
    rounds = [
        {name: timed(method, clock) for name, method in methods.items()} for _ in range(args.rounds)
    ]
    print(f"{loaded.device}, {loaded.dtype}, {len(texts)} prompts, plain in batches of {rows}")
    ratios: dict[str, float] = {}
    for name in methods:
        found = sorted(one["plain"] / one[name] for one in rounds)
        speed = len(texts) / statistics.median(one[name] for one in rounds)
        ratios[name] = statistics.median(found)
        span = f"{found[0]:.2f}-{found[-1]:.2f}"
        print(f"{name:14s} {speed:8.1f} prompts/s   {ratios[name]:.2f}x plain [{span}]")
    return ratios["store"]


def peak_mib() -> float:
    # Not ru_maxrss: a child inherits its parent's there.
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def one_peak(root: Path, n: int, settings: ExtractSettings) -> None:
    stream = make_stream(root, n)
    extract(stream, cache=root / f"cache-{n}", settings=settings, code="bench")
    print(peak_mib())


def compare_peaks(root: Path, device: str) -> float:
    """Run whole extractions in processes of their own; return the ratio of their peaks."""
    peaks: list[float] = []
    for n in PEAK_SIZES:
        command = [sys.executable, __file__, "--device", device, "--peak", str(n), str(root)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(float(done.stdout))
        print(f"peak memory at {n:5d} prompts: {peaks[-1]:.0f} MiB")
    return peaks[1] / peaks[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--token-budget", type=int, default=1024)
    parser.add_argument("--peak", nargs=2, metavar=("N", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = ExtractSettings(
        token_budget=args.token_budget, dtype=args.dtype, device=args.device, share=False
    )
    if args.peak:
        one_peak(Path(args.peak[1]), int(args.peak[0]), settings)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        heads = max(4, args.width // 64)
        shape = {"n_heads": heads, "n_kv_heads": heads, "d_head": args.width // heads}
        dims = Dims(VOCAB, args.width, args.layers, d_mlp=args.width * 3, **shape)
        make_checkpoint(root / "model", dims)
        speed = compare(root, args, settings)
        small = Dims(VOCAB, 64, 4)
        shutil.rmtree(root / "model")
        make_checkpoint(root / "model", small)
        growth = compare_peaks(root, args.device)
    print(f"store {speed:.2f}x plain (at least 1.00), memory x{growth:.3f} (at most 1.10)")
    return int(speed < 1.0 or growth > 1.10)


if __name__ == "__main__":
    sys.exit(main())
