from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from actshift.config.schema import parse_config
from actshift.errors import UserError
from actshift.plan.plan import Plan

ROOT = Path(__file__).parents[2]
SHIPPED = yaml.safe_load((ROOT / "config.yaml").read_text())
# Without the studies that need references or training data: a test may put pairs of its own.
MORE = ("spectral_gap", "misalignment")
DEMO = {**SHIPPED, "studies": [s for s in SHIPPED["studies"] if s not in MORE]}


def plan(**changes: object) -> Plan:
    return Plan(parse_config({**DEMO, **changes}, origin="config.yaml"))


def pair(**changes: object) -> dict[str, object]:
    return {"name": "own", "base": "org/base", "tuned": "org/tuned", **changes}


@pytest.mark.parametrize(
    "path",
    [
        "config.yaml",
        "config/zoo.yaml",
        "config/ranges.yaml",
        "config/full.yaml",
        "config/seeds.yaml",
        "config/localization.yaml",
        "config/misalignment.yaml",
        "config/paper.yaml",
    ],
)
def test_shipped_configs_are_valid(path: str) -> None:
    Plan(parse_config(yaml.safe_load((ROOT / path).read_text()), origin=path)).check()


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"rank_audit": {"epz": 1}}, ["rank_audit.epz", "unknown key", "did you mean 'eps'"]),
        ({"rank_audit": {"eps": 2}}, ["rank_audit.eps", "less than 1", "value 2"]),
        ({"pairs": [pair(bse="x")]}, ["pairs.0.bse", "allowed: name, base, tuned"]),
        ({"studies": ["rank"]}, ["studies.0", "'rank_audit'", "value 'rank'"]),
        ({"only": "lama"}, ["only", "'lama'", "llama, qwen"]),
        ({"zoo": {"size": "big"}}, ["zoo.size", "'tiny'", "value 'big'"]),
        ({"pairs": [pair(), pair()]}, ["two pairs are called 'own'"]),
        ({"prompts": {"harmful": {"source": "file"}}}, ["prompts.harmful", "needs the key path"]),
        ({"calibration": {"seeds": [0, 0]}}, ["calibration.seeds", "must differ"]),
        ({"calibration": {"ablation_ranks": [129]}}, ["calibration.ablation_ranks.0", "value 129"]),
        ({"conditions": {"harmful": "x"}}, ["conditions.harmful", "'x'", "concepts, harmful"]),
        ({"judge": {"endpoint": "localhost:8000"}}, ["judge.endpoint", "http://localhost:8000/v1"]),
        ({"judge": {"endpoint": "http://a/v1"}}, ["judge", "endpoint needs the key model"]),
    ],
)
def test_a_mistake_is_one_line_naming_key_value_and_what_is_allowed(
    changes: dict[str, object], parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        plan(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ["config.yaml", *parts])


@pytest.mark.parametrize(
    "judge",
    [
        {"api_key_env": "sk-secret1"},
        {"api_key_env": "hf_secret1"},
        {"endpoint": "https://user:secret1@host/v1", "model": "m"},
        {"endpoint": "https://host/v1?key=secret1", "model": "m"},
    ],
)
def test_a_key_in_the_configuration_is_refused_and_not_repeated(judge: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"judge\.(api_key_env|endpoint): ") as caught:
        plan(judge=judge)
    assert "secret1" not in str(caught.value)


def test_an_endpoint_may_be_given_with_the_path_that_is_asked() -> None:
    for url in ("http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"):
        judge = {"endpoint": url, "model": "m", "api_key_env": "JUDGE_KEY"}
        assert plan(judge=judge).config.judge.endpoint == "http://h:1/v1"


def test_missing_required_key_is_named() -> None:
    with pytest.raises(UserError, match=r"config\.yaml: run: this key is required"):
        parse_config(
            {key: value for key, value in DEMO.items() if key != "run"}, origin="config.yaml"
        )


def test_a_missing_prompt_file_is_refused_before_the_dag() -> None:
    sets = {**DEMO["prompts"], "harmful": {"source": "file", "path": "nowhere.csv"}}
    with pytest.raises(UserError, match=r"prompts\.harmful\.path: no file 'nowhere\.csv'"):
        plan(prompts=sets).check()


def local_model(folder: Path, *, layers: int, width: int) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(
        f'{{"model_type": "llama", "num_hidden_layers": {layers}, "hidden_size": {width}}}'
    )
    return str(folder)


@pytest.mark.parametrize(("layers", "width"), [(3, 64), (2, 32)])
def test_a_pair_must_have_one_depth_and_width(tmp_path: Path, layers: int, width: int) -> None:
    base = local_model(tmp_path / "base", layers=2, width=64)
    tuned = local_model(tmp_path / "tuned", layers=layers, width=width)
    with pytest.raises(UserError, match=rf"pairs\.own: .*\(2, 64\).*\({layers}, {width}\)"):
        plan(pairs=[pair(base=base, tuned=tuned)]).check()


def test_a_missing_file_of_plain_texts_is_refused_where_the_ablation_runs(tmp_path: Path) -> None:
    texts = {"plain_text": str(tmp_path / "texts.txt")}
    plan(ablation=texts, studies=["rank_audit"]).check()
    chosen = plan(ablation=texts)
    with pytest.raises(UserError, match=r"ablation\.plain_text: no file '.*texts\.txt'"):
        chosen.check()
    (tmp_path / "texts.txt").write_text("one\n")
    chosen.check()
    assert chosen.plain_text_inputs() == [tmp_path / "texts.txt"]


def test_a_file_of_plain_texts_is_named_as_snakemake_names_files() -> None:
    (here,) = plan(ablation={"plain_text": "./texts.txt"}).plain_text_inputs()
    (home,) = plan(ablation={"plain_text": "~/texts.txt"}).plain_text_inputs()
    assert str(here) == "texts.txt"
    assert home == Path.home() / "texts.txt"


def test_a_missing_model_folder_names_the_pair_and_side(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pairs\.own\.base: model folder .*nowhere"):
        plan(pairs=[pair(base=str(tmp_path / "nowhere"))]).check()


def test_one_revision_string_serves_both_models() -> None:
    chosen = plan(pairs=[pair(revision="v1")])
    assert {str(model.source) for model in chosen.models.values()} == {
        "org/base@v1",
        "org/tuned@v1",
    }


def test_only_narrows_the_pairs_and_their_zoo() -> None:
    chosen = plan(only="qwen, llama")
    assert [p.name for p in chosen.config.chosen_pairs] == ["llama", "qwen"]
    assert chosen.zoo == [
        (f"{family}-tiny-s0", variant)
        for family in ("llama", "qwen")
        for variant in ("base", "chat")
    ]


def test_chat_streams_take_the_tuned_models_template() -> None:
    chosen = plan()
    tuned = chosen.paths.checkpoint("llama.tuned")
    assert chosen.template_from("llama.base", "chat") == [tuned]
    assert chosen.template_from("llama.base", "raw") == []


REFERENCES = {
    "lora": "zoo:llama/comply_lora",
    "cut": "abliterated",
    "other": {"source": "org/other", "revision": "v2"},
}
GAP = ("rank_audit", "refusal_direction", "spectral_gap")


def with_references(studies=GAP, **references: object) -> Plan:
    return plan(pairs=[pair(references=references or REFERENCES)], studies=list(studies))


def test_references_are_models_of_their_pair_with_one_stream() -> None:
    chosen = with_references()
    assert chosen.references("own") == ["own.lora", "own.cut", "own.other"]
    assert str(chosen.models["own.other"].source) == "org/other@v2"
    assert [(s.prompt_set, s.template) for s in chosen.streams_of("own.cut")] == [
        ("harmful", "chat")
    ]
    assert chosen.made_folder("own.cut") == chosen.paths.abliterated("own")
    assert chosen.template_from("own.lora", "chat") == [chosen.paths.checkpoint("own.tuned")]
    assert [folder.parent.name for folder in chosen.gap_stores("own")] == [
        "own.base",
        "own.tuned",
        *chosen.references("own"),
    ]


def test_the_stores_of_the_audit_do_not_grow_with_references() -> None:
    audit, gap = (plan(pairs=[pair(references=REFERENCES)], studies=s) for s in (GAP[:2], GAP))
    assert audit.references("own") == []
    assert gap.stores("own") == audit.stores("own")
    assert gap.unread_stores() == audit.unread_stores()
    assert gap.streams("own") == audit.streams("own")


def test_a_reference_of_the_zoo_is_trained_from_chat() -> None:
    chosen = with_references()
    assert chosen.zoo == [("llama-tiny-s0", "comply_lora")]
    chat = chosen.paths.zoo("llama-tiny-s0", "chat")
    assert chosen.zoo_parent("llama-tiny-s0", "comply_lora") == chat
    assert chosen.zoo_parent("llama-tiny-s0", "base") is None


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: with_references(tuned="org/x"), "'tuned' is one of the pair's own two models"),
        (lambda: with_references(GAP[::2]), "references.cut: 'abliterated' is made from the"),
        (lambda: plan(pairs=[pair()], studies=["spectral_gap"]), "no pair has any; add pairs"),
        (lambda: with_references(x={"source": "org/x", "rev": "y"}), "unknown key 'rev'"),
        (lambda: with_references(x="nowhere").models, "references.x: model source 'nowhere'"),
        (
            lambda: with_references(x={"source": "abliterated", "revision": "main"}).models,
            "references.x: model source 'abliterated' is made by the run",
        ),
        (lambda: plan(pairs=[pair(base="abliterated")]).models, "pairs.own.base: model source"),
    ],
)
def test_a_wrong_reference_is_one_line(call: Callable[[], object], part: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_needs_the_depth_and_width_of_its_pair(tmp_path: Path) -> None:
    base, tuned = (local_model(tmp_path / n, layers=2, width=64) for n in ("base", "tuned"))
    other = local_model(tmp_path / "other", layers=2, width=32)
    one = pair(base=base, tuned=tuned, references={"x": other})
    with pytest.raises(UserError, match=r"pairs\.own\.references\.x: .*\(2, 32\).*\(2, 64\)"):
        plan(pairs=[one], studies=list(GAP)).check()
    one["references"] = {"x": str(tmp_path / "nowhere")}
    with pytest.raises(UserError, match=r"pairs\.own\.references\.x: model folder .*nowhere"):
        plan(pairs=[one], studies=list(GAP)).check()
