"""What the first call of a layer settles, for every kind of layer."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from acon_hooks.errors import ProofError
from acon_hooks.layers.reading import fold
from acon_hooks.layers.scan import Layer
from acon_hooks.readings import proof
from acon_hooks.readings.call_trace import Seen
from acon_hooks.readings.proof import Case, ProofReport
from acon_hooks.readings.search import search, verify


@dataclass(frozen=True)
class Settled:
    """A layer after its first call: how it is read, what the proof found, and β, folded.

    Parameters
    ----------
    layer : Layer
        With everything that the call has told.
    x : Tensor
        A copy of the activated input.
    report : ProofReport or None
        None for activations, which have no β.
    beta : Tensor or None
        β, compact: (N, C), (N, 1), (C,), or (N, C or 1, P) where it differs between pixels.
    """

    layer: Layer
    x: Tensor
    report: ProofReport | None = None
    beta: Tensor | None = None


def settle(
    layer: Layer, call: int, seen: Seen, output: Any, axis: int, *, again: bool = False
) -> Settled:
    """Settle a layer from one watched call.

    Parameters
    ----------
    layer : Layer
        As found, or as settled by an earlier call.
    call : int
        Which use of the layer in this forward pass.
    seen : Seen
        What was caught.
    output : Any
        What the layer returned.
    axis : int
        Where the channels of a plain activation lie.
    again : bool
        True proves the reading that the layer has, as for a further call.

    Raises
    ------
    ProofError
        If β cannot be read.
    """
    if layer.kind == "activation":
        x = next(iter(seen.arguments.values()), None)
        if x is None:
            raise ProofError(f"activation {layer.name!r} was given no floating-point tensor")
        if call:
            return Settled(layer, x)
        channels = 1 if x.ndim < 2 else x.shape[axis]
        overwritten = isinstance(output, Tensor) and output.data_ptr() in seen.pointers.values()
        return Settled(replace(layer, axis=axis, channels=channels, in_place=overwritten), x)
    if layer.kind == "acon_frelu":
        return _settle_frelu(layer, call, seen)
    found = (verify if call or again else search)(layer, call, seen, output)
    reading = found.layer.reading
    x = seen.arguments[reading.x if reading is not None else 0]
    return Settled(found.layer, x, found.report, _compact(found.layer, found.beta))


def _compact(layer: Layer, beta: Tensor) -> Tensor:
    if layer.granularity == "static":
        return beta[0, :, 0]
    return beta if layer.granularity == "pixel" else beta[:, :, 0]


def _settle_frelu(layer: Layer, call: int, seen: Seen) -> Settled:
    """Prove bn2's argument to be (x1 - x2)·S(x1 - x2) + x2, with x2 the first BN's output."""
    norms = [f for f in seen.fired if isinstance(layer.module.get_submodule(f.path), _Norm)]
    x = next(iter(seen.arguments.values()))
    if len(norms) != 2 or norms[1].taken is None or norms[1].taken.shape != norms[0].output.shape:
        raise ProofError(
            f"layer {layer.name!r} (class {layer.class_name}) has the parts of ACON-FReLU, but "
            f"{len(norms)} of its two normalisations ran; leave it out with kinds=[...]"
        )
    second, target = norms[0].output, norms[1].taken
    first = x
    if x.shape != second.shape:
        first = torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1)
    one = torch.ones((1, 1, 1), dtype=x.dtype, device=x.device)
    if first.shape != second.shape:
        raise ProofError(
            f"layer {layer.name!r} (class {layer.class_name}) is no ACON-FReLU: its two lines "
            f"have the shapes {tuple(first.shape)} and {tuple(second.shape)}"
        )
    case = Case(fold(first, 1), fold(target, 1), one, one, fold(second, 1))
    beta = torch.ones((1, first.shape[1], 1), dtype=x.dtype, device=x.device)
    limit, dtype = proof.tolerance(first, target)
    found = proof.check("acon", case, beta, limit)
    if found.error > limit:
        raise ProofError(
            f"layer {layer.name!r} (class {layer.class_name}) has the parts of ACON-FReLU, but "
            f"misses its formula by {found.error:.1e} (accepted: {limit:.0e})"
        )
    report = ProofReport(
        layer=layer.name,
        call=call,
        reader=layer.reader,
        identity="acon",
        error=found.error,
        tolerance=limit,
        dtype=str(dtype).removeprefix("torch."),
        channels=case.x.shape[1],
        power=found.power,
        silent=found.silent,
        status=proof.status_of(found),
    )
    return Settled(replace(layer, channels=case.x.shape[1]), x, report, beta[0, :, 0])


_Norm = torch.nn.modules.batchnorm._BatchNorm
