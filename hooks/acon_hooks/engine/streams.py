"""Samples that come one after another without names: a loader or another iterable of batches."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from acon_analysis.errors import AconError, UsageError
from acon_analysis.screen import counted
from acon_hooks.engine.feed import Batch, Wanted
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.engine.items import plain_label
from acon_hooks.engine.trees import count_samples, described
from acon_hooks.errors import NoImagesError

_RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def _expected(batches: Iterable[Any], limit: int | None) -> int | None:
    """Return how many samples a loader will yield, as far as it says: for progress bars only."""
    if not isinstance(batches, DataLoader) or batches.batch_size is None:
        return limit
    try:
        count = len(batches.sampler)  # type: ignore[arg-type]
    except TypeError:
        return limit
    if batches.drop_last:
        count -= count % batches.batch_size
    return count if limit is None else min(count, limit)


class StreamFeed:
    """Batches of a loader or another iterable, known by their order: none that is shuffled."""

    what = "stream"
    samples: pd.DataFrame | None = None

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        unit_size: int,
        limit: int | None,
        options: InputOptions,
        name: str = "",
    ) -> None:
        if isinstance(batches, DataLoader):
            _refuse_unordered(batches)
        self._batches, self.unit_size, self.limit = batches, unit_size, limit
        self.options, self.name = options, name
        self.count: int | None = None
        self.expected = _expected(batches, limit)
        self.identity: dict[str, Any] = {
            "data": f"stream of {getattr(batches, 'what', type(batches).__name__)}"
        }
        if limit is not None:
            self.identity["limit"] = limit

    def first(self) -> None:
        """Return None: a stream cannot be read twice."""

    def batches(self, wanted: Wanted | None = None) -> Iterator[Batch]:
        """Yield the batches of all units, in order; those of units not wanted are ``passed``."""
        waiting: Batch | None = None
        start = 0
        for number, drawn in enumerate(_begun(self._batches)):
            for batch in self._cut(drawn, number, start, wanted):
                if waiting is not None:
                    waiting.last = waiting.unit != batch.unit
                    yield waiting
                waiting = batch
                start = batch.ids[-1] + 1
            if self.limit is not None and start >= self.limit:
                break
        if waiting is None:
            raise NoImagesError("the iterable yields no batches")
        self.count = start
        waiting.last = True
        yield waiting

    def _cut(self, drawn: Any, number: int, start: int, wanted: Wanted | None) -> Iterator[Batch]:
        """Yield the parts of a drawn batch that lie in one unit each."""
        options = self.options
        inputs, given = options.split(drawn, f"batch {number}", batch=True)
        count = count_samples(inputs, options.sample_axis)
        if not count:
            raise NoImagesError(f"data: batch {number} holds no samples: it is {described(inputs)}")
        labels = _labels_of(given, count, number)
        ids = list(range(start, start + count))
        valid = options.valid(drawn, inputs)
        whole = Batch(0, ids, inputs, labels, rows=None, options=options, valid=valid)
        end = start + count
        stop = end if self.limit is None else min(end, self.limit)
        size = self.unit_size
        cuts = [start, *range(start + size - start % size, stop, size), stop]
        sizes = [after - before for before, after in pairwise(cuts)]
        for part in whole.parts([*sizes, end - stop] if end > stop else sizes)[: len(sizes)]:
            part.unit = part.ids[0] // size
            part.passed = wanted is not None and not wanted(part.unit)
            part.rows = None
            if not part.passed:
                part.sample_rows()
            yield part


def _begun(batches: Iterable[Any]) -> Iterator[Any]:
    """Return an iterator; a loader draws the seed of its workers, which is put back."""
    if not isinstance(batches, DataLoader):
        return iter(batches)
    generator = batches.generator or torch.default_generator
    state = generator.get_state()
    try:
        return iter(batches)
    finally:
        generator.set_state(state)


def _labels_of(labels: Any, count: int, number: int) -> list[Any] | None:
    """Return one label a sample; None if there are none."""
    if labels is None:
        return None
    try:
        found = len(labels)
    except TypeError:  # a number, or a tensor without dimensions
        found = -1
    if found != count:
        given = f"{found} labels" if found >= 0 else "one label"
        raise AconError(
            f"data: batch {number} of the stream has {counted(count, 'image')} and {given}"
        )
    return [plain_label(label) for label in labels]


def _refuse_unordered(loader: DataLoader[Any]) -> None:
    """Raise if a loader's order differs every time, or in every process."""
    samplers: list[Any] = []
    for found in (loader.sampler, loader.batch_sampler):
        while found is not None and not any(found is one for one in samplers):
            samplers.append(found)
            found = getattr(found, "sampler", None)  # a batch sampler's own
    for sampler in samplers:
        if isinstance(sampler, _RANDOM) or getattr(sampler, "shuffle", False) is True:
            raise UsageError(
                f"the DataLoader shuffles ({type(sampler).__name__}), so a sample's number would "
                "mean nothing; give one with shuffle=False, or its data set"
            )
        if isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
            raise UsageError(
                "the DataLoader's DistributedSampler gives every process other images; a capture "
                "shares out the work itself: give the data set"
            )
