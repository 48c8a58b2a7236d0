"""Mutated checkpoints for some seconds; ``ACON_FUZZ_SECONDS`` gives more, the script hours."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import checkpoint_fuzz


@pytest.mark.slow
def test_mutated_files(tmp_path: Path) -> None:
    """In a process of its own, so that its memory is its own."""
    seconds = os.environ.get("ACON_FUZZ_SECONDS", "60")
    command = [sys.executable, checkpoint_fuzz.__file__, "--seconds", seconds]
    command += ["--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {name: int(n) for name, n in re.findall(r"'(\w+)': (\d+)", done.stdout)}
    assert counts["refused"] > 10
    assert counts["accepted"] > 0
