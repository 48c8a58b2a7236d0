"""Somebody puts a link where a folder of a run is, while it is written or cleaned up."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acon_analysis.data import hashes
from acon_analysis.errors import AconError
from acon_analysis.files import open_regular
from acon_analysis.store import parquet
from acon_analysis.store.folder import RunFolder

#: What is asked of the disk, by way of this module.
REQUESTS = (
    "open", "listdir", "scandir", "stat", "lstat", "unlink", "remove", "rename", "replace",
    "mkdir", "rmdir", "fsync",
)  # fmt: skip

TABLE = pa.table({"sample_id": ["a"], "beta": np.zeros(1, np.float32)})


@contextlib.contextmanager
def exchanged(folder: Path, other: Path, at: int) -> Iterator[list[str]]:
    """Put a link to another folder where a folder is, before a request to the disk."""
    asked: list[str] = []

    def request(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            asked.append(name)
            if len(asked) == at + 1:
                with contextlib.suppress(FileNotFoundError):
                    rename(folder, folder.with_name("before"))
                symlink(other, folder)
            return real(*args, **options)

        return call

    rename, symlink = os.rename, os.symlink
    with contextlib.ExitStack() as stack:
        for name in REQUESTS:
            stack.enter_context(mock.patch.object(os, name, request(name, getattr(os, name))))
        yield asked


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def clear(folder: RunFolder) -> None:
    folder.clear_scratch()


def write(folder: RunFolder) -> None:
    folder.write_unit(0, {"betas": TABLE})


def write_table(folder: RunFolder) -> None:
    folder.write_table("samples", TABLE)


def remember(folder: RunFolder) -> None:
    hashes.hash_files(folder.path, ["image"], folder.path / "hashes.parquet")


@pytest.mark.parametrize(
    ("name", "act"),
    [("tmp", clear), ("tmp", write), ("betas", write), ("moments", write), ("done", write),
     ("tmp", write_table), ("tmp", remember)],
)  # fmt: skip
@pytest.mark.parametrize("there", [True, False])
def test_an_exchange_at_any_request(
    name: str,
    act: Callable[[RunFolder], None],
    there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashes, "WORTH_REMEMBERING", 1)
    mine, run = tmp_path / "mine", tmp_path / "run"
    mine.mkdir()
    for own in ("x.part", "x.lock", "unit-0000000.lock", "unit-0000000.parquet",
                "unit-0000000.json", "hashes.lock", "hashes.parquet", "thesis.txt"):  # fmt: skip
        (mine / own).write_text("mine")
    at, happened, expected = 0, True, contents(mine)
    while happened:
        (run / name if there else run).mkdir(parents=True)
        (run / "image").write_text("pixels")
        if there:
            shutil.copytree(mine, run / name, dirs_exist_ok=True)
        with exchanged(run / name, mine, at) as asked, contextlib.suppress(AconError):
            act(RunFolder(run))
        assert contents(mine) == expected, f"{asked[at:]} came after the exchange"
        shutil.rmtree(run)
        happened = len(asked) > at
        at += 1
    assert at > 10


def test_a_part_that_is_exchanged_once_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is read, whatever is there then: a pipe would be waited for."""
    path = tmp_path / "part.parquet"
    pq.write_table(TABLE, path)

    def exchanged_after(path: Path) -> Any:
        file = open_regular(path)
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
        return file

    monkeypatch.setattr(parquet, "open_regular", exchanged_after)
    assert parquet.read_table(path).equals(TABLE)
