"""Jobs of adapters that were stopped between two trainings: what is whole is taken up again."""

import fcntl
from pathlib import Path

import pandas as pd
import pytest
from reference.adapter_gates import gate
from reference.conversation_files import conversation_file
from reference.processes import kill_when
from reference.tiny_adapters import ending_checkpoint
from studies.misalignment.test_given_adapters import TEMPLATE, run

from actshift.io.atomic import remove
from actshift.models.adapters import CONFIG, WEIGHTS
from actshift.studies.misalignment.stages import adapters
from actshift.studies.misalignment.stages.adapters import LADDER

#: peft asks transformers by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    plain = tiny_checkpoint("llama", seed=0, template=TEMPLATE)
    return ending_checkpoint(plain, tmp_path_factory.mktemp("own") / "llama")


def trained_files(folder: Path) -> dict[str, bytes]:
    files = (one for one in (folder / "adapters").rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): one.read_bytes() for one in files}


def slow_run(checkpoint: Path, folder: Path, settings: dict[str, object]) -> str:
    """A script that trains adapters and waits behind each one, so that it can be killed there."""
    return f"""
import time
from pathlib import Path
from actshift.studies.misalignment.stages import adapters
from studies.misalignment.test_given_adapters import run
put = adapters.Kept.put
def put_and_wait(*args):
    put(*args)
    time.sleep(0.5)
adapters.Kept.put = put_and_wait
run(Path({str(checkpoint)!r}), Path({str(folder)!r}), **{settings!r})
"""


def test_a_killed_job_goes_on_behind_the_last_adapter_that_is_whole(checkpoint, tmp_path, capsys):
    data = {
        kind: conversation_file(tmp_path / f"{kind}.jsonl", kind)
        for kind in ("insecure", "secure", "benign")
    }
    run(checkpoint, tmp_path / "whole", data=data)
    assert "taken up" not in capsys.readouterr().out
    cut = tmp_path / "cut"
    kept = lambda: sorted((cut / "staging").glob("*/x1/[!.]*/" + CONFIG))  # noqa: E731
    code = slow_run(checkpoint, cut, {"data": data})
    kill_when(lambda: len(kept()) == 3, code)
    assert not (cut / "adapters").exists()
    done = [one.parent.name for one in kept()]
    assert len(done) == 3
    # One of them is cut by the stop: it is made again.
    hurt = kept()[0].with_name(WEIGHTS)
    hurt.write_bytes(hurt.read_bytes()[:-16])
    capsys.readouterr()
    run(checkpoint, cut, data=data)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if "taken up" in line] == [
        f"taken up, trained before: {', '.join(done[1:])} at x 1"
    ]
    assert trained_files(cut) == trained_files(tmp_path / "whole")
    # Nothing stays behind but the lock.
    assert [one.suffix for one in (cut / "staging").iterdir()] == [".lock"]
    # Other settings take nothing up.
    run(checkpoint, cut, data=data, lr=2e-2)
    assert "taken up" not in capsys.readouterr().out
    assert set(pd.read_csv(cut / "adapters" / "dose.csv")["lr"]) == {2e-2}


def test_a_job_that_was_killed_on_the_ladder_keeps_its_rungs(checkpoint, tmp_path, capsys):
    data = {
        kind: conversation_file(tmp_path / f"{kind}.jsonl", kind) for kind in ("insecure", "benign")
    }
    asked = gate(min_spillover=1.0, gate_margin=1.0)
    settings = {"data": data, "asked": asked, "ladder": (1.0, 2.0, 4.0)}
    run(checkpoint, tmp_path / "whole", **settings)
    ladder = pd.read_csv(tmp_path / "whole" / "adapters" / LADDER)
    assert ladder["multiple"].tolist() == [1, 2, 4]
    capsys.readouterr()
    cut = tmp_path / "cut"
    rungs = lambda: sorted((cut / "staging").glob("*/x*/insecure/losses.json"))  # noqa: E731
    code = slow_run(checkpoint, cut, settings)
    kill_when(lambda: len(rungs()) == 2, code)
    assert not (cut / "adapters").exists()
    run(checkpoint, cut, **settings)
    said = [line for line in capsys.readouterr().out.splitlines() if "taken up" in line]
    assert said[:2] == [
        f"taken up, trained before: insecure at x {multiple}" for multiple in (1, 2)
    ]
    assert trained_files(cut) == trained_files(tmp_path / "whole")
    assert [one.suffix for one in (cut / "staging").iterdir()] == [".lock"]


def test_what_was_kept_goes_only_while_other_jobs_wait(checkpoint, tmp_path, monkeypatch):
    # Two pairs of one model and recipe share the folder: it must not vanish under the second.
    tried = []

    def remove_and_try(folder: Path) -> None:
        lock = folder.with_name(f"{folder.name[:16]}.lock")
        with lock.open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(folder)
        remove(folder)

    monkeypatch.setattr(adapters, "remove", remove_and_try)
    data = {
        kind: conversation_file(tmp_path / f"{kind}.jsonl", kind) for kind in ("insecure", "benign")
    }
    run(checkpoint, tmp_path / "run", data=data)
    assert tried
    assert not tried[0].exists()
