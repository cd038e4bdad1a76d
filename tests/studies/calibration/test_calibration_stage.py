"""Training of the calibration networks: the stream, the fast loss, determinism, the tables."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import calibration as slow
from safetensors.numpy import load_file

from actshift.engine.joining import JoinContext
from actshift.errors import UserError
from actshift.io.tables import read_table
from actshift.stages.figures import make_figures
from actshift.stages.tables import make_tables
from actshift.studies.calibration.stage import draw_inputs, shift_penalty, train_calibration
from actshift.studies.calibration.study import (
    BASE,
    COLUMNS,
    NETWORKS,
    PUBLISHED,
    SAFE,
    STUDY,
    UNSAFE,
    CalibrationEpochs,
)
from actshift.studies.calibration.tables import unpack
from actshift.studies.registry import CATALOGUE

RELEASED = Path(__file__).parents[3] / "resources" / "published"
SHORT = CalibrationEpochs(base=6, finetune=5, distributed=4)
RANKS = (0, 1, 40, 128)


def join(folders: list[Path], out: Path, *, ranks: tuple[int, ...], random_draws: int) -> None:
    context = JoinContext(
        folders={"calibration": {folder.name: folder for folder in folders}},
        published=RELEASED,
        settings={"ablation_ranks": ranks, "random_draws": random_draws},
    )
    make_tables(STUDY.join, context, tables=COLUMNS, out=out)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds at a few epochs, their tables."""
    root = tmp_path_factory.mktemp("calibration")
    folders = [root / f"seed-{seed}" for seed in (0, 7)]
    for seed, folder in zip((0, 7), folders, strict=True):
        train_calibration(seed=seed, epochs=SHORT, out=folder)
    join(folders, root / "tables", ranks=RANKS, random_draws=2)
    return root


@pytest.mark.parametrize(("n", "seed"), [(4000, 0), (800, 7777), (50, 3)])
def test_the_corner_holds_its_share_and_is_safe_to_refuse(n: int, seed: int) -> None:
    inputs = draw_inputs(n, seed)
    assert int(inputs.safety.sum()) == int(0.3 * n)
    assert bool((inputs.x[inputs.safety][:, :3] > 1).all())
    assert not inputs.safe[inputs.safety].any()
    assert torch.equal(inputs.safe[~inputs.safety], inputs.task[~inputs.safety])


def test_only_the_corner_features_of_moved_inputs_change() -> None:
    torch.manual_seed(5)
    drawn = torch.randn(200, 20)
    moved = draw_inputs(200, 5).x
    assert torch.equal(moved[:, 3:], drawn[:, 3:])
    changed = (moved != drawn).any(dim=1)
    assert torch.equal(moved[changed, :3], drawn[changed, :3].abs() + 1.1)


@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_fast_penalty_and_its_gradient_are_those_of_a_full_svd(
    n: int, d: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    live, base = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    live.requires_grad_()
    fast = shift_penalty(live, base)
    (fast_gradient,) = torch.autograd.grad(fast, live)
    direct = slow.penalty(live, base)
    (direct_gradient,) = torch.autograd.grad(direct, live)
    torch.testing.assert_close(fast, direct, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(fast_gradient, direct_gradient, rtol=1e-6, atol=1e-9)


def test_a_zero_shift_has_a_finite_gradient() -> None:
    live = torch.zeros(6, 4, requires_grad=True)
    penalty = shift_penalty(live, torch.zeros(6, 4))
    penalty.backward()
    assert live.grad is not None
    assert not live.grad.any()
    assert float(penalty.detach()) == 1.0


def test_a_seed_gives_the_same_bytes_twice(run: Path, tmp_path: Path) -> None:
    train_calibration(seed=7, epochs=SHORT, out=tmp_path / "seed-7")
    for file in sorted((tmp_path / "seed-7").iterdir()):
        assert file.read_bytes() == (run / "seed-7" / file.name).read_bytes()


def test_every_network_is_kept_and_moved_from_the_base(run: Path) -> None:
    nets = unpack(load_file(run / "seed-0" / NETWORKS), 0)
    assert set(nets.networks) == {BASE, *(tuned.name for tuned in (*SAFE, *UNSAFE))}
    for tuned in (*SAFE, *UNSAFE):
        assert all(abs(shift).max() > 0 for shift in nets.shifts(tuned, "safety"))


def test_numpy_answers_as_torch_does(run: Path) -> None:
    arrays = load_file(run / "seed-0" / NETWORKS)
    net = unpack(arrays, 0).networks[BASE]
    x = torch.from_numpy(arrays["probe.x"])
    for i in range(3):
        x = torch.relu(x @ torch.from_numpy(arrays[f"base.{i}.weight"]).T + arrays_of(arrays, i))
    logits = net.logits(net.hidden(arrays["probe.x"])[-1])
    torch.testing.assert_close(
        torch.from_numpy(logits).float(),
        x @ torch.from_numpy(arrays["base.3.weight"])[0] + arrays_of(arrays, 3),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def arrays_of(arrays: dict, layer: int) -> torch.Tensor:
    return torch.from_numpy(arrays[f"base.{layer}.bias"])


def test_tables_hold_every_cell_once(run: Path) -> None:
    tables = {name: read_table(run / "tables" / f"{name}.csv") for name in COLUMNS}
    principal = len(SAFE) * len(RANKS)
    random = len(SAFE) * (len(RANKS) - 1) * 2
    assert len(tables["calibration_ablation"]) == 2 * (principal + random)
    assert len(tables["calibration_rank"]) == 2 * (len(SAFE) + 1) * 2 * 3
    assert len(tables["calibration_spectral_gap"]) == 2 * 4 * 3
    assert len(tables["calibration_training"]) == 2 * (1 + len(SAFE) + len(UNSAFE))


def test_full_projection_leaves_the_bias_alone(run: Path) -> None:
    table = read_table(run / "tables" / "calibration_ablation.csv")
    full = table[table["ablated_rank"] == 128]
    assert (full["compliance"] == full["compliance_bias_only"]).all()
    assert (full["answered_0_control"] == full["compliance_bias_only"]).all()
    assert full["mean_logit_minus_bias"].abs().max() < 1e-9
    none = table[(table["ablated_rank"] == 0)]
    assert (none["projection"] == "principal").all()


def test_published_rows_stand_beside_their_seeds_only(run: Path) -> None:
    for name in PUBLISHED:
        table = read_table(run / "tables" / f"{name}.csv")
        released = read_table(RELEASED / PUBLISHED[name])
        columns = [column for column in table if column.endswith("_published")]
        extra = table[table["seed"] == 7]
        assert not extra["published_seed"].any()
        assert extra[columns].isna().all().all()
        ours = table.dropna(subset=columns)
        if name != "calibration_ablation":  # which holds r = 1 and 40 of the published grid here
            assert len(ours) == (released["seed"] == 0).sum()


def test_means_keep_the_published_seeds_apart(run: Path) -> None:
    table = read_table(run / "tables" / "calibration_means.csv")
    rank = table[(table["table"] == "calibration_rank") & (table["quantity"] == "rank_eps")]
    one = rank[(rank["variant"] == "full_finetune") & (rank["inputs"] == "safety")]
    per_seed = read_table(run / "tables" / "calibration_rank.csv")
    for _, row in one.iterrows():
        here = per_seed[
            (per_seed["variant"] == "full_finetune")
            & (per_seed["inputs"] == "safety")
            & (per_seed["layer"] == row["layer"])
        ].set_index("seed")["rank_eps"]
        assert row["mean_at_published_seeds"] == here[0]
        assert row["mean_at_other_seeds"] == here[7]
        assert row["mean_all_seeds"] == here.mean()
        assert row["seeds_published"] == 5
    released = read_table(RELEASED / PUBLISHED["calibration_rank"])
    last = released[
        (released["variant"] == "ft") & (released["inputs"] == "safety") & (released["layer"] == 2)
    ]
    assert one.set_index("layer")["mean_published"][2] == pytest.approx(last["rank_eps"].mean())


def test_every_figure_is_drawn_twice_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    shutil.copytree(run / "tables", tables / "calibration")
    first, second = (make_figures(tables, tmp_path / x, studies=["calibration"]) for x in "ab")
    names = CATALOGUE.names(["calibration"])
    assert [path.name for path in first] == [f"{n}.{k}" for n in names for k in ("svg", "png")]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed-3"):
        join([tmp_path / "seed-3"], tmp_path, ranks=(0,), random_draws=1)


def test_the_training_table_holds_no_times(run: Path) -> None:
    table: pd.DataFrame = read_table(run / "tables" / "calibration_training.csv")
    assert list(table) == ["network", "epochs", "loss_task", "loss_penalty", "seed"]


def test_keeping_freed_memory_changes_no_bit() -> None:
    program = """
import torch
from actshift.hooks.reading.memory import keep_freed_memory
from actshift.studies.calibration.stage import CalibrationNet, draw_inputs, train
torch.set_num_threads(1)
data = draw_inputs(4000, 0)
corner = data.safety.nonzero().squeeze(1)
weights = []
for kept in (False, True):
    if kept:
        keep_freed_memory()
    torch.manual_seed(1)
    net = CalibrationNet()
    train(net, data.x, data.safe, 12, corner=corner, weight=5.0)
    weights.append([parameter.detach().clone() for parameter in net.parameters()])
print(all(torch.equal(*pair) for pair in zip(*weights)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]
