"""A named list of images: what every data set of this project is."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import Dataset

from acon_analysis.columns import SAMPLE_COLUMNS, dtypes, names
from acon_analysis.errors import UsageError


class ImageSource(Dataset[torch.Tensor]):
    """A named, ordered, immutable list of images.

    ``samples`` has the columns `columns.SAMPLE_COLUMNS`, one row an image, ``sample_id`` from 0;
    ``load`` maps a position to an image (C, H, W), float32; ``preprocess`` is a JSON-able identity
    of what is done to an image; ``targets``, int64 (N,), index ``classes`` (None without labels).
    """

    def __init__(
        self,
        name: str,
        samples: pd.DataFrame,
        load: Callable[[int], torch.Tensor],
        *,
        preprocess: dict[str, Any],
        targets: npt.NDArray[np.int64] | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.samples = samples
        self.preprocess = preprocess
        self.targets = targets
        self.classes = classes
        self._load = load

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._load(index)

    def head(self, count: int) -> "ImageSource":
        """Return the source of the first `count` images (all of them if there are fewer)."""
        if count < 1:
            raise UsageError(f"the limit must be at least 1 image; got {count}")
        if count >= len(self):
            return self
        return ImageSource(
            self.name,
            self.samples.iloc[:count],
            self._load,
            preprocess=self.preprocess,
            targets=None if self.targets is None else self.targets[:count],
            classes=self.classes,
        )

    def identity(self) -> str:
        """Return the SHA-256 of the sample list (path, label, size, hash of every image)."""
        require_utf8(self.samples["path"])
        digest = hashlib.sha256()
        columns = [self.samples[name] for name in ("path", "label", "bytes", "sha256")]
        for path, label, size, sha256 in zip(*columns, strict=True):
            known = "" if pd.isna(label) else label
            digest.update(f"{path}\0{known}\0{size}\0{sha256}\n".encode())
        return digest.hexdigest()


def sample_table(
    paths: Sequence[str], labels: Sequence[str | None], sizes: Iterable[int], hashes: Iterable[str]
) -> pd.DataFrame:
    """Return images in order as `columns.SAMPLE_COLUMNS`."""
    values = (range(len(paths)), paths, labels, list(sizes), list(hashes))
    frame = pd.DataFrame(dict(zip(names(SAMPLE_COLUMNS), values, strict=True)))
    return frame.astype(dtypes(SAMPLE_COLUMNS))


def readable_path(path: str) -> str:
    """Return a path as text for tables: bytes that are not UTF-8 as their codes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def require_utf8(paths: Iterable[str]) -> None:
    """Raise for a file name whose bytes are not UTF-8: a run's tables could not hold it."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"data: the file name {os.fsencode(path)!r} is not UTF-8, as a run's tables must "
                "be; rename the file"
            ) from error
