"""Files that other programs open."""

import os
import threading
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import acon_analysis as acon
from acon_analysis import files
from acon_analysis.errors import StoreError, UsageError
from acon_analysis.files import (
    WaitingWarning,
    atomic_write,
    csv_text,
    locked,
    open_regular,
    read_regular,
    spelled,
    temporary_folder,
)
from acon_analysis.store.folder import RunFolder
from commands import status


@pytest.mark.parametrize("dtype", ["str", object, "category"])
def test_csv_holds_no_formula_and_every_number(dtype: str) -> None:
    names = pd.Series(["=HYPERLINK(1)", "+1", "-1", "@a", "\ta", "a=b", "", None], dtype=dtype)
    frame = pd.DataFrame({"name": names, "value": [-1.5, 1 / 3, 1e-300, 0, 1, 2, 3, float("nan")]})
    found = pd.read_csv(StringIO(csv_text(frame)))
    assert found["value"].equals(frame["value"])
    wanted = ["'=HYPERLINK(1)", "'+1", "'-1", "'@a", "'\ta", "a=b"]
    assert found["name"].tolist()[:6] == wanted
    assert found["name"].isna().tolist()[6:] == [True, True]
    assert frame["name"][0] == "=HYPERLINK(1)"
    assert "0.33" in csv_text(frame, "%.2g")


def test_names_of_columns_are_inert_too() -> None:
    frame = pd.DataFrame({"=1+1": ["a\u202eb\u2028"], "\x1b[2J": [1], 3: [2]})
    assert csv_text(frame) == "'=1+1,\\x1b[2J,3\na\\u202eb\\u2028,1,2\n"


def test_a_layer_named_like_a_formula(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential()
    model.add_module("=1+1", nn.ELU())
    run = acon.capture(model.eval(), [torch.randn(6, 3)], tmp_path / "run", progress=False)
    assert run.linearity()["layer"].tolist() == ["=1+1"]
    assert status("summary", run.path, "--format", "csv") == 0
    assert "\n'=1+1," in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["dangling link", "link", "pipe", "folder"])
def test_what_is_no_file_is_no_lock(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
        if kind == "link":
            (tmp_path / "elsewhere").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"a.lock' is a link, a pipe or a folder.*; remove it"):
        locked(path).__enter__()
    assert sorted(tmp_path.iterdir()) == before


def test_waiting_for_a_lock_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SILENCE", 0.05)
    path, free = tmp_path / "a.lock", threading.Event()

    def hold() -> None:
        with locked(path):
            held.set()
            free.wait(60)

    held, holder = threading.Event(), threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    threading.Timer(0.5, free.set).start()
    said = pytest.warns(WaitingWarning, match=r"waiting for another process, which holds .*a.lock")
    with said, locked(path):
        assert path.exists()
    holder.join()
    assert not path.exists()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe")


def test_a_file_that_was_taken_for_stale_before_it_was_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process cleans up between the creation of a file and its lock."""
    lock = files._try_lock
    cleaned: list[int] = []

    def late(file: object, **how: bool) -> bool | None:
        if not cleaned:
            cleaned.append(1)
            RunFolder(tmp_path).clear_scratch()
        return lock(file, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "_try_lock", late)
    atomic_write(tmp_path / "a", b"whole", tmp_path / "tmp")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_where_no_file_is_reached_through_an_open_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acon_analysis.folders._BY_HANDLE", False)
    with locked(tmp_path / "tmp" / "a.lock"):
        atomic_write(tmp_path / "betas" / "a", b"whole", tmp_path / "tmp")
    (tmp_path / "tmp" / "b.part").touch()
    RunFolder(tmp_path).clear_scratch()
    assert [path.name for path in tmp_path.rglob("*")] == ["betas", "a"]
    (tmp_path / "tmp").symlink_to(tmp_path / "betas")
    with pytest.raises(OSError, match=r"tmp' is a link or a file where a folder belongs"):
        atomic_write(tmp_path / "betas" / "a", b"", tmp_path / "tmp")
    assert (tmp_path / "betas" / "a").read_bytes() == b"whole"


def test_names_of_any_length(tmp_path: Path) -> None:
    for name in ("n" * 255, "😀" * 63):
        atomic_write(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="there is no /proc")
def test_a_file_of_the_kernels_is_empty(tmp_path: Path) -> None:
    """Such files say that they have no size; some wait for the kernel, some never end."""
    (tmp_path / "x").symlink_to("/proc/self/pagemap")
    with open_regular(tmp_path / "x") as file:
        assert file.read(9) == b""
    assert read_regular(tmp_path / "x") == b""


def test_a_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"four")
    assert read_regular(tmp_path / "x", 4) == b"four"
    with pytest.raises(StoreError, match="x' has more than 3 bytes"):
        read_regular(tmp_path / "x", 3)


@pytest.mark.parametrize("mark", "\u061c\u200e\u200f\u202e\u2066\x1b\x9b")
def test_marks_that_turn_the_direction_of_writing_are_spelled(mark: str) -> None:
    assert spelled(f"a{mark}b").isascii()
    assert spelled(f"a{mark}b").isprintable()


def test_a_temporary_folder_that_others_can_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match=r"temporary folder .* is not safe: .*set TMPDIR"):
        temporary_folder().__enter__()
    assert not list(tmp_path.iterdir())
