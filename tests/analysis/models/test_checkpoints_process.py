"""The reading process: what would happen if a file got past the gate, and how it is held."""

import json
import os
import pickle
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import forked_reader
import forks
from acon_analysis.models.checkpoints import (
    CheckpointError,
    Limits,
    load_state_dict,
    reader_process,
)
from acon_analysis.models.checkpoints.dtypes import BY_NAME
from acon_analysis.models.checkpoints.errors import Refusal
from acon_analysis.models.checkpoints.matching import Plan, Taken
from acon_analysis.models.checkpoints.records import Contents, Storage, TensorRecord
from acon_analysis.models.checkpoints.source import Source
from acon_analysis.models.checkpoints.tensorfile import Declared, make_header
from checkpoint_files import integer, net, saved, state, torch_zip
from hostile_pickles import touch

LIMITS = Limits()
FLOAT = BY_NAME["float32"]


def past_the_gate(path: Path) -> None:
    """Hand a file to the reading process as if the gate had found one float in it."""
    record = TensorRecord(Storage("0", FLOAT, 0, 1), 0, (1,), (1,))
    plan = Plan((), (Taken("w", "w", record, (1,), FLOAT),), ())
    folder = path.parent / "work"
    folder.mkdir()
    with Source(path, LIMITS) as source:
        reader_process.convert(source, Contents("torch zip", {}, {}), plan, folder, LIMITS)


def test_code_does_not_run_in_the_process_either(tmp_path: Path) -> None:
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    path.write_bytes(torch_zip(pickle.dumps({"w": touch(canary)}, protocol=2)))
    with pytest.raises(Refusal, match=r"torch cannot read it .*GLOBAL posix.system.*blocked\.?\)$"):
        past_the_gate(path)
    assert not canary.exists()


def most_memory(path: Path) -> None:
    """Print what becomes of the file, and the most bytes that its reading process had."""
    with pytest.raises(Refusal) as refused:
        past_the_gate(path)
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    sys.stdout.write(json.dumps([str(refused.value), peak]))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the address space")
def test_a_bomb_does_not_fit_into_the_process(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_zip(b"\x80\x02cbuiltins\nbytearray\n" + integer(10**10) + b"\x85R."))
    # In a small process: a child's mark begins with what its parent used.
    done = forks.run(most_memory, path)
    assert done.returncode == 0, done.stderr
    said, peak = json.loads(done.stdout)
    assert re.search(r"torch cannot read it .MemoryError", said)
    assert peak < 1.5e9


def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> Path:
    """Put another program in the place of the reading process; return a good checkpoint."""
    child = tmp_path / "fake.py"
    child.write_text("import json, os, sys, time\n" + code)
    monkeypatch.setattr(reader_process, "_CHILD", child)
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(state()))
    return path


def assert_nothing_kept(tmp_path: Path) -> None:
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())


def test_nothing_is_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    code = (
        "open_ = []\n"
        "for number in range(3, 200):\n"
        "    try: os.fstat(number); open_.append(number)\n"
        "    except OSError: pass\n"
        "text = [sorted(os.environ), open_, os.path.basename(os.getcwd())[:4]]\n"
        "sys.stdout.write(json.dumps({'error': repr(text)[-70:]}))\n"
        "assert 'API_TOKEN' not in os.environ and 'PYTHONPATH' not in os.environ\n"
    )
    path = fake(monkeypatch, tmp_path, code)
    with pytest.raises(CheckpointError, match=r"\[\], tmp-|\], \[\], .tmp-"):
        load_state_dict(path, net())
    os.close(reading)
    os.close(writing)
    assert_nothing_kept(tmp_path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "os.kill(os.getpid(), 11)",
            "torch cannot read it .the reading process ended with SIGSEGV",
        ),
        ("sys.exit(3)", "the reading process ended with exit code 3"),
        ("sys.stdout.write('{]')", "the reading process ended with exit code 0"),
        ("sys.stdout.write('[1]')", "no answer"),
        ("sys.stdout.write('[' * 100000)", "the reading process ended with exit code 0"),
        ("sys.stdout.write('{\"error\": null}')", "no such file"),
        ('sys.stdout.write(\'{"error": "a\\\\u001b\\\\nb"}\')', r"torch cannot read it .a\\x1b b"),
    ],
)
def test_a_process_that_fails(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake(monkeypatch, tmp_path, code)
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(path, net())
    assert_nothing_kept(tmp_path)


def test_a_process_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '100']); time.sleep(100)"
    path = fake(monkeypatch, tmp_path, code)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="reading it took more than 1 s"):
        load_state_dict(path, net(), limits=Limits(seconds=1))
    assert time.monotonic() - began < 50
    assert_nothing_kept(tmp_path)


def test_a_process_that_writes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = make_header([Declared("w", FLOAT, (1,))], {})
    code = (
        "request = json.load(sys.stdin)\n"
        f"open(request['output'], 'wb').write({header + bytes(4)!r})\n"
        "sys.stdout.write(json.dumps({'error': None}))\n"
    )
    path = fake(monkeypatch, tmp_path, code)
    with pytest.raises(CheckpointError, match="wrote other tensors than it was asked for"):
        load_state_dict(path, net())
    assert_nothing_kept(tmp_path)


def test_a_process_that_writes_other_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "request = json.load(sys.stdin)\n"
        "sizes = sum(tensor['size'] for tensor in request['tensors'])\n"
        "content = request['header'].encode('latin-1') + b'\\xff' * sizes\n"
        "open(request['output'], 'wb').write(content)\n"
        "sys.stdout.write(json.dumps({'error': None}))\n"
    )
    path = fake(monkeypatch, tmp_path, code)
    with pytest.raises(CheckpointError, match="NaN in 8 tensors"):
        load_state_dict(path, net())
    assert_nothing_kept(tmp_path)


def test_without_a_python_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fake(monkeypatch, tmp_path, "")
    monkeypatch.setattr("sys.executable", "")
    with pytest.raises(CheckpointError, match="no reading process can be started"):
        load_state_dict(path, net())
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(CheckpointError, match="no reading process can be started"):
        load_state_dict(path, net())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_swapped_for_the_reading_process_alone(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is what was checked, whatever the name leads to meanwhile."""
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "cache"))
    path, run = tmp_path / "weights.pth", forked_reader.run
    good = state()
    for name, values in {"good": good, "other": {k: v + 1 for k, v in good.items()}}.items():
        (tmp_path / name).write_bytes(saved(values, legacy=legacy))
    path.symlink_to("good")

    def point(to: str) -> None:
        (tmp_path / "link").symlink_to(to)
        (tmp_path / "link").replace(path)

    def swapped(*request: Any) -> None:
        point("other")
        run(*request)
        point("good")

    monkeypatch.setattr(reader_process, "_run", swapped)
    found = load_state_dict(path, net()).state
    assert all(torch.equal(found[name], value) for name, value in good.items())
