"""Processes that need not import torch again: forks of one that has, which the first test starts.

A fork has its own memory, signals, limits, environment, working folder and exit status. What tests
how an interpreter starts (imports, options, hash seed, planted modules) needs a fresh one.
"""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    "pytest", "torch", "pandas", "seaborn", "ipykernel.kernelapp", "acon_analysis.cli",
    "acon_hooks.figure_inputs", "acon_hooks.captures.capturing", "acon_figures.drawing",
])  # fmt: skip


def start(
    function: Callable[..., Any],
    *arguments: Any,
    folder: Path,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> ForkServerProcess:
    """Call a function like a console script; what it says goes into the folder's out and err."""
    (folder / "err").unlink(missing_ok=True)
    settings = folder.absolute(), cwd or Path.cwd(), env or dict(os.environ)
    process = SERVER.Process(target=_main, args=(*settings, function, *arguments))
    process.start()
    while process.exitcode is None and not (folder / "err").exists():
        time.sleep(0.001)
    return process


def run(
    function: Callable[..., Any],
    *arguments: Any,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    timeout: float | None = 300,
) -> subprocess.CompletedProcess[str]:
    """Call a function like a console script; return its exit status and what it said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = start(function, *arguments, folder=folder, cwd=cwd, env=env)
        process.join(timeout)
        if process.exitcode is None and process.pid:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"{function.__qualname__} did not end within {timeout} s")
        said = [(folder / name).read_text(errors="replace") for name in ("out", "err")]
        return subprocess.CompletedProcess(function.__qualname__, process.exitcode or 0, *said)


def _main(
    folder: Path, cwd: Path, env: dict[str, str], function: Callable[..., Any], *arguments: Any
) -> None:
    """Take the settings of an ordinary process, which leads its session; call the function."""
    import torch

    torch.set_num_threads(1)
    gc.set_threshold(20_000, 20, 50)  # as in conftest
    multiprocessing.set_start_method(None, force=True)
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, name in ((1, "out"), (2, "err")):
        stream = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, number)
        os.close(stream)
    sys.exit(function(*arguments))
