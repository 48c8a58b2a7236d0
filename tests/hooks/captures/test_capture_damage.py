"""What disks, people and other programs do to a run while it is captured, and what is refused."""

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import Dataset

import acon_analysis as acon
from acon_analysis.data import hashes as filehash
from acon_analysis.errors import AconError, StoreError
from acon_analysis.files import atomic_write, remove_stale_files
from acon_analysis.runs.run import Run, open_run
from acon_analysis.runs.verify import verify_run
from captures import contents, images, tiny
from pictures import picture, save

OPTIONS: dict[str, Any] = {"unit_size": 8, "batch_size": 4, "progress": False}


def captured(out: Path, count: int = 20, **options: Any) -> Run:
    return acon.capture(tiny(), images(count), out, **OPTIONS | options)


def test_altered_bytes_are_done_again(tmp_path: Path) -> None:
    run = captured(tmp_path / "r")
    expected = contents(run.path)
    for kind in ("betas", "histograms", "moments"):
        part = run.folder.part(kind, 1)
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        assert not verify_run(run.path).sound
        captured(run.path)
        assert contents(run.path) == expected


def test_a_moved_run_is_the_same_run(tmp_path: Path) -> None:
    run = captured(tmp_path / "r")
    expected = run.beta_matrix("acon2")
    run.folder.done_path(0).unlink()
    shutil.move(run.path, tmp_path / "elsewhere")
    again = captured(tmp_path / "elsewhere")
    assert verify_run(again.path).sound
    np.testing.assert_array_equal(again.beta_matrix("acon2"), expected)
    assert str(tmp_path) not in (again.path / "manifest.json").read_text()


def test_opening_a_run_reads_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured(tmp_path / "r")
    monkeypatch.setattr(pq, "read_table", None)
    monkeypatch.setattr("acon_analysis.store.folder.file_sha256", None)
    assert open_run(tmp_path / "r").complete


@pytest.mark.parametrize("stream", [False, True])
def test_a_finished_run_on_a_read_only_disk_is_opened_by_the_same_command(
    tmp_path: Path, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = list(torch.split(images(20).tensors[0], 4)) if stream else images(20)
    acon.capture(tiny(), data, tmp_path / "r", unit_size=8, progress=False)
    expected = contents(tmp_path / "r")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("Folder.open", "make_folder", "sync_folder"):
        monkeypatch.setattr(f"acon_analysis.folders.{name}", refuse)
    run = acon.capture(tiny(), data, tmp_path / "r", progress=False)
    assert run.complete
    assert contents(run.path) == expected
    run.folder.part("betas", 0).unlink()
    with pytest.raises(StoreError, match="Read-only file system"):
        acon.capture(tiny(), data, tmp_path / "r", progress=False)


def test_hashes_of_a_read_only_run_are_read_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filehash, "WORTH_REMEMBERING", 1)
    monkeypatch.setattr(filehash, "_SETTLED_NS", -(10**15))
    (tmp_path / "a").write_bytes(b"a")
    memory = tmp_path / "r" / "hashes.parquet"
    first = filehash.hash_files(tmp_path, ["a"], memory)
    monkeypatch.setattr(filehash, "locked", None)
    assert filehash.hash_files(tmp_path, ["a"], memory) == first


def test_strange_files_in_a_run(tmp_path: Path) -> None:
    run = captured(tmp_path / "r")
    (run.path / "betas" / ".DS_Store").write_text("")
    assert verify_run(run.path).sound
    (run.path / "done" / "unit-abc.json").write_text("{}")
    (run.path / "done" / "unit-0000099.json").write_text("{}")
    assert open_run(run.path).units == [0, 1, 2]
    problems = "; ".join(verify_run(run.path).problems)
    assert "done/unit-abc.json marks no unit" in problems
    assert "done/unit-0000099.json marks no unit" in problems


def test_a_mark_cannot_speak_of_other_files(tmp_path: Path) -> None:
    run = captured(tmp_path / "r")
    mark = run.folder.done_path(0)
    mark.write_text(mark.read_text().replace("betas/unit-0000000", "../../etc/unit-0000000"))
    assert run.folder.unit_parts(0) is None


def test_leftovers_of_the_dead_go_and_files_of_the_living_stay(tmp_path: Path) -> None:
    def leave(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(b"half")
        return path

    dead, living, other = leave("dead.part"), leave("living.lock"), leave("thesis.txt")
    with living.open("r+b") as file:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        remove_stale_files(tmp_path)
    assert (dead.exists(), living.exists(), other.exists()) == (False, True, True)


@pytest.mark.parametrize("name", ["tmp", "betas", "done"])
def test_nothing_is_written_or_removed_behind_a_link_in_a_run(name: str, tmp_path: Path) -> None:
    run = captured(tmp_path / "r")
    mine = tmp_path / "documents"
    if (run.path / name).exists():
        (run.path / name).rename(mine)
    mine.mkdir(exist_ok=True)
    for file in ("thesis.txt", "unit-0000001.json", "x.part"):
        (mine / file).write_text("mine")
    (run.path / name).symlink_to(mine)
    for unit in (0, 1):
        run.folder.part("pooled", unit).unlink(missing_ok=True)
    before = {file.name: file.read_bytes() for file in mine.iterdir()}
    for _ in range(2):  # an unfinished run and, for tmp, a finished one
        with pytest.raises(StoreError, match=f"'{name}' in .* is a link, and nothing is written"):
            captured(run.path)
        assert {file.name: file.read_bytes() for file in mine.iterdir()} == before


def test_a_file_is_there_with_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    atomic_write(tmp_path / "placed", lambda file: None)
    assert (tmp_path / "placed").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_another_way_of_computing_is_refused(tmp_path: Path) -> None:
    captured(tmp_path / "r", moments=False)
    with pytest.raises(StoreError, match="fuse was False, is True"):
        captured(tmp_path / "r", moments=False, fuse=True)


def test_other_images_of_the_same_number_are_refused(tmp_path: Path) -> None:
    captured(tmp_path / "r")
    with pytest.raises(StoreError, match="probe_sha256 was"):
        acon.capture(tiny(), images(20, seed=2), tmp_path / "r", **OPTIONS)


class Shaped(Dataset[torch.Tensor]):
    """Images of two sizes, or a failure of the user's own."""

    def __init__(self, failure: str = "") -> None:
        self.failure = failure

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3 and self.failure:
            raise AconError(self.failure)
        return torch.zeros(3, 6, 5 + index % 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_failures_in_workers_have_no_traceback_in_their_text(tmp_path: Path, workers: int) -> None:
    with pytest.raises(AconError, match="different shapes") as caught:
        acon.capture(tiny(), Shaped(), tmp_path / "r", workers=workers, progress=False)
    assert "Traceback" not in str(caught.value)
    with pytest.raises(AconError, match=r"^broken$"):
        acon.capture(tiny(), Shaped("broken"), tmp_path / "s", workers=workers, progress=False)


def test_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filehash, "WORTH_REMEMBERING", 2)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        file = save(folder / f"{number}.png", picture(5, 6, number))
        os.utime(file, (time.time() - 60, time.time() - 60))
    run = acon.capture(tiny(), folder, tmp_path / "r", **OPTIONS)
    hashed: list[str] = []
    real = filehash._hash_one

    def count(path: Path) -> tuple[int, int, str]:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(filehash, "_hash_one", count)
    acon.capture(tiny(), folder, run.path, **OPTIONS)
    assert not hashed
    save(folder / "3.png", picture(5, 6, 77))
    with pytest.raises(StoreError, match="samples_sha256 was"):
        acon.capture(tiny(), folder, run.path, **OPTIONS)
    assert hashed == ["3.png"]
    (run.path / "hashes.parquet").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match="samples_sha256 was"):
        acon.capture(tiny(), folder, run.path, **OPTIONS)
    assert verify_run(run.path).sound


def test_layers_that_are_read_differently_are_refused(tmp_path: Path) -> None:
    run = captured(tmp_path / "r")
    run.folder.done_path(0).unlink()
    manifest = run.folder.read_manifest()
    manifest["layers"] = manifest["layers"][:1]
    run.folder.write_manifest(manifest)
    with pytest.raises(StoreError, match="begun with 1 layer, now 2 are found"):
        captured(run.path)
