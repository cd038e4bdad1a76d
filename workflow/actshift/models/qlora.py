"""QLoRA: the base in 4-bit NF4 while an adapter is trained, by bitsandbytes."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from torch import nn
from transformers import BitsAndBytesConfig

from actshift.errors import UserError
from actshift.models.load import Device, read_weights, resolve_device

#: Where bitsandbytes is pinned for those whose environment lacks it.
_INSTALL = "pip install bitsandbytes==0.50.2 (envs/gpu.lock has it)"


def load_quantised(folder: Path, *, name: str, device: Device = "auto") -> Any:
    """Load a checkpoint with its blocks in 4-bit NF4, double-quantised, ready to be adapted.

    Embeddings, norms and head stay whole, in float32; matrix products of the blocks run in bfloat16
    on a GPU and in float32 on a CPU. Activations are computed again in the backward pass.

    Args:
        folder: Checkpoint folder.
        name: How to call the model in messages.
        device: Where to train.

    Returns:
        The model, all of its own weights frozen.

    Raises:
        UserError: bitsandbytes is not installed, or as for `models.load.load_model`.

    Source: Dettmers et al. 2023 (arXiv 2305.14314).
    """
    check_installed(name)
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
    with warnings.catch_warnings():
        # peft 0.21 calls a method of transformers by its old name.
        warnings.filterwarnings("ignore", ".*gradient_checkpointing_enable", FutureWarning)
        return prepare_model_for_kbit_training(
            model, gradient_checkpointing_kwargs={"use_reentrant": False}
        )


def check_installed(name: str) -> None:
    """Refuse QLoRA where bitsandbytes is missing.

    Raises:
        UserError: Says how to install it, and what works without it.
    """
    # On some CPUs it warns that an optional kernel, which nothing here uses, is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
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
