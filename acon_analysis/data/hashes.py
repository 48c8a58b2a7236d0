"""Sizes and SHA-256 of many files, remembered so that a later run need not read them again."""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from acon_analysis.data.decoding import MAX_BYTES
from acon_analysis.data.image_source import readable_path
from acon_analysis.errors import AconError
from acon_analysis.files import atomic_write, is_own_file, locked, open_regular, store_errors

#: A file that changed so shortly before it was hashed may change again within one clock tick of
#: its file system; it is hashed anew next time.
_SETTLED_NS = 2_000_000_000

#: Fewer files than this are hashed sooner than remembered.
WORTH_REMEMBERING = 1000

_COLUMNS = ["path", "bytes", "mtime_ns", "sha256"]


def hash_files(
    folder: Path, paths: Sequence[str], memory: Path | None = None
) -> list[tuple[int, str]]:
    """Return size and SHA-256 of files, in the order of the paths; (-1, "") for a forbidden one.

    `memory` is a Parquet file of earlier results: a file of the size and time of modification that
    it holds is not read again. A file of more than `MAX_BYTES` gets no SHA-256.
    Processes that start together read every file once.
    """
    if memory is None or len(paths) < WORTH_REMEMBERING:
        return [(size, digest) for size, _, digest in _hash(folder, paths)]
    known, fresh = _compared(memory, folder, paths)
    if fresh:  # otherwise nothing is written, nor need it be possible
        lock = memory.parent / "tmp" / f"{memory.stem}.lock"
        with store_errors(f"writing to {str(memory.parent)!r}"), locked(lock):
            known, fresh = _compared(memory, folder, paths)
            now = time.time_ns()
            known |= dict(zip(fresh, _hash(folder, fresh), strict=True))
            settled = {p: f for p, f in known.items() if now - f[1] > _SETTLED_NS}
            # A table cannot hold a path that is not UTF-8.
            _remember(memory, {p: f for p, f in settled.items() if readable_path(p) == p})
    return [(known[path][0], known[path][2]) for path in paths]


def _compared(
    memory: Path, folder: Path, paths: Sequence[str]
) -> tuple[dict[str, tuple[int, int, str]], list[str]]:
    """Return what is remembered, and the files that are not or have changed."""
    known = _recall(memory)
    return known, [p for p in paths if _facts(folder / p) != known.get(p, (0, 0, ""))[:2]]


def _facts(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns


def _hash(folder: Path, paths: Sequence[str]) -> list[tuple[int, int, str]]:
    with ThreadPoolExecutor() as pool:
        hashing = pool.map(lambda path: _hash_one(folder / path), paths)
        hidden = len(paths) < 2000
        return list(tqdm(hashing, total=len(paths), desc="hashing", unit="image", disable=hidden))


def _hash_one(path: Path) -> tuple[int, int, str]:
    try:
        size, changed = _facts(path)
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:  # refused when it is asked for
                return size, changed, ""
            return size, changed, hashlib.file_digest(file, "sha256").hexdigest()
    except PermissionError:
        return -1, -1, ""
    except OSError as error:
        raise AconError(f"data: {str(path)!r} cannot be read: {error.strerror or error}") from error


def _recall(memory: Path) -> dict[str, tuple[int, int, str]]:
    if not is_own_file(memory):  # of another user, who could say anything
        return {}
    try:
        frame = pq.read_table(memory, columns=_COLUMNS).to_pandas(ignore_metadata=True)
    except (OSError, pa.ArrowInvalid, KeyError):
        return {}  # only a memory: what cannot be read is found out again
    rows = zip(*(frame[name].tolist() for name in _COLUMNS), strict=True)
    return {path: (size, changed, digest) for path, size, changed, digest in rows}


def _remember(memory: Path, known: dict[str, tuple[int, int, str]]) -> None:
    rows = [(path, *facts) for path, facts in known.items()]
    frame = pd.DataFrame(rows, columns=_COLUMNS).astype(
        {"path": "str", "bytes": "int64", "mtime_ns": "int64", "sha256": "str"}
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)

    def write(file: IO[bytes]) -> None:
        pq.write_table(table, file, compression="zstd")

    atomic_write(memory, write, memory.parent / "tmp", private=True)
