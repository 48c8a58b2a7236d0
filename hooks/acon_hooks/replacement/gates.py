"""Gates that depend on the sample: what they are in each layer, recorded, and set anew.

A gate is β of a Meta-ACON layer, the factor of squeeze-and-excitation, or the sigmoid of a GLU.
The layer's output is a formula of its input and its gate (that of the proof), so with another gate
it is computed anew from the formula.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.screen import counted
from acon_analysis.selection import layer_path
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.sites import Site
from acon_hooks.layers.reading import Factors, fold
from acon_hooks.layers.scan import KINDS, Layer, scan_layers, slopes, whole
from acon_hooks.readings.batch import to_host
from acon_hooks.readings.proof import Case, terms
from acon_hooks.readings.tap import Tap

#: Kinds of layers that may have a gate.
GATED = ("meta_acon", "acon_plain_gate", "gate")

#: Computes a layer's output from its input and its gate, which broadcasts with it.
Formula = Callable[[Tensor, Tensor], Tensor]
Key = tuple[str, int]
#: Runs the network on a batch.
Runner = Callable[[Batch], Any]


@dataclass(frozen=True)
class Gate:
    """The gate in one use of a layer."""

    # The layer, its call, and the argument that is gated.
    site: Site
    # Returns the layer's output from that argument and the gate.
    formula: Formula = field(repr=False)
    # The gate of every sample, (samples, C or 1, P or 1): channels and positions.
    values: npt.NDArray[Any] = field(repr=False)
    # Of each channel over samples and positions, float64 (1, C or 1, 1).
    mean: Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class SetGate:
    """A layer's output computed anew with another gate."""

    reads_input: ClassVar[bool] = True
    gate: Gate
    # (N or 1, C or 1, P or 1). Where a value is NaN it was never needed: the mean is taken.
    values: Tensor

    def apply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the output with that gate, computed in float32 at least."""
        wide = torch.promote_types(x.dtype, torch.float32)
        values = torch.where(self.values.isnan(), self.gate.mean.to(self.values), self.values)
        new = self.gate.formula(x.to(wide), _unfolded(values.to(x.device, wide), x, self.gate.site))
        return new.reshape(y.shape).to(y.dtype)


def _unfolded(values: Tensor, x: Tensor, site: Site) -> Tensor:
    """View a folded gate, (N, C, P) or with sizes 1, so that it broadcasts with an input."""
    if x.ndim < 2:
        return values.reshape(-1)
    rest = x.movedim(site.axis, 1).shape[2:]
    shape = rest if values.shape[2] > 1 else (1,) * len(rest)
    return values.reshape(*values.shape[:2], *shape).movedim(1, site.axis)


@dataclass(frozen=True)
class Recorded:
    """The gates of a network on some data."""

    # One for each use of a layer, in the order of `named_modules()`.
    gates: list[Gate]
    # sample_id of each sample, ascending.
    ids: npt.NDArray[np.int64]
    labels: list[Any] | None


def record_gates(
    network: nn.Module,
    batches: Callable[[], Iterator[Batch]],
    layers: Sequence[str] | None,
    folder: Path,
    run: Runner,
) -> Recorded:
    """Run a network over data and record its gates, each reading proved on the first batch.

    `layers` None: all that have a gate. What is recorded lies in files in `folder`, which is made:
    memory does not grow with the samples.
    """
    names = find_gated(network, layers)
    ids: list[int] = []
    labels: list[Any] = []
    formulas: dict[Key, tuple[Site, Formula]] = {}
    glus: dict[Key, Tensor] = {}  # of this batch, (N, C, P)

    def observe(layer: Layer, call: int, _: Tensor, y: Tensor, more: Any) -> None:
        if isinstance(more, Factors):
            key, axis = (layer.name, call), int(layer.module.dim) % y.ndim  # type: ignore[arg-type]
            glus[key] = fold(more.gate, axis)
            site = Site(layer.name, layer.module, call, axis)
            formulas[key] = site, lambda x, gate: x.chunk(2, axis)[0] * gate

    with (
        ExitStack() as stack,
        Tap(
            network, names, kinds=(*GATED, "product"), observe=observe, full=True, check_rows=True
        ) as tap,
    ):
        files = _Files(folder, stack)
        for batch in batches():
            run(batch)
            taken = tap.take()
            if tap.rows is not None and tap.rows.status == "mixed":
                raise AconError(f"gates cannot be assigned to samples: {tap.rows.text}")
            found = {key: beta.unsqueeze(2) for key, beta in taken.items() if beta.ndim == 2}
            found |= {key: beta.flatten(2) for key, beta in taken.maps.items()} | glus
            glus.clear()
            if other := {len(gate) for gate in found.values()} - {len(batch.ids)}:
                raise AconError(
                    f"layers have {counted(min(other), 'row')} in a batch of "
                    f"{counted(len(batch.ids), 'sample')}, so that gates cannot be assigned to "
                    "samples"
                )
            files.add(found)
            ids += batch.ids
            labels += batch.labels or []
        for key in files.opened:
            if key not in formulas:
                formulas[key] = _proved(tap.calls[key], key)
    if not ids:
        raise AconError("there were no samples to measure on")
    if not formulas:
        raise UsageError(
            f"the gates of {', '.join(map(repr, names[:3]))} are the same for all samples, so "
            "that their variation is no question"
        )
    order = {name: index for index, (name, _) in enumerate(network.named_modules())}
    keys = sorted(formulas, key=lambda key: (order[key[0]], key[1]))
    gates = [files.gate(key, *formulas[key]) for key in keys]
    return Recorded(gates, np.asarray(ids, np.int64), labels if len(labels) == len(ids) else None)


def find_gated(network: nn.Module, layers: Sequence[str] | None) -> list[str]:
    """Return the layers that may have a gate to be proved, and the GLUs."""
    known = [layer.name for layer in scan_layers(network, (*GATED, "product"))]
    if not known:
        there = Counter(layer.kind for layer in scan_layers(network, KINDS))
        have = ", ".join(f"{count} of kind {kind!r}" for kind, count in there.items())
        raise UsageError(
            f"{type(network).__name__} has no gate that depends on the sample: no Meta-ACON layer, "
            "no squeeze-and-excitation and no nn.GLU; its modules have "
            f"{have or 'no activation of another kind'}, and the gates of products that are "
            "written out, such as silu(a) * b, cannot be held; in squeeze-and-excitation the "
            "sigmoid has to be a module, nn.Sigmoid"
        )
    layers = None if layers is None else [layer_path(name, known) for name in layers]
    for name in layers or ():
        if name not in known:
            raise UsageError(f"no layer {name!r} with a gate: {closest(name, known)}")
    chosen = known if layers is None else list(layers)
    if not chosen:
        raise UsageError("no layers given: leave layers out to take all that have a gate")
    return [name for name in known if name in chosen]


def _proved(layer: Layer, key: Key) -> tuple[Site, Formula]:
    """Return site and formula of a layer whose reading is proved."""
    reading = layer.reading
    if reading is None:
        raise AconError(f"layer {layer.name!r} has no proved gate")
    site = Site(layer.name, layer.module, key[1], reading.axis, argument=reading.x)

    def formula(x: Tensor, gate: Tensor) -> Tensor:
        pair = slopes(layer.module) or (x.new_ones(1), x.new_ones(1))  # "scale" has no lines
        p1, p2 = (_unfolded(whole(p.detach()).to(x).reshape(1, -1, 1), x, site) for p in pair)
        gated, line = terms(reading.identity, Case(x, x, p1, p2), gate)
        return (gated + line).movedim(reading.axis, reading.y_axis)

    return site, formula


class _Files:
    """Gates on disk, one file for each use of a layer."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir()
        self.folder, self._stack = folder, stack
        self.opened: dict[Key, tuple[BinaryIO, np.dtype[Any], tuple[int, ...]]] = {}

    def add(self, batch: dict[Key, Tensor]) -> None:
        """Append the gates of a batch, (N, C or 1, P or 1)."""
        for key, values in to_host(batch).items():
            if key not in self.opened:
                path = self.folder / f"{len(self.opened)}.gates"
                opened = self._stack.enter_context(path.open("wb"))
                self.opened[key] = opened, values.dtype, values.shape[1:]
            file, dtype, shape = self.opened[key]
            if values.shape[1:] != shape:
                raise AconError(
                    f"layer {key[0]!r}: its gate is {values.shape[1:]} (channels, positions) for "
                    f"some samples and {shape} for others: give samples of one size"
                )
            np.ascontiguousarray(values, dtype).tofile(file)

    def gate(self, key: Key, site: Site, formula: Formula) -> Gate:
        """Return what is recorded of one use of a layer, once the files are closed."""
        file, dtype, shape = self.opened[key]
        values = np.memmap(file.name, dtype, "r").reshape(-1, *shape)
        total, count = np.zeros(shape[0]), np.zeros(shape[0])
        for start in range(0, len(values), 256):
            part = np.asarray(values[start : start + 256], np.float64)
            finite = np.isfinite(part)
            total += np.where(finite, part, 0).sum(axis=(0, 2))
            count += finite.sum(axis=(0, 2))
        mean = np.where(count > 0, total / count.clip(min=1), 0.5)
        return Gate(site, formula, values, torch.from_numpy(mean).reshape(1, -1, 1))
