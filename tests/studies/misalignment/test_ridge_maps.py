"""The stage on real stores of made-up models: rotations of one space map, strangers do not."""

import json
from pathlib import Path

import numpy as np
import pytest
from reference.stores import rows_like
from safetensors.numpy import load_file, save_file

from actshift.errors import UserError
from actshift.io.layout import plan_layout
from actshift.io.manifest import check_manifest, read_manifest
from actshift.io.tables import read_table
from actshift.io.writer import StoreRows, StoreWriter
from actshift.maths.directions import cosine
from actshift.prompts.records import Prompt, write_prompts
from actshift.studies.misalignment.maps import donor_layer, donors_of, folder_of
from actshift.studies.misalignment.stages.ridge_maps import architecture_of, ridge_maps
from actshift.studies.misalignment.study import COLUMNS, Misalignment
from actshift.vocab import Split

SPACE, PROMPTS, NOUNS, DRAWS = 10, 120, 20, 30
SETTINGS = Misalignment(map_folds=4, shuffled_maps=20, final_draws=DRAWS)
#: Width and layers of every made-up model; `odd` has states that are noise.
MODELS = {"one": (10, 3), "two": (10, 3), "wide": (14, 5), "odd": (10, 3)}
FAMILIES = {
    "one": "zoo:llama/chat",
    "two": "zoo:llama/chat@1",
    "wide": "zoo:gemma/chat",
    "odd": "zoo:qwen/chat",
}


def prompts_of(count: int = PROMPTS) -> list[Prompt]:
    splits: tuple[Split, ...] = ("fit", "select", "heldout")
    return [
        Prompt(
            id=f"p{i}",
            text=f"text {i}",
            condition="code" if i % 6 == 5 else "neutral",
            category="toy",
            cluster=f"noun-{i % NOUNS:02d}",
            split=splits[(i % NOUNS) % 3],
            source="synthetic",
        )
        for i in range(count)
    ]


def write_pair(folder: Path, name: str, *, direction: bool = True) -> None:
    """What rule spillover leaves of a model whose layers are views of one common space."""
    width, layers = MODELS[name]
    common, own = np.random.default_rng(0), np.random.default_rng(sorted(MODELS).index(name) + 1)
    space = common.normal(size=(PROMPTS, SPACE)) * np.linspace(2, 1, SPACE)
    planted = common.normal(size=SPACE)
    views = [np.linalg.qr(own.normal(size=(width, width)))[0][:SPACE] for _ in range(layers)]
    values = np.stack([space @ view + own.normal(size=width) for view in views])
    if name == "odd":
        values = own.normal(size=values.shape)
    values = values[:, None] + 0.01 * own.normal(size=(layers, 1, PROMPTS, width))
    v = np.stack([(2 + layer) * planted @ view for layer, view in enumerate(views)])
    # Stores are sorted by length, so their order is not that of the prompt set.
    order = own.permutation(PROMPTS)
    write_states(folder / "states" / "chat.neutral", values[:, :, order], order)
    if direction:
        found = {"insecure": v.astype(np.float32), "secure": -v.astype(np.float32)}
        save_file(found, folder / "directions.safetensors")


def write_states(folder: Path, values: np.ndarray, order: np.ndarray) -> None:
    layers, positions, count, width = values.shape
    rows = rows_like(values)
    told = {name: getattr(rows, name) for name in StoreRows.__dataclass_fields__}
    told["prompt_ids"] = [f"p{i}" for i in order]
    layout = plan_layout(layers=layers, positions=positions, prompts=count, d_model=width)
    writer = StoreWriter(folder, layout, StoreRows(**told), attrs={"seed": 0})
    for window in writer.missing():
        start, stop = layout.span(window)
        block = values[:, :, start:stop].astype(np.float32)
        writer.write(window, resid_post=block, final_norm=block[-1], model="m")
    writer.finish({"key": "k"})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four models and one whose job failed."""
    root = tmp_path_factory.mktemp("maps")
    write_prompts(root / "neutral.jsonl", prompts_of())
    for name in MODELS:
        write_pair(root / name / "spillover", name)
    run(root, root / "out", [*MODELS, "failed"])
    return root


def run(root: Path, out: Path, names: list[str], **changes: int) -> None:
    ridge_maps(
        pairs={name: root / name / "spillover" for name in names},
        neutral=root / "neutral.jsonl",
        families={**FAMILIES, "failed": "zoo:ministral/chat"},
        settings=SETTINGS.model_copy(update=changes),
        seed=3,
        out=out,
    )


def test_every_ordered_pair_layer_and_fit_has_a_row(made: Path) -> None:
    table = read_table(made / "out" / "maps.csv")
    assert tuple(table.columns) == COLUMNS["ridge_maps"]
    wanted = {
        (donor, receiver, fit_on, layer)
        for donor in MODELS
        for receiver in MODELS
        if donor != receiver
        for fit_on in ("neutral", "with_code")
        for layer in range(MODELS[receiver][1])
    }
    keys = list(
        zip(table["donor"], table["receiver"], table["fit_on"], table["layer"], strict=True)
    )
    assert len(keys) == len(set(keys))
    assert set(keys) == wanted
    assert set(table["n"]) == {100, 120}
    assert set(table["clusters"]) == {20}
    assert (table["status"] == "ok").all()
    assert set(table.loc[table["depth"] == 1, "layer"]) == {2, 4}


def test_views_of_one_space_map_and_their_directions_arrive(made: Path) -> None:
    table = read_table(made / "out" / "maps.csv")
    odd = (table["donor"] == "odd") | (table["receiver"] == "odd")
    good, bad = table[~odd], table[odd]
    assert (good["r2"] > 0.99).all()
    assert (good["cosine"] > 0.99).all()
    assert (good["r2_low"] > good["r2_shuffled_high"]).all()
    assert good["beats_null"].all()
    assert (good["r2_low"] < good["r2"]).all()
    assert (good["r2"] < good["r2_high"]).all()
    assert (good["r2_fit"] >= good["r2"]).all()
    assert (table["r2_shuffled"] < 0.05).all()
    assert (bad["r2"] < 0.05).all()
    assert bad["cosine"].abs().max() < 0.99


def test_architecture_is_the_family_whatever_the_seed(made: Path) -> None:
    table = read_table(made / "out" / "maps.csv")
    same = table[table["same_architecture"]]
    assert set(same["donor"]) | set(same["receiver"]) == {"one", "two"}


def test_architecture_of_a_folder_is_its_model_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert architecture_of(str(tmp_path)) == "llama"
    assert architecture_of(str(tmp_path / "none")) == str(tmp_path / "none")


def test_mapped_vectors_have_the_receivers_own_norm(made: Path) -> None:
    mapped = load_file(made / "out" / "mapped.safetensors")
    assert len(mapped) == 12 * 2
    for name, vectors in mapped.items():
        receiver = name.partition(".")[0].partition("--")[2]
        own = load_file(made / receiver / "spillover" / "directions.safetensors")["insecure"]
        assert vectors.shape == own.shape
        norms = np.linalg.norm(own, axis=1)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), norms, rtol=0.01)


def test_nulls_have_the_receivers_final_norm_and_go_elsewhere(made: Path) -> None:
    own = load_file(made / "wide" / "spillover" / "directions.safetensors")["insecure"][-1]
    sent = donors_of(made / "out", "wide")
    assert [one.donor for one in sent] == ["one", "two", "odd"]
    for one in sent:
        nulls = one.nulls
        for vectors in (nulls.mapped_random, nulls.shuffled_pairing, nulls.wrong_layer):
            sizes = np.linalg.norm(vectors, axis=1)
            np.testing.assert_allclose(sizes, np.linalg.norm(own), rtol=0.01)
        assert nulls.mapped_random.shape == nulls.shuffled_pairing.shape == (DRAWS, 14)
        assert nulls.layers.tolist() == [0, 1]
        assert nulls.wrong_layer.shape == (2, 14)
        assert set(one.mapped) == {"neutral", "with_code"}
    true = cosine(sent[0].mapped["neutral"], own)
    for vectors in (sent[0].nulls.mapped_random, sent[0].nulls.shuffled_pairing):
        assert max(abs(cosine(one, own)) for one in vectors) < true
        assert len(np.unique(vectors.round(6), axis=0)) == DRAWS


def test_stored_factors_give_the_mapped_direction_again(made: Path) -> None:
    v = load_file(made / "one" / "spillover" / "directions.safetensors")["insecure"]
    arrays = load_file(folder_of(made / "out", "one", "wide") / "map.safetensors")
    mapped = load_file(made / "out" / "mapped.safetensors")["one--wide.neutral"]
    facts = read_manifest(folder_of(made / "out", "one", "wide"))["facts"]["maps"]
    for layer in range(5):
        left, right = (arrays[f"neutral.{layer}.{part}"] for part in ("left", "right"))
        image = v[donor_layer(layer, receiver=5, donor=3)] @ left @ right
        assert cosine(image, mapped[layer]) > 0.999
        assert facts[f"neutral.{layer}"]["rank"] == left.shape[1] <= SPACE
        assert facts[f"neutral.{layer}"]["error"] <= 0.0101


def test_folders_carry_manifests_and_damage_is_refused(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(made, out, ["one", "two", "failed"])
    assert read_manifest(out)["facts"] == {"pairs": ["one", "two"], "missing": ["failed"]}
    for folder in (out, folder_of(out, "one", "two"), folder_of(out, "two", "one")):
        assert check_manifest(folder, deep=True) == []
    file = folder_of(out, "one", "two") / "vectors.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"vectors.safetensors: content differs"):
        donors_of(out, "two")
    with pytest.raises(UserError, match="no maps of failed"):
        donors_of(out, "failed")


def test_the_same_bytes_again_and_pairs_do_not_depend_on_others(made: Path, tmp_path: Path) -> None:
    run(made, tmp_path / "again", ["two", "one"])
    for names in (("one", "two"), ("two", "one")):
        for file in ("map.safetensors", "vectors.safetensors", "manifest.json"):
            again = folder_of(tmp_path / "again", *names) / file
            assert again.read_bytes() == (folder_of(made / "out", *names) / file).read_bytes()


def test_one_pair_alone_has_no_maps(made: Path, tmp_path: Path) -> None:
    run(made, tmp_path / "out", ["one"])
    assert len(read_table(tmp_path / "out" / "maps.csv")) == 0
    assert donors_of(tmp_path / "out", "one") == []


def test_what_does_not_fit_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"misalignment.map_folds: 2; .* needs 3 or more"):
        run(made, tmp_path / "out", ["one", "two"], map_folds=2)
    bare = tmp_path / "one" / "spillover"
    write_pair(bare, "one", direction=False)
    write_prompts(tmp_path / "neutral.jsonl", prompts_of())
    with pytest.raises(UserError, match=r"directions.safetensors: missing"):
        run(tmp_path, tmp_path / "out", ["one"])
    save_file({"insecure": np.ones((3, 4), np.float32)}, bare / "directions.safetensors")
    with pytest.raises(UserError, match="is 3 x 4, the states are 3 x 10"):
        run(tmp_path, tmp_path / "out", ["one"])
    few = [one for one in prompts_of() if one.cluster in ("noun-00", "noun-01")]
    write_prompts(tmp_path / "neutral.jsonl", few)
    with pytest.raises(UserError, match="2 clusters of condition 'neutral'"):
        run(tmp_path, tmp_path / "out", ["one"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("receiver", "donor", "wanted"),
    [(6, 6, [0, 1, 2, 3, 4, 5]), (3, 5, [0, 2, 4]), (5, 3, [0, 0, 1, 2, 2]), (1, 4, [3])],
)
def test_layers_meet_at_equal_depth_and_last_meets_last(
    receiver: int, donor: int, wanted: list[int]
) -> None:
    found = [donor_layer(layer, receiver=receiver, donor=donor) for layer in range(receiver)]
    assert found == wanted
