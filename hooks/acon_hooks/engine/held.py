"""Data that several passes go over, which must find the same samples each time."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from tqdm.auto import tqdm

from acon_analysis.errors import AconError, UsageError
from acon_hooks.engine.feed import Batch, Feed, hashes
from acon_hooks.engine.feeding import named_data, open_feed
from acon_hooks.engine.inputs import InputOptions
from acon_hooks.engine.trees import leaves


class Held:
    """Data that are read several times, with a bar for the long passes."""

    def __init__(
        self, data: Any, limit: int | None, batch_size: int, options: InputOptions, what: str
    ) -> None:
        if isinstance(data, Iterator):
            raise UsageError(
                f"the data are read more than once, and a {type(data).__name__} is used up by the "
                "first time: give a Dataset, a DataLoader or a list of batches"
            )
        held = named_data(data)
        self._open: Callable[[], Feed] = lambda: open_feed(
            held, limit=limit, batch_size=batch_size, options=options
        )
        self._sums: list[float] = []  # of the inputs of each batch
        self.seen: set[str] = set()  # SHA-256 of the samples, once a pass is over
        self.what = what

    def batches(self) -> Iterator[Batch]:
        """Yield the batches that have samples; an AconError where they have changed."""
        feed, first = self._open(), not self._sums
        for number, batch in enumerate(batch for batch in shown(feed, self.what) if batch.ids):
            # NaN never equals itself.
            values = (value.nan_to_num(0.0) for _, value in leaves(batch.inputs))
            own = sum(float(value.sum(dtype=torch.float64)) for value in values)
            if first:
                self._sums.append(own)
                self.seen |= hashes(feed, batch)
            elif self._sums[number : number + 1] != [own]:
                raise AconError(
                    f"batch {number} of the data differs from one pass to the next: give data "
                    "without random augmentation and in a fixed order"
                )
            yield batch


def shown(feed: Feed, what: str) -> Iterator[Batch]:
    """Yield the batches of a feed; on a terminal a bar shows how far it is."""
    count = getattr(feed, "expected", None) if feed.count is None else feed.count
    with tqdm(total=count, desc=what, unit="sample", disable=None) as bar:
        for batch in feed.batches():
            yield batch
            bar.update(len(batch.ids))
