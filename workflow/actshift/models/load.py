"""Opening a checkpoint folder: safetensors only, no remote code, checked before use."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from actshift.errors import UserError, one_line, refusal_of
from actshift.models.families import blocks_of, embedding_of, family_of, final_norm_of
from actshift.models.files import folder_shapes
from actshift.models.language_model import (
    FP8,
    HOLDS_LANGUAGE_MODEL,
    NAMES_INSIDE,
    check_quantisation,
    is_other_part,
    is_unread,
)
from actshift.models.sources import read_model_config
from actshift.models.tokenizers import load_tokenizer

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
#: How everything is read: from this disk, and no code but the library's.
_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
#: How torch's allocator for main memory words it; there is no class of its own.
_CPU_WORDS = "can't allocate memory"


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in evaluation mode, with its tokenizer and the parts we use."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    trunk: nn.Module
    """The model without its head: maps `input_ids` to hidden states."""
    blocks: tuple[nn.Module, ...]
    final_norm: nn.Module

    @property
    def d_model(self) -> int:
        """Width of the residual stream, by config.json."""
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the forward pass."""
        return self.model.dtype

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return embedding_of(self.model).get_parameter("weight").shape[0]

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens, None where the architecture has no limit."""
        return getattr(self.model.config, "max_position_embeddings", None)


def resolve_device(device: Device) -> torch.device:
    """Turn `auto` into cuda where there is one, else cpu.

    Raises:
        UserError: cuda is asked for and torch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: cuda, but torch sees no GPU; set device: auto or cpu, or install a CUDA build "
            "of torch (`actshift doctor` shows both)"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def load_model(
    folder: Path, *, name: str, dtype: Dtype = "auto", device: Device = "auto"
) -> LoadedModel:
    """Load a checkpoint folder for inference: evaluation mode, gradients off.

    `name` is how messages call the model, such as "llama.base"; `dtype` is that of the forward
    pass, `auto` the checkpoint's own.

    Raises:
        UserError: A file is missing, the architecture is not in the table, weights are missing,
            of the wrong shape or without a place in the architecture, or there is no such device.
    """
    target = resolve_device(device)
    _check_files(folder, name)
    tokenizer = open_tokenizer(folder, name=name)
    model = read_weights(folder, name=name, dtype=dtype)
    nn.Module.to(model, target)
    return wrap_model(model.eval().requires_grad_(False), tokenizer, name=name)


def wrap_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, name: str
) -> LoadedModel:
    """Find the parts of a loaded model (after merging adapters, never before)."""
    blocks = tuple(blocks_of(model))
    return LoadedModel(name, model, tokenizer, model.base_model, blocks, final_norm_of(model))


def open_tokenizer(folder: Path, *, name: str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a checkpoint folder; never asks the network.

    Raises:
        UserError: It is missing, cannot be read, or is not a fast one.
    """
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{name}: {folder} has no tokenizer.json; a fast tokenizer is needed")
    try:
        return load_tokenizer(folder)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    # tokenizers raises bare exceptions; each is about the files in this folder.
    except Exception as error:
        raise UserError(
            f"{name}: cannot read the tokenizer in {folder} ({one_line(error)}); its files are "
            f"damaged, or of a newer format than tokenizers {tokenizers.__version__} reads: save "
            "it again"
        ) from error


def _check_files(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(f"{name}: {folder} has no config.json; expected a Hugging Face folder")
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{name}: {folder} has no *.safetensors; pickled weights run code when they are "
            "opened and are refused: convert them to safetensors"
        )
    # Before the tokenizer, whose class reads config.json too and says of its own what is wrong.
    _config(folder, name=name)


def read_weights(folder: Path, *, name: str, dtype: Dtype, **how: Any) -> PreTrainedModel:
    """Read the weights; a weight that is not in the files is an error, not a random number.

    `how` is more for transformers' `from_pretrained`: quantisation and where it is done.

    Raises:
        UserError: As for `load_model`; also for a weight that the architecture does not take.
    """
    config = _config(folder, name=name)
    attention = family_of(language_part(config).model_type).attention
    fp8 = _dequantising(config)
    # The library's load report and progress bar are about what is checked below.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation=attention,
            output_loading_info=True,
            **_HERE,
            **{**fp8, **options_for(config)},
            **how,
        )
    # safetensors and transformers raise many kinds; each is about the files in this folder.
    except Exception as error:
        why = _why_no_weights(error, folder)
        raise UserError(f"{name}: cannot read the weights: {why}") from error
    model, info = loaded
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            first = sorted(map(str, info[kind]))[0]
            raise UserError(
                f"{name}: {len(info[kind])} {kind.replace('_', ' ')} in {folder}, first {first}; "
                "the weights do not belong to config.json"
            )
    is_whole = config.model_type in HOLDS_LANGUAGE_MODEL
    unexpected = (key for key in info["unexpected_keys"] if not (is_whole and is_other_part(key)))
    _check_dropped(unexpected, model, folder, name)
    if fp8:
        _as_plain(model)
    return model


def _check_dropped(keys: Iterable[str], model: PreTrainedModel, folder: Path, name: str) -> None:
    """Refuse weights that the architecture has no place for: without them it is another model."""
    dropped = sorted(key for key in keys if not is_unread(key))
    if dropped:
        more = ", ..." if len(dropped) > 3 else ""
        raise UserError(
            f"{name}: {len(dropped)} weights in {folder} have no place in "
            f"{type(model).__name__} as config.json describes it and would be dropped: "
            f"{', '.join(dropped[:3])}{more}; correct config.json, or save the model without them "
            "if it runs without them"
        )


def _config(folder: Path, *, name: str) -> PreTrainedConfig:
    config = read_model_config(folder)
    check_quantisation(config, name=name)
    try:
        return AutoConfig.from_pretrained(folder, **_HERE)
    # Besides its own errors, those of the checks of every field.
    except Exception as error:
        path = folder / "config.json"
        why = f"transformers {transformers.__version__} cannot use {path} ({one_line(error)})"
        if "auto_map" in config:
            why = f"{path} asks for code of its own (auto_map), which is never run"
        raise UserError(f"{name}: {why}") from error


def language_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the language model: of a supported whole its `text_config`.

    What the whole says of dtype, tied embeddings and quantisation holds for its language model too.
    """
    if config.model_type not in HOLDS_LANGUAGE_MODEL:
        return config
    text: Any = config.get_text_config()
    text.dtype = text.dtype or config.dtype
    text.tie_word_embeddings = getattr(config, "tie_word_embeddings", text.tie_word_embeddings)
    quantisation = getattr(config, "quantization_config", None)
    if quantisation is not None:
        text.quantization_config = quantisation
    return text


def options_for(config: PreTrainedConfig) -> dict[str, Any]:
    """What `from_pretrained` needs to read the language model alone; nothing for a plain model.

    Returns the keywords `config` and `key_mapping`. The weights of the image encoder are left
    aside.
    """
    if config.model_type not in HOLDS_LANGUAGE_MODEL:
        return {}
    return {"config": language_part(config), "key_mapping": dict(NAMES_INSIDE)}


def _why_no_weights(error: Exception, folder: Path) -> str:
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


def _dequantising(config: Any) -> dict[str, Any]:
    """Options of `from_pretrained` that read fp8 weights as plain ones, on every device.

    Without them a GPU that has the kernels would get linear maps of another class. `config`, as
    transformers reads it, is changed in place; plain weights need no options.
    """
    how = getattr(config, "quantization_config", None)
    if not isinstance(how, dict) or str(how.get("quant_method")).lower() != FP8:
        return {}
    config.quantization_config = how | {"dequantize": True}
    return {"config": config}


def _as_plain(model: Any) -> None:
    """Give a model read from fp8 weights one dtype, and nothing of their quantisation.

    The library leaves what was not quantised in the dtype of the file, and would quantise all
    matrices again when the model is saved, under a config.json that says nothing of it.
    """
    model.to(model.config.dtype)
    if hasattr(model, "_weight_conversions"):
        del model._weight_conversions
