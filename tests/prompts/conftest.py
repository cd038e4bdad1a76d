"""Tiny real tokenizers in the style of the four families."""

import json

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "How do I mend a bicycle wheel? user model assistant system",
    "Tell me how to bake bread, please. Cutting Knowledge Date: December 2023 Today Date: 26 Jul",
    "You are a helpful assistant. Describe the garden and the river.",
] * 3

LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\nToday Date: " + date_string + "\n\n<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN = (
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}[SYSTEM_PROMPT]The current date is {{ strftime_now('%Y-%m-%d') }}."
    "[/SYSTEM_PROMPT]{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST]' + message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + '</s>' }}"
    "{% else %}{{ raise_exception('no system turns here') }}{% endif %}{% endfor %}"
)

STYLES = {
    "llama": (
        "<|begin_of_text|>",
        ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        LLAMA,
    ),
    "gemma": ("<bos>", ["<eos>", "<start_of_turn>", "<end_of_turn>"], GEMMA),
    "qwen": (None, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], QWEN),
    "mistral": (
        "<s>",
        ["</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"],
        MISTRAL,
    ),
}


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _byte_fallback(special: list[str], *, prepend: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    steps: list[normalizers.Normalizer] = [normalizers.Prepend("▁")] if prepend else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    state["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(state))


def build(style: str) -> PreTrainedTokenizerFast:
    bos, others, template = STYLES[style]
    special = ([bos] if bos else []) + others
    if style in ("llama", "qwen"):
        tokenizer = _byte_level(special)
        steps: list[processors.PostProcessor] = [processors.ByteLevel(trim_offsets=True)]
    else:
        tokenizer = _byte_fallback(special, prepend=style == "mistral")
        steps = []
    if bos:
        ids = [(bos, tokenizer.token_to_id(bos))]
        steps.append(processors.TemplateProcessing(single=f"{bos} $A", special_tokens=ids))
    if steps:
        tokenizer.post_processor = processors.Sequence(steps)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=others[0],
        additional_special_tokens=others[1:],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast


@pytest.fixture(scope="session")
def families() -> dict[str, PreTrainedTokenizerFast]:
    return {style: build(style) for style in STYLES}


@pytest.fixture
def bare() -> PreTrainedTokenizerFast:
    tokenizer = build("llama")
    tokenizer.chat_template = None
    return tokenizer
