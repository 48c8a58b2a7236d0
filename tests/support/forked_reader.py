"""The reading process of checkpoints as a fork, which need not import torch again."""

import io
import json
import os
import runpy
import sys
import warnings
from pathlib import Path

import pytest

from acon_analysis.models.checkpoints import reader_process
from acon_analysis.models.checkpoints.limits import Limits


def use(patch: pytest.MonkeyPatch) -> None:
    """Read by forks; true processes are those of test_checkpoints_process and the fuzzer."""
    if hasattr(os, "fork"):
        patch.setattr(reader_process, "_run", run)


def run(request: dict[str, object], folder: Path, limits: Limits) -> None:
    """Answer a request like `reader_process._run`, with the same program and its own limits."""
    reply = folder / "reply.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where there are threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            sys.stdin = io.StringIO(json.dumps(request))
            with reply.open("w") as sys.stdout:
                runpy.run_path(str(reader_process._CHILD), run_name="__main__")
            code = 0
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reader_process._require_done(reply.read_bytes(), status)
