"""tokenizer.json decides the ids, whatever class transformers picks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference.tiny_models import WORDS
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from actshift.errors import UserError
from actshift.models.load import open_tokenizer
from actshift.models.raw_text import PROBES
from actshift.models.tokenizers import load_tokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"


def byte_level(*, letters: bool = False, bos: str | None = None) -> Tokenizer:
    """A byte-level BPE; `letters` gives every character a token of its own."""
    core = Tokenizer(models.BPE())
    parts: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("", "isolated"), *parts] if letters else parts
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[*SPECIALS, *([bos] if bos else [])],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" ".join(WORDS), "it's 1999 ?\n\n!\n 42 'told'"] * 5, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return core


def saved(folder: Path, core: Tokenizer, *, model_type: str, **settings: Any) -> Path:
    """Write a checkpoint folder's tokenizer files by hand, as other tools do."""
    folder.mkdir(exist_ok=True)
    core.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


CLASSES = [
    ("qwen2", "Qwen2Tokenizer"),
    ("gemma2", "GemmaTokenizer"),
    ("gpt2", "GPT2Tokenizer"),
    ("llama", "LlamaTokenizer"),
    ("mistral", "LlamaTokenizerFast"),
]


@pytest.mark.parametrize(("model_type", "cls"), CLASSES)
@pytest.mark.parametrize("special", [False, True])
def test_ids_are_those_of_the_file(tmp_path: Path, model_type: str, cls: str, special: bool):
    folder = saved(
        tmp_path / "m", byte_level(letters=True), model_type=model_type, tokenizer_class=cls
    )
    alone = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = load_tokenizer(folder)
    texts = [*PROBES, *(f"a {token} b{token}" for token in SPECIALS)]
    for text in texts:
        ids = found(text, add_special_tokens=special)["input_ids"]
        assert ids == alone.encode(text, add_special_tokens=special).ids, text
    assert found.decode(found("two words 42")["input_ids"]) == "two words 42"


def test_the_class_alone_would_have_read_otherwise_and_is_named(tmp_path, capsys):
    """The reference: without the change these ids are used."""
    folder = saved(tmp_path / "m", byte_level(letters=True), model_type="qwen2")
    picked = AutoTokenizer.from_pretrained(folder)
    found = load_tokenizer(folder)
    assert any(picked(text)["input_ids"] != found(text)["input_ids"] for text in PROBES)
    assert "class Qwen2Tokenizer reads" in capsys.readouterr().out


def test_what_the_class_knows_is_carried_where_the_file_has_it(tmp_path):
    folder = saved(
        tmp_path / "m",
        byte_level(),
        model_type="llama",
        tokenizer_class="Qwen2Tokenizer",
        chat_template=TEMPLATE,
        eos_token="<|im_end|>",
        model_max_length=77,
        padding_side="left",
    )
    found = load_tokenizer(folder)
    assert found.chat_template == TEMPLATE
    assert (found.eos_token, found.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert (found.model_max_length, found.padding_side) == (77, "left")


def test_a_special_token_of_the_class_that_the_file_lacks_is_no_token(tmp_path):
    core = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = saved(tmp_path / "m", core, model_type="qwen2", unk_token="<unk>")
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 3
    found = load_tokenizer(folder)
    assert found.eos_token_id is None
    assert len(found) == 3


def test_flags_of_an_added_token_are_the_files(tmp_path):
    """`rstrip` of an end token eats the space behind it; the class forgets that."""
    core = byte_level()
    core.add_special_tokens([AddedToken("<|end|>", rstrip=True, special=True)])
    folder = saved(tmp_path / "m", core, model_type="gpt2", eos_token="<|end|>")
    alone = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert load_tokenizer(folder)("a <|end|> b")["input_ids"] == alone.encode("a <|end|> b").ids


def test_bos_of_the_files_post_processor_is_kept(tmp_path):
    folder = saved(tmp_path / "m", byte_level(bos="<s>"), model_type="llama", bos_token="<s>")
    found = load_tokenizer(folder)
    assert found("hello")["input_ids"][0] == found.bos_token_id


def test_eos_that_only_the_settings_ask_for_is_told(tmp_path, capsys):
    folder = saved(
        tmp_path / "m",
        byte_level(),
        model_type="gpt2",
        eos_token="<|im_end|>",
        add_eos_token=True,
    )
    found = load_tokenizer(folder)
    assert found("hello")["input_ids"][-1] != found.eos_token_id
    told = capsys.readouterr().out
    assert "add_eos_token: true, but tokenizer.json does not add <|im_end|>" in told


def test_tokens_that_only_the_settings_add_keep_their_ids(tmp_path):
    core = byte_level()
    size = core.get_vocab_size()
    added = {str(size): {"content": "<|new|>", "special": True}}
    folder = saved(tmp_path / "m", core, model_type="qwen2", added_tokens_decoder=added)
    assert load_tokenizer(folder)("<|new|>")["input_ids"] == [size]
    added = {str(size + 4): {"content": "<|new|>", "special": True}, str(size): {"content": "hm"}}
    clash = byte_level()
    clash.add_tokens(["<|new|>"])
    folder = saved(tmp_path / "n", clash, model_type="qwen2", added_tokens_decoder=added)
    assert load_tokenizer(folder)("<|new|>")["input_ids"] == [size]


def test_settings_that_a_class_cannot_read_leave_the_file(tmp_path, capsys):
    """A BPE file under a class that is Unigram by nature."""
    folder = saved(tmp_path / "m", byte_level(), model_type="llama", tokenizer_class="T5Tokenizer")
    found = load_tokenizer(folder)
    assert found("hello")["input_ids"]
    assert "own class cannot read" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {"type": "Newer"}}'])
def test_a_damaged_file_is_one_line(tmp_path, text):
    folder = saved(tmp_path / "m", byte_level(), model_type="qwen2")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(
        UserError, match=r"pair\.base: cannot read the tokenizer in .*save it again"
    ):
        open_tokenizer(folder, name="pair.base")


def test_loading_and_saving_again_changes_no_id(tmp_path, own_checkpoint: Callable[..., Path]):
    folder = own_checkpoint("qwen2")
    found: PreTrainedTokenizerFast = load_tokenizer(folder)
    found.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    text = " ".join(WORDS)
    assert again(text)["input_ids"] == found(text)["input_ids"]
    assert len(set(found(text)["input_ids"])) > len(WORDS) / 2
