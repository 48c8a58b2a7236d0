"""A run on disk: Parquet parts, one file per fixed unit of work, and a manifest.

The name of a part is the number of its unit, so redone work overwrites and never duplicates;
every file is written under a temporary name, flushed and renamed, so that a kill at any moment
leaves either the whole file or none. Only ``done/`` says what is finished.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from acon_analysis.errors import StoreError, UsageError
from acon_analysis.files import (
    LOCK,
    atomic_write,
    locked,
    open_regular,
    read_regular,
    remove_file,
    remove_stale_files,
    store_errors,
)
from acon_analysis.folders import expanded
from acon_analysis.store.manifest import alteration, json_text, manifest_text, parse_manifest

#: Samples in a unit of work, unless asked otherwise.
UNIT_SIZE = 4096

#: What a unit can hold, each in a folder of its own that holds nothing but ``*.parquet``.
PARTS = (
    "samples", "betas", "moments", "totals", "states", "histograms", "pooled", "errors",
)  # fmt: skip

#: More than the largest mark has.
_MARK_BYTES = 2**16

_MARK = re.compile(r"unit-(\d{7,})\.json")


def unit_name(unit: int) -> str:
    """Return the file name, without ending, of a unit's parts."""
    return f"unit-{unit:07d}"


def _runs_in(folder: Path) -> list[str]:
    """Return the names of the runs that lie in a folder."""
    try:
        return sorted(path.parent.name for path in folder.glob("*/manifest.json"))
    except OSError:
        return []


def column_name(layer: str, call: int, taken: set[str]) -> str:
    """Return a column name without dots for a layer's call, unlike those already taken.

    Some readers take a dot in a column's name for nesting; the manifest maps back.
    """
    base = layer.replace(".", "_") or "model"
    if call:
        base += f"__call{call}"
    name, count = base, 2
    while name in taken or name == "sample_id":
        name, count = f"{base}__{count}", count + 1
    taken.add(name)
    return name


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_parquet(path: Path, table: pa.Table, scratch: Path | None = None) -> str:
    """Write a table so that it is there whole or not at all; return its SHA-256."""
    table = _declared_full(table)
    floats = []  # their paths in the Parquet schema
    for field in table.schema:
        listed = pa.types.is_fixed_size_list(field.type)
        if pa.types.is_floating(field.type.value_type if listed else field.type):
            floats.append(f"{field.name}.list.element" if listed else str(field.name))

    def write(file: IO[bytes]) -> None:
        pq.write_table(
            table,
            file,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,  # bytes of floats split before zstd compress β best
            use_byte_stream_split=floats,
            write_statistics=False,
            store_schema=True,
        )

    return atomic_write(path, write, scratch)


def _declared_full(table: pa.Table) -> pa.Table:
    """Declare list columns to hold no nulls: Parquet then stores no flag for every element."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if not pa.types.is_fixed_size_list(field.type):
            continue
        if column.null_count or any(chunk.flatten().null_count for chunk in column.chunks):
            continue
        element = pa.field("element", field.type.value_type, nullable=False)
        kind = pa.list_(element, field.type.list_size)
        chunks = [
            pa.FixedSizeListArray.from_arrays(chunk.flatten(), type=kind) for chunk in column.chunks
        ]
        full = pa.chunked_array(chunks, type=kind)
        table = table.set_column(index, field.with_type(kind).with_nullable(False), full)
    return table


class RunFolder:
    """The files of a run: their paths, how they are written, which units are done.

    With a ``run_id``, units that another run has marked are not done.
    """

    def __init__(self, path: str | Path, run_id: str | None = None) -> None:
        self.path = expanded(path)
        self.run_id = run_id

    @property
    def scratch(self) -> Path:
        """Folder of files that are being written, and of locks."""
        return self.path / "tmp"

    @property
    def manifest_path(self) -> Path:
        """Path of the manifest, the first file that is written and the last that is finished."""
        return self.path / "manifest.json"

    def part(self, kind: str, unit: int) -> Path:
        """Return the path of a unit's part of a kind."""
        return self.path / kind / f"{unit_name(unit)}.parquet"

    def done_path(self, unit: int) -> Path:
        """Return the file that alone marks a unit as done."""
        return self.path / "done" / f"{unit_name(unit)}.json"

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest; StoreError if it is damaged or of a later version."""
        if not self.path.is_dir():
            near = get_close_matches(self.path.name, _runs_in(self.path.parent), n=1)
            hint = f"; did you mean {str(self.path.parent / near[0])!r}?" if near else ""
            raise UsageError(f"run: there is no folder {str(self.path)!r}{hint}")
        if not self.manifest_path.is_file():
            inside = ", ".join(str(self.path / name) for name in _runs_in(self.path)[:5])
            hint = f"`acon capture MODEL --data DATA --out {self.path}` makes one"
            hint = f"there are runs in it: {inside}" if inside else hint
            raise UsageError(
                f"run: {str(self.path)!r} is not a captured run (it has no manifest.json); {hint}"
            )
        path = str(self.manifest_path)
        try:
            return parse_manifest(read_regular(self.manifest_path))
        except ValueError as error:
            raise StoreError(f"run: {path!r} is not a run's manifest: {error}") from error
        except OSError as error:
            raise StoreError(f"run: {path!r} cannot be read: {error.strerror}") from error

    def read_unaltered_manifest(self) -> dict[str, Any]:
        """Return the manifest; raise StoreError also if it is not what was written."""
        manifest = self.read_manifest()
        if found := alteration(manifest):
            raise StoreError(
                f"run: in {str(self.path)!r} {found}: nothing in it can be relied on; bring it back"
            )
        return manifest

    def require_manifest(self) -> None:
        """Raise StoreError if the run's folder was removed: nothing is written into another one."""
        if not self.manifest_path.is_file():
            raise StoreError(
                f"out: the run in {str(self.path)!r} was removed while it was captured; the same "
                "command begins it again"
            )

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, keys sorted, with a SHA-256 of its own."""
        self._require_own_folders()
        with store_errors(f"writing the manifest of {str(self.path)!r}"):
            atomic_write(self.manifest_path, manifest_text(manifest), self.scratch)

    def write_table(self, name: str, table: pa.Table) -> str:
        """Write a table of the whole run (``samples``, ``channels``); return its SHA-256."""
        self._require_own_folders()
        path = self.path / f"{name}.parquet"
        with store_errors(f"writing {str(path)!r}"):
            return write_parquet(path, table, self.scratch)

    def write_unit(self, unit: int, parts: Mapping[str, pa.Table]) -> None:
        """Write the parts of a unit, then the mark that it is done.

        If another process has finished the same unit meanwhile, its work stays.
        """
        unknown = sorted(set(parts) - set(PARTS))
        if unknown:
            raise ValueError(f"part {unknown[0]!r} is none of {PARTS}")
        with store_errors(f"writing unit {unit} of {str(self.path)!r}"), self.lock(unit_name(unit)):
            if self.unit_is_done(unit):
                return
            remove_file(self.done_path(unit))
            hashes = {}
            for kind in PARTS:
                path = self.part(kind, unit)
                if kind in parts:
                    digest = write_parquet(path, parts[kind], self.scratch)
                    hashes[f"{kind}/{path.name}"] = digest
                else:
                    remove_file(path)  # of an earlier, unfinished try
            mark = json_text({"unit": unit, "run_id": self.run_id, "parts": hashes})
            atomic_write(self.done_path(unit), mark, self.scratch)

    def done_units(self) -> list[int]:
        """Return the numbers of the units that are marked as done, in order."""
        found = (_MARK.fullmatch(path.name) for path in (self.path / "done").glob("unit-*.json"))
        return sorted(int(match[1]) for match in found if match)

    def unit_parts(self, unit: int) -> dict[str, str] | None:
        """Return the recorded hashes of a unit's parts; None if it is not marked as done.

        Marks of earlier versions name no run; they count.
        """
        try:
            with open_regular(self.done_path(unit)) as file:
                content = json.loads(file.read(_MARK_BYTES))
            if None not in (self.run_id, run := content.get("run_id")) and run != self.run_id:
                return None
            parts = {str(name): str(digest) for name, digest in content["parts"].items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        # Only marks that name nothing but their own unit's files count.
        own = {f"{kind}/{unit_name(unit)}.parquet" for kind in PARTS}
        return parts if set(parts) <= own and any(parts) else None

    def unit_is_done(self, unit: int) -> bool:
        """Whether a unit is marked as done and its files are the ones that were written."""
        parts = self.unit_parts(unit)
        return parts is not None and not any(self.damage(parts))

    def sound_units(self, units: Iterable[int]) -> set[int]:
        """Return those of some units that are done, their files read and hashed in threads.

        Hashing takes 1 to 2 GB a second and core, so that a run of 50,000 images is checked in
        well under a second, and altered files are never taken for finished work.
        """
        chosen = sorted(set(units) & set(self.done_units()))
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            sound = pool.map(self.unit_is_done, chosen)
            return {unit for unit, is_sound in zip(chosen, sound, strict=True) if is_sound}

    def _require_own_folders(self) -> None:
        """Raise StoreError for a link in the run: what is behind it is none of the run's."""
        for name in (*PARTS, "done", self.scratch.name):
            if (self.path / name).is_symlink():
                raise StoreError(
                    f"out: {name!r} in {str(self.path)!r} is a link, and nothing is written or "
                    "removed through one; put the folder itself there"
                )

    def damage(self, parts: Mapping[str, str]) -> Iterator[str]:
        """Yield one sentence for every part that is missing or altered."""
        for name, digest in parts.items():
            path = self.path / name
            try:
                if file_sha256(path) != digest:
                    yield f"{name} is not what was written (SHA-256 differs)"
            except FileNotFoundError:
                yield f"{name} is missing"
            except OSError as error:
                yield f"{name} cannot be read ({error.strerror or error})"

    def lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold a lock of the run against other processes."""
        self._require_own_folders()
        return locked(self.scratch / f"{name}{LOCK}")

    def clear_scratch(self) -> None:
        """Remove the temporary files and locks of killed processes."""
        self._require_own_folders()
        remove_stale_files(self.scratch)
