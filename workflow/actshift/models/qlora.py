"""QLoRA: the base in 4-bit NF4 while an adapter is trained, by bitsandbytes."""

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from torch import nn
from transformers import BitsAndBytesConfig

from actshift.errors import UserError
from actshift.models.families import blocks_of
from actshift.models.language_model import check_quantisation
from actshift.models.load import Device, read_weights, resolve_device
from actshift.models.sources import read_model_config

#: Where bitsandbytes is pinned for those whose environment lacks it.
_INSTALL = "pip install bitsandbytes==0.50.2 (envs/gpu.lock has it)"

#: Weights that share a scale.
_BLOCK = 64


def load_quantised(folder: Path, *, name: str, device: Device = "auto") -> Any:
    """Load a checkpoint with its blocks in 4-bit NF4, double-quantised, ready to be adapted.

    Embeddings, norms and head stay whole, in float32; matrix products of the blocks run in bfloat16
    on a GPU and in float32 on a CPU. Activations are computed again in the backward pass. The model
    is for training only: adapters are merged into the checkpoint's own weights (`load_merged`). All
    of the model's own weights are frozen.

    Raises:
        UserError: bitsandbytes is not installed, the weights are quantised already, a matrix is of
            a shape that its CPU backend gets wrong, or as for `models.load.load_model`.

    Source: Dettmers et al. 2023 (arXiv 2305.14314).
    """
    check_installed(name)
    method = check_quantisation(read_model_config(folder), name=name)
    if method is not None:
        raise UserError(
            f"{name}: QLoRA quantises plain weights and those of this checkpoint are {method} "
            "already: set misalignment.adapters.method: lora"
        )
    target = resolve_device(device)
    compute = torch.bfloat16 if target.type == "cuda" else torch.float32
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    model = read_weights(
        folder,
        name=name,
        dtype="bfloat16" if target.type == "cuda" else "float32",
        quantization_config=settings,
        device_map={"": str(target)},
    )
    _check_rows(model, name, target)
    with warnings.catch_warnings():
        # peft 0.21 calls a method of transformers by its old name.
        warnings.filterwarnings("ignore", ".*gradient_checkpointing_enable", FutureWarning)
        return prepare_model_for_kbit_training(
            model, gradient_checkpointing_kwargs={"use_reentrant": False}
        )


def _check_rows(model: nn.Module, name: str, target: torch.device) -> None:
    """Refuse what the library reads back wrongly: on a CPU, rows of other than n x 64 weights."""
    rows = {
        part.in_features
        for part in blocks_of(model).modules()
        if isinstance(part, nn.Linear) and part.in_features % _BLOCK
    }
    if target.type == "cpu" and rows:
        raise UserError(
            f"{name}: QLoRA on a CPU needs matrices with rows of a multiple of {_BLOCK} weights, "
            f"found {min(rows)} (bitsandbytes 0.50.2 reads others back wrongly); set "
            "misalignment.adapters.method: lora, or use a GPU"
        )


def check_installed(name: str) -> None:
    """Refuse QLoRA where bitsandbytes is missing.

    Raises:
        UserError: Says how to install it, and what works without it.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"{name}: misalignment.adapters.method is qlora, which needs bitsandbytes: {_INSTALL}, "
            "or set method: lora"
        )


def adamw(weights: list[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW, its state in 8 bits on a GPU that has bitsandbytes, plain everywhere else."""
    if weights[0].device.type == "cuda" and find_spec("bitsandbytes") is not None:
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(weights, lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay)
