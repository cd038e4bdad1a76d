"""Tokenizers: wrap one that the zoo trained, save it, and load one as its `tokenizer.json` has it.

transformers picks a class by `model_type` and `tokenizer_class`; several classes rebuild
normalizer, pre-tokenizer and special tokens from constants of their own and take vocabulary and
merges alone from the file. The ids are then others than those the model was trained on. Here the
file decides.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging

from actshift.errors import UserError, one_line
from actshift.models.raw_text import PROBES

_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Names of the special tokens; None where the family has none."""

    bos: str | None
    eos: str
    pad: str


def wrap_tokenizer(
    core: Tokenizer, special: SpecialTokens, *, chat_template: str | None
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
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model and its tokenizer as an ordinary Hugging Face folder, without progress bars."""
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer so that `tokenizer.json` decides the ids; never asks the network.

    Chat template, special tokens, padding side and limits are those transformers reads; a special
    token that only the class names is kept where the file has it. BOS and EOS around raw text are
    the file's too. Where the class that transformers picks would give other ids, or
    tokenizer_config.json asks for another BOS or EOS, the log says so.

    Raises:
        UserError: tokenizer_config.json and tokenizer.json give one token two ids.
    """
    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    core.no_truncation()
    core.no_padding()
    picked = _picked(folder)
    tokenizer: Any = picked
    if type(picked) is not PreTrainedTokenizerFast:
        side = {} if picked is None else {"padding_side": picked.padding_side}
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, **side)
        if picked is not None:
            _keep_named(tokenizer, picked, core)
    if tokenizer.backend_tokenizer.to_str() != core.to_str():
        tokenizer._tokenizer = _completed(core, tokenizer, folder)
    if picked is not None:
        _report_class(picked, tokenizer, folder)
    _report_settings(tokenizer, folder)
    return tokenizer


def _picked(folder: Path) -> Any:
    """The tokenizer of the class that transformers picks; None where that class cannot read it."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # Each class fails in its own way; the file is read without it.
    except Exception as error:
        say_once(
            f"{folder}: transformers' own class cannot read the tokenizer ({one_line(error)}); "
            "tokenizer.json is read without it"
        )
        return None


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, verbose=False)["input_ids"])


def _keep_named(tokenizer: Any, picked: Any, core: Tokenizer) -> None:
    """Take over special tokens that only the class names, where the file has them."""
    for name in _NAMED:
        token = getattr(picked, name)
        if (
            token is not None
            and getattr(tokenizer, name) is None
            and core.token_to_id(token) is not None
        ):
            setattr(tokenizer, name, token)


def _completed(core: Tokenizer, tokenizer: Any, folder: Path) -> Tokenizer:
    """The file's tokenizer, with what only tokenizer_config.json states."""
    stated = sorted(tokenizer.added_tokens_decoder.items())
    core.add_tokens([token for _, token in stated if core.token_to_id(token.content) is None])
    for number, token in stated:
        if core.token_to_id(token.content) != number:
            raise UserError(
                f"{folder}: token {token.content!r} is {core.token_to_id(token.content)} in "
                f"tokenizer.json and {number} in tokenizer_config.json or added_tokens.json; save "
                "the tokenizer again, so that its files agree"
            )
    core.encode_special_tokens = tokenizer.split_special_tokens
    return core


def _report_class(picked: Any, tokenizer: Any, folder: Path) -> None:
    """Name the first text that the class which transformers picks would read otherwise."""
    name = type(picked).__name__
    added = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items())]
    for text in (*PROBES, *(f"a {token} b{token}" for token in added[:8])):
        file_ids = _ids(tokenizer, text)
        try:
            ids = _ids(picked, text)
        # What a rebuilt class cannot encode, it reads otherwise.
        except Exception as error:
            ids = one_line(error)
        if ids != file_ids:
            say_once(
                f"{folder}: transformers' class {name} reads {text!r} as {ids}, tokenizer.json as "
                f"{file_ids}; tokenizer.json is followed"
            )
            return


def _report_settings(tokenizer: Any, folder: Path) -> None:
    """Say where tokenizer_config.json asks for a BOS or EOS that tokenizer.json does not add."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    ids = _ids(tokenizer, PROBES[0])
    for kind, place in (("bos", 0), ("eos", -1)):
        token, wanted = getattr(tokenizer, f"{kind}_token"), settings.get(f"add_{kind}_token")
        if token is None or wanted is None:
            continue
        added = bool(ids) and ids[place] == tokenizer.convert_tokens_to_ids(token)
        if bool(wanted) != added:
            say_once(
                f"{folder}: tokenizer_config.json says add_{kind}_token: {str(wanted).lower()}, "
                f"but tokenizer.json {'adds' if added else 'does not add'} {token}; tokenizer.json "
                "is followed, as transformers does"
            )


@cache
def say_once(line: str) -> None:
    """Print a line, once a process."""
    print(line)
