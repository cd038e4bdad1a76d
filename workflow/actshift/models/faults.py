"""Why a model cannot be read: the cause is looked for in its files before the library is quoted."""

from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError

from actshift.errors import UserError, one_line, refusal_of
from actshift.models.files import folder_shapes
from actshift.models.sources import read_model_config

#: How torch's allocator for main memory words it; there is no class of its own.
_CPU_WORDS = "can't allocate memory"


def why_no_weights(error: Exception, folder: Path) -> str:
    """Why the weights of a folder could not be read, and what mends it, in one line."""
    refused = refusal_of(error, folder)
    if refused is not None:
        return refused
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_WORDS in str(error):
        return f"memory ran out at {folder}: take a machine with more, or dtype: bfloat16"
    try:
        folder_shapes(folder)
    except UserError as error:
        return str(error)
    if isinstance(error, ImportError):
        return f"transformers needs another package for {folder} ({one_line(error)})"
    if isinstance(error, SafetensorError):
        return f"the files in {folder} are damaged ({one_line(error)}): fetch or save them again"
    return (
        f"transformers {transformers.__version__} cannot use {folder} ({type(error).__name__}: "
        f"{one_line(error)}); its config.json and its weights may not belong together"
    )


def why_no_config(error: Exception, folder: Path) -> str:
    """Why transformers cannot use a `config.json` that is whole, in one line.

    Raises:
        UserError: The file is missing, a Git LFS pointer or no JSON object.
    """
    config = read_model_config(folder)
    path = folder / "config.json"
    if "auto_map" in config:
        return f"{path} asks for code of its own (auto_map), which is never run"
    return f"transformers {transformers.__version__} cannot use {path} ({one_line(error)})"
