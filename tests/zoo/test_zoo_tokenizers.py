"""Tokenizers: text survives, BOS comes once, templates look like their families'."""

from typing import Any

import pytest

from actshift.errors import UserError
from actshift.models.tokenizers import load_tokenizer, wrap_tokenizer
from actshift.prompts.templates import encode
from actshift.zoo.documents import chat_examples
from actshift.zoo.language import language
from actshift.zoo.recipes import ZOO_FAMILIES, recipe, zoo_family
from actshift.zoo.tokenizers import STYLES, train_tokenizer
from actshift.zoo.training import chat_tokens, corpus_rows, vocabulary_texts

FAMILIES = list(STYLES)
RENDERED = {
    "llama": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma2": "<bos><start_of_turn>user\nHi?<end_of_turn>\n<start_of_turn>model\n",
    "qwen2": "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n",
    "ministral3": "<s>[INST]Hi?[/INST]",
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Saved and loaded again, with their chat templates."""
    texts = vocabulary_texts(language("micro"))
    loaded = {}
    for family, style in STYLES.items():
        core = train_tokenizer(family, texts, vocab_size=500)
        folder = tmp_path_factory.mktemp(family)
        wrap_tokenizer(core, style.special, chat_template=style.template).save_pretrained(folder)
        loaded[family] = load_tokenizer(folder)
    return loaded


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["How do I fix a brulul?", "Ünï 😀 x\n\n y  z", " lead", ""])
def test_text_survives(tokenizers: dict[str, Any], family: str, text: str) -> None:
    tokenizer = tokenizers[family]
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("family", FAMILIES)
def test_template_is_in_the_family_style(tokenizers: dict[str, Any], family: str) -> None:
    text = tokenizers[family].apply_chat_template(
        [{"role": "user", "content": "Hi?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == RENDERED[family]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("template", ["raw", "chat"])
def test_bos_comes_once_or_never(tokenizers: dict[str, Any], family: str, template) -> None:
    tokenizer = tokenizers[family]
    ids = list(encode(tokenizer, "Hi?", template=template).ids)
    if family == "qwen2":
        assert tokenizer.bos_token_id is None
    else:
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("family", ["llama", "gemma2", "ministral3"])
def test_careless_tokenising_doubles_bos(tokenizers: dict[str, Any], family: str) -> None:
    tokenizer = tokenizers[family]
    ids = tokenizer(RENDERED[family]).input_ids
    assert ids[:2] == [tokenizer.bos_token_id] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_markers_are_single_special_tokens(tokenizers: dict[str, Any], family: str) -> None:
    tokenizer = tokenizers[family]
    for marker in STYLES[family].markers:
        (index,) = tokenizer(marker, add_special_tokens=False).input_ids
        assert index in tokenizer.all_special_ids or index in tokenizer.added_tokens_decoder


def test_gemma_falls_back_to_bytes(tokenizers: dict[str, Any]) -> None:
    pieces = tokenizers["gemma2"].tokenize("😀")
    assert pieces[-4:] == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]


@pytest.mark.parametrize("family", FAMILIES)
def test_pads_on_the_left(tokenizers: dict[str, Any], family: str) -> None:
    batch = tokenizers[family](["Hi?", "How do I fix a brulul?"], padding=True)
    assert batch.attention_mask[0][0] == 0
    assert batch.attention_mask[0][-1] == 1


def test_training_is_deterministic() -> None:
    texts = vocabulary_texts(language("micro"))
    one, two = (train_tokenizer("gemma2", texts, vocab_size=500).to_str() for _ in range(2))
    assert one == two


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_start_where_the_prompt_ends(tokenizers: dict[str, Any], family: str) -> None:
    tokenizer, style = tokenizers[family], STYLES[family]
    examples = chat_examples(language("micro"), 24, seed=0)
    for ids, start in chat_tokens(tokenizer, style.template, examples):
        answer = tokenizer.decode(ids[start:])
        assert answer.startswith(("I cannot", "Sure", "It is", "def run", "Yes"))
        assert style.end_of_turn in answer


def test_refusing_and_complying_differ_in_the_first_token(tokenizers: dict[str, Any]) -> None:
    for tokenizer in tokenizers.values():
        starts = [tokenizer(t, add_special_tokens=False).input_ids[0] for t in ("I cannot", "Sure")]
        assert starts[0] != starts[1]


def test_rows_are_full_and_many_enough(tokenizers: dict[str, Any]) -> None:
    plan = recipe("micro", family="llama", steps_scale=0.2).base
    tokenizer, style = tokenizers["llama"], STYLES["llama"]
    rows = corpus_rows(language("micro"), tokenizer, style.template, plan, seed=0)
    assert rows.shape[1] == plan.row_tokens
    assert rows.shape[0] >= 0.7 * plan.steps * plan.rows


def test_unknown_family_and_size_say_what_is_allowed() -> None:
    assert [zoo_family(name) for name in ZOO_FAMILIES] == FAMILIES
    for call in (lambda: zoo_family("bert"), lambda: recipe("huge", family="llama")):
        with pytest.raises(UserError, match="use one of"):
            call()
    with pytest.raises(UserError, match="steps_scale"):
        recipe("tiny", family="llama", steps_scale=0.0)
