"""Parts on disk: whole or not at all, marked when done, found out when altered."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from acon_analysis.data.sources import open_data
from acon_analysis.errors import StoreError, UsageError
from acon_analysis.files import CacheWarning, atomic_write, locked, private_cache
from acon_analysis.store import parquet
from acon_analysis.store.folder import RunFolder, column_name, file_sha256, write_parquet
from acon_analysis.store.parquet import ListColumns
from acon_analysis.usercode import load_callable


def betas(values: np.ndarray) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.table({"sample_id": np.arange(len(values)), "layer4_2_acon": lists})


def test_column_names_have_no_dots_and_never_collide() -> None:
    taken: set[str] = set()
    assert column_name("layer4.2.acon", 0, taken) == "layer4_2_acon"
    assert column_name("layer4_2.acon", 0, taken) == "layer4_2_acon__2"
    assert column_name("layer4.2.acon", 1, taken) == "layer4_2_acon__call1"
    assert column_name("sample.id", 0, taken) == "sample_id__2"
    assert column_name("", 0, taken) == "model"
    assert len(taken) == 5


def test_parquet_round_trip_is_exact_and_float32(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((7, 5), dtype=np.float32)
    path = tmp_path / "betas" / "unit-0000000.parquet"
    write_parquet(path, betas(values))
    table = pq.read_table(path)
    field = table.schema.field("layer4_2_acon")
    assert field.type == pa.list_(pa.field("element", pa.float32(), nullable=False), 5)
    assert not field.nullable
    back = table["layer4_2_acon"].combine_chunks().flatten().to_numpy().reshape(-1, 5)
    np.testing.assert_array_equal(back, values)
    meta = pq.ParquetFile(path).metadata.row_group(0).column(1)
    assert meta.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in meta.encodings
    assert "RLE_DICTIONARY" not in meta.encodings


@pytest.mark.parametrize("values", [[[1.0, None], [2.0, 3.0]], [None, [2.0, 3.0]]])
def test_lists_with_nulls_stay_what_they_are(tmp_path: Path, values: list[Any]) -> None:
    table = pa.table({"x": pa.array(values, type=pa.list_(pa.float32(), 2))})
    write_parquet(tmp_path / "x.parquet", table)
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"x": v} for v in values]


def test_sliced_and_chunked_lists_are_written_whole(tmp_path: Path) -> None:
    values = np.arange(40, dtype=np.float32).reshape(8, 5)
    table = pa.concat_tables([betas(values).slice(1, 3), betas(values).slice(6)])
    write_parquet(tmp_path / "x.parquet", table)
    found = pq.read_table(tmp_path / "x.parquet")["layer4_2_acon"].to_pylist()
    assert found == values[[1, 2, 3, 6, 7]].tolist()


def test_lists_of_many_files_are_read_into_one_array(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((7, 5), dtype=np.float32)
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for path, rows in zip(paths, ([0, 1], [], [2, 3, 4, 5, 6]), strict=True):
        write_parquet(path, betas(values[rows]))
    found = ListColumns(paths).read("layer4_2_acon")
    np.testing.assert_array_equal(found, values)
    assert found is not None
    assert found.dtype == np.float32
    assert ListColumns(paths).read("layer4_1_acon") is None
    assert ListColumns([]).read("layer4_2_acon") is None
    paths[2].unlink()
    with pytest.raises(StoreError, match=r"2\.parquet' is missing; `acon verify` reports"):
        ListColumns(paths).read("layer4_2_acon")
    paths[1].write_bytes(b"no Parquet")
    with pytest.raises(StoreError, match=r"1\.parquet' cannot be read: "):
        ListColumns(paths[:2]).read("layer4_2_acon")


@pytest.mark.parametrize("piece", [1, 60, 2**20])
@pytest.mark.parametrize("together", [0, 2**24])
def test_some_rows_of_lists_are_read(
    piece: int, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "PIECE", piece)
    monkeypatch.setattr(parquet, "TOGETHER", together)
    values = np.random.default_rng(0).random((20, 5), dtype=np.float32)
    paths = [tmp_path / f"{number}.parquet" for number in range(3)]
    for path, rows in zip(paths, (slice(8), slice(8, 9), slice(9, 20)), strict=True):
        write_parquet(path, betas(values[rows]))
    for wanted in ([], [0], [19], [7, 8, 9], [1, 3, 8, 15], list(range(20))):
        found = ListColumns(paths).read("layer4_2_acon", np.array(wanted, dtype=np.int64))
        np.testing.assert_array_equal(found, values[wanted])


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((7, 5), dtype=np.float32)
    for name in ("a", "b"):
        write_parquet(tmp_path / name, betas(values))
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")


def test_a_failed_write_leaves_the_old_file_and_no_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.json"
    atomic_write(path, b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_disk_full_in_a_unit_is_one_sentence_and_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StoreError, match=r"writing unit 3 .*No space left on device"):
        folder.write_unit(3, {"betas": betas(np.ones((1, 1), dtype=np.float32))})
    assert not folder.unit_is_done(3)
    assert folder.unit_parts(3) is None
    assert not list((tmp_path / "betas").iterdir())


def test_a_unit_is_done_only_while_its_files_are_what_was_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_unit(0, {"betas": betas(np.ones((2, 3), dtype=np.float32))})
    assert folder.unit_is_done(0)
    part = folder.part("betas", 0)
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    assert not folder.unit_is_done(0)
    part.write_bytes(content)
    assert folder.unit_is_done(0)
    part.unlink()
    assert not folder.unit_is_done(0)
    folder.done_path(0).write_text("{}")
    assert not folder.unit_is_done(0)


def test_an_unknown_part_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'beta' is none of"):
        RunFolder(tmp_path).write_unit(0, {"beta": betas(np.ones((1, 1), dtype=np.float32))})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a captured run"),
        ("{", "is not a run's manifest"),
        ("[1]", "is not a run's manifest"),
        (json.dumps({"format": "acon-run/99"}), "format 'acon-run/99'"),
    ],
)
def test_what_is_no_run(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises((StoreError, UsageError), match=message):
        RunFolder(tmp_path).read_manifest()


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        RunFolder(tmp_path / "x").read_manifest()


def test_the_home_of_a_user_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("~no-such-user/run", "~no-such-user"):
        with pytest.raises(UsageError, match=f"there is no folder '{path}'"):
            RunFolder(path).read_manifest()
        with pytest.raises(UsageError, match=path):
            open_data(path)
        with pytest.raises(UsageError, match=f"there is no file '{path}.py'"):
            load_callable("model", f"{path}.py:net")
    monkeypatch.setenv("ACON_CACHE", "~no-such-user")
    with pytest.warns(CacheWarning, match="its path is relative"):
        assert private_cache() is None
    monkeypatch.setenv("HOME", "/somewhere")
    assert RunFolder("~/run").path == Path("/somewhere/run")


def test_runs_nearby_are_named(tmp_path: Path) -> None:
    for name in ("early", "last"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match=r"there is no folder '.*/lst'; did you mean '.*/last'\?"):
        RunFolder(tmp_path / "lst").read_manifest()
    with pytest.raises(UsageError, match=r"there are runs in it: .*/early, .*/last$"):
        RunFolder(tmp_path).read_manifest()


def test_frames_of_parts_can_be_read_by_pandas_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for unit in range(2):
        folder.write_unit(unit, {"betas": betas(np.full((2, 3), unit, dtype=np.float32))})
    frame = pd.read_parquet(tmp_path / "betas")
    assert list(frame.columns) == ["sample_id", "layer4_2_acon"]
    assert len(frame) == 4


def test_an_atomic_write_takes_bytes_or_a_function_and_hashes_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x"
    expected = hashlib.sha256(b"content").hexdigest()
    assert atomic_write(path, b"content", tmp_path / "tmp") == expected
    assert atomic_write(path, lambda file: file.write(b"content")) == expected
    assert path.read_bytes() == b"content"
    assert not list((tmp_path / "tmp").iterdir())
    assert list(path.parent.iterdir()) == [path]


def test_a_lock_excludes_threads_and_loses_no_turn(tmp_path: Path) -> None:
    inside, most, turns = 0, 0, 0

    def work(_: int) -> None:
        nonlocal inside, most, turns
        with locked(tmp_path / "tmp" / "x.lock"):
            inside += 1
            most = max(most, inside)
            before = turns
            time.sleep(0.001)
            turns = before + 1
            inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert (most, turns) == (1, 40)


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom acon_analysis.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        taken = threading.Event()

        def wait() -> None:
            with locked(lock):
                taken.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not taken.wait(0.3)
        holder.kill()
        assert taken.wait(30)
        thread.join()
    assert not lock.exists()
