"""Altered runs for some seconds; ``ACON_FUZZ_SECONDS`` gives more, the script hours."""

import os
import re
from pathlib import Path

import pytest

import forks
import run_fuzz


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it reads /proc")
def test_altered_runs_and_plans(tmp_path: Path) -> None:
    """In a process of its own, which forks."""
    seconds = os.environ.get("ACON_FUZZ_SECONDS", "10")
    done = forks.run(run_fuzz.main, ["--seconds", seconds, "--keep", str(tmp_path)], timeout=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(int(n) for n in re.findall(r"': (\d+)", done.stdout)) > 2
