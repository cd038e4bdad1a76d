"""Tiny random models as ordinary checkpoint folders, built without any hub."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from actshift.io.atomic import hash_file
from actshift.io.manifest import write_manifest
from actshift.models.families import Dims, build
from actshift.stages.checkpoint import template_hash

FAMILIES = ("llama", "gemma2", "qwen2", "ministral3", "gpt2")
WORDS = "how do i bake mend steal a loaf wheel car please tell me about the garden now".split()
MARKS = ("<user>", "<end>", "<model>")
TEMPLATE = (
    "<bos>{% for message in messages %}"
    "{{ '<model>' if message['role'] == 'assistant' else '<user>' }}"
    " {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)


def word_tokenizer(
    template: str | None = TEMPLATE, words: Sequence[str] = WORDS
) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer with a BOS and, unless None, a chat template."""
    vocab = {word: i for i, word in enumerate(["<unk>", "<pad>", "<bos>", *MARKS, *words])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    core.add_special_tokens(["<bos>", "<pad>", *MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=template,
    )


def build_checkpoint(
    folder: Path, family: str, *, seed: int = 0, template: str | None = TEMPLATE
) -> Path:
    """Save a random model and its tokenizer as a checkpoint folder with its manifest."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dims = Dims(vocab_size=64, d_model=32, n_layers=3, d_head=8, d_mlp=48, max_positions=64)
    model = build(family, dims)
    # Random blocks barely move the stream at the library's init; larger weights make bugs visible.
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(4)
    model.save_pretrained(folder)
    word_tokenizer(template).save_pretrained(folder)
    return seal_checkpoint(folder)


def seal_checkpoint(folder: Path) -> Path:
    """Write the manifest of a checkpoint folder, as the checkpoint stage would."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "manifest.json").unlink(missing_ok=True)
    facts = {
        "model": "tiny",
        "source": "test",
        "revision": None,
        "family": config["model_type"],
        "weights_hash": hash_file(folder / "model.safetensors"),
        "config_hash": hash_file(folder / "config.json"),
        "tokenizer_hash": hash_file(folder / "tokenizer.json"),
        "template_hash": template_hash(folder),
    }
    write_manifest(folder, kind="checkpoint", facts=facts)
    return folder
