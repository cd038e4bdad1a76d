"""Checkpoints made from another: an adapter in its weights, or its refusal direction taken out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from actshift.errors import UserError
from actshift.io.atomic import hash_file, publishing, remove
from actshift.io.manifest import weights_hash, write_manifest
from actshift.io.tables import read_table
from actshift.maths.frames import unit_column
from actshift.models.adapters import adapter_hash, import_adapter, load_merged, locate, named
from actshift.models.load import LoadedModel, load_model, open_tokenizer
from actshift.models.model_files import chat_template_of
from actshift.models.orthogonalise import orthogonalise
from actshift.models.sources import LORA
from actshift.models.tokenizers import save_checkpoint
from actshift.studies.refusal_direction.stage import ARRAYS, TABLE


def merge(source: str, *, model: str, base: Path, out: Path) -> None:
    """Add an adapter to the base's weights, W + scale B A in float32, and save the model.

    Weights keep the base's dtype. The tokenizer, with its chat template, is the adapter's where its
    folder has one, else the base's. `source` is `lora:` and a folder or hub id, `model` what the
    run calls the result, `base` the checkpoint folder of the pair's base. An adapter that is
    missing, no plain LoRA or does not fit the base is a UserError.
    """
    located = locate(source.removeprefix(LORA), None, key=model)
    plain = load_model(base, name=f"{model} (base)", dtype="float32", device="cpu")
    tokenizer = _tokenizer(located.folder, plain, model)
    with publishing(out) as folder:
        folder.mkdir()
        adapter = folder / "adapter"
        with named(model):
            import_adapter(located.folder, adapter, base=plain, weights=weights_hash(base))
        merged = load_merged(base, adapter, name=model, dtype="auto", device="cpu")
        facts = {
            **located.facts,
            "model": model,
            "adapter": adapter_hash(adapter),
            "base_weights_hash": weights_hash(base),
        }
        remove(adapter)
        save_checkpoint(merged.model, tokenizer, folder)
        write_manifest(folder, kind="merged", facts=facts)
    print(f"{model}: {located.facts['source']} merged into the base")


def _tokenizer(adapter: Path, base: LoadedModel, model: str) -> Any:
    """The adapter's tokenizer, or the base's; a template that lies alone in its folder counts."""
    if (adapter / "tokenizer.json").is_file():
        return open_tokenizer(adapter, name=model)
    if (adapter / "chat_template.jinja").is_file():
        base.tokenizer.chat_template = chat_template_of(adapter)
    return base.tokenizer


def abliterate(*, pair: str, checkpoint: Path, direction: Path, out: Path) -> None:
    """Write the ablation of the refusal direction into the weights and save the model.

    Every matrix that writes to the residual stream loses its part along the direction, so the model
    answers as under the lane `ablate` of the refusal study (Gemma 2 only nearly: see
    `models.orthogonalise`). Weights keep the checkpoint's dtype; a tied head is untied.
    `checkpoint` is the folder of the tuned model, `direction` that of rule refusal_direction; `out`
    loads with `AutoModelForCausalLM.from_pretrained`.

    Source: Arditi et al. 2024 (arXiv 2406.11717), appendix E.

    Raises:
        UserError: The direction is not of this model's width, or the checkpoint cannot be read.
    """
    loaded = load_model(checkpoint, name=f"{pair}.tuned", dtype="auto", device="cpu")
    vector = load_file(direction / ARRAYS)["direction"].astype(np.float64)
    if vector.shape != (loaded.d_model,):
        raise UserError(
            f"{direction / ARRAYS}: the direction has {vector.size} coordinates and {loaded.name} "
            f"is {loaded.d_model} wide; run rule refusal_direction again"
        )
    orthogonalise(loaded.model, torch.from_numpy(unit_column(vector)))
    table = read_table(direction / TABLE)
    (chosen,) = table[table["chosen"].astype(bool)].to_dict("records")
    facts = {
        "pair": pair,
        "tuned_weights_hash": weights_hash(checkpoint),
        "direction_sha256": hash_file(direction / ARRAYS),
        **{name: int(chosen[name]) for name in ("layer", "position")},
        "verdict": str(chosen["verdict"]),
    }
    with publishing(out) as folder:
        save_checkpoint(loaded.model, loaded.tokenizer, folder)
        write_manifest(folder, kind="abliterated", facts=facts)
    print(f"{pair}: without the direction of layer {facts['layer']} ({facts['verdict']})")
