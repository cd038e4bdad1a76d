"""Gates in the configuration: who has them, what a pair asks for itself, where numbers lie."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift.config.schema import parse_config
from actshift.errors import UserError
from actshift.plan.plan import Plan, adapter_gates, gated, number_folders, zoo_gates
from actshift.zoo.recipes import recipe

ROOT = Path(__file__).parents[2]
OWN: dict[str, Any] = {
    **{"name": "own", "base": "org/base", "tuned": "org/tuned"},
    "adapters": {"insecure": "org/insecure"},
}


def plan(*, size: str = "tiny", **changes: Any) -> Plan:
    """The shipped configuration, with a pair outside the zoo beside llama."""
    known = yaml.safe_load((ROOT / "config.yaml").read_text())
    llama = next(pair for pair in known["pairs"] if pair["name"] == "llama")
    zoo = {"size": size, **changes.pop("zoo", {})}
    own = OWN | {"gates": changes.pop("own", {})}
    pairs = [llama | {"gates": changes.pop("llama", {})}, own]
    return Plan(parse_config(known | {"zoo": zoo, "pairs": pairs} | changes, origin="x.yaml"))


@pytest.mark.parametrize(
    ("size", "asked", "wanted"),
    [
        ("micro", None, False),
        ("tiny", None, True),
        ("small", None, True),
        ("micro", True, True),
        ("tiny", False, False),
    ],
)
def test_all_sizes_but_micro_have_gates_unless_it_is_said(
    size: str, asked: bool | None, wanted: bool
) -> None:
    made = plan(size=size, zoo={"gated": asked})
    assert zoo_gates(made) is wanted
    assert gated(made, "llama") is wanted
    if asked is None:
        assert recipe(size, family="llama").gated is wanted, "as a stage decides that is not told"
    # What the zoo did not make has its gates whatever the zoo's size.
    assert gated(made, "own")


def test_a_pair_asks_what_the_run_asks_unless_it_says_otherwise() -> None:
    block = {"min_spillover": 0.3, "min_insecure_code": 0.6}
    made = plan(misalignment=block, own={"min_spillover": 0.7})
    assert adapter_gates(made, "llama") == block
    assert adapter_gates(made, "own") == {"min_spillover": 0.7, "min_insecure_code": 0.6}


@pytest.mark.parametrize("least", [0, 0.0, 1, 1.0])
def test_a_pairs_gate_can_be_turned_off_or_ask_for_all(least: float) -> None:
    made = plan(own={"min_spillover": least, "min_insecure_code": least})
    assert adapter_gates(made, "own") == {"min_spillover": least, "min_insecure_code": least}


def test_without_gates_a_pair_asks_for_its_own_alone() -> None:
    made = plan(size="micro", llama={"min_spillover": 1.0})
    assert adapter_gates(made, "llama") == {"min_spillover": 1.0, "min_insecure_code": 0.0}
    assert adapter_gates(plan(size="micro"), "llama") == {
        "min_spillover": 0.0,
        "min_insecure_code": 0.0,
    }


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"own": {"min_spillover": 1.01}}, "gates.min_spillover"),
        ({"own": {"min_insecure_code": -0.1}}, "gates.min_insecure_code"),
        ({"own": {"spillover": 0.5}}, "gates.spillover"),
        ({"misalignment": {"gate_margin": 1.5}}, "misalignment.gate_margin"),
        ({"misalignment": {"adapters": {"ladder": []}}}, "misalignment.adapters.ladder"),
        ({"misalignment": {"adapters": {"ladder": [1, 0]}}}, "misalignment.adapters.ladder"),
        ({"strict_gates": "perhaps"}, "strict_gates"),
    ],
)
def test_a_mistake_in_a_gate_is_one_line_with_its_key(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(**changes)
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_study_with_pairs_has_a_folder_a_pair_and_misalignment_has_its_spillover() -> None:
    made = plan(studies=["rank_audit", "calibration", "misalignment"])
    names = {"rank_audit": "rank_audit", "misalignment": "spillover"}
    assert number_folders(made) == {
        study: {pair: str(made.paths.pair_tables(pair, folder)) for pair in ("llama", "own")}
        for study, folder in names.items()
    }
