"""CIFAR-10 from the original files or from an archive of JPEGs, decoded once into a cache."""

import hashlib
import io
import lzma
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm.auto import tqdm

from acon_analysis.data.image_source import ImageSource, sample_table
from acon_analysis.data.preprocess import CIFAR_MEAN, CIFAR_STD
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.files import (
    atomic_write,
    is_own_file,
    keep_private,
    private_cache,
    read_regular,
    temporary_folder,
)
from acon_analysis.folders import expanded

#: Class names, in the data set's own order.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: Of the 5,000 training images of a class, every tenth is held out for choosing anything.
HELD_OUT_EVERY = 10

#: Images of the original's two parts.
IMAGES = {"train": 50_000, "test": 10_000}

_ARCHIVE, _ORIGINAL = "cifar10-images.tar.xz", "cifar-10-batches-py"
_Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def data_folder() -> Path:
    """Return where data sets are looked for: ``$ACON_DATA``, or ``data`` in the working folder."""
    return expanded(os.environ.get("ACON_DATA", "data"))


def cifar10(split: str = "test", *, download: bool = True) -> ImageSource:
    """Open CIFAR-10 (Krizhevsky 2009): 32x32 colour photographs of ten classes, normalised.

    The images are looked for in `data_folder`: the original files (``cifar-10-batches-py``) or an
    archive of JPEGs (``cifar10-images.tar.xz`` with ``train/CLASS/NUMBER.jpg``; slightly lossy,
    so its hashes differ from the original's); without either, torchvision downloads the original.
    Images alternate between the classes: sample i is of class i mod 10. The splits are "test"
    (10,000), "train" (45,000) and "val" (5,000 of the original training images, never trained on).
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
    own = [CLASSES[label] for label in labels[chosen]]
    samples = sample_table(
        [f"{part}/{name}/{i // len(CLASSES):04d}" for name, i in zip(own, chosen, strict=True)],
        own,
        [pixels[0].nbytes] * len(chosen),
        (hashlib.sha256(pixels[index].tobytes()).hexdigest() for index in chosen),
    )
    return ImageSource(
        f"cifar10:{split}",
        samples,
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
    """Download the original files, which torchvision's own class would unpickle."""
    try:
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import download_and_extract_archive

        # In a folder where nobody can exchange the archive after it has been checked.
        with temporary_folder() as scratch:
            download_and_extract_archive(
                CIFAR10.url, str(scratch), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5
            )
            for file in sorted((scratch / _ORIGINAL).iterdir()):
                atomic_write(folder / _ORIGINAL / file.name, file.read_bytes())
    except (ImportError, OSError, RuntimeError) as error:
        raise AconError(
            f"CIFAR-10 is not in {str(folder)!r} (neither {_ORIGINAL}/ nor {_ARCHIVE}) and could "
            f"not be downloaded ({type(error).__name__}: {error}); put it there, or name its "
            f"folder with the environment variable ACON_DATA"
        ) from error


def _read_original(folder: Path, part: str) -> _Arrays:
    files = ["test_batch"] if part == "test" else [f"data_batch_{n}" for n in range(1, 6)]
    pixels, labels = zip(*(_read_batch(folder / name) for name in files), strict=True)
    return np.concatenate(pixels).transpose(0, 2, 3, 1), np.concatenate(labels)


def _read_batch(path: Path) -> _Arrays:
    """Return the pixels (N, 3, 32, 32) and labels (N,) of one original file."""
    try:
        batch = _ImagesOnly(io.BytesIO(read_regular(path, _BATCH_BYTES)), encoding="bytes").load()
        pixels, labels = batch[b"data"].pixels(), batch[b"labels"]
        if type(labels) is not list or len(labels) != len(pixels):
            raise ValueError("it has not one label for each image")
        if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
            raise ValueError("a label is no number of a class")
    except AconError:
        raise
    except Exception as error:  # pickle raises nearly everything on damaged files
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AconError(
            f"{str(path)!r} is damaged, or no file of CIFAR-10 ({why[:200]}); download it again"
        ) from error
    return pixels, np.array(labels, dtype=np.int64)


#: Largest original file, about twice a real one, and most bytes that its text may become.
_BATCH_BYTES = 2**26

#: What a pickled array is made of.
_ARRAY_PARTS = frozenset({
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
})  # fmt: skip

#: The pickle instructions of such files.
_OPCODES = (
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NONE", "NEWTRUE", "NEWFALSE", "BININT",
    "BININT1", "BININT2", "LONG1", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE",
    "BINBYTES", "SHORT_BINBYTES", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS",
)  # fmt: skip


class _Batch(dict[bytes, Any]):
    """A dictionary whose keys are names; the hash of a deep tuple would overflow the stack."""

    __slots__ = ()

    def __setitem__(self, key: bytes, value: Any) -> None:
        if not isinstance(key, bytes):
            raise ValueError("a key is no name")
        super().__setitem__(key, value)


class _Type:
    """Stands for the only type there is, bytes, whatever else is said about it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which bytes have not."""


class _Array:
    """Stands for an array: keeps what NumPy would have been given."""

    __slots__ = ("state",)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return the images (N, 3, 32, 32)."""
        match self.state:
            case (1, (int() as count, 3072), _Type(), bool() | 0 | 1 as fortran, bytes() as raw):
                if count > 0 and len(raw) == count * 3072:
                    flat = np.frombuffer(raw, np.uint8)
                    rows = flat.reshape(count, 3072, order="F" if fortran else "C")
                    return rows.reshape(count, 3, 32, 32)
        raise ValueError("its 'data' are no images of 3,072 bytes")


class _Part:
    """Stands for a name that a pickled array needs; NumPy itself is never called."""

    __slots__ = ("name", "reader")

    def __init__(self, reader: "_ImagesOnly", name: str) -> None:
        self.reader, self.name = reader, name

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"it changes {self.name}")

    def __call__(self, *arguments: object) -> object:
        match self.name, *arguments:
            case "dtype", "u1" | b"u1", 0, 1:
                return _Type()
            case "_reconstruct", _Part(name="ndarray"), (0,), b"b":
                return _Array()
            case "encode", str(text), "latin1" | b"latin1":
                self.reader.left -= len(text)
                if self.reader.left >= 0:
                    return text.encode("latin1")
        raise ValueError(f"it calls {self.name} as no array of bytes does")


class _ImagesOnly(pickle._Unpickler):
    """Reads the original batches, which are pickles: names, numbers and bytes, nothing else."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in _OPCODES
    }
    left = _BATCH_BYTES

    dispatch[pickle.EMPTY_DICT[0]] = lambda reader: reader.append(_Batch())

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAY_PARTS:
            return _Part(self, name)
        raise AconError(f"the CIFAR-10 files hold {module}.{name}, which is no image; refused")


def _read_archive(archive: Path, part: str) -> _Arrays:
    total = IMAGES[part]
    pixels = np.zeros((total, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(total, dtype=np.int64)
    try:
        found = sorted(tqdm(_members(archive, part), total=total, desc="decoding CIFAR-10"))
    except (tarfile.TarError, lzma.LZMAError, EOFError, RecursionError) as error:
        raise AconError(f"{str(archive)!r} is damaged ({error}); download it again") from error
    if len(found) != total:
        raise AconError(f"{str(archive)!r} holds {len(found)} {part} images; expected {total}")
    for row, (name, content) in enumerate(found):
        label = name.split("/")[1]
        if label not in CLASSES:
            raise AconError(f"{str(archive)!r}: {name!r} is in no folder of a class")
        labels[row] = CLASSES.index(label)
        try:
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                if image.size != (32, 32):
                    raise AconError(f"{str(archive)!r}: {name!r} is no image of 32x32 pixels")
                pixels[row] = np.asarray(image.convert("RGB"))
        except AconError:
            raise
        except Exception as error:  # PIL raises nearly everything on damaged files
            raise AconError(f"{str(archive)!r}: {name!r} is no JPEG ({error})") from error
    return pixels, labels


#: Most bytes of a file in the archive and of all together, and most files; real ones: 3 kB, 250 MB.
_MEMBER_BYTES, _ARCHIVE_BYTES, _MEMBERS = 2**16, 2**29, 100_000


class _Unpacked(lzma.LZMAFile):
    """An archive that does not unpack to more than images have."""

    def read(self, size: int | None = -1) -> bytes:
        """Read as many bytes as a file may have."""
        if size is None or not 0 <= size <= 2 * _MEMBER_BYTES or self.tell() > _ARCHIVE_BYTES:
            raise AconError("the archive of CIFAR-10 unpacks to more than images; refused")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position that an archive of images has."""
        if offset > _ARCHIVE_BYTES:
            raise AconError("the archive of CIFAR-10 unpacks to more than images; refused")
        return super().seek(offset, whence)


class _Member(tarfile.TarInfo):
    """A file, a folder or a header of the archive, refused by its size before it is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in (tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE) or not (
            0 <= member.size <= _MEMBER_BYTES
        ):
            raise AconError(
                f"the archive of CIFAR-10 holds {member.name!r:.100} ({member.size:,} bytes), "
                "which is no image; refused"
            )
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:
        """Refuse a sparse file whose map would be read as a whole (called by tarfile)."""
        raise AconError("the archive of CIFAR-10 holds a sparse file; refused")


def _members(archive: Path, part: str) -> Iterator[tuple[str, bytes]]:
    with _Unpacked(archive) as stream, tarfile.TarFile(fileobj=stream, tarinfo=_Member) as tar:
        for number, member in enumerate(tar):
            # A pax header can give another size, and make a file sparse.
            if number > _MEMBERS or member.size > _MEMBER_BYTES or member.issparse():
                raise AconError("the archive of CIFAR-10 holds more than images; refused")
            if member.isfile() and member.name.startswith(f"{part}/"):
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def _alternate(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> _Arrays:
    """Order images so that the classes take turns; within a class the order stays."""
    own = np.stack([np.flatnonzero(labels == label) for label in range(len(CLASSES))], axis=1)
    order = own.reshape(-1)
    return np.ascontiguousarray(pixels[order]), labels[order]
