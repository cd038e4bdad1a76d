"""Other processes: what they import, and jobs that are killed midway."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
_SLOWLY = """
import importlib, pickle, sys, time
from actshift.engine import parts
module, pause, arguments = sys.argv[1:]
write = parts.write_part
def write_and_wait(rows, path):
    write(rows, path)
    time.sleep(float(pause))
parts.write_part = write_and_wait
importlib.import_module(module).run(*pickle.loads(bytes.fromhex(arguments)))
"""


def modules_after(code: str, *arguments: str) -> set[str]:
    """Names of all modules that are loaded once a new interpreter has run some code."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return set(done.stdout.splitlines()[-1].split())


def kill_when(ready: Callable[[], bool], code: str, *arguments: str) -> None:
    """Run some code in a new interpreter and SIGKILL it as soon as the condition holds.

    The code can import the tests. It must not end by itself, nor take minutes.
    """
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    job = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        deadline = time.monotonic() + 180
        while not ready():
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()


def kill_between_parts(
    ready: Callable[[], bool], module: str, *arguments: Any, pause: float = 0.2
) -> None:
    """SIGKILL the `run` of a test module, which waits a while after each part it has written."""
    kill_when(ready, _SLOWLY, module, str(pause), pickle.dumps(arguments).hex())
