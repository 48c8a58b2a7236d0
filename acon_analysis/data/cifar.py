"""CIFAR-10 from the original files or from an archive of JPEGs, decoded once into a cache."""

import hashlib
import io
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from tqdm.auto import tqdm

from acon_analysis.columns import SAMPLE_COLUMNS, names
from acon_analysis.data.image_source import ImageSource
from acon_analysis.data.preprocess import CIFAR_MEAN, CIFAR_STD
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.files import is_own_file, keep_private, private_cache

#: Class names, in the data set's own order.
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

#: Of the 5,000 training images of a class, every tenth is held out for choosing anything.
HELD_OUT_EVERY = 10

#: Images of the original's two parts.
IMAGES = {"train": 50_000, "test": 10_000}

_ARCHIVE, _ORIGINAL = "cifar10-images.tar.xz", "cifar-10-batches-py"
_Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def data_folder() -> Path:
    """Return where data sets are looked for: ``$ACON_DATA``, or ``data`` in the working folder."""
    return Path(os.environ.get("ACON_DATA", "data")).expanduser()


def cifar10(split: str = "test", *, download: bool = True) -> ImageSource:
    """Open CIFAR-10: 32x32 colour photographs of ten classes, normalised per channel.

    The images are looked for in `data_folder`: the original files (``cifar-10-batches-py``) or an
    archive of JPEGs (``cifar10-images.tar.xz`` with ``train/CLASS/NUMBER.jpg``; slightly lossy,
    so its hashes differ from the original's); without either, torchvision downloads the original.
    Images alternate between the classes: sample i is of class i mod 10.

    Parameters
    ----------
    split : str
        ``"test"`` (10,000), ``"train"`` (45,000) or ``"val"`` (5,000 of the original training
        images, never trained on).
    download : bool
        Whether to download images that are not there.

    Raises
    ------
    AconError
        If the images are not there and cannot be, or shall not be, downloaded.

    References
    ----------
    A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images, technical report,
    University of Toronto.
    """
    if split not in ("train", "val", "test"):
        options = ["test", "train", "val"]
        raise UsageError(f"cifar10 has no split {split!r}: {closest(split, options)}")
    folder = data_folder()
    if not download and _source(folder) is None:
        raise AconError(f"CIFAR-10 is not in {str(folder)!r} (neither {_ORIGINAL}/ nor {_ARCHIVE})")
    pixels, labels = _decoded("test" if split == "test" else "train")
    chosen = np.arange(len(labels))
    if split != "test":
        held_out = (chosen // len(CLASSES)) % HELD_OUT_EVERY == 0
        chosen = chosen[held_out if split == "val" else ~held_out]
    part = "test" if split == "test" else "train"
    frame = pd.DataFrame(
        {
            "sample_id": np.arange(len(chosen), dtype=np.int64),
            "path": [
                f"{part}/{CLASSES[labels[index]]}/{index // len(CLASSES):04d}" for index in chosen
            ],
            "label": [CLASSES[label] for label in labels[chosen]],
            "bytes": np.full(len(chosen), pixels[0].nbytes, dtype=np.int64),
            "sha256": [hashlib.sha256(pixels[index].tobytes()).hexdigest() for index in chosen],
        }
    )
    return ImageSource(
        f"cifar10:{split}",
        frame[names(SAMPLE_COLUMNS)],
        _Normalised(pixels[chosen]),
        preprocess={"name": "cifar10", "mean": list(CIFAR_MEAN), "std": list(CIFAR_STD)},
        targets=labels[chosen],
        classes=CLASSES,
    )


class _Normalised:
    """Position -> image (3, 32, 32), float32, normalised; keeps the pixels as bytes."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.scale = (1 / (255 * np.array(CIFAR_STD))).astype(np.float32)[:, None, None]
        self.offset = (np.array(CIFAR_MEAN) / np.array(CIFAR_STD)).astype(np.float32)[:, None, None]

    def __call__(self, index: int) -> torch.Tensor:
        image = self.pixels[index].transpose(2, 0, 1).astype(np.float32)
        return torch.from_numpy(image * self.scale - self.offset)


@lru_cache(maxsize=2)
def _decoded(part: str) -> _Arrays:
    """Return pixels (N, 32, 32, 3) and labels (N,), classes alternating, from the cache or anew."""
    folder = data_folder()
    source = _source(folder)
    if source is None:
        _download(folder)
        source = folder / _ORIGINAL
    stamp = f"{source.resolve()}:{source.stat().st_mtime_ns}"
    digest = hashlib.sha256(stamp.encode()).hexdigest()[:16]
    private = private_cache()
    cache = None if private is None else private / f"cifar10-{part}-{digest}.npz"
    kept = None if cache is None else _kept(cache)
    if kept is not None:
        return kept
    read = _read_original if source.name == _ORIGINAL else _read_archive
    pixels, labels = _alternate(*read(source, part))
    if cache is not None:
        keep_private(cache, lambda file: np.savez(file, pixels=pixels, labels=labels))
    return pixels, labels


def _kept(cache: Path) -> _Arrays | None:
    """Return what was decoded before; None if it is not there, damaged, or of another user."""
    if not is_own_file(cache):
        return None
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["pixels"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _source(folder: Path) -> Path | None:
    original, archive = folder / _ORIGINAL, folder / _ARCHIVE
    return original if original.is_dir() else archive if archive.is_file() else None


def _download(folder: Path) -> None:
    try:
        from torchvision.datasets import CIFAR10

        CIFAR10(str(folder), download=True)
    except (ImportError, OSError, RuntimeError) as error:
        raise AconError(
            f"CIFAR-10 is not in {str(folder)!r} (neither {_ORIGINAL}/ nor {_ARCHIVE}) and could "
            f"not be downloaded ({type(error).__name__}: {error}); put it there, or name its "
            f"folder with the environment variable ACON_DATA"
        ) from error


def _read_original(folder: Path, part: str) -> _Arrays:
    files = ["test_batch"] if part == "test" else [f"data_batch_{n}" for n in range(1, 6)]
    pixels, labels = [], []
    for name in files:
        with (folder / name).open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        pixels.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels.append(np.asarray(batch[b"labels"], dtype=np.int64))
    return np.concatenate(pixels).transpose(0, 2, 3, 1), np.concatenate(labels)


#: What a pickled array is made of.
_ARRAY_PARTS = frozenset({
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
})  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    """Reads the original batches, which are pickles, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAY_PARTS:
            return super().find_class(module, name)
        raise AconError(f"the CIFAR-10 files hold {module}.{name}, which is no image; refused")


def _read_archive(archive: Path, part: str) -> _Arrays:
    total = IMAGES[part]
    pixels = np.zeros((total, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(total, dtype=np.int64)
    found = sorted(tqdm(_members(archive, part), total=total, desc="decoding CIFAR-10"))
    if len(found) != total:
        raise AconError(f"{str(archive)!r} holds {len(found)} {part} images; expected {total}")
    for row, (name, content) in enumerate(found):
        labels[row] = CLASSES.index(name.split("/")[1])
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            pixels[row] = np.asarray(image.convert("RGB"))
    return pixels, labels


def _members(archive: Path, part: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(f"{part}/"):
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def _alternate(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> _Arrays:
    """Order images so that the classes take turns; within a class the order stays."""
    own = np.stack([np.flatnonzero(labels == label) for label in range(len(CLASSES))], axis=1)
    order = own.reshape(-1)
    return np.ascontiguousarray(pixels[order]), labels[order]
