"""What tests run in a fork is a process of its own."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import forks


def described(*names: str) -> None:
    sys.stderr.write("seen before" if hasattr(sys, "seen") else "new")
    sys.seen = True  # type: ignore[attr-defined]
    started_by = "torch" in sys.modules, os.getpid() == os.getsid(0)
    found = [str(Path.cwd()), [os.environ.get(name) for name in names], *started_by]
    sys.stdout.write(json.dumps(found))


def test_each_has_its_own_memory_folder_and_environment(tmp_path: Path) -> None:
    for number in ("1", "2"):
        done = forks.run(described, "ONLY", "PATH", cwd=tmp_path, env={"ONLY": number})
        assert (done.returncode, done.stderr) == (0, "new")
        assert json.loads(done.stdout) == [str(tmp_path), [number, None], True, True]


def test_it_ends_like_a_console_script() -> None:
    assert forks.run(int, "7").returncode == 7
    said = forks.run(sys.exit, "a reason")
    assert (said.returncode, said.stderr) == (1, "a reason\n")
    failed = forks.run(int, "seven")
    assert failed.returncode == 1
    assert "ValueError: invalid literal" in failed.stderr
    assert forks.run(signal.raise_signal, signal.SIGTERM).returncode == -signal.SIGTERM


def test_what_does_not_end_is_ended() -> None:
    with pytest.raises(TimeoutError, match=r"sleep did not end within 0\.1 s"):
        forks.run(time.sleep, 60, timeout=0.1)
