"""Batches of samples on their way into a network: arguments, sample ids, labels."""

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from acon_analysis.errors import AconError, UsageError
from acon_analysis.screen import counted
from acon_hooks.engine.inputs import Forward, InputOptions, input_options
from acon_hooks.engine.rows import Rows, Valid
from acon_hooks.engine.trees import Index, copied, count_samples, described, leaves, mapped, take

#: Unit of work -> whether its batches are wanted.
Wanted = Callable[[int], bool]


@dataclass
class Batch:
    """Some samples of one unit of work."""

    unit: int
    # sample_id of each sample.
    ids: list[int]
    # What the network is given: a tensor (N, ...), arguments by position (a tuple) or by name (a
    # dict), or a tree of tensors for a ``forward`` of the user's own; see `engine.trees`. None when
    # every sample of the batch was bad.
    inputs: Any
    # One a sample: class indices of an image source, otherwise what the data hold. None where the
    # data have no labels.
    labels: list[Any] | None = None
    # sample_id and reason of the bad samples.
    errors: list[tuple[int, str]] = field(default_factory=list)
    # Of the sample table, where it is not known beforehand; None before `sample_rows` made them.
    rows: list[dict[str, Any]] | None = field(default_factory=list)
    # Whether the unit ends with this batch.
    last: bool = False
    # Whether these samples are not to be captured, only to be compared with a finished unit's.
    passed: bool = False
    options: InputOptions = field(default_factory=InputOptions)
    # Which positions hold data, bool (N, T), by module path; empty without a mask.
    valid: Valid = field(default_factory=dict)

    def run(self, model: nn.Module) -> Any:
        """Return the output of a network on the batch; an error notes what it was given."""
        try:
            return self.options.call(model, self.inputs)
        except Exception as error:
            if not isinstance(error, AconError) and not hasattr(error, "__notes__"):
                error.add_note("; ".join(self._failed(model, error)))
            raise

    def _failed(self, model: nn.Module, error: Exception) -> Iterator[str]:
        """Yield which module of a network has failed, and what it and the network were given."""
        named = {id(module): name for name, module in model.named_modules()}
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        for frame in reversed(frames):
            module = frame.f_locals.get("self")
            name = named.get(id(module)) if frame.f_code.co_name == "forward" else None
            if name and isinstance(module, nn.Module):
                first = inspect.getargvalues(frame).args[1:2]
                own = ", ".join(_with_values(frame.f_locals.get(one)) for one in first)
                what = type(module).__name__ if list(module.children()) else repr(module)
                yield f"{name!r}, {what}, was given {own}"
                break
        given = f"the network was given {described(self.inputs)}"
        given += _other_dtype(model, self.inputs, str(error))
        names = self.options.signature.names
        yield f"{given}; {self.options.signature.words()}" if names else given

    def optional_words(self) -> list[str]:
        """Say which parts of the data are given to arguments that need not be given."""
        given = self.inputs
        if self.options.forward is not None or not isinstance(given, tuple):
            return []
        return [
            f"data: part {index} of each batch, {described(given[index])}, is given to {name!r} of "
            "the network's forward"
            for index, name in self.options.signature.optional(len(given), targets=False)
        ]

    @property
    def tensor_rows(self) -> Rows:
        """Where its samples lie in tensors inside the network."""
        return Rows(len(self.ids), self.options.sample_axis, self.valid)

    def copy(self) -> "Batch":
        """Return a copy whose tensors a network can overwrite without harm to the originals."""
        return replace(self, inputs=copied(self.inputs))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with every tensor that the network is given changed."""
        inputs = mapped(change, self.inputs)
        return self if inputs is self.inputs else replace(self, inputs=inputs)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; pinned memory is copied asynchronously."""
        moved = self.map(lambda value: value.to(device, non_blocking=True))
        return replace(moved, valid={path: v.to(device) for path, v in self.valid.items()})

    def permuted(self, order: Sequence[int]) -> "Batch":
        """Return the batch with its samples in another order: ``order[i]`` becomes sample i."""
        if sorted(order) != list(range(len(self.ids))):
            raise ValueError(
                f"order must be a permutation of 0 to {len(self.ids) - 1}; got {list(order)}"
            )
        return replace(self._taken(list(order)), errors=self.errors, rows=self.rows, last=self.last)

    def parts(self, sizes: Sequence[int]) -> list["Batch"]:
        """Return the batch cut into consecutive parts of some sizes, which add up to N.

        They have no `errors`, `rows` and `last`, which belong to the whole.
        """
        if sum(sizes) != len(self.ids) or min(sizes, default=0) < 1:
            raise ValueError(
                f"sizes must be positive and add up to {counted(len(self.ids), 'sample')}; got "
                f"{list(sizes)}"
            )
        found, start = [], 0
        for size in sizes:
            found.append(self._taken(slice(start, start + size)))
            start += size
        return found

    def _taken(self, index: Index) -> "Batch":
        """Return some of the samples."""

        def picked(values: list[Any]) -> list[Any]:
            return values[index] if isinstance(index, slice) else [values[at] for at in index]

        count = len(self.ids)
        return replace(
            self,
            ids=picked(self.ids),
            inputs=take(self.inputs, index, count, self.options.sample_axis),
            labels=None if self.labels is None else picked(self.labels),
            valid={path: take(value, index, count) for path, value in self.valid.items()},
            errors=[],
            rows=[],
            last=False,
        )

    def sample_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the sample table; the first call hashes the samples."""
        if self.rows is None:
            labels = self.labels or [None] * len(self.ids)
            axis, count = self.options.sample_axis, len(self.ids)
            self.rows = [
                sample_row(sample, take(self.inputs, slice(at, at + 1), count, axis), label)
                for at, (sample, label) in enumerate(zip(self.ids, labels, strict=True))
            ]
        return self.rows


def hashes(feed: "Feed", batch: Batch) -> set[str]:
    """Return the SHA-256 of the samples of a batch: of files, or of raw tensors."""
    if feed.samples is None:
        found = {str(row["sha256"]) for row in batch.sample_rows()}
    else:
        found = set(feed.samples["sha256"].iloc[batch.ids])
    return found - {""}


def called_batch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Batch:
    """Return the batch of a call of a network, from its arguments."""
    inputs = args, kwargs
    options = InputOptions(forward=_call)
    return Batch(0, list(range(count_samples(inputs))), inputs, options=options)


def example_batch(model: nn.Module, example: Any, forward: Forward | None = None) -> Batch:
    """Return a copy of an example as a batch: a tuple holds the arguments of the model.

    Of a data set or a loader it is the first batch, without its labels. A UsageError for a mapping
    with keys that the model does not take, and for data without a batch.
    """
    if isinstance(example, Dataset | DataLoader):
        loader = example if isinstance(example, DataLoader) else DataLoader(example, batch_size=8)
        drawn = next(iter(loader), None)
        if drawn is None:
            raise UsageError(f"the example, a {type(example).__name__}, yields no batch")
        options = input_options(model, forward)
        inputs, _ = options.split(drawn, "the example's first batch", batch=True)
        return Batch(0, list(range(count_samples(inputs))), inputs, options=options).copy()
    if forward is None and not isinstance(example, Mapping | list):
        return called_batch(example if isinstance(example, tuple) else (example,), {}).copy()
    options = input_options(model, forward)
    inputs, _ = options.split(example, "the example", batch=True)
    return Batch(0, list(range(count_samples(inputs))), inputs, options=options).copy()


def _with_values(given: Any) -> str:
    """Describe a tree for an error, a tensor with its dtype, and the range of integers on a CPU."""
    if not isinstance(given, Tensor):
        return described(given)
    text = f"{described(given)} of {given.dtype}"
    if given.is_floating_point() or given.is_complex() or given.is_cuda or not given.numel():
        return text
    return f"{text}, values {given.min()} to {given.max()}"


def _other_dtype(model: nn.Module, inputs: Any, message: str) -> str:
    """Return a hint where an error is about types, and the data have another than the weights."""
    weights = next((value.dtype for value in model.parameters() if value.is_floating_point()), None)
    own = {value.dtype for _, value in leaves(inputs)} - {weights, torch.bool}
    if weights is None or not own or "type" not in message:
        return ""
    pixels = ", for pixels from 0 to 255 divided by 255" if torch.uint8 in own else ""
    given = ", ".join(sorted(map(str, own)))
    return f" of {given}, its weights are {weights}: convert the data, x.to({weights}){pixels}"


def _call(model: Any, inputs: Any) -> Any:
    """Call a network with the arguments of an earlier call."""
    args, kwargs = inputs
    return model(*args, **kwargs)


class Feed(Protocol):
    """Where samples come from; `acon_hooks.engine.feeding.open_feed` makes one of any data."""

    #: What the data are, for messages.
    what: str
    #: What people call them: the name that they gave, or the class.
    name: str
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


def sample_row(sample: int, inputs: Any, label: Any = None) -> dict[str, Any]:
    """Return a row of the sample table for a sample without a name; bad: inputs None."""
    size, digest = (-1, "") if inputs is None else hashed(inputs)
    return {
        "sample_id": sample,
        "path": f"item/{sample:07d}",
        "label": None if label is None or isinstance(label, Tensor) else str(label),
        "bytes": size,
        "sha256": digest,
    }


def hashed(inputs: Any) -> tuple[int, str]:
    """Return the bytes and the SHA-256 of all tensors of a tree; of one tensor, of its numbers."""
    raw = [(path, value.dtype, raw_bytes(value)) for path, value in leaves(inputs)]
    digest = sha256()
    for path, dtype, numbers in raw:
        if len(raw) > 1:
            digest.update(f"{path}\0{dtype}\0{len(numbers)}\0".encode())
        digest.update(numbers)
    return sum(len(numbers) for _, _, numbers in raw), digest.hexdigest()


def raw_bytes(image: torch.Tensor) -> bytes:
    """Return the numbers of a tensor of any type as they lie in memory, row by row."""
    return image.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
