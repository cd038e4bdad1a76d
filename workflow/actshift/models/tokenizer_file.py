"""A tokenizer that gives the ids its own `tokenizer.json` gives.

transformers picks a class by `model_type` and `tokenizer_class`; several classes rebuild
normalizer, pre-tokenizer and special tokens from constants of their own and take vocabulary and
merges alone from the file. The ids are then others than those the model was trained on. Here the
file decides.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from actshift.errors import UserError
from actshift.models.probe_texts import PROBES

_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
#: Keys of tokenizer_config.json that say outright what is added around raw text.
_EXPLICIT = ("add_bos_token", "add_eos_token")


def load_as_filed(folder: Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer so that `tokenizer.json` decides the ids; never asks the network.

    Chat template, special tokens, padding side and limits are those transformers reads; a special
    token that only the class names is kept where the file has it. BOS and EOS around raw text
    follow the file, unless tokenizer_config.json says `add_bos_token` or `add_eos_token`. Where the
    class that transformers picks would give other ids, the log says so.

    Args:
        folder: Folder with tokenizer.json.

    Raises:
        UserError: tokenizer_config.json and tokenizer.json give one token two ids.
    """
    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    core.no_truncation()
    core.no_padding()
    picked = _picked(folder)
    found: Any = picked
    if type(picked) is not PreTrainedTokenizerFast:
        side = {} if picked is None else {"padding_side": picked.padding_side}
        found = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True, **side)
        _keep_named(found, picked, core)
    texts = [*PROBES, *_around(core)]
    by_file = [core.encode(text).ids for text in texts]
    if found.backend_tokenizer.to_str() != core.to_str():
        found._tokenizer = _completed(core, found, folder)
    own = [_ids(found, text) for text in texts]
    if picked is not None:
        by_class = [_ids(picked, text) for text in texts]
        what = f"transformers' class {type(picked).__name__}"
        _say_first(folder, texts, what, by_class, "tokenizer.json", own)
    _say_first(folder, texts, "tokenizer.json alone", by_file, "tokenizer_config.json", own)
    return found


def _picked(folder: Path) -> Any:
    """The tokenizer of the class that transformers picks; None where that class cannot read it."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # Each class fails in its own way; the file is read without it.
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        _tell(f"{folder}: transformers' own class cannot read the tokenizer ({reason}); read as is")
        return None


def _around(core: Tokenizer) -> list[str]:
    """Texts with the file's added tokens inside."""
    added = [token.content for _, token in sorted(core.get_added_tokens_decoder().items())]
    return [f"a {token} b{token}" for token in added[:8]]


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, verbose=False)["input_ids"])


def _keep_named(found: Any, picked: Any, core: Tokenizer) -> None:
    """Take over special tokens that only the class names, where the file has them."""
    for name in _NAMED:
        token = getattr(picked, name)
        if (
            token is not None
            and getattr(found, name) is None
            and core.token_to_id(token) is not None
        ):
            setattr(found, name, token)


def _completed(core: Tokenizer, found: Any, folder: Path) -> Tokenizer:
    """The file's tokenizer, with what only tokenizer_config.json states."""
    stated = sorted(found.added_tokens_decoder.items())
    core.add_tokens([token for _, token in stated if core.token_to_id(token.content) is None])
    for number, token in stated:
        if core.token_to_id(token.content) != number:
            raise UserError(
                f"{folder}: token {token.content!r} is {core.token_to_id(token.content)} in "
                f"tokenizer.json and {number} in tokenizer_config.json or added_tokens.json; save "
                "the tokenizer again, so that its files agree"
            )
    core.encode_special_tokens = found.split_special_tokens
    if any(name in _settings(folder) for name in _EXPLICIT):
        core.post_processor = found.backend_tokenizer.post_processor
    return core


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _say_first(
    folder: Path,
    texts: list[str],
    other: str,
    ids: list[list[int]],
    followed: str,
    own: list[list[int]],
) -> None:
    """Say in the log what the first text is that another source of ids would read otherwise."""
    for text, one, kept in zip(texts, ids, own, strict=True):
        if one != kept:
            _tell(
                f"{folder}: {other} reads {text!r} as {one}, {followed} as {kept}; {followed} is "
                "followed"
            )
            return


@cache
def _tell(line: str) -> None:
    """Print a line, once a process."""
    print(line)
