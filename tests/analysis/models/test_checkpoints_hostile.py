"""Hostile files: each gets one readable error; nothing runs, nothing is written."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

import forks
import hostile_contents
import hostile_files
import hostile_pickles
import hostile_tensors
from acon_analysis.models.checkpoints import CheckpointError, load_state_dict, loading
from checkpoint_files import CORPUS, net, saved, state

# The four modules fill the corpus as they are imported.
MAKERS = (hostile_contents, hostile_files, hostile_pickles, hostile_tensors)
assert len(CORPUS) > 100, MAKERS


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let no file get as far as the reading process; return the cache folder, not yet made."""
    monkeypatch.setattr(loading, "convert", lambda *_: pytest.fail("the gate let it through"))
    monkeypatch.setenv("ACON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", CORPUS)
def test_every_hostile_file_is_refused_at_the_gate(name: str, tmp_path: Path) -> None:
    message, make = CORPUS[name]
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    make(path, canary)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(path, net())
    said = str(caught.value)
    assert re.search(message, said), said
    assert said.startswith(f"cannot use the checkpoint '{str(path)[:79]}"), said
    assert said.isprintable()
    assert len(said) < 900
    assert caught.value.__cause__ is None
    assert not canary.exists()
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_file_names_a_near_one(tmp_path: Path) -> None:
    (tmp_path / "resnet50.pth").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"no such file; did you mean 'resnet50.pth'\?"):
        load_state_dict(tmp_path / "resent50.pth", net())
    with pytest.raises(CheckpointError, match="no such file"):
        load_state_dict(tmp_path / "no" / "folder.pth", net())


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_file_names(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"not a file name|cannot be opened"):
        load_state_dict(name, net())


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(state()))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"may not be read .permission denied."):
        load_state_dict(path, net())


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_file_named_safetensors(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(saved(state(), legacy=legacy))
    with pytest.raises(CheckpointError, match=r"in spite of its ending; rename it to .pth"):
        load_state_dict(path, net())


def test_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(saved(state()))

    def replace(*_: object) -> None:
        other = tmp_path / "other"
        other.write_bytes(saved(state()))
        other.replace(path)

    monkeypatch.setattr(loading, "require_finite", replace)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        load_state_dict(path, net())


def refuse_all(paths: list[str]) -> None:
    """Print what is said of files, and the most bytes that this process had."""
    vars(loading)["convert"] = None  # no file may get as far as the reading process
    said = {}
    for path in paths:
        model = {"w": torch.empty(2**28, device="meta")} if "big" in path else net()
        with pytest.raises(CheckpointError) as refused:
            load_state_dict(path, model)
        said[path] = str(refused.value)
    # The mark of this program alone: ru_maxrss would begin with what its parent used.
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    sys.stdout.write(json.dumps([said, 1024 * peak]))


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in kilobytes, as Linux does")
def test_refusing_stays_small(tmp_path: Path) -> None:
    paths = []
    for name, (_, make) in CORPUS.items():
        make(tmp_path / f"{name}.pth", tmp_path / "canary")
        paths.append(str(tmp_path / f"{name}.pth"))
    # One gigabyte of zeros and then NaN, which takes no room on the disk.
    header = {"w": {"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**30]}}
    raw = json.dumps(header).encode()
    with (tmp_path / "big.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + 2**30 - 4)
        file.seek(0, os.SEEK_END)
        file.write(b"\x00\x00\xc0\x7f")
    paths.append(str(tmp_path / "big.safetensors"))
    done = forks.run(refuse_all, paths)
    assert done.returncode == 0, done.stderr
    said, peak = json.loads(done.stdout)
    assert set(said) == set(paths)
    assert "NaN in 1 tensor: 'w'" in said[paths[-1]]
    assert peak < 1.5e9
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "cache").exists()
