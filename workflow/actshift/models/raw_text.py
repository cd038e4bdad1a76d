"""What the two models of a pair make of the same raw text, read from their tokenizers' files.

No torch and no transformers: `snakemake -n` asks this before anything runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.errors import UserError, one_line
from actshift.vocab import ROLES

_FILE = "tokenizer.json"
_MEND = (
    "load the tokenizer that adds it, set tokenizer.add_eos_token = False and save it into its "
    "folder again"
)
PROBES = (
    "Hello world",
    " leading space",
    "two  spaces   and more    ",
    "one\ntwo\n\nthree\r\nfour\n",
    "tab\there",
    "7 42 1999 3.14 1,000,000",
    "it's we'll I'VE 'told' \"quoted\"",
    "naïve café Ångström e\u0301 ﬁne ①",
    "Привет, мир. ΓΔΘ Ψψ",
    "中文字符。日本語のテキスト",
    "مرحبا שלום नमस्ते",
    "👩‍💻 😀🏽 ❤️",
    "def run(x):\n    return {'a': x[0] ** 2}  # ok\n",
    "UPPER CamelCase snake_case kebab-case",
    "a@b.org https://x.org/?q=1&r=2",
    "...!?;: (—) “so” …",
)


@dataclass(frozen=True)
class RawReading:
    """How a tokenizer reads raw text.

    Attributes:
        first: Tokens that it puts in front, such as BOS.
        last: Tokens that it puts behind, such as EOS.
        ids: Ids of the probe texts themselves.
    """

    first: tuple[str, ...]
    last: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]


def compare_raw(base: Path, tuned: Path, *, where: str) -> list[str]:
    """Compare what the tokenizers of a pair make of the same raw text.

    Returns what differs and changes no position, one line each: BOS on one side, other ids of a
    text, EOS on both sides. Nothing where a folder has no tokenizer.json.

    Raises:
        UserError: One side ends raw text with a token that the other does not add, so that the
            states at the last token are those of different tokens; or a file cannot be read.
    """
    folders = dict(zip(ROLES, (base, tuned), strict=True))
    if not all((folder / _FILE).is_file() for folder in folders.values()):
        return []
    of_base = raw_reading(base)
    same = (base / _FILE).read_bytes() == (tuned / _FILE).read_bytes()
    of_tuned = of_base if same else raw_reading(tuned)
    if of_base.last != of_tuned.last:
        raise UserError(
            f"{where}: base ends raw text with {_named(of_base.last)} and tuned with "
            f"{_named(of_tuned.last)} (post_processor of tokenizer.json), so their states at the "
            f"last token are of different tokens; {_MEND}"
        )
    notes = []
    if of_base.last:
        notes.append(
            f"{where}: both tokenizers end raw text with {_named(of_base.last)}, so the last token "
            f"of a raw prompt is not of its text; {_MEND}"
        )
    if of_base.first != of_tuned.first:
        notes.append(
            f"{where}: base begins raw text with {_named(of_base.first)} and tuned with "
            f"{_named(of_tuned.first)}; each model reads raw prompts as its own tokenizer says"
        )
    unlike = [i for i, ids in enumerate(of_base.ids) if ids != of_tuned.ids[i]]
    if unlike:
        first = unlike[0]
        notes.append(
            f"{where}: the tokenizers of base and tuned give other ids for {len(unlike)} of "
            f"{len(PROBES)} probe texts, such as {PROBES[first]!r}: "
            f"{list(of_base.ids[first])} and {list(of_tuned.ids[first])}; their states at a token "
            "are then of different tokens"
        )
    return notes


def raw_reading(folder: Path) -> RawReading:
    """Read probe texts with the tokenizer of a folder, as `models.tokenizers` loads it.

    Raises:
        UserError: The file cannot be read.
    """
    # Only here: the Snakefile imports this module, and most pairs need no comparison.
    from tokenizers import Tokenizer

    path = folder / _FILE
    try:
        core = Tokenizer.from_file(str(path))
    # tokenizers raises bare exceptions; each is about this file.
    except Exception as error:
        raise UserError(
            f"{path} is no tokenizer that can be read ({one_line(error)}): save it again"
        ) from None
    core.no_truncation()
    core.no_padding()
    ids = tuple(tuple(core.encode(text, add_special_tokens=False).ids) for text in PROBES)
    first, last = _written(core)
    return RawReading(first, last, ids)


def _written(core: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the file's post-processor puts around the tokens of a text."""
    whole = core.encode(PROBES[0])
    inside = [i for i, added in enumerate(whole.special_tokens_mask) if not added]
    if not inside:
        return tuple(whole.tokens), ()
    return tuple(whole.tokens[: inside[0]]), tuple(whole.tokens[inside[-1] + 1 :])


def _named(tokens: tuple[str, ...]) -> str:
    return " ".join(tokens) or "no token"
