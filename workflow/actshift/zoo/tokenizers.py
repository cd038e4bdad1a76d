"""A tokenizer a family: trained on the language, special tokens and template in its style."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from actshift.models.tokenizers import SpecialTokens

#: How Llama 3, Qwen 2 and Tekken cut words: one leading space at most, digits and newlines apart.
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"

#: Words of the chat templates: frequent enough to become pieces of their own.
_ROLES = ("user", "assistant", "model", "\n\n")


@dataclass(frozen=True, slots=True)
class Style:
    """What makes a family's tokenizer its own.

    `special` tokens are those of the base model, `markers` further ones; without `byte_level` BPE
    it has (Gemma) pieces with byte fallback.
    """

    special: SpecialTokens
    markers: tuple[str, ...]
    end_of_turn: str
    template: str
    byte_level: bool = True


_LLAMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_QWEN = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_MINISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST]' + message['content'] + '[/INST]' }}{% else %}"
    "{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)

STYLES: dict[str, Style] = {
    "llama": Style(
        SpecialTokens("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        _LLAMA,
    ),
    "gemma2": Style(
        SpecialTokens("<bos>", "<eos>", "<pad>"),
        ("<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        _GEMMA,
        byte_level=False,
    ),
    "qwen2": Style(
        SpecialTokens(None, "<|endoftext|>", "<|endoftext|>"),
        ("<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        _QWEN,
    ),
    "ministral3": Style(
        SpecialTokens("<s>", "</s>", "<pad>"),
        ("[INST]", "[/INST]"),
        "</s>",
        _MINISTRAL,
    ),
}


def train_tokenizer(family: str, texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Train a family's tokenizer on the language; deterministic.

    `vocab_size` counts special tokens and the 256 bytes too. The post-processor adds the bos token
    where the family's does.
    """
    style = STYLES[family]
    core = _byte_level_core(family) if style.byte_level else _byte_fallback_core()
    names = dict.fromkeys(filter(None, (*_named(style.special), *style.markers)))
    byte_pieces = [] if style.byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*(AddedToken(n, special=True, normalized=False) for n in names)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if style.byte_level else [],
        show_progress=False,
    )
    core.train_from_iterator(chain(texts, _ROLES * 500), trainer)
    if byte_pieces:
        core = _with_byte_pieces(core, byte_pieces, list(names))
    if style.special.bos:
        bos = style.special.bos
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos}:1 $B:1",
            special_tokens=[(bos, core.token_to_id(bos))],
        )
    return core


def _named(special: SpecialTokens) -> tuple[str | None, ...]:
    return (special.bos, special.eos, special.pad)


def _byte_level_core(family: str) -> Tokenizer:
    core = Tokenizer(models.BPE(ignore_merges=family == "llama"))
    if family == "qwen2":
        core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    return core


def _byte_fallback_core() -> Tokenizer:
    core = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True))
    _gemma_parts(core)
    return core


def _gemma_parts(core: Tokenizer) -> None:
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"▁?[^▁\n.,:;?()]+|[▁\n.,:;?()]"), behavior="isolated"
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )


def _with_byte_pieces(core: Tokenizer, pieces: list[str], names: list[str]) -> Tokenizer:
    """Put the 256 byte pieces into the vocabulary; as special tokens they would not decode."""
    state = json.loads(core.to_str())["model"]
    vocab = dict(state["vocab"])
    for piece in pieces:
        vocab.setdefault(piece, len(vocab))
    merges = [(left, right) for left, right in state["merges"]]
    grown = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True))
    _gemma_parts(grown)
    grown.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    return grown
