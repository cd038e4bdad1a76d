"""What the files of two models tell of them as a pair."""

import json
from pathlib import Path
from typing import Any

import pytest
from reference.model_folders import ADDED, weights, write_model_folder
from safetensors.numpy import save_file

from actshift.models.findings import Sides, model_findings, pair_findings
from actshift.models.model_files import ModelFiles
from actshift.models.on_disk import Place

PLAIN = "{% for m in messages %}user: {{ m['content'] }}\n{% endfor %}assistant: "


def files(folder: Path) -> ModelFiles:
    return ModelFiles(Place(folder, whole=True))


def sides(base: Path, tuned: Path, *, exchanged: bool = False, chat: bool = True) -> Sides:
    return Sides(files(base), files(tuned), exchanged, ("rank_audit",) if chat else ())


def pair(given: Sides) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in pair_findings(given)]


def test_a_sound_pair_has_no_finding(tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "b", template=None)
    tuned = write_model_folder(tmp_path / "t")
    assert pair(sides(base, tuned, exchanged=True)) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rows": 7}, "base has 6 and tuned 7 rows of embedding and head"),
        ({"rows": 6, "head": 8}, "base has 6 and tuned 6 / 8 rows of embedding and head"),
    ],
)
def test_other_rows_stop_the_study_that_exchanges_them(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    base = write_model_folder(tmp_path / "b")
    tuned = write_model_folder(tmp_path / "t", tensors=weights(**more), vocab_size=more["rows"])
    assert [level for level, _ in pair(sides(base, tuned))] == ["warning"]
    ((level, text),) = pair(sides(base, tuned, exchanged=True))
    assert level == "error"
    assert text.startswith(said)
    assert "resize_token_embeddings, or leave localization out" in text


def test_other_shapes_and_names_stop_it_too(tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "b")
    wider, bias = weights(), weights()
    wider["model.layers.1.self_attn.q_proj.weight"] = weights(width=4)["model.embed_tokens.weight"]
    bias["model.layers.0.self_attn.q_proj.bias"] = weights()["model.embed_tokens.weight"][0]
    for tensors, said in (
        (wider, "weight model.layers.1.self_attn.q_proj.weight is [8, 8] in base and [6, 4] in"),
        (bias, "weight model.layers.0.self_attn.q_proj.bias is none in base and [8] in tuned"),
    ):
        tuned = write_model_folder(tmp_path / "t", tensors=tensors)
        ((level, text),) = pair(sides(base, tuned, exchanged=True))
        assert level == "error"
        assert text.startswith(said)


def test_weights_that_no_forward_pass_reads_are_no_difference(tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "b")
    row = weights()["model.embed_tokens.weight"][0]
    unread = {"v_head.summary.weight": row, "model.layers.0.self_attn.rotary_emb.cos_cached": row}
    tuned = write_model_folder(tmp_path / "t", tensors=weights() | unread)
    assert pair(sides(base, tuned, exchanged=True)) == []


def test_a_language_model_inside_pairs_with_a_plain_one(tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "b", model_type="ministral3")
    text = {"model_type": "ministral3", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 6}
    tuned = write_model_folder(
        tmp_path / "t",
        tensors=weights(prefix="language_model."),
        model_type="mistral3",
        text_config=text,
    )
    save_file(
        weights(prefix="language_model.")
        | {"vision_tower.x": weights()["model.embed_tokens.weight"]},
        tuned / "model.safetensors",
    )
    assert model_findings(files(tuned)) == pair(sides(base, tuned, exchanged=True)) == []


def test_two_architectures_and_two_formats_are_worth_a_warning(tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "b")
    tuned = write_model_folder(
        tmp_path / "t", model_type="mistral", quantization_config={"quant_method": "fp8"}
    )
    told = pair(sides(base, tuned))
    assert [level for level, _ in told] == ["warning", "warning"]
    assert "'llama' and tuned of 'mistral'" in told[0][1]
    assert "(not at all and fp8)" in told[1][1]


def test_template_words_that_base_does_not_know(tmp_path: Path) -> None:
    base = write_model_folder(tmp_path / "b", added=())
    tuned = write_model_folder(tmp_path / "t")
    ((level, text),) = pair(sides(base, tuned))
    assert level == "error"
    assert "'<end>', which is no token of base's tokenizer" in text
    assert "(rank_audit): put a chat_template.jinja in words that both have" in text
    assert [level for level, _ in pair(sides(base, tuned, chat=False))] == ["warning"]
    # The mend that is named.
    (tuned / "chat_template.jinja").write_text(PLAIN)
    assert pair(sides(base, tuned)) == []


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "<model>"}}}),
        ("added_tokens.json", {"<model>": 5}),
    ],
)
def test_tokens_that_only_another_file_names_count(
    tmp_path: Path, file: str, content: dict[str, Any]
) -> None:
    base = write_model_folder(tmp_path / "b", added=ADDED[:2])
    tuned = write_model_folder(tmp_path / "t", added=ADDED[:2])
    for folder in (tuned, base):
        path = folder / file
        known = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(known | content))
        expected = ["error"] if folder == tuned else []
        assert [level for level, _ in pair(sides(base, tuned))] == expected
