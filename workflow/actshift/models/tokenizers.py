"""A `tokenizers.Tokenizer` as a Hugging Face tokenizer: wrap, save, load."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from actshift.models.tokenizer_file import load_as_filed


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Names of the special tokens; None where the family has none."""

    bos: str | None
    eos: str
    pad: str


def wrap_tokenizer(
    core: Tokenizer, special: SpecialTokens, *, chat_template: str | None, max_positions: int = 256
) -> PreTrainedTokenizerFast:
    """Make a trained core an ordinary Hugging Face tokenizer that pads on the left.

    `core` includes the post-processor; `chat_template` is None as in real base checkpoints.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=special.bos,
        eos_token=special.eos,
        pad_token=special.pad,
        chat_template=chat_template,
        padding_side="left",
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model and its tokenizer as an ordinary Hugging Face folder, without progress bars."""
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a local folder as `tokenizer.json` has it; never asks the network."""
    return load_as_filed(folder)
