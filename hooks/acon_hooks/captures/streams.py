"""Images that come one after another without names: a loader or another iterable of batches."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from acon_analysis.errors import AconError, UsageError
from acon_analysis.store.folder import RunFolder, StoreError
from acon_hooks.captures.batches import Batch, Wanted, split_item
from acon_hooks.errors import NoImagesError

_RANDOM = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


class StreamFeed:
    """Batches of a loader or another iterable; the order in which they come is their name.

    Parameters
    ----------
    batches : iterable
        Of images (N, ...), (images, labels, ...) or dicts.
    unit_size : int
        Images a unit.
    limit : int or None
        Take only the first so many images.

    Raises
    ------
    UsageError
        If it is a DataLoader that shuffles, or one that shares its images among processes. An
        iterable of another kind cannot be asked; shuffled, it is told when a run is continued.
    """

    samples: pd.DataFrame | None = None

    def __init__(self, batches: Iterable[Any], *, unit_size: int, limit: int | None) -> None:
        if isinstance(batches, DataLoader):
            _refuse_unordered(batches)
        self._batches, self.unit_size, self.limit = batches, unit_size, limit
        self.count: int | None = None
        self.identity: dict[str, Any] = {"data": f"stream of {type(batches).__name__}"}
        if limit is not None:
            self.identity["limit"] = limit

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Yield the batches of all units, in order; those of units not wanted are ``passed``."""
        waiting: Batch | None = None
        start = 0
        for number, drawn in enumerate(self._batches):
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

    def _cut(self, drawn: Any, number: int, start: int, wanted: Wanted) -> Iterator[Batch]:
        """Yield the parts of a drawn batch that lie in one unit each."""
        images, given = split_item(drawn, f"batch {number}")
        labels = _labels_of(given, len(images), number)
        stop = start + len(images)
        if self.limit is not None:
            stop = min(stop, self.limit)
        first = start
        while first < stop:
            unit = first // self.unit_size
            end = min((unit + 1) * self.unit_size, stop)
            part, own = images[first - start : end - start], labels[first - start : end - start]
            batch = Batch(unit, list(range(first, end)), part, labels=own)
            batch.passed = not wanted(unit)
            if not batch.passed:
                batch.rows = batch.sample_rows()
            yield batch
            first = end


def _labels_of(labels: Any, count: int, number: int) -> Sequence[Any]:
    """Return one label an image."""
    if labels is None:
        return [None] * count
    try:
        found = len(labels)
    except TypeError:  # a number, or a tensor without dimensions
        found = -1
    if found != count:
        given = f"{found} labels" if found >= 0 else "one label"
        raise AconError(f"data: batch {number} of the stream has {count} images and {given}")
    own: Sequence[Any] = labels
    return own


def _refuse_unordered(loader: DataLoader[Any]) -> None:
    """Raise if a loader's order is another one every time, or another one in every process."""
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


class Recorded:
    """What a run holds of images without names, to be compared with what comes now.

    Parameters
    ----------
    folder : RunFolder
        The run.
    manifest : mapping or None
        Its manifest, if it has begun.
    unit_size : int
        Images a unit.
    what : str
        What the images come from, for messages.
    """

    def __init__(
        self,
        folder: RunFolder,
        manifest: Mapping[str, Any] | None,
        unit_size: int,
        what: str = "stream",
    ) -> None:
        self._folder, self._unit_size, self._what = folder, unit_size, what
        complete = manifest is not None and manifest["complete"]
        self._count: int | None = manifest["samples"] if manifest and complete else None
        self._unit: int | None = None
        self._known: pd.DataFrame | None = None

    def compare(self, batch: Batch) -> None:
        """Raise if images are not those that a finished unit, or the complete run, holds.

        Of a unit that is done again because other files of it are damaged, too.

        Parameters
        ----------
        batch : Batch
            The next one.

        Raises
        ------
        StoreError
            Naming the first sample that differs, or where one of both ends.
        """
        if not batch.ids:
            return
        if self._count is not None:
            self._compare_count(batch.ids[-1] + 1, batch.last)
        known = self._rows(batch.unit)
        if known is None:  # not finished
            return
        for row in batch.sample_rows():
            self._compare_row(row, known)
        if batch.last and batch.ids[-1] < known.index[-1]:
            raise self._refusal(
                f"its unit {batch.unit} ends with sample {known.index[-1]}, the images now end "
                f"with sample {batch.ids[-1]}"
            )

    def _compare_count(self, stop: int, last: bool) -> None:
        """Raise where a unit ends elsewhere than in the complete run."""
        count = self._count or 0
        if stop > count:
            raise self._refusal(f"it is complete with {count} images, and now there are more")
        if last and stop < count and stop % self._unit_size:
            raise self._refusal(f"it is complete with {count} images, now there are {stop}")

    def _compare_row(self, row: Mapping[str, Any], known: pd.DataFrame) -> None:
        sample = row["sample_id"]
        if sample not in known.index:
            raise self._refusal(
                f"its last images are up to sample {known.index[-1]}, and now there are more"
            )
        if known.at[sample, "sha256"] != row["sha256"]:
            raise self._refusal(
                f"sample {sample} of the {self._what} is not the one that was captured"
            )
        label: Any = known.at[sample, "label"]
        label = None if pd.isna(label) else label
        if label != row["label"]:
            raise self._refusal(f"the label of sample {sample} was {label!r}, is {row['label']!r}")

    def end(self, count: int) -> None:
        """Raise if a stream that ended after `count` images is not as long as the run's."""
        manifest = self._folder.read_manifest()
        if manifest["complete"] and manifest["samples"] != count:
            raise self._refusal(
                f"it is complete with {manifest['samples']} images, now there are {count}"
            )
        for unit in reversed(self._folder.done_units()):
            start = unit * self._unit_size
            if start >= count and self._folder.unit_parts(unit) is not None:
                raise self._refusal(
                    f"its unit {unit} begins with sample {start}, now there are {count} images"
                )

    def _rows(self, unit: int) -> pd.DataFrame | None:
        """Return the sample table of a unit by sample_id; None if it is not finished and sound."""
        if unit != self._unit:
            self._unit, self._known = unit, None
            part = self._folder.part("samples", unit)
            name = f"samples/{part.name}"
            digest = (self._folder.unit_parts(unit) or {}).get(name)
            if digest is not None and not any(self._folder.damage({name: digest})):
                table = pq.read_table(part, columns=["sample_id", "sha256", "label"])
                self._known = table.to_pandas().set_index("sample_id").sort_index()
        return self._known

    def _refusal(self, reason: str) -> StoreError:
        return StoreError(
            f"out: {str(self._folder.path)!r} holds a run of something else: {reason}; a "
            f"{self._what} must give the same images in the same order every time"
        )
