"""Which tokens end an answer, and what is said where none does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reference.tiny_models import TEMPLATE

from actshift.edits import Lane
from actshift.engine.intervene import decoder_of, eos_of, intervene, warn_endless
from actshift.engine.intervene_plan import Asked, InterveneSettings, Labels
from actshift.models.load import LoadedModel, load_model
from actshift.prompts.answers import turn_end
from actshift.prompts.records import read_prompts
from actshift.zoo.tokenizers import STYLES


def opened(folder: Path, *, listed: Any = None, eos: str | None = None) -> LoadedModel:
    """Load a checkpoint folder whose files name these ends."""
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": listed}))
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"eos_token": eos}))
    return load_model(folder, name="pair.tuned", dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("listed", "eos", "expected"),
    [
        (1, None, {1, 4}),
        ([1, 7], "<bos>", {1, 2, 4, 7}),
        (None, "<pad>", {1, 4}),
        (None, None, {4}),
        (4, "<end>", {4}),
    ],
)
def test_ends_are_joined_from_all_that_names_one(own_checkpoint, listed, eos, expected):
    loaded = opened(own_checkpoint(), listed=listed, eos=eos)
    assert eos_of(loaded) == expected
    assert decoder_of(loaded).eos == expected


def test_an_end_that_the_settings_do_not_list_is_named(own_checkpoint, capsys):
    # A line is printed once a process, so this model has a name of its own.
    loaded = replace(opened(own_checkpoint("gemma2"), listed=1), name="own.tuned")
    eos_of(loaded)
    eos_of(loaded)
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "own.tuned: answers also end at <end> (4), the end of a turn in the chat template, which "
        "generation_config.json does not list"
    ]


def test_a_model_without_a_template_ends_as_the_one_it_is_asked_in(own_checkpoint):
    chat = opened(own_checkpoint("gemma2"), listed=1)
    base = opened(own_checkpoint("llama", template=None), listed=1)
    assert eos_of(base) == {1}
    assert eos_of(base, chat=chat.tokenizer) == {1, 4}


def test_an_end_without_an_embedding_is_left_out(own_checkpoint):
    folder = own_checkpoint()
    loaded = opened(folder, listed=1)
    tokenizer: Any = loaded.tokenizer
    tokenizer.add_special_tokens({"eos_token": "<new>"})
    loaded.tokenizer.chat_template = TEMPLATE.replace("<end>", "<new>")
    assert loaded.tokenizer.eos_token_id is not None
    loaded.tokenizer.add_tokens([f"w{i}" for i in range(64)])
    loaded.tokenizer.add_special_tokens({"eos_token": "<newer>"})
    assert tokenizer.eos_token_id >= loaded.vocab_size
    assert eos_of(loaded) == {1, tokenizer.convert_tokens_to_ids("<new>")}


def test_answers_stop_at_the_end_that_only_the_template_names(
    own_checkpoint, make_prompts, tmp_path
):
    """A head that writes `<end>` alone: without the template's end it would go on for ever."""
    folder = own_checkpoint("qwen2")
    loaded = opened(folder, listed=1)
    weight: Any = loaded.model.get_parameter("lm_head.weight")
    weight.data[4] = 1000.0 * weight.data[4].sign()
    prompts = read_prompts(make_prompts(4))
    asked = [Asked(one, np.array(loaded.tokenizer(one.text)["input_ids"])) for one in prompts]
    out = tmp_path / "rows.parquet"
    intervene(
        loaded,
        asked,
        [Lane("plain")],
        labels=Labels("run", "pair", "pair.tuned"),
        settings=InterveneSettings(max_new=6),
        staging=tmp_path / "staging",
        out=out,
        identity={},
    )
    rows = pd.read_parquet(out)
    ended = rows["ended"].to_numpy()
    assert ended.any()
    assert (rows["n_tokens"][ended] < 6).all()


def test_where_no_plain_answer_ends_the_log_says_so(capsys):
    conditions, ended = ["harmful", "harmful", "harmless"], [False, False, True]
    assert warn_endless(conditions, ended, model="pair.tuned", max_new=12) == ["harmful"]
    told = capsys.readouterr().out
    assert "none of the 2 plain answers to 'harmful' prompts ended within 12 tokens" in told
    assert "harmless" not in told


@pytest.mark.parametrize("family", STYLES)
def test_the_zoo_lists_every_end_it_has(family):
    """So that joining them changes none of its numbers."""
    from actshift.models.tokenizers import SpecialTokens, wrap_tokenizer
    from actshift.zoo.tokenizers import train_tokenizer

    style = STYLES[family]
    core = train_tokenizer(family, ["a b c"] * 9, vocab_size=400)
    for eos in (style.special.eos, style.end_of_turn):
        special = SpecialTokens(style.special.bos, eos, style.special.pad)
        tokenizer: Any = wrap_tokenizer(core, special, chat_template=style.template)
        listed = {core.token_to_id(style.special.eos), core.token_to_id(style.end_of_turn)}
        assert {tokenizer.eos_token_id, turn_end(tokenizer)} <= listed
