"""What base and tuned make of the same raw text, from their files alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from models.test_tokenizer_file import byte_level, saved
from tokenizers import Tokenizer, processors

from actshift.errors import UserError
from actshift.models.raw_text import compare_raw, raw_reading
from actshift.models.tokenizers import load_tokenizer


def around(single: str) -> Tokenizer:
    """A tokenizer whose post-processor puts tokens around raw text."""
    core = byte_level()
    tokens = [token for token in single.split() if token != "$A"]
    core.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(token, core.token_to_id(token)) for token in tokens]
    )
    return core


def pair(root: Path, **cores: Tokenizer) -> list[Path]:
    return [
        saved(root / role, cores.get(role, byte_level()), model_type="gpt2")
        for role in ("base", "tuned")
    ]


def test_equal_tokenizers_need_no_word(tmp_path):
    assert compare_raw(*pair(tmp_path), where="pairs.p") == []
    begun = around("<|im_start|> $A")
    assert compare_raw(*pair(tmp_path, base=begun, tuned=begun), where="pairs.p") == []


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("tuned", "base ends raw text with no token and tuned with <|im_end|>"),
        ("base", "base ends raw text with <|im_end|> and tuned with no token"),
    ],
)
def test_eos_on_one_side_is_refused(tmp_path, side, words):
    folders = pair(tmp_path, **{side: around("$A <|im_end|>")})
    with pytest.raises(UserError) as caught:
        compare_raw(*folders, where="pairs.p")
    assert f"pairs.p: {words}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bos_on_one_side_eos_on_both_and_other_ids_are_told(tmp_path):
    (note,) = compare_raw(*pair(tmp_path, tuned=around("<|im_start|> $A")), where="pairs.p")
    assert "base begins raw text with no token and tuned with <|im_start|>" in note
    end = around("$A <|im_end|>")
    (note,) = compare_raw(*pair(tmp_path, base=end, tuned=end), where="pairs.p")
    assert "both tokenizers end raw text with <|im_end|>" in note
    (note,) = compare_raw(*pair(tmp_path, tuned=byte_level(letters=True)), where="pairs.p")
    assert "give other ids for" in note


@pytest.mark.parametrize("single", ["$A", "<|im_start|> $A", "$A <|im_end|>"])
def test_the_reading_is_that_of_the_loaded_tokenizer(tmp_path, single):
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_eos_token": True}
    folder = saved(tmp_path / "m", around(single), model_type="gpt2", **names)
    reading, loaded = raw_reading(folder), load_tokenizer(folder)
    ids = [*map(loaded.convert_tokens_to_ids, reading.first), *reading.ids[0]]
    ids += map(loaded.convert_tokens_to_ids, reading.last)
    assert ids == loaded("Hello world")["input_ids"]


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    base, tuned = pair(tmp_path)
    (tuned / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(UserError, match=r"tuned/tokenizer.json is no tokenizer"):
        compare_raw(base, tuned, where="pairs.p")
    (tuned / "tokenizer.json").unlink()
    assert compare_raw(base, tuned, where="pairs.p") == []


def test_comparing_needs_neither_torch_nor_transformers(tmp_path):
    base, tuned = pair(tmp_path, tuned=around("<|im_start|> $A"))
    code = (
        "import sys; from pathlib import Path; from actshift.models.raw_text import compare_raw; "
        f"compare_raw(Path({str(base)!r}), Path({str(tuned)!r}), where='p'); "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
