"""Hostile and broken files around the weights: archives and downloads."""

import gzip
import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch

from checkpoint_files import hostile, of_bytes, saved, state, zipped

EMPTY = b"\x80\x02}."


# Archives.


@hostile("is compressed")
def deflated_pickle(path: Path, canary: Path) -> None:
    content = {"data.pkl": EMPTY, "data/0": bytes(50 * 2**20)}
    path.write_bytes(zipped(content, method=zipfile.ZIP_DEFLATED))


def _patched(raw: bytes, old: bytes, new: bytes) -> bytes:
    assert old in raw
    assert len(old) == len(new)
    return raw.replace(old, new)


@hostile("path reaches outside")
def entry_with_a_zero_byte(path: Path, canary: Path) -> None:
    raw = zipped({"data.pkl": EMPTY, "data_pkl_x": b""})
    path.write_bytes(_patched(raw, b"data_pkl_x", b"data.pkl\x00x"))


@hostile("overlaps another one")
def overlapping_entries(path: Path, canary: Path) -> None:
    raw = bytearray(zipped({"data.pkl": EMPTY, "data/0": bytes(64)}))
    first = raw.index(b"PK\x01\x02")
    size = len(EMPTY) + 40
    local = _local(raw, 0)
    struct.pack_into("<II", raw, local + 18, size, size)
    struct.pack_into("<II", raw, first + 20, size, size)
    path.write_bytes(raw)


def _local(raw: bytes | bytearray, start: int) -> int:
    return raw.index(b"PK\x03\x04", start)


@hostile("reaches beyond the archive")
def entry_beyond(path: Path, canary: Path) -> None:
    raw = bytearray(zipped({"data.pkl": EMPTY}))
    struct.pack_into("<II", raw, raw.index(b"PK\x01\x02") + 20, 2**31, 2**31)
    path.write_bytes(raw)


@hostile("is encrypted")
def encrypted(path: Path, canary: Path) -> None:
    raw = bytearray(zipped({"data.pkl": EMPTY}))
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


@hostile("contradict each other")
def two_directories(path: Path, canary: Path) -> None:
    raw = bytearray(saved(state()))
    struct.pack_into("<Q", raw, raw.index(b"PK\x06\x06") + 48, 0)
    path.write_bytes(raw)


@hostile("too many")
def many_entries(path: Path, canary: Path) -> None:
    raw = bytearray(zipped({"data.pkl": EMPTY}))
    struct.pack_into("<HHI", raw, len(raw) - 14, 65535, 65535, 2**31)
    path.write_bytes(raw)


@hostile("wrong checksum")
def bit_flipped_weights(path: Path, canary: Path) -> None:
    raw = bytearray(saved(state()))
    raw[raw.index(state()["0.weight"].numpy().tobytes()) + 17] ^= 4
    path.write_bytes(raw)


@hostile("its zip entry")
def numpy_arrays(path: Path, canary: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones(2), b=np.ones(3))
    path.write_bytes(stream.getvalue())


@hostile("not aligned")
def not_aligned(path: Path, canary: Path) -> None:
    tensors = {"w": torch.ones(3)}
    with zipfile.ZipFile(io.BytesIO(saved(tensors))) as archive:
        content = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    # Of four archives with shifted entries three are not aligned; any of these will do.
    for pad in range(4):
        raw = zipped({"p": bytes(pad), **content})
        if raw.index(torch.ones(3).numpy().tobytes()) % 4:
            path.write_bytes(raw)


# Downloads that failed, and other files.


@hostile("more than the 4,293,918,720 that are read")
def too_large(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**33)


@hostile("torch's old format, of which 536,870,912 are read")
def too_large_legacy(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        file.write(saved(state(), legacy=True))
        file.truncate(2**31)


@hostile("a folder, expected")
def folder(path: Path, canary: Path) -> None:
    path.mkdir()


@hostile("a named pipe, expected")
def pipe(path: Path, canary: Path) -> None:
    os.mkfifo(path)


@hostile("a device, expected")
def device(path: Path, canary: Path) -> None:
    path.symlink_to("/dev/zero")


@hostile("lead in a circle")
def circle(path: Path, canary: Path) -> None:
    path.symlink_to(path)


@hostile("no such file")
def dangling(path: Path, canary: Path) -> None:
    path.symlink_to("/nowhere/at/all")


of_bytes({
    "absolute_entry": ("path reaches outside",
        lambda _: zipped({"data.pkl": EMPTY, "x": b""}, folder="/etc/")),
    "entry_above": ("path reaches outside",
        lambda _: zipped({"data.pkl": EMPTY, "../../../x": b"x"})),
    "entry_with_a_drive": ("path reaches outside",
        lambda _: zipped({"data.pkl": EMPTY}, folder="C:/")),
    "entries_that_differ_in_case": ("two entries named",
        lambda _: zipped({"data.pkl": EMPTY, "DATA.PKL": b"cos\nsystem\n."})),
    "entry_twice": ("two entries named",
        lambda _: _patched(zipped({"data.pkl": EMPTY, "data.pk2": EMPTY}), b".pk2", b".pkl")),
    "entries_of_two_folders": ("share no folder",
        lambda _: _patched(zipped({"data.pkl": EMPTY, "a/b": b""}), b"archive/a", b"brchive/a")),
    "local_header_disagrees": ("not what the directory says",
        lambda _: zipped({"data.pkl": EMPTY}).replace(b"archive/data.pkl", b"archive/data.pk2", 1)),
    "appended": ("cut off or has something appended",
        lambda _: saved(state()) + b"cos\nsystem\n(S'x'\ntR."),
    "numpy_archive": ("no data.pkl", lambda _: zipped({"a.npy": b"x"})),
    "zero_bytes": ("empty .0 bytes.", lambda _: b""),
    "html_page": ("an HTML page.*download the file again",
        lambda _: b"\n<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"),
    "lfs_pointer": ("Git LFS pointer.*git lfs pull",
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"),
    "text_file": ("a text file", lambda _: b"Not found"),
    "json_file": ("JSON text", lambda _: b'{"error": "not found"}'),
    "gzipped": ("gzip; unpack", lambda _: gzip.compress(saved(state()))),
    "noise": ("neither a torch file nor safetensors",
        lambda _: np.random.default_rng(0).bytes(5000)),
    "truncated": ("cut off", lambda _: saved(state())[:-100]),
    "truncated_legacy": ("ends before its tensor data do",
        lambda _: saved(state(), legacy=True)[:-5]),
})  # fmt: skip
