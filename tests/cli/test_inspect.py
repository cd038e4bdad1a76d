import json
from pathlib import Path

import numpy as np
import pytest


def facts_of(result: object) -> dict:
    assert getattr(result, "exit_code", None) == 0, result
    return json.loads(result.stdout)  # type: ignore[attr-defined]


def test_json_holds_dims_coordinates_and_norms(actshift, store: Path) -> None:
    facts = facts_of(actshift("inspect", store, "--json"))
    assert facts["dims"] == {"layer": 3, "position": 2, "prompt": 6, "d_model": 8}
    assert facts["coords"]["position"] == "-2 to -1"
    assert facts["coords"]["valid"] == "11 of 12 rows"
    assert facts["attrs"]["model"] == "p.base"
    assert facts["manifest"] == {"key": "k"}
    norms = [facts["layer_norms"][str(layer)] for layer in range(3)]
    assert norms == pytest.approx(np.array([1, 2, 3]) * np.sqrt(8))


def test_a_layer_by_position(actshift, store: Path) -> None:
    facts = facts_of(actshift("inspect", store, "--layer", 1, "--json"))
    assert facts["layer"] == 1
    assert facts["position_norms"]["-2"]["rows"] == 5
    assert facts["position_norms"]["-1"]["max"] == pytest.approx(2 * np.sqrt(8))
    assert "layer_norms" not in facts


def test_the_array_inside_may_be_named(actshift, store: Path) -> None:
    inside = facts_of(actshift("inspect", store / "acts.zarr", "--json"))
    outside = facts_of(actshift("inspect", store, "--json"))
    assert {**inside, "store": ""} == {**outside, "store": ""}


@pytest.mark.parametrize("options", [[], ["--layer", "2"]])
def test_the_tables_show_the_same(actshift, store: Path, options: list[str]) -> None:
    result = actshift("inspect", store, *options)
    assert result.exit_code == 0
    assert "layer 3, position 2, prompt 6, d_model 8" in result.stdout
    assert "8.48528" in result.stdout
    assert "[bold]" in result.stdout, "a value in brackets is no markup"


def test_mistakes_are_one_line(actshift, store: Path, tmp_path: Path) -> None:
    cases = {
        (tmp_path / "nowhere",): "no such file or folder",
        (tmp_path,): "has no acts.zarr",
        (tmp_path / "nowhere/acts.zarr",): "no such file or folder",
        (store, "--layer", 9): "has no layer 9; it has 0 to 2",
        (store / "manifest.json",): "has no acts.zarr",
    }
    for arguments, part in cases.items():
        result = actshift("inspect", *arguments)
        assert result.exit_code == 2, arguments
        assert part in result.stderr
        assert result.stderr.count("\n") == 1
