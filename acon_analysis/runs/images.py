"""The images behind a captured run's samples, found again and handed out one by one."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.data.decoding import read_image
from acon_analysis.data.preprocess import PREPROCESSES, get_preprocess
from acon_analysis.errors import AconError
from acon_analysis.runs.run import Run

Picture = npt.NDArray[np.float64]

#: Data sets that have a name; all else is a folder.
NAMED = ("digits", "cifar10")


class RunImages(Mapping[int, Picture]):
    """Pictures by sample_id, each read when it is asked for.

    A sample whose image is gone, or is another one than was captured (by its hash), has none:
    asking for it raises KeyError.

    Parameters
    ----------
    addresses : mapping of int to object
        Where each sample's image is.
    load : callable
        Address -> image (C, H, W) as the network gets it; raises AconError or OSError for none.
    bgr : bool
        Whether the channels of a colour image are stored blue first.
    """

    def __init__(
        self,
        addresses: Mapping[int, Any],
        load: Callable[[Any], npt.NDArray[Any]],
        *,
        bgr: bool = False,
    ) -> None:
        self._addresses, self._load, self._bgr = dict(addresses), load, bgr

    def __getitem__(self, sample: int) -> Picture:
        """Return a picture to show: (H, W) or (H, W, 3), red first, its range brought to 0..1."""
        try:
            image = self._load(self._addresses[sample]).astype(np.float64)
        except (AconError, OSError) as error:
            raise KeyError(sample) from error
        low, high = float(image.min()), float(image.max())
        image = (image - low) / ((high - low) or 1.0)
        if len(image) != 3:
            return np.asarray(image.mean(0))
        return np.asarray((image[::-1] if self._bgr else image).transpose(1, 2, 0))

    def __iter__(self) -> Iterator[int]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)


def images_of(run: Run) -> RunImages | None:
    """Find the images of a run again, where they still are; None where they are not."""
    data = str(run.identity.get("data") or "")
    if not {"sample_id", "path", "sha256"} <= set(run.samples.columns):
        return None
    noted = run.samples.dropna(subset=["path", "sha256"])
    if data.partition(":")[0] in NAMED:
        return _of_named(noted, data)
    folder = Path(data)
    return _of_folder(noted, folder, run.identity) if data and folder.is_dir() else None


def _of_named(noted: pd.DataFrame, data: str) -> RunImages | None:
    """Return the images of a data set with a name, matched by path and hash."""
    from acon_analysis.data.sources import open_data  # it imports torch

    try:
        source = open_data(data, download=False)
    except AconError:
        return None
    keys = zip(source.samples["path"], source.samples["sha256"], strict=True)
    index = {key: number for number, key in enumerate(keys)}
    rows = zip(noted["sample_id"], noted["path"], noted["sha256"], strict=True)
    addresses = {
        int(sample): index[path, sha] for sample, path, sha in rows if (path, sha) in index
    }
    return RunImages(addresses, lambda number: source[number].numpy()) if addresses else None


def _of_folder(noted: pd.DataFrame, folder: Path, identity: Mapping[str, Any]) -> RunImages | None:
    """Return the images of a folder, each checked by its hash when it is read."""
    spec = identity.get("preprocess") or {}
    name = str(spec.get("name", "none"))
    # Code of the user's is not run again only to show an image.
    preprocess = get_preprocess(name if name in PREPROCESSES else "none")

    def load(address: tuple[str, str]) -> npt.NDArray[Any]:
        path, expected = folder / address[0], address[1]
        if hashlib.sha256(read_image(path)).hexdigest() != expected:
            raise AconError(f"{str(path)!r} is not the image that was captured")
        return np.asarray(preprocess(path))

    rows = zip(noted["sample_id"], noted["path"], noted["sha256"], strict=True)
    addresses = {int(sample): (str(path), str(sha)) for sample, path, sha in rows}
    bgr = name in PREPROCESSES and spec.get("channels") == "BGR"
    return RunImages(addresses, load, bgr=bgr) if addresses else None
