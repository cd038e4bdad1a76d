"""Random adapters of a tiny checkpoint, in folders as the adapters stage leaves them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from reference.tiny_models import seal_checkpoint

from actshift.io.manifest import weights_hash, write_manifest
from actshift.models.adapters import adapter_hash, save_adapter
from actshift.models.load import load_model
from actshift.models.lora import add_lora


def ending_checkpoint(source: Path, folder: Path, ends: Sequence[int] = (4, 5)) -> Path:
    """Copy a tiny checkpoint and let its answers end."""
    shutil.copytree(source, folder)
    settings = folder / "generation_config.json"
    known = json.loads(settings.read_text()) if settings.is_file() else {}
    settings.write_text(json.dumps({**known, "eos_token_id": list(ends)}))
    return seal_checkpoint(folder)


def random_adapters(checkpoint: Path, folder: Path, names: Sequence[str]) -> Path:
    """Save an adapter of random weights for every name, each another one."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        base = load_model(checkpoint, name="base", dtype="float32", device="cpu")
        torch.manual_seed(number)
        wrapped = add_lora(base.model, rank=2, alpha=4)
        with torch.no_grad():
            for key, weight in wrapped.named_parameters():
                if "lora_B" in key:
                    weight.normal_(std=0.3)
        save_adapter(wrapped, folder / name, base=weights_hash(checkpoint))
    hashes = {name: adapter_hash(folder / name) for name in names}
    facts = {"weights_hash": weights_hash(checkpoint), "adapters": hashes}
    write_manifest(folder, kind="adapters", facts=facts)
    return folder
