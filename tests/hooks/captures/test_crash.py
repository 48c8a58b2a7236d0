"""Captures killed with SIGKILL at random moments: nothing lost, nothing twice, the same bytes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from acon_analysis.runs.verify import verify_run
from captures import contents


def kill_and_continue(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    child = Path(__file__).parents[2] / "support" / "crash_child.py"
    done = subprocess.run(
        [sys.executable, str(child), str(folder), str(kills), str(seed)],
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(folder: Path, found: dict[str, Any]) -> None:
    expected = contents(folder / "whole")
    for number in range(found["runs"]):
        out = folder / f"run{number}"
        verified = verify_run(out)
        assert verified.sound, verified.problems
        assert (verified.captured, verified.bad) == (61, 0)
        assert contents(out) == expected
        assert not (out / "tmp").exists()


def test_killed_at_25_random_moments(tmp_path: Path) -> None:
    found = kill_and_continue(tmp_path, 25, seed=0)
    assert found["killed"] >= 25
    assert len(set(found["done"])) > 2, "all kills came at the same stage"
    check(tmp_path, found)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_100_random_moments(tmp_path: Path, seed: int) -> None:
    check(tmp_path, kill_and_continue(tmp_path, 100, seed))
