"""A batch of images on its way into a capture, and what is known of images without a name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from acon_analysis.errors import UsageError

#: Says of a unit whether this process shall capture it.
Wanted = Callable[[int], bool]

#: Keys under which an item or batch that is a dict may hold its images, and its labels.
IMAGE_KEYS = ("image", "images", "pixel_values", "x")
LABEL_KEYS = ("label", "labels", "target", "y")


@dataclass
class Batch:
    """Some images of one unit.

    Parameters
    ----------
    unit : int
        Their unit of work.
    ids : list of int
        sample_ids of the images.
    images : torch.Tensor or None
        (N, ...), None when every image of the batch was bad.
    errors : list of (int, str)
        sample_id and reason of the bad images.
    rows : list of dict
        Rows of the sample table, where it is not known beforehand.
    last : bool
        Whether the unit ends with this batch.
    passed : bool
        Whether these images are not to be captured, only to be compared with what a finished unit
        holds.
    labels : sequence or None
        One an image, of passed images whose `rows` have not been made.
    """

    unit: int
    ids: list[int]
    images: torch.Tensor | None
    errors: list[tuple[int, str]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    last: bool = False
    passed: bool = False
    labels: Sequence[Any] | None = None

    def sample_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the sample table; hashes the images where that is not done yet."""
        if self.rows or self.labels is None or self.images is None:
            return self.rows
        items = zip(self.ids, self.images, self.labels, strict=True)
        return [sample_row(*item) for item in items]


class Feed(Protocol):
    """Where a capture's images come from."""

    #: The sample table, where it is known beforehand.
    samples: pd.DataFrame | None
    #: Number of images, where it is known beforehand.
    count: int | None
    #: JSON-able: what makes two captures' images the same.
    identity: dict[str, Any]

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Yield the batches of the wanted units, in order."""


def split_item(item: Any, what: str = "item") -> tuple[torch.Tensor, Any]:
    """Return image(s) and label(s) of an item or batch; the label is None where there is none.

    Parameters
    ----------
    item : Any
        Images, (images, labels, ...), or a dict with one of the `IMAGE_KEYS`.
    what : str
        How an error calls it.

    Raises
    ------
    UsageError
        If it holds no numbers to make a tensor of.
    """
    image, label = item, None
    if isinstance(item, dict):
        key = next((key for key in IMAGE_KEYS if key in item), None)
        if key is None:
            raise UsageError(
                f"data: {what} is a dict with the keys {', '.join(map(repr, item)) or 'none'}; "
                f"its images are expected under one of {', '.join(map(repr, IMAGE_KEYS))}"
            )
        image = item[key]
        label = next((item[key] for key in LABEL_KEYS if key in item), None)
    elif isinstance(item, tuple | list):
        if not item:
            raise UsageError(f"data: {what} is an empty {type(item).__name__}; expected are images")
        image, label = item[0], item[1] if len(item) > 1 else None
    return _as_tensor(image, what), label


def _as_tensor(image: Any, what: str) -> torch.Tensor:
    try:
        found = torch.as_tensor(image)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
        raise UsageError(
            f"data: {what} holds {kind!r} where a tensor or an array of numbers is expected; "
            "a transform of the data set, such as torchvision.transforms.ToTensor(), makes one of "
            "a picture"
        ) from error
    if found.ndim == 0:
        raise UsageError(f"data: {what} holds a single number where an image is expected")
    return found


def sample_row(sample: int, image: torch.Tensor, label: Any) -> dict[str, Any]:
    """Return a row of the sample table for an image that has no name of its own."""
    raw = np.ascontiguousarray(image.detach().cpu().numpy()).tobytes()
    if isinstance(label, torch.Tensor):
        label = label.item() if label.numel() == 1 else None
    return _row(sample, label, len(raw), sha256(raw).hexdigest())


def bad_row(sample: int) -> dict[str, Any]:
    """Return a row of the sample table for an image that cannot be used."""
    return _row(sample, None, -1, "")


def _row(sample: int, label: Any, size: int, digest: str) -> dict[str, Any]:
    return {
        "sample_id": sample,
        "path": f"item/{sample:07d}",
        "label": None if label is None else str(label),
        "bytes": size,
        "sha256": digest,
    }
