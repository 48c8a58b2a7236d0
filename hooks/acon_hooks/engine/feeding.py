"""A feed of any data: batches that never cross a unit of work, bad samples set aside."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from acon_analysis.data.image_source import ImageSource
from acon_analysis.data.preprocess import BadImageError
from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, UsageError
from acon_analysis.store.folder import UNIT_SIZE
from acon_hooks.engine.feed import (
    Batch,
    Feed,
    Wanted,
    bad_row,
    raw_bytes,
    sample_row,
)
from acon_hooks.engine.items import plain_label, split_item
from acon_hooks.engine.streams import StreamFeed
from acon_hooks.errors import NoImagesError

#: Images of a folder from which on worker processes are worth their start.
MANY = 200

#: Images of a nameless data set that stand for all of it when two captures are compared.
PROBES = 8

#: Batches of a folder that are decoded without workers, to see how many are worth while.
_PACED = 2

#: Seconds for decoding and for computing a batch -> worker processes.
Chooser = Callable[[float, float], int]


def open_feed(
    data: Any,
    *,
    preprocess: str | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    unit_size: int = UNIT_SIZE,
    workers: int | None = None,
    default_workers: Callable[[], Chooser] | None = None,
    pin_memory: bool = False,
    memory: Path | None = None,
) -> Feed:
    """Make a feed of any data.

    Parameters
    ----------
    data : str, Path, ImageSource, Dataset, DataLoader or iterable
        A name that `open_data` knows; a map-style data set of images, (image, label, ...) or
        dicts; a loader or iterable of batches, likewise. A data set without names is known by its
        class, its length and `PROBES` of its images, evenly spread: other images that are altered
        between two calls are not noticed. Of a stream, every image is compared.
    preprocess : str, optional
        For folders.
    limit : int, optional
        Take only the first `limit` samples.
    batch_size, unit_size : int
        Samples a batch and a unit; a loader has its own batches.
    workers : int, optional
        Worker processes that decode; by default none, except for a folder of at least `MANY`
        images: there the first two batches are timed.
    default_workers : callable, optional
        Returns a function that chooses the number of workers from the seconds that a batch took to
        decode and to compute.
    pin_memory : bool
        Page-locked batches, for a device to copy from.
    memory : Path, optional
        Where the hashes of a folder's files are remembered.

    Raises
    ------
    UsageError
        If the data are none of these, hold no images, or come in another order every time; if a
        number is out of range.
    """
    if batch_size < 1 or unit_size < 1:
        raise UsageError(
            f"batch size and unit must be at least 1; got {batch_size} and {unit_size}"
        )
    if workers is not None and workers < 0:
        raise UsageError(f"workers must be 0 or more; got {workers}")
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1 image; got {limit}")
    if isinstance(data, str | Path):
        data = open_data(data, preprocess, memory=memory)
    if isinstance(data, ImageSource):
        source = data if limit is None else data.head(limit)
    elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        source = None
    elif isinstance(data, Iterable) and not isinstance(data, torch.Tensor):
        return StreamFeed(data, unit_size=unit_size, limit=limit)
    else:
        raise UsageError(
            f"data must be a name, a folder, a Dataset, a DataLoader or an iterable of batches; "
            f"got {type(data).__name__!r}"
        )
    choose = None
    if workers is None and default_workers is not None and source is not None:
        choose = default_workers() if Path(source.name).is_dir() and len(source) >= MANY else None
    return MapFeed(
        source if source is not None else data,
        limit=limit,
        batch_size=batch_size,
        unit_size=unit_size,
        workers=workers or 0,
        choose_workers=choose,
        pin_memory=pin_memory,
    )


class MapFeed:
    """Batches of a map-style data set, decoded by worker processes where asked."""

    what = "data set"

    def __init__(
        self,
        source: Any,
        *,
        limit: int | None,
        batch_size: int,
        unit_size: int,
        workers: int,
        pin_memory: bool,
        choose_workers: Chooser | None = None,
    ) -> None:
        self.source = source
        known = isinstance(source, ImageSource)
        self.samples = source.samples if known else None
        self.targets = source.targets if known else None
        length = len(source)
        self.count: int | None = length if limit is None else min(limit, length)
        if self.count == 0:
            raise NoImagesError(f"the data set {type(source).__name__} holds no images")
        self.identity = (
            {
                "data": source.name,
                "samples_sha256": source.identity(),
                "preprocess": source.preprocess,
            }
            if known
            else {
                "data": f"{type(source).__module__}.{type(source).__qualname__}",
                "probe_sha256": _probe(source, self.count or 0),
            }
        ) | {"count": self.count}
        self.batch_size, self.unit_size = batch_size, unit_size
        self.workers, self.choose_workers, self.pin_memory = workers, choose_workers, pin_memory

    def batches(self, wanted: Wanted | None = None) -> Iterator[Batch]:
        """Yield the batches of the wanted units, by default of all, in order."""
        count = self.count or 0
        plan: list[list[int]] = []
        for unit in range(-(-count // self.unit_size)):
            if wanted is None or wanted(unit):
                stop = min((unit + 1) * self.unit_size, count)
                starts = range(unit * self.unit_size, stop, self.batch_size)
                plan += [list(range(start, min(start + self.batch_size, stop))) for start in starts]
        for ids, collated in zip(plan, self._collated(plan), strict=True):
            yield self._batch(ids, collated)

    def first(self) -> Batch:
        """Return the data set's first batch, decoded in this process."""
        ids = list(range(min(self.batch_size, self.unit_size, self.count or 0)))
        return self._batch(ids, _collate([self._tried()[index] for index in ids]))

    def _batch(self, ids: list[int], collated: "_Collated | str") -> Batch:
        """Return the batch of some planned sample ids."""
        if isinstance(collated, str):
            raise AconError(collated)
        good, inputs, labels, errors, rows = collated
        if self.targets is not None:
            labels = [int(self.targets[sample]) for sample in good]
        end = ids[-1] + 1
        last = end == self.count or end % self.unit_size == 0
        return Batch(ids[0] // self.unit_size, good, inputs, labels, errors, rows, last)

    def _tried(self) -> "_Tried":
        return _Tried(self.source, known=self.samples is not None)

    def _collated(self, plan: list[list[int]]) -> Iterator["_Collated | str"]:
        """Yield the batches of a plan; the first ones are timed to choose the number of workers."""
        if self.choose_workers is not None:
            source = self._tried()
            decoding = computing = 0.0
            for ids in plan[:_PACED]:  # the last one counts: the first proves, too
                start = time.perf_counter()
                collated = _collate([source[index] for index in ids])
                decoding = time.perf_counter() - start
                start = time.perf_counter()
                yield collated
                computing = time.perf_counter() - start
            plan = plan[_PACED:]
            self.workers = self.choose_workers(decoding, computing)
        if plan:
            yield from _running(self._loader(plan))

    def _loader(self, plan: list[list[int]]) -> DataLoader[Any]:
        return DataLoader(
            self._tried(),
            batch_sampler=plan,
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.pin_memory,
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),  # its own: the global one belongs to the user
        )


def _running(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield what a loader yields; raise AconError if a worker process dies."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise AconError(
            f"a process that decodes images has died ({str(error).splitlines()[0]}): out of "
            "memory or of shared memory? Fewer --workers or a smaller --batch-size need less"
        ) from error


def _probe(source: Any, count: int) -> str:
    """Return the SHA-256 of a few items, evenly spread, to identify a data set without a name."""
    digest = sha256()
    for index in dict.fromkeys(round(k * (count - 1) / (PROBES - 1)) for k in range(PROBES)):
        try:
            image, _ = split_item(source[index], f"item {index}")
        except BadImageError:
            digest.update(b"bad")
        else:
            digest.update(f"{tuple(image.shape)}".encode())
            digest.update(raw_bytes(image))
    return digest.hexdigest()


@dataclass
class _Item:
    sample: int
    image: torch.Tensor | None
    label: Any = None
    reason: str = ""
    row: dict[str, Any] | None = None
    failure: str = ""


class _Tried(Dataset[_Item]):
    """A data set whose bad images are items too, so that a worker process survives them."""

    def __init__(self, source: Any, *, known: bool) -> None:
        self.source, self.known = source, known

    def __getitem__(self, index: int) -> _Item:
        try:
            item = self.source[index]
        except BadImageError as error:
            row = None if self.known else bad_row(index)
            return _Item(index, None, reason=str(error), row=row)
        except AconError as error:  # as text: worker processes wrap exceptions in their traceback
            return _Item(index, None, failure=str(error))
        if self.known:
            return _Item(index, item)
        try:
            image, label = split_item(item, f"item {index}")
        except UsageError as error:
            return _Item(index, None, failure=str(error))
        label = plain_label(label)
        return _Item(index, image, label, row=sample_row(index, image, label))


_Collated = tuple[list[int], Any, list[Any] | None, list[tuple[int, str]], list[Any]]


def _collate(items: Sequence[_Item]) -> _Collated | str:
    """Return good sample ids, stacked inputs, labels, errors, rows; or the text of an error."""
    for item in items:
        if item.failure:
            return item.failure
    good = [item for item in items if item.image is not None]
    errors = [(item.sample, item.reason) for item in items if item.image is None]
    rows = [item.row for item in items if item.row is not None]
    images = [item.image for item in good if item.image is not None]
    for image in images[1:]:
        if image.shape != images[0].shape:
            return (
                f"samples of one batch have different shapes, {tuple(images[0].shape)} and "
                f"{tuple(image.shape)}; for a network that takes any size, --batch-size 1 "
                "(batch_size=1) makes each a batch of its own; a folder's images are made equal by "
                "a preprocessing (--preprocess official or imagenet)"
            )
    stacked = torch.stack(images) if images else None
    labels = [item.label for item in good]
    known = labels if any(label is not None for label in labels) else None
    return [item.sample for item in good], stacked, known, errors, rows
