"""What one forward pass has yielded, and its way to the host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acon_hooks.engine.rows import Rows, mean_of
from acon_hooks.errors import HookError
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.proof import ProofReport

#: A layer's name, and which of its uses within one forward pass.
Key = tuple[str, int]


class Batch(dict[Key, Tensor]):
    """β of one forward pass: {(layer name, call): tensor on the model's device}.

    The tensors are (N, C), (N, 1) for one β a sample, or (C,) for a static β. Where β differs
    between pixels they are means over the pixels.

    Attributes
    ----------
    spread : dict
        Standard deviations over the pixels, (N, C), of the layers whose β differs between pixels.
    maps : dict
        β of those layers in full, (N, C, H, W) (or whatever axes the input has), if asked for.
    samples : int
        N; 0 where no layer has a β per sample and no argument is a tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spread: dict[Key, Tensor] = {}
        self.maps: dict[Key, Tensor] = {}
        self.samples = 0


#: Called inside the hook of every call of every layer with (layer, call, x, y, β): the input and
#: the output as the layer saw them (both with the channels on `layer.axis`), and β folded to
#: (N, C, 1), (N, 1, 1), (1, C, 1) or (N, C, P), or None for activations. Of a gated product
#: z = a·g(x) they are x, z and its `Factors`, all of the shape of z. Nothing may be kept.
Observer = Callable[[Layer, int, Tensor, Tensor, Any], None]

#: Called before a layer runs that overwrites its input, and whose output is known (`Layer.known`),
#: with (layer, call, x). Where it returns True it has taken the call in, and the observer is not
#: called: so x is not copied for it.
InputObserver = Callable[[Layer, int, Tensor], bool]


@dataclass
class Results:
    """What the layers' hooks have read."""

    observe: Observer | None
    # Whether β of every pixel is kept where it differs between pixels.
    full: bool
    observe_input: InputObserver | None = None
    # Whether the first batch is run again.
    looking: bool = False
    # β of the forward pass that is running.
    batch: Batch | None = None
    # Shape of the activated input without the axis of the samples.
    shapes: dict[Key, tuple[int, ...]] = field(default_factory=dict)
    # The layer as this call of it uses it: an activation may be used on inputs whose channels lie
    # on different axes.
    calls: dict[Key, Layer] = field(default_factory=dict)
    # The proof of every call; a later one of the same call replaces it.
    reports: list[ProofReport] = field(default_factory=list)
    # Where the samples of the batch lie, and which positions hold data.
    tensor_rows: Rows = field(default_factory=Rows)

    def report(self, report: ProofReport) -> None:
        """Keep a proof."""
        calls = [(old.layer, old.call) for old in self.reports]
        if (report.layer, report.call) in calls:
            self.reports[calls.index((report.layer, report.call))] = report
        else:
            self.reports.append(report)

    def store(self, layer: Layer, key: Key, beta: Tensor) -> None:
        """Put β of one call, compact, into the current batch."""
        batch = self.batch
        if batch is None:
            return
        if layer.granularity != "pixel":
            batch[key] = beta
            return
        try:
            valid = self.tensor_rows.positions(layer.name, beta.shape, 1)
        except ValueError as error:
            raise HookError(f"β of layer {layer.name!r} cannot be averaged: {error}") from error
        batch[key], batch.spread[key] = over_pixels(beta, valid)
        if self.full:
            shape = list(self.shapes[key])
            del shape[layer.axis - 1]
            batch.maps[key] = beta.reshape(*beta.shape[:2], *shape).clone()

    def drop(self, layer: Layer) -> None:
        """Drop what a layer has yielded in the current batch: its proof has failed."""
        batch = self.batch
        if batch is not None:
            for part in (batch, batch.spread, batch.maps):
                for key in [key for key in part if key[0] == layer.name]:
                    del part[key]
        for key in [key for key in self.shapes if key[0] == layer.name]:
            del self.shapes[key], self.calls[key]
        self.reports[:] = [report for report in self.reports if report.layer != layer.name]


def to_host(values: Mapping[Key, Tensor]) -> dict[Key, NDArray[Any]]:
    """Copy tensors to the host, those of one device and dtype in a single transfer.

    Parameters
    ----------
    values : mapping
        A `Batch`, or one of its dictionaries.

    Returns
    -------
    dict
        Arrays of the same shapes and dtypes (bfloat16, which numpy lacks, as float32). They share
        memory with each other, not with the model.
    """
    if together := _side_by_side(values):
        return together
    groups: dict[tuple[torch.device, torch.dtype], list[Key]] = {}
    for key, tensor in values.items():
        groups.setdefault((tensor.device, tensor.dtype), []).append(key)
    arrays: dict[Key, NDArray[Any]] = {}
    for keys in groups.values():
        flat = torch.cat([values[key].detach().reshape(-1) for key in keys])
        flat = flat.float() if flat.dtype == torch.bfloat16 else flat
        host = flat.cpu().numpy()
        sizes = [values[key].numel() for key in keys]
        pieces = np.split(host, np.cumsum(sizes)[:-1])
        for key, piece in zip(keys, pieces, strict=True):
            arrays[key] = piece.reshape(tuple(values[key].shape))
    return {key: arrays[key] for key in values}


def _side_by_side(values: Mapping[Key, Tensor]) -> dict[Key, NDArray[Any]] | None:
    """Do what `to_host` does where tensors differ on axis 1 alone, with less work."""
    tensors = list(values.values())
    if not tensors:
        return None
    try:
        joined = torch.cat(tensors, dim=1)
    except (RuntimeError, IndexError):  # other axes, or on other devices
        return None
    dtype = joined.dtype
    if dtype == torch.bfloat16 or any(tensor.dtype is not dtype for tensor in tensors):
        return None
    host = joined.numpy(force=True)
    arrays, start = {}, 0
    for key, tensor in values.items():
        stop = start + tensor.size(1)
        arrays[key] = host[:, start:stop]
        start = stop
    return arrays


def over_pixels(beta: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over the pixels that hold data, each (N, C)."""
    if valid is not None:
        mean = mean_of(beta, valid)
        return mean, mean_of((beta - mean.unsqueeze(2)) ** 2, valid).sqrt()
    spread, mean = torch.std_mean(beta, dim=2, correction=0)
    return mean, spread


def count_samples(batch: Batch) -> int:
    """Return the number of samples in a batch; every β per sample must agree on it."""
    found = {beta.size(0) for beta in batch.values() if beta.dim() == 2}
    if len(found) > 1:
        sizes = {key: len(beta) for key, beta in batch.items() if beta.ndim == 2}
        shown = ", ".join(f"{name!r} {size}" for (name, _), size in list(sizes.items())[:4])
        raise HookError(
            f"layers saw different numbers of samples in one forward pass ({shown}): "
            "their β cannot be assigned to samples; read them separately with layers=[...]"
        )
    return next(iter(found), 0)
