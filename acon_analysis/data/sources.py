"""Images with names: scikit-learn's digits and folders of photographs, one interface for all.

A source is a map-style torch data set whose items are preprocessed images (C, H, W), float32,
with a table of samples; a bad image raises `data.decoding.BadImageError` when it
is asked for.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from acon_analysis.data.cifar import cifar10
from acon_analysis.data.decoding import BadImageError, decode_bytes, read_image
from acon_analysis.data.hashes import hash_files
from acon_analysis.data.image_source import ImageSource, readable_path, sample_table
from acon_analysis.data.preprocess import Preprocess, get_preprocess
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.folders import expanded

#: Endings that count as images in a folder.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

#: Images of each digit that the test split holds; training never sees them.
DIGITS_TEST_PER_CLASS = 50


def open_data(
    data: str | Path,
    preprocess: str | None = None,
    *,
    memory: Path | None = None,
    download: bool = True,
) -> ImageSource:
    """Open images by name.

    Parameters
    ----------
    data : str or Path
        ``"digits"`` (the test split), ``"digits:train"``, ``"cifar10"`` (likewise, and
        ``"cifar10:val"``), or a folder of images: one sub-folder a class, or flat.
    preprocess : str, optional
        For folders: a name that `preprocess.get_preprocess` knows. Default ``"none"``.
    memory : Path, optional
        For folders: where the hashes of many files are remembered; see `hashes.hash_files`.
    download : bool
        Whether a named data set that is not there is downloaded.

    Raises
    ------
    AconError
        If a named data set is not there and cannot be, or shall not be, downloaded.
    UsageError
        If the name is neither a known data set nor a folder with images.
    """
    if not str(data).strip():
        raise UsageError("data is empty; give 'digits', 'cifar10' or a folder of images")
    name, _, split = str(data).partition(":")
    if name == "digits":
        return digits(split or "test")
    if name == "cifar10":
        return cifar10(split or "test", download=download)
    folder = expanded(data)
    if folder.is_dir():
        return image_folder(folder, get_preprocess(preprocess or "none"), memory)
    if folder.is_file():
        raise UsageError(f"data: {str(data)!r} is a file; give the folder that holds the images")
    if str(data).rpartition(":")[0].endswith(".py"):
        raise UsageError(
            f"data: {str(data)!r} is a callable, and this needs images by their numbers: give "
            "'digits', 'cifar10' or a folder of images"
        )
    raise UsageError(
        f"data: {str(data)!r} is neither a data set ('digits', 'digits:train', 'cifar10', "
        f"'cifar10:train', 'cifar10:val') nor an existing folder"
    )


def digits(split: str = "test") -> ImageSource:
    """Open scikit-learn's 1,797 handwritten digits, 8x8 pixels, grey values 0 to 1.

    The split is fixed and stratified: of every digit, `DIGITS_TEST_PER_CLASS` images at even
    distances in the data set's own order are the split "test" (500 images), the rest (1,297) is
    "train". Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI
    Machine Learning Repository, DOI 10.24432/C50P49; the test part, as scikit-learn ships it.
    """
    if split not in ("train", "test"):
        raise UsageError(f"digits has no split {split!r}: {closest(split, ['test', 'train'])}")
    images, labels = _load_digits()
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        own = np.flatnonzero(labels == digit)
        step = np.arange(DIGITS_TEST_PER_CLASS) * len(own) // DIGITS_TEST_PER_CLASS
        held_out[own[step]] = True
    chosen = np.flatnonzero(held_out if split == "test" else ~held_out)
    pixels = torch.from_numpy(images[chosen]).unsqueeze(1)
    samples = sample_table(
        [f"digits/{index:04d}" for index in chosen],
        labels[chosen].astype(str).tolist(),
        [images[0].nbytes] * len(chosen),
        (hashlib.sha256(images[index].tobytes()).hexdigest() for index in chosen),
    )
    return ImageSource(
        f"digits:{split}",
        samples,
        pixels.__getitem__,
        preprocess={"name": "digits", "scale": "0..16 to 0..1"},
        targets=labels[chosen],
        classes=tuple(str(digit) for digit in range(10)),
    )


@lru_cache(maxsize=1)
def _load_digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)


#: Stands for the hash of a file that might not be read when its folder was listed.
_UNREAD = bytes(32)


class _FolderLoader:
    """Decodes and preprocesses one file; a class, so that worker processes can have it."""

    def __init__(
        self, folder: Path, paths: list[str], hashes: Iterable[str], preprocess: Preprocess
    ) -> None:
        self.folder, self.paths, self.preprocess = folder, paths, preprocess
        # One object for all of them: worker processes get it, too.
        self.hashes = b"".join(bytes.fromhex(digest) or _UNREAD for digest in hashes)

    def __call__(self, index: int) -> torch.Tensor:
        path = self.folder / self.paths[index]
        try:
            image = decode_bytes(self._content(path, self.hashes[32 * index : 32 * index + 32]))
            array = self.preprocess.apply(image)
        except BadImageError as error:
            raise BadImageError(f"{readable_path(path.name)}: {error}") from error
        return torch.as_tensor(array, dtype=torch.float32)

    @staticmethod
    def _content(path: Path, digest: bytes) -> bytes:
        """Read a file; what it was when the folder was listed, or this is a failure."""
        try:
            content = read_image(path)
        except OSError as error:
            reason = error.strerror or str(error)
            if digest == _UNREAD:
                raise BadImageError(reason) from error
            raise AconError(
                f"data: {str(path)!r} cannot be read any more: {reason}; once it can, the same "
                "command continues"
            ) from error
        if hashlib.sha256(content).digest() != digest:
            raise AconError(
                f"data: {str(path)!r} is not the file that it was when the folder was listed (its "
                "SHA-256 differs); put that one back, or capture the folder as it is now into "
                "another run"
            )
        return content


def image_folder(folder: Path, preprocess: Preprocess, memory: Path | None = None) -> ImageSource:
    """Open a folder of images: one sub-folder a class, or flat (then without labels).

    Hidden files and other file types are passed over. Every file is hashed, in threads; one that
    has been replaced, or cannot be read any more, when its image is asked for is an `AconError`,
    because its image would not be the one listed. A file without permission is a bad image; one
    that cannot be read for another reason is an `AconError`, a folder without images a
    `UsageError`. ``memory`` is where the hashes of many files are remembered; see
    `hashes.hash_files`.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(f"data: the folder {str(folder)!r} holds no images ({endings})")
    paths = [path.relative_to(folder).as_posix() for path in files]
    shown = [readable_path(path) for path in paths]
    labels = [path.partition("/")[0] if "/" in path else None for path in shown]
    sizes, hashes = zip(*hash_files(folder, paths, memory), strict=True)
    classes = tuple(sorted({label for label in labels if label is not None}))
    index = {name: position for position, name in enumerate(classes)}
    targets = None
    if None not in labels:
        targets = np.array([index[str(label)] for label in labels], dtype=np.int64)
    return ImageSource(
        str(folder),
        sample_table(shown, labels, sizes, hashes),
        _FolderLoader(folder, paths, hashes, preprocess),
        preprocess=preprocess.spec,
        targets=targets,
        classes=classes,
    )
