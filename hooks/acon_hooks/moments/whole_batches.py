"""Layers whose rows are no samples: nodes of graphs, tokens of experts, steps before samples.

Values of such a layer and of its channels do not need to know which row belongs to which sample.
All rows of a batch are merged into the block of its first sample, so that blocks stay independent
of each other; nothing is kept of single samples.
"""

import torch

from acon_hooks.moments.kernels import CallSums
from acon_hooks.moments.layer_groups import Call, LayerGroup
from acon_hooks.moments.masked import lengths_of
from acon_hooks.readings.batch import Key


class WholeBatches:
    """Sums of layers whose rows are no samples, batch by batch."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.groups: dict[Key, LayerGroup] = {}  # one a call: each has its own number of rows

    def add(self, call: Call, rows: tuple[str, ...], device: torch.device) -> None:
        """Begin to sum a call, given the names of its sums and its device."""
        self.groups[call.key] = LayerGroup(rows, [call], device, self.blocks)

    def merge(self, seen: dict[Key, CallSums], sample: int) -> None:
        """Merge what the calls of a batch have summed by row into the block of a sample."""
        for key, group in self.groups.items():
            found = seen.get(key)
            if found is None or not found.sums.shape[1]:  # an expert may be given no rows
                continue
            group.measure(lengths_of([found.pixels]))
            states, _ = group.states(found.sums, found.beta)
            group.merge_whole(states, sample)
