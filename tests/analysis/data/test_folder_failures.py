"""Folders of images that vanish, change or may not be read while they are captured."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import acon_analysis as acon
from acon_analysis.data import hashes as filehash
from acon_analysis.data import sources as data
from acon_analysis.data.preprocess import BadImageError
from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, StoreError, UsageError
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from captures import Tiny, contents, tiny
from pictures import picture, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    made.mkdir()
    for number in range(12):
        save(made / f"{number:02}.png", picture(5, 6, number))
    return made


def captured(folder: Any, out: Path, model: Tiny | None = None, **options: Any) -> Run:
    own = {"unit_size": 4, "batch_size": 4, "moments": False, "progress": False} | options
    return acon.capture(model or tiny(), folder, out, **own)


def after(batches: int, event: Callable[[], object]) -> Tiny:
    """Return a network during whose n-th pass something happens.

    The first passes prove the readings: they are not counted.
    """
    model, seen = tiny(), 0

    def hook(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == batches:
            event()

    model.conv.register_forward_pre_hook(hook)
    return model


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_vanishes_is_a_failure_and_comes_back(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    expected = contents(captured(folder, tmp_path / "whole").path)
    away = tmp_path / "away"
    model = after(1, lambda: folder.rename(away))
    with pytest.raises(AconError) as caught:
        captured(folder, tmp_path / "r", model, batch_size=1, unit_size=1, workers=workers)
    text = str(caught.value)
    assert f"{str(folder)!r}"[:-1] in text
    assert "cannot be read any more: No such file or directory" in text
    assert "\n" not in text
    assert not list((tmp_path / "r").glob("errors/*"))
    away.rename(folder)
    run = captured(folder, tmp_path / "r", batch_size=1, unit_size=1)
    assert (len(run.sample_ids), len(run.errors)) == (12, 0)
    assert verify_run(run.path).sound
    with pytest.raises(AconError, match="cannot be read any more"):
        captured(folder, tmp_path / "s", after(2, lambda: folder.rename(away)))
    away.rename(folder)
    assert contents(captured(folder, tmp_path / "s").path) == expected


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_a_file_that_was_hashed_and_cannot_be_opened_is_a_failure(
    folder: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_data(folder)

    def fail(path: Path) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(data, "read_image", fail)
    with pytest.raises(AconError, match=f"03.png' .* any more: {os.strerror(code)}; ") as caught:
        source[3]
    assert not isinstance(caught.value, BadImageError)


def test_a_file_without_permission_is_a_bad_image(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith("05.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    run = captured(folder, tmp_path / "r")
    assert run.complete
    assert list(run.errors["reason"]) == ["05.png: Permission denied"]
    assert run.samples.loc[5, "sha256"] == ""
    source = open_data(folder)
    monkeypatch.undo()
    with pytest.raises(AconError, match=r"05.png' is not the file that it was when"):
        source[5]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT])
def test_a_disk_that_fails_while_files_are_hashed_begins_no_run(
    folder: Path, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def fail(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith("05.png"):
            raise OSError(code, os.strerror(code))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(AconError, match=f"05.png' cannot be read: {os.strerror(code)}"):
        captured(folder, tmp_path / "r")
    assert not (tmp_path / "r" / "manifest.json").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_replaced_after_it_was_hashed(folder: Path, tmp_path: Path, workers: int) -> None:
    source = open_data(folder)
    save(folder / "11.png", picture(5, 6, 99))
    with pytest.raises(AconError, match=r"11.png' is not the file that it was .* SHA-256 differs"):
        captured(source, tmp_path / "r", workers=workers)
    assert not (tmp_path / "r" / "done" / "unit-0000002.json").exists()
    save(folder / "11.png", picture(5, 6, 11))
    run = captured(folder, tmp_path / "r")
    assert (len(run.sample_ids), len(run.errors)) == (12, 0)


def test_damaged_content_stays_a_bad_image(folder: Path, tmp_path: Path) -> None:
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:60])
    run = captured(folder, tmp_path / "r")
    (reason,) = run.errors["reason"]
    assert reason.startswith("07.png: ")
    assert "truncated" in reason
    np.testing.assert_array_equal(run.sample_ids, [i for i in range(12) if i != 7])


@pytest.mark.parametrize("remembered", [False, True])
def test_a_file_name_that_is_not_utf8(
    folder: Path, tmp_path: Path, remembered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filehash, "WORTH_REMEMBERING", 2 if remembered else 1000)
    try:
        (folder / "05.png").rename(os.fsdecode(os.fsencode(folder) + b"/b\xff.png"))
    except OSError:
        pytest.skip("this file system has no such names")
    run = captured(folder, tmp_path / "r")
    assert r"b\xff.png" in set(run.samples["path"])
    assert len(run.sample_ids) == 12
    assert captured(folder, tmp_path / "r").complete


def test_names_of_ones_own_are_checked_too(folder: Path) -> None:
    source = open_data(folder)
    source.samples = source.samples.astype({"path": object})
    source.samples.loc[3, "path"] = "\udcff.png"
    with pytest.raises(UsageError, match=r"b'\\xff.png' is not UTF-8"):
        source.identity()


def test_a_folder_that_may_not_be_written_to_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filehash, "WORTH_REMEMBERING", 2)
    (tmp_path / "r").write_text("a file where a folder is asked for")
    with pytest.raises(StoreError, match=r"writing to .*r': "):
        filehash.hash_files(folder, ["01.png", "02.png"], tmp_path / "r" / "hashes.parquet")
