"""The refusal direction of models in which it is known what carries refusal, if anything does.

In all of them harmful and harmless prompts also differ in a subspace that nothing reads, so that
there is always a difference of means; only in one of them is there a cause among the candidates.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reference.planted import EARLY, LAYERS, Planted, planted_checkpoint, planted_prompts
from safetensors.numpy import load_file

from actshift.engine.context import JobContext
from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.studies.refusal_direction.stage import refusal_direction
from actshift.studies.refusal_direction.study import RefusalDirection
from actshift.studies.refusal_direction.tables import join

SETTINGS = RefusalDirection(openers=("i",), n_fit=30, n_select=15, n_heldout=12, max_new=4)


@dataclass(frozen=True)
class Found:
    planted: Planted
    folder: Path
    candidates: pd.DataFrame
    effects: pd.DataFrame

    @property
    def chosen(self) -> pd.Series:
        return self.candidates[self.candidates["chosen"]].iloc[0]

    def cosines(self) -> dict[tuple[int, int], float]:
        """|cos| with the planted direction of every candidate, by layer and position."""
        raw = load_file(self.folder / "direction.safetensors")["candidates"]
        norms = np.linalg.norm(raw, axis=-1)
        with np.errstate(invalid="ignore"):
            found = np.abs(raw @ self.planted.direction) / norms
        places = np.argwhere(norms > 0)
        return {(int(i), int(p) - raw.shape[1]): float(found[i, p]) for i, p in places}

    def effect(self, condition: str, edit: str, control: str = "") -> pd.Series:
        table = self.effects.fillna({"control": ""})
        names = {"condition": condition, "edit": edit, "control": control}
        keep = np.logical_and.reduce([table[key] == value for key, value in names.items()])
        (row,) = (row for _, row in table[keep].iterrows())
        return row


def find(root: Path, kind: str, seed: int) -> Found:
    planted = planted_checkpoint(root / "model", kind, seed=seed)
    refusal_direction(
        {"checkpoint": planted.folder, **planted_prompts(root, seed=seed)},
        settings=SETTINGS,
        context=JobContext("r", "p", "float32", "cpu", seed, "c", root / "staging"),
        out=root / "p",
    )
    tables = join(JoinContext({"refusal_direction": {"p": root / "p"}}, published=root, seed=seed))
    return Found(planted, root / "p", tables["refusal_direction"], tables["refusal_effect"])


@pytest.fixture(scope="module", params=[0, 1], ids=["seed0", "seed1"])
def stream(request, tmp_path_factory) -> Found:
    return find(tmp_path_factory.mktemp("stream"), "stream", request.param)


@pytest.fixture(scope="module")
def late(tmp_path_factory) -> Found:
    return find(tmp_path_factory.mktemp("late"), "late", 0)


def test_the_planted_direction_is_found_and_passes_every_filter(stream: Found) -> None:
    direction = load_file(stream.folder / "direction.safetensors")["direction"]
    cosine = abs(direction @ stream.planted.direction) / np.linalg.norm(direction)
    assert cosine > 0.95
    assert stream.chosen["verdict"] == "passes"
    assert EARLY < stream.chosen["layer"] < int(0.8 * LAYERS)


def test_a_difference_that_is_no_cause_is_no_candidate_that_passes(stream: Found) -> None:
    """Before the planted block the conditions differ too; only the scores tell the two apart."""
    cosines, table = stream.cosines(), stream.candidates
    inert = table[table["layer"] <= EARLY]
    assert len(inert) == 2
    assert (inert["norm"] > 0.3).all()
    assert not inert["passes_induce"].any()
    assert inert["bypass"].min() > 0 > table.loc[table["layer"] > EARLY, "bypass"].max()
    after = {layer: [v for (at, _), v in cosines.items() if at == layer] for layer in range(LAYERS)}
    assert max(after[EARLY]) < 1e-3
    # Block 2 answers to the planted write with more of what nothing reads: later candidates are
    # less of the cause and more of its traces.
    assert min(after[EARLY + 1]) > 0.98 > max(after[EARLY + 2])


def test_ablation_removes_refusal_and_random_directions_do_not(stream: Found) -> None:
    own, random = (stream.effect("harmful", "ablate", c) for c in ("", "random"))
    assert own["plain_refused"] == 1
    assert own["refused"] == 0
    assert own["high"] < -0.5
    assert own["p_sign_flip"] < 0.01
    assert random["draws"] == 20
    assert random["draws_low"] == 1
    assert own["kl_first"] > 100 * random["kl_first"]


def test_adding_it_makes_harmless_prompts_refused_and_random_ones_do_not(stream: Found) -> None:
    own, random = (stream.effect("harmless", "add", c) for c in ("", "random"))
    assert own["plain_refused"] == 0
    assert own["refused"] == 1
    assert random["refused"] < 0.2
    assert stream.effect("harmful", "subtract")["refused"] == 0


def test_refusal_that_no_block_reads_from_the_stream_passes_no_filter(late: Found) -> None:
    """Written by the last block: every candidate is a difference of means without any effect."""
    assert late.chosen["verdict"] == "none passes"
    assert not late.candidates["passes_induce"].any()
    assert late.candidates["bypass"].min() > 0
    assert max(late.cosines().values()) < 1e-3
    for condition, edit in (("harmful", "ablate"), ("harmful", "subtract"), ("harmless", "add")):
        row = late.effect(condition, edit)
        assert row["refused"] == row["plain_refused"] == (condition == "harmful")
        assert (row["change"], row["p_sign_flip"]) == (0, 1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("always", "no harmless prompt of the split fit that it answers"),
        ("never", "no harmful prompt of the split fit that it refuses"),
    ],
)
def test_a_model_that_always_or_never_refuses_has_no_direction(tmp_path, kind, message) -> None:
    with pytest.raises(UserError, match=f"{message} .* there is no refusal direction to find"):
        find(tmp_path, kind, 0)
    assert not (tmp_path / "p").exists()
