"""The tuned model without its refusal direction, as an ordinary checkpoint folder."""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from actshift.errors import UserError
from actshift.io.atomic import publishing
from actshift.io.hashing import hash_file
from actshift.io.manifest import weights_hash, write_manifest
from actshift.io.tables import read_table
from actshift.maths.frames import unit_column
from actshift.models.load import load_model
from actshift.models.orthogonalise import orthogonalise
from actshift.models.tokenizers import save_checkpoint
from actshift.studies.refusal_direction.stage import ARRAYS, TABLE


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
