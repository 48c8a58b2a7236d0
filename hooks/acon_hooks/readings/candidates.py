"""The candidates for β in one call of a layer, the most trusted first.

In order: an own parameter called beta; the outputs of inner modules (bn2, then fc2, then the last
to run), through a sigmoid or as they are; other arguments of the layer; the modules' outputs
through rarer functions; results of functions called in the forward, sigmoids first; other own
parameters; least squares on the argument of a gate; the constant 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from acon_hooks.layers.reading import (
    GATES,
    RARE,
    TRANSFORMS,
    BetaSource,
    Granularity,
    Layout,
    Reading,
    fold,
    folded,
    layouts,
    transforms,
)
from acon_hooks.layers.scan import Layer, slopes, whole
from acon_hooks.readings.call_trace import CallTrace
from acon_hooks.readings.proof import Case
from acon_hooks.readings.sources import (
    Argument,
    Constant,
    FunctionResult,
    InnerModule,
    LeastSquares,
    OwnTensor,
    fitted,
    regressor,
)

#: A way to see input and output, a reading, and the β that it gives, folded.
Candidate = tuple["Setting", Reading, Tensor]


@dataclass(frozen=True)
class Setting:
    """One way to see the layer's input and output; the reading is filled in by the candidates."""

    case: Case
    small: Case
    x: Tensor
    reading: Reading


def settings_of(layer: Layer, trace: CallTrace, output: Any) -> Iterator[Setting]:
    """Yield every way to pair an argument with the output, the usual ones first."""
    outputs = output if isinstance(output, tuple | list) else (output,)
    for y in outputs:
        if not isinstance(y, Tensor) or not y.is_floating_point():
            continue
        for key, x in trace.arguments.items():
            if x.numel() != y.numel() or x.ndim < 2 or x.ndim != y.ndim:
                continue
            for axis in _channel_axes(layer, x):
                for y_axis in dict.fromkeys((axis, *range(1, y.ndim))):
                    if y.movedim(y_axis, 1).shape == x.movedim(axis, 1).shape:
                        yield from _settings_at(layer, key, x, y.detach(), axis, y_axis)
                        break


def _settings_at(
    layer: Layer, key: int | str, x: Tensor, y: Tensor, axis: int, y_axis: int
) -> Iterator[Setting]:
    pair = slopes(layer.module)
    one = torch.ones((1, 1, 1), dtype=x.dtype, device=x.device)
    p1, p2 = (whole(p.detach()).reshape(1, -1, 1) for p in pair) if pair else (one, one)
    case = Case(fold(x, axis), fold(y, y_axis), p1.to(x.device), p2.to(x.device))
    identities = ["acon"] if {"meta_acon", "acon"} & set(layer.asked) else []
    if "acon_plain_gate" in layer.asked:
        identities.append("plain_gate")
    for identity in ["scale"] if layer.kind == "gate" else identities:
        reading = Reading(
            Constant(1), Layout("static"), identity=identity, x=key, axis=axis, y_axis=y_axis
        )
        yield Setting(case, case.small()[0], x, reading)


def _channel_axes(layer: Layer, x: Tensor) -> list[int]:
    """Return the axes of x that can hold the channels; where p1 broadcasts by itself first."""
    pair = slopes(layer.module)
    if pair is None or pair[0].numel() == 1:
        return list(dict.fromkeys((1, x.ndim - 1)))
    p1 = pair[0]
    first = next(axis for axis, size in enumerate(p1.shape) if size != 1) - p1.ndim + x.ndim
    axes = [axis for axis in range(1, x.ndim) if x.shape[axis] == p1.numel()]
    return sorted(axes, key=lambda axis: axis != first)


def candidates(layer: Layer, trace: CallTrace, settings: list[Setting]) -> Iterator[Candidate]:
    """Yield every candidate, the most trusted first."""
    for source, transform, raw in _caught(layer, trace):
        fixed = isinstance(source, OwnTensor) and source.is_parameter(layer.module)
        for setting in settings:
            for layout in layouts(raw, setting.x, setting.reading.axis, fixed=fixed):
                reading = replace(
                    setting.reading, source=source, transform=transform, layout=layout
                )
                n, c, _ = setting.case.x.shape
                beta = layout.compact(TRANSFORMS[transform](raw), n, c)
                yield setting, reading, folded(beta)
    for setting in settings:
        if setting.reading.identity != "scale":
            yield from _least_squares(trace, setting)
            c = setting.case.x.shape[1]
            yield setting, setting.reading, torch.ones((1, c, 1), device=setting.x.device)


def _caught(layer: Layer, trace: CallTrace) -> Iterator[tuple[BetaSource, str, Tensor]]:
    """Yield (source, transform, tensor), the most trusted first."""
    own = OwnTensor.of(layer)
    modules = InnerModule.of(layer, trace)
    for tensor, raw in own:
        if tensor.named_beta:
            yield tensor, "identity", raw
    for module, call in modules:
        for transform in transforms(activated=call.activated or layer.kind == "gate"):
            yield module, transform, call.output
    for argument, raw in Argument.of(trace):
        for transform in transforms(activated=True):
            yield argument, transform, raw
    for module, call in modules:
        for transform in RARE:
            yield module, transform, call.output
    for function, raw in FunctionResult.of(trace):
        yield function, "identity", raw
    for tensor, raw in own:
        for transform in TRANSFORMS:
            yield tensor, transform, raw


def _least_squares(trace: CallTrace, setting: Setting) -> Iterator[Candidate]:
    """Yield the fits on the gates' arguments, over coarser and finer groups."""
    case, axis = setting.case, setting.reading.axis
    for source, z in LeastSquares.of(trace):
        if z.numel() != setting.x.numel() or z.ndim != setting.x.ndim:
            continue
        target = setting.x.movedim(axis, 1).shape
        for z_axis in dict.fromkeys((axis, *range(1, z.ndim))):
            if z.movedim(z_axis, 1).shape != target:
                continue
            d = regressor(setting.reading.identity, case.x, case.p1, case.p2)
            argument = fold(z, z_axis) * GATES[source.function]
            n, c, p = case.x.shape
            groups: dict[Granularity, int] = {"static": n * p, "layer": c * p, "channel": p}
            for granularity, size in groups.items():
                # One element a β fits always and proves nothing; one sample cannot be static.
                if size < 2 or (granularity == "static" and n == 1):
                    continue
                layout = Layout(granularity, axis=z_axis)
                reading = replace(setting.reading, source=source, layout=layout)
                yield setting, reading, fitted(argument, d, granularity)
