"""A model folder of real files without torch: what the plan reads, and nothing that could run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

TEMPLATE = (
    "{% for m in messages %}<user> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
ADDED = ("<user>", "<end>", "<model>")
WORDS = ("hello", "bread", "wheel")
VOCAB, WIDTH, LAYERS = 6, 8, 2


def weights(
    *, rows: int = VOCAB, width: int = WIDTH, layers: int = LAYERS, prefix: str = "", head: int = 0
) -> dict[str, np.ndarray]:
    """The tensors of a small model by name, one a block; a head where it has rows."""
    shapes = {f"{prefix}model.embed_tokens.weight": (rows, width)}
    for layer in range(layers):
        shapes[f"{prefix}model.layers.{layer}.self_attn.q_proj.weight"] = (width, width)
    if head:
        shapes[f"{prefix}lm_head.weight"] = (head, width)
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def write_tokenizer(
    folder: Path, *, added: tuple[str, ...] = ADDED, template: str | None = TEMPLATE
) -> None:
    """`tokenizer.json` and `tokenizer_config.json`: words, then the added tokens."""
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    core.pre_tokenizer = WhitespaceSplit()
    core.add_special_tokens(list(added))
    core.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>"} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tokenizer_around(folder: Path, single: str) -> None:
    """`tokenizer.json` of words whose post-processor puts tokens around raw text."""
    core = Tokenizer(WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokens = [token for token in single.split() if token != "$A"]
    core.post_processor = TemplateProcessing(
        single=single, special_tokens=[(token, core.token_to_id(token)) for token in tokens]
    )
    core.save(str(folder / "tokenizer.json"))


def write_model_folder(
    folder: Path,
    *,
    tensors: dict[str, np.ndarray] | None = None,
    added: tuple[str, ...] = ADDED,
    template: str | None = TEMPLATE,
    **config: Any,
) -> Path:
    """Write `config.json`, `model.safetensors` and a tokenizer; keywords replace config keys."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "vocab_size": VOCAB,
    }
    (folder / "config.json").write_text(json.dumps(known | config))
    save_file(weights() if tensors is None else tensors, folder / "model.safetensors")
    write_tokenizer(folder, added=added, template=template)
    return folder
