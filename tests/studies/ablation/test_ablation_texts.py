"""Plain texts of the ablation stage: where they come from, and the file of their losses."""

import numpy as np
import pandas as pd
import pytest

from actshift.edits import Lane
from actshift.engine.causal import causal_model
from actshift.engine.intervene_plan import Asked
from actshift.errors import UserError
from actshift.hooks.lanes.generation import Decoder
from actshift.models.load import load_model
from actshift.prompts.records import read_prompts
from actshift.studies.ablation.stage import ZOO_TEXTS, plain_texts, text_losses
from actshift.zoo.language import language


def test_plain_texts_of_a_file_of_the_zoo_and_of_nothing(tmp_path, make_prompts):
    path = tmp_path / "texts.txt"
    path.write_text("one text\n\n another text \n")
    assert [p.text for p in plain_texts(str(path), zoo_size="micro", harmless=[], seed=0)] == [
        "one text",
        "another text",
    ]
    harmless = read_prompts(make_prompts(3))
    rest = plain_texts(None, zoo_size=None, harmless=harmless, seed=0)
    assert [p.text for p in rest] == [p.text for p in harmless]
    zoo = plain_texts(None, zoo_size="micro", harmless=harmless, seed=0)
    heldout = {noun.text for noun in language("micro").of(split="heldout")}
    assert len(zoo) == ZOO_TEXTS
    assert {p.cluster for p in zoo} == heldout
    assert all(p.cluster in p.text.lower() for p in zoo)
    assert zoo != plain_texts(None, zoo_size="micro", harmless=harmless, seed=1)
    assert len({p.id for p in zoo}) == ZOO_TEXTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        (b"\n \n", "holds no text"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
    ],
)
def test_a_file_without_texts_is_one_line(tmp_path, content, message):
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"ablation.plain_text: .*{message}"):
        plain_texts(str(path), zoo_size=None, harmless=[], seed=0)


def test_texts_of_one_token_predict_nothing(tiny_checkpoint, tmp_path):
    loaded = load_model(tiny_checkpoint("llama"), name="m", dtype="float32", device="cpu")
    decoder = Decoder(causal_model(loaded.model), frozenset({4}), pad=1)
    texts = plain_texts(None, zoo_size="micro", harmless=[], seed=0)[:3]
    asked = [Asked(p, np.arange(5, 6 + n)) for n, p in enumerate(texts)]
    out = tmp_path / "losses.parquet"
    lanes = [Lane("plain"), Lane("again")]
    text_losses(decoder, asked, lanes, token_budget=9, label="m", out=out)
    rows = pd.read_parquet(out)
    assert sorted(rows["n_tokens"]) == [1, 1, 2, 2]
    assert set(rows["text_id"]) == {texts[1].id, texts[2].id}
    nats = rows.set_index(["lane", "text_id"])["nats"]
    np.testing.assert_allclose(nats["plain"].sort_index(), nats["again"].sort_index(), rtol=1e-6)
    with pytest.raises(UserError, match="no text has two tokens"):
        text_losses(decoder, asked[:1], lanes, token_budget=9, label="m", out=out)
