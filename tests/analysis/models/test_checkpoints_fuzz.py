"""Mutated checkpoints for some seconds; ``ACON_FUZZ_SECONDS`` gives more, the script hours."""

import os
from pathlib import Path

import pytest

from checkpoint_fuzz import fuzz


@pytest.mark.slow
def test_mutated_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    seconds = float(os.environ.get("ACON_FUZZ_SECONDS", "15"))
    counts, problems = fuzz(seconds, 0, tmp_path / "files", tmp_path / "cache")
    assert not problems
    assert counts["refused"] > 10
    assert counts["accepted"] > 0
