"""Batches of samples on their way into a network: arguments, sample ids, labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol

import pandas as pd
import torch

#: Unit of work -> whether its batches are wanted.
Wanted = Callable[[int], bool]


@dataclass
class Batch:
    """Some samples of one unit of work.

    Parameters
    ----------
    unit : int
        Their unit of work.
    ids : list of int
        sample_id of each sample.
    inputs : torch.Tensor or None
        (N, ...), None when every sample of the batch was bad.
    labels : list or None
        One label a sample: class indices of an image source, otherwise what the data hold. None
        where the data have no labels.
    errors : list of (int, str)
        sample_id and reason of the bad samples.
    rows : list of dict or None
        Rows of the sample table, where it is not known beforehand; None before `sample_rows` has
        made them.
    last : bool
        Whether the unit ends with this batch.
    passed : bool
        Whether these samples are not to be captured, only to be compared with what a finished
        unit holds.
    """

    unit: int
    ids: list[int]
    inputs: torch.Tensor | None
    labels: list[Any] | None = None
    errors: list[tuple[int, str]] = field(default_factory=list)
    rows: list[dict[str, Any]] | None = field(default_factory=list)
    last: bool = False
    passed: bool = False

    def arguments(self) -> tuple[Any, ...]:
        """Return the arguments that the model is called with; none without a good sample."""
        return () if self.inputs is None else (self.inputs,)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its inputs on a device; pinned memory is copied asynchronously."""
        if self.inputs is None:
            return self
        return replace(self, inputs=self.inputs.to(device, non_blocking=True))

    def permuted(self, order: Sequence[int]) -> "Batch":
        """Return the batch with its samples in another order.

        Parameters
        ----------
        order : sequence of int
            A permutation of 0 to N - 1: sample ``order[i]`` becomes sample i.

        Raises
        ------
        ValueError
            If it is no permutation.
        """
        if sorted(order) != list(range(len(self.ids))):
            raise ValueError(
                f"order must be a permutation of 0 to {len(self.ids) - 1}; got {list(order)}"
            )
        return replace(
            self,
            ids=[self.ids[index] for index in order],
            inputs=None if self.inputs is None else self.inputs[list(order)],
            labels=None if self.labels is None else [self.labels[index] for index in order],
        )

    def parts(self, sizes: Sequence[int]) -> list["Batch"]:
        """Return the batch cut into consecutive parts.

        Parameters
        ----------
        sizes : sequence of int
            Samples of each part, at least one; their sum is N.

        Returns
        -------
        list of Batch
            Without `errors`, `rows` and `last`, which belong to the whole.

        Raises
        ------
        ValueError
            If the sizes do not add up to N.
        """
        if sum(sizes) != len(self.ids) or min(sizes, default=0) < 1:
            raise ValueError(
                f"sizes must be positive and add up to {len(self.ids)} samples; got {list(sizes)}"
            )
        found, start = [], 0
        for size in sizes:
            part = slice(start, start + size)
            inputs = None if self.inputs is None else self.inputs[part]
            labels = None if self.labels is None else self.labels[part]
            found.append(Batch(self.unit, self.ids[part], inputs, labels))
            start += size
        return found

    def sample_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the sample table; the first call hashes the samples."""
        if self.rows is None:
            inputs = () if self.inputs is None else self.inputs
            labels = self.labels or [None] * len(self.ids)
            items = zip(self.ids, inputs, labels, strict=True)
            self.rows = [sample_row(*item) for item in items]
        return self.rows


class Feed(Protocol):
    """Where samples come from; `acon_hooks.engine.feeding.open_feed` makes one of any data."""

    #: What the data are, for messages.
    what: str
    #: The sample table, where it is known beforehand.
    samples: pd.DataFrame | None
    #: Number of samples, where it is known beforehand.
    count: int | None
    #: JSON-able: what makes the samples of two captures the same.
    identity: dict[str, Any]

    def batches(self, wanted: Wanted | None = None) -> Iterator[Batch]:
        """Yield the batches of the wanted units, by default of all, in order."""

    def first(self) -> Batch | None:
        """Return the first batch of all, whatever is wanted; None where it comes only once."""


def sample_row(sample: int, image: torch.Tensor, label: Any) -> dict[str, Any]:
    """Return a row of the sample table for a sample that has no name of its own."""
    raw = raw_bytes(image)
    label = None if isinstance(label, torch.Tensor) else label
    return _row(sample, label, len(raw), sha256(raw).hexdigest())


def raw_bytes(image: torch.Tensor) -> bytes:
    """Return the numbers of a tensor of any type as they lie in memory, row by row."""
    return image.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def bad_row(sample: int) -> dict[str, Any]:
    """Return a row of the sample table for a sample that cannot be used."""
    return _row(sample, None, -1, "")


def _row(sample: int, label: Any, size: int, digest: str) -> dict[str, Any]:
    return {
        "sample_id": sample,
        "path": f"item/{sample:07d}",
        "label": None if label is None else str(label),
        "bytes": size,
        "sha256": digest,
    }
