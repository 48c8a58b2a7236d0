"""What blocks need of the data, in memory that does not grow with them: sums, and some batches."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from tqdm.auto import tqdm

from acon_analysis.errors import AconError
from acon_analysis.screen import counted
from acon_hooks.blocks.calls import (
    BlockCall,
    Calls,
    FirstCall,
    FirstCalls,
    embeddings_of,
    first_calls,
)
from acon_hooks.blocks.finding import WHOLE
from acon_hooks.blocks.vectors import FoldSums, kind_of_vectors, random_folds, sum_bytes, vectors
from acon_hooks.engine.feed import Batch, Feed
from acon_hooks.engine.plans import fitted
from acon_hooks.engine.rows import Rows
from acon_hooks.engine.sites import Site
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import HookError, NoImagesError
from acon_hooks.readings.batch import Key

#: Most samples of a forward pass, and the parts that the data are cut into at least.
MOST_SAMPLES, _FEWEST_PARTS = 16, 8

#: Batches that are kept of every block; three make a triple.
_MOST_KEPT, FEWEST_KEPT = 256, 3

#: Bytes that the kept batches may take, and the sums.
KEPT_BYTES, SUM_BYTES = 2**30, 2**31


@dataclass
class Gathered:
    """A call of a block, and what is gathered of it."""

    label: str
    first: FirstCall
    # Between which vectors R² is measured.
    kind: str
    # None where there are none; `why` states the reason.
    sums: FoldSums | None = None
    why: str = ""
    # The calls in some batches, drawn from all, in an order drawn as well: neighbours in the data
    # may be alike. One of them has its y.
    kept: dict[int, BlockCall] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Module path and number of the call."""
        return self.first.call.site.name, self.first.call.number

    @property
    def inputs(self) -> int:
        """Dimensions of the vectors that an affine map takes."""
        return self._sizes()[0]

    @property
    def variables(self) -> int:
        """Dimensions of input and output vectors together."""
        return sum(self._sizes())

    def _sizes(self) -> tuple[int, int]:
        call, (x_axis, y_axis) = self.first.call, self.first.axes
        if self.kind == "samples":
            return call.x[0].numel(), call.y[0].numel()
        return call.x.shape[x_axis], call.y.shape[y_axis]

    def add(
        self, call: BlockCall, folds: npt.NDArray[np.int64], slot: int | None, rows: Rows
    ) -> None:
        """Add a call in a batch; with a slot it is kept in it."""
        call.require_samples(len(folds))
        call = call.masked(rows, self.first.axes)
        if self.sums is not None:
            values, valid = vectors(call, self.first.axes, self.kind)
            self.sums.add(values, folds, valid)
        if slot is not None and call.x.shape == self.first.call.x.shape:
            replaced = self.kept.get(slot)
            first = not self.kept or (replaced is not None and replaced.y.numel() > 0)
            y = call.y.clone() if first else call.y.new_empty(0)
            self.kept[slot] = replace(call, y=y)


def _unsummed(first: FirstCall, kind: str) -> str:
    """Return why there is no R² of a call; empty where there is one."""
    try:
        vectors(first.call, first.axes, kind)
    except HookError as error:
        return f"no r2: {error}"
    return ""


class Gathering:
    """Runs a network over data and gathers what its blocks need."""

    def __init__(self, network: nn.Module, feed: Feed, count: int | None, seed: int) -> None:
        self.network, self.feed, self.count = network, feed, count
        self.generator = np.random.default_rng(seed)
        self.size = self.samples = 0
        self.slots, self.order = 0, np.zeros(0, np.int64)
        # In the order in which they end.
        self.blocks: list[Gathered] = []
        # Blocks that cannot be measured, and why.
        self.left_out: dict[str, str] = {}

    def first(self, sites: Mapping[str, Site], layers: Iterable[Site]) -> None:
        """Look at the blocks in the first batch, and plan the memory."""
        part = next(self._parts(), None)
        if part is None:
            raise NoImagesError("there are no samples to measure blocks on")
        look = first_calls(self.network, sites.values(), layers, lambda: self._run(part))
        # Without one sample, since there may be as many positions as samples.
        fewer = part.parts([1, len(part.ids) - 1])[1] if len(part.ids) > 1 else part
        again = first_calls(self.network, sites.values(), (), lambda: self._run(fewer)).found
        calls = Counter(name for name, _ in look.found)
        for (name, number), first in look.found.items():
            label = name or WHOLE
            label = f"{label} (call {number})" if calls[name] > 1 else label
            try:
                first.call.require_samples(len(part.ids))
                if (name, number) in again:
                    again[name, number].call.require_samples(len(fewer.ids))
                first.call = first.call.masked(part.tensor_rows, first.axes)
            except HookError as error:
                self.left_out[label] = str(error)
                continue
            kind = kind_of_vectors(first.call, first.axes, self.count)
            self.blocks.append(Gathered(label, first, kind, why=_unsummed(first, kind)))
        self._note_left_out(sites, look)
        self._plan()

    def _note_left_out(self, sites: Mapping[str, Site], look: FirstCalls) -> None:
        """Note which blocks are not among the calls."""
        seen = {name for name, _ in look.found}
        unread = {name: reason for (name, _), reason in look.unread.items()}
        for label, site in sites.items():
            if site.name not in seen:
                self.left_out[label] = unread.get(site.name, "it did not run")

    def _plan(self) -> None:
        """Decide how many batches are kept, and which blocks have sums."""
        each = sum(block.first.call.size() for block in self.blocks)
        there = _MOST_KEPT if self.count is None else -(-self.count // self.size)
        self.slots = min(_MOST_KEPT, KEPT_BYTES // max(each, 1), max(there, FEWEST_KEPT))
        if self.slots < FEWEST_KEPT:
            raise AconError(
                f"{counted(len(self.blocks), 'block')} need {FEWEST_KEPT} batches of their inputs "
                f"in memory, {FEWEST_KEPT * each / 1e9:.1f} GB; the limit is "
                f"{KEPT_BYTES / 1e9:.1f} GB: measure fewer blocks at once (blocks=, --blocks)"
            )
        self.order = self.generator.permutation(self.slots)
        left = SUM_BYTES
        for block in sorted(self.blocks, key=lambda block: block.variables):
            if block.why:
                continue
            left -= sum_bytes(block.variables)
            if left < 0:
                block.why = "no r2: its sums take too much memory"
            else:
                block.sums = FoldSums(block.inputs, block.variables - block.inputs)

    def words(self) -> str:
        """Say how much memory is needed."""
        sums = sum(sum_bytes(block.variables) for block in self.blocks if block.sums is not None)
        kept = self.slots * sum(block.first.call.size() for block in self.blocks)
        without = [block.label for block in self.blocks if "memory" in block.why]
        more = f"; too large for r2: {', '.join(without)}" if without else ""
        return (
            f"{counted(len(self.blocks), 'block')} measured with up to {sums / 1e6:.0f} MB for "
            f"sums and {kept / 1e6:.0f} MB for the inputs of {counted(self.slots, 'batch')} of "
            f"{self.size}, whatever the number of samples{more}"
        )

    def gather(self, *, progress: bool = False) -> None:
        """Run all samples."""
        by_key = {block.key: block for block in self.blocks}
        folds, slot, whole, rows = np.zeros(0, np.int64), None, 0, Rows()

        def seen(call: BlockCall) -> None:
            by_key[call.site.name, call.number].add(call, folds, slot, rows)

        calls = Calls(seen, embeddings := embeddings_of(self.network))
        sites = [
            replace(block.first.call.site, call=block.key[1], axis=block.first.axes[0])
            for block in self.blocks
        ]
        needed = any(isinstance(block.first.call.at, Site) for block in self.blocks)
        with (
            visiting(self.network, [*sites, *(embeddings if needed else ())], calls),
            tqdm(total=self.count, desc="blocks", unit="sample", disable=not progress) as bar,
        ):
            for part in self._parts():
                folds, rows = random_folds(len(part.ids), self.generator), part.tensor_rows
                slot = self._slot(whole) if len(part.ids) == self.size else None
                whole += len(part.ids) == self.size
                calls.keep = slot is not None
                self._run(part)
                self.samples += len(part.ids)
                bar.update(len(part.ids))
        if calls.unread:
            (name, _), reason = next(iter(calls.unread.items()))
            raise HookError(f"block {name!r}: {reason}, which was not so on the first batch")

    def _slot(self, number: int) -> int | None:
        """Return where a batch is kept: all batches are as likely to be among the kept ones."""
        if number < self.slots:
            return int(self.order[number])
        drawn = int(self.generator.integers(number + 1))
        return drawn if drawn < self.slots else None

    def _parts(self) -> Iterator[Batch]:
        """Yield the samples, batches cut into parts of one size."""
        for batch in self.feed.batches():
            count = len(batch.ids)
            if not self.size:
                most = min(MOST_SAMPLES, (self.count or count) // _FEWEST_PARTS, count)
                least = -(-count // max(most, 1))
                even = (pieces for pieces in range(least, 2 * least) if count % pieces == 0)
                self.size = max(2, count // next(even, least))
            whole, rest = divmod(count, self.size)
            if count:
                yield from batch.parts([self.size] * whole + [rest] * (rest > 0))

    def _run(self, part: Batch) -> Any:
        return fitted(self.network, part).run(self.network)
