"""Altered runs for some seconds; ``ACON_FUZZ_SECONDS`` gives more, the script hours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import run_fuzz


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it reads /proc")
def test_altered_runs_and_plans(tmp_path: Path) -> None:
    """In a process of its own, which forks."""
    seconds = os.environ.get("ACON_FUZZ_SECONDS", "10")
    command = [sys.executable, run_fuzz.__file__, "--seconds", seconds, "--keep", str(tmp_path)]
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(int(n) for n in re.findall(r"': (\d+)", done.stdout)) > 2
