"""A feed of any data: batches that never cross a unit of work, bad samples set aside."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from acon_analysis.data.image_source import ImageSource
from acon_analysis.data.preprocess import BadImageError
from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, UsageError
from acon_analysis.store.folder import UNIT_SIZE
from acon_analysis.usercode import load_callable
from acon_hooks.engine.feed import Batch, Feed, Wanted, raw_bytes, sample_row
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.engine.items import plain_label, whole_item
from acon_hooks.engine.rows import Valid
from acon_hooks.engine.streams import StreamFeed
from acon_hooks.engine.trees import leaves, stacked
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
    options: InputOptions | None = None,
) -> Feed:
    """Make a feed of any data.

    Parameters
    ----------
    data : str, Path, ImageSource, Dataset, DataLoader or iterable
        A name that `named_data` knows; a map-style data set of images, (image, label), arguments
        or dicts; a loader or iterable of batches, likewise. A data set without names is known by
        its class, its length and `PROBES` of its images, evenly spread: other images that are
        altered between two calls are not noticed. Of a stream, every image is compared.
    preprocess, limit, batch_size, unit_size
        As for `acon_hooks.captures.capturing.capture`; a loader has its own batches.
    workers, default_workers
        Processes that decode; by default none, except for a folder of at least `MANY` images, where
        `default_workers` makes what chooses their number.
    pin_memory : bool
        Page-locked batches, for a device to copy from.
    memory : Path, optional
        Where the hashes of a folder's files are remembered.
    options : InputOptions, optional
        How samples enter the network: by default as one tensor.

    Raises
    ------
    UsageError
        If the data are none of these, hold no images, or come in another order every time; if a
        number is out of range.
    """
    options = InputOptions() if options is None else options
    if batch_size < 1 or unit_size < 1:
        raise UsageError(
            f"batch size and unit must be at least 1; got {batch_size} and {unit_size}"
        )
    if workers is not None and workers < 0:
        raise UsageError(f"workers must be 0 or more; got {workers}")
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1 image; got {limit}")
    name = data_name(data)
    data = named_data(data, preprocess, memory=memory)
    if isinstance(data, ImageSource):
        name = data.name
        source = data if limit is None else data.head(limit)
    elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        source = None
    elif isinstance(data, Tensor | np.ndarray):
        one = "data" if isinstance(data, Tensor) else "torch.from_numpy(data)"
        raise UsageError(
            f"data must be batches; got a {type(data).__name__} of shape {tuple(data.shape)}: give "
            f"[{one}] or {one}.split(64)"
        )
    elif isinstance(data, tuple | list) and _differ(data):
        raise UsageError(
            f"data must be batches; got a {type(data).__name__} of {len(data)} tensors of "
            f"{', '.join(f'{tuple(one.shape)} {one.dtype}' for one in data[:3])}: give [(images, "
            "labels)] "
            "for one batch of them, a TensorDataset(images, labels), or a list of batches"
        )
    elif isinstance(data, Iterable):
        return StreamFeed(data, unit_size=unit_size, limit=limit, options=options, name=name)
    else:
        raise UsageError(
            f"data must be a name, a folder, a Dataset, a DataLoader or an iterable of batches; "
            f"got {type(data).__name__!r}"
            + (": give what it returns, by calling it" if callable(data) else "")
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
        options=options,
        name=name,
    )


def _differ(parts: Sequence[Any]) -> bool:
    """Whether tensors cannot be batches of one data set, as images and labels cannot."""
    if not all(isinstance(part, Tensor | np.ndarray) for part in parts):
        return False
    one = isinstance(parts, tuple)
    return len({(part.dtype, part.ndim, part.shape[1:] if one else ()) for part in parts}) > 1


def named_data(data: Any, preprocess: str | None = None, *, memory: Path | None = None) -> Any:
    """Return what a name stands for; anything else as it is.

    A name that `open_data` knows, or ``"file.py:callable"`` of a callable that returns a data set,
    a loader or an iterable of batches.
    """
    if not isinstance(data, str | Path):
        return data
    if str(data).rpartition(":")[0].endswith(".py"):
        make = load_callable("data", str(data))[0]
        found = make()
        return CalledAgain(make, found, str(data)) if isinstance(found, Iterator) else found
    return open_data(data, preprocess, memory=memory)


def own_preprocess(model: Any) -> str | None:
    """Return the name of the preprocessing that a model's weights came with."""
    return getattr(getattr(model, "acon_origin", None), "preprocess", None)


def data_name(data: Any) -> str:
    """Return what people call data: the name that they gave, the classes of objects, or nothing."""
    if isinstance(data, str | Path):
        return str(data)
    if isinstance(data, ImageSource | CalledAgain):
        return data.name
    if type(data).__module__ == "builtins":
        return ""  # a list or a generator
    inner = f" of {type(data.dataset).__name__}" if isinstance(data, DataLoader) else ""
    return f"{type(data).__name__}{inner}"


class CalledAgain:
    """Batches of a user's callable that returns an iterator: each pass calls it again."""

    def __init__(self, make: Callable[[], Any], first: Iterator[Any], name: str) -> None:
        self._make, self._first, self.name = make, [first], name
        self.what = type(first).__name__

    def __iter__(self) -> Iterator[Any]:
        """Return the batches, the first time those that are there already."""
        return self._first.pop() if self._first else iter(self._make())


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
        options: InputOptions,
        choose_workers: Chooser | None = None,
        name: str = "",
    ) -> None:
        self.source, self.options, self.name = source, options, name
        known = isinstance(source, ImageSource)
        self.samples = source.samples if known else None
        self.targets = source.targets if known else None
        length = len(source)
        self.count: int | None = length if limit is None else min(limit, length)
        if self.count == 0:
            raise NoImagesError(f"the data set {type(source).__name__} holds no images")
        self.identity = {
            "data": source.name, "samples_sha256": source.identity(),
            "preprocess": source.preprocess, "count": self.count,
        } if known else {
            "data": f"{type(source).__module__}.{type(source).__qualname__}",
            "probe_sha256": _probe(source, self.count or 0, options), "count": self.count,
        }  # fmt: skip
        self.batch_size, self.unit_size = batch_size, unit_size
        self.workers, self.choose_workers, self.pin_memory = workers, choose_workers, pin_memory
        self._tried, self._collate = _Tried(source, options, known), partial(_collate, options)

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
        return self._batch(ids, self._collate([self._tried[index] for index in ids]))

    def _batch(self, ids: list[int], collated: "_Collated | str") -> Batch:
        """Return the batch of some planned sample ids."""
        if isinstance(collated, str):
            raise AconError(collated)
        good, inputs, labels, errors, rows, valid = collated
        if self.targets is not None:
            labels = [int(self.targets[sample]) for sample in good]
        end = ids[-1] + 1
        last = end == self.count or end % self.unit_size == 0
        return Batch(
            ids[0] // self.unit_size, good, inputs, labels, errors, rows, last,
            options=self.options, valid=valid,
        )  # fmt: skip

    def _collated(self, plan: list[list[int]]) -> Iterator["_Collated | str"]:
        """Yield the batches of a plan; the first ones are timed to choose the number of workers."""
        if self.choose_workers is not None:
            decoding = computing = 0.0
            for ids in plan[:_PACED]:  # the last one counts: the first proves, too
                start = time.perf_counter()
                collated = self._collate([self._tried[index] for index in ids])
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
            self._tried,
            batch_sampler=plan,
            num_workers=self.workers,
            collate_fn=self._collate,
            pin_memory=self.pin_memory,
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),  # its own: the global one belongs to the user
        )


def _running(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield what a loader yields; raise AconError if a worker process dies, or its data fail."""
    with naming_dead_workers():
        try:
            yield from loader
        except Exception as error:
            if not str(error).startswith("Caught "):
                raise
            last = str(error).strip().splitlines()[-1]
            raise AconError(f"data: reading a sample failed in a worker process: {last}") from error


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Raise AconError for the death of a worker process.

    torch raises it from a signal handler, so anywhere in the code that runs at that moment, and
    what runs may turn it into something else.
    """
    try:
        yield
    except Exception as error:
        found: BaseException | None = error
        while found is not None and "DataLoader worker (pid" not in str(found):
            found = found.__cause__ or found.__context__
        if found is None or (found is not error and isinstance(error, AconError)):
            raise
        raise AconError(
            f"a process that decodes images has died ({str(found).splitlines()[0]}): out of "
            "memory or of shared memory? The same command continues; fewer --workers or a smaller "
            "--batch-size need less"
        ) from error


def _probe(source: Any, count: int, options: InputOptions) -> str:
    """Return the SHA-256 of a few items, evenly spread, to identify a data set without a name."""
    digest = sha256()
    for index in dict.fromkeys(round(k * (count - 1) / (PROBES - 1)) for k in range(PROBES)):
        try:
            inputs, _ = options.split(source[index], f"item {index}")
        except BadImageError:
            digest.update(b"bad")
        else:
            for path, value in leaves(inputs):
                digest.update(f"{path}{tuple(value.shape)}".encode())
                digest.update(raw_bytes(value))
    return digest.hexdigest()


@dataclass
class _Item:
    sample: int
    inputs: Any  # None if it is bad
    label: Any = None
    reason: str = ""
    row: dict[str, Any] | None = None
    failure: str = ""
    whole: Any = None  # that a mask is looked up in


class _Tried(Dataset[_Item]):
    """A data set whose bad images are items too, so that a worker process survives them."""

    def __init__(self, source: Any, options: InputOptions, known: bool) -> None:
        self.source, self.options, self.known = source, options, known

    def __getitem__(self, index: int) -> _Item:
        try:
            item = self.source[index]
        except BadImageError as error:
            row = None if self.known else sample_row(index, None)
            return _Item(index, None, reason=str(error), row=row)
        except AconError as error:  # as text: worker processes wrap exceptions in their traceback
            return _Item(index, None, failure=str(error))
        if self.known:
            return _Item(index, item)
        try:
            inputs, label = self.options.split(item, f"item {index}")
            whole = whole_item(item, f"item {index}")[0] if self.options.masks else None
        except UsageError as error:
            return _Item(index, None, failure=str(error))
        label = plain_label(label)
        row = sample_row(index, inputs, label)
        return _Item(index, inputs, label, row=row, whole=whole)


_Collated = tuple[list[int], Any, list[Any] | None, list[tuple[int, str]], list[Any], Valid]


def _collate(options: InputOptions, items: Sequence[_Item]) -> _Collated | str:
    """Return good ids, inputs, labels, errors, rows, valid positions; or the text of an error."""
    for item in items:
        if item.failure:
            return item.failure
    good = [item for item in items if item.inputs is not None]
    errors = [(item.sample, item.reason) for item in items if item.inputs is None]
    rows = [item.row for item in items if item.row is not None]
    inputs, valid = None, {}
    try:
        if good:
            inputs = stacked([item.inputs for item in good], options.sample_axis)
            if options.masks:
                whole = [item.inputs if item.whole is None else item.whole for item in good]
                valid = options.valid(stacked(whole, options.sample_axis), inputs)
    except UsageError as error:
        return str(error)
    except ValueError as error:
        return (
            f"samples of one batch have different shapes, {error}; for a network that takes any "
            "size, --batch-size 1 (batch_size=1) makes each a batch of its own; a folder's images "
            "are made equal by a preprocessing (--preprocess official or imagenet), and a "
            "DataLoader with a collate_fn makes batches of any form"
        )
    labels = [item.label for item in good]
    known = labels if any(label is not None for label in labels) else None
    return [item.sample for item in good], inputs, known, errors, rows, valid
