"""The reading process of checkpoints as a fork, which need not import torch again."""

import io
import json
import runpy
import sys
from pathlib import Path

import pytest

import forks
from acon_analysis.models.checkpoints import reader_process
from acon_analysis.models.checkpoints.limits import Limits


def use(patch: pytest.MonkeyPatch) -> None:
    """Read by forks; true processes are those of test_checkpoints_process and the fuzzer."""
    patch.setattr(reader_process, "_run", run)


def run(request: dict[str, object], folder: Path, limits: Limits) -> None:
    """Answer a request like `reader_process._run`, with the same program and its own limits."""
    done = forks.run(answer, json.dumps(request), cwd=folder)
    reader_process._require_done(done.stdout.encode(), done.returncode)


def answer(request: str) -> None:
    """Run the program of the reading process."""
    sys.stdin = io.StringIO(request)
    runpy.run_path(str(reader_process._CHILD), run_name="__main__")
