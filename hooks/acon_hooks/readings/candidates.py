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
from torch import Tensor, nn

from acon_hooks.layers.gates import GATE_NAMES
from acon_hooks.layers.reading import (
    GATES,
    TRANSFORMS,
    Granularity,
    Layout,
    Reading,
    fold,
    folded,
    layouts,
    rare_transforms,
    transforms,
)
from acon_hooks.layers.scan import Layer, own_tensors, slopes, whole
from acon_hooks.readings.call_trace import Seen
from acon_hooks.readings.proof import Case

#: A way to see input and output, a reading, and the β that it gives, folded.
Candidate = tuple["Setting", Reading, Tensor]


@dataclass(frozen=True)
class Setting:
    """One way to see the layer's input and output; the reading is filled in by the candidates."""

    case: Case
    small: Case
    x: Tensor
    reading: Reading


def settings_of(layer: Layer, seen: Seen, output: Any) -> Iterator[Setting]:
    """Yield every way to pair an argument with the output, the usual ones first."""
    outputs = output if isinstance(output, tuple | list) else (output,)
    for y in outputs:
        if not isinstance(y, Tensor) or not y.is_floating_point():
            continue
        for key, x in seen.arguments.items():
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
            "constant", "1", Layout("static"), identity=identity, x=key, axis=axis, y_axis=y_axis
        )
        yield Setting(case, case.small()[0], x, reading)


def _channel_axes(layer: Layer, x: Tensor) -> list[int]:
    """Return the axes of x that can hold the channels; where p1 broadcasts by itself first."""
    pair = slopes(layer.module)
    if pair is None or pair[0].numel() == 1:
        return list(dict.fromkeys((1, x.ndim - 1)))
    p1 = pair[0]
    place = next(axis for axis, size in enumerate(p1.shape) if size != 1) - p1.ndim + x.ndim
    axes = [axis for axis in range(1, x.ndim) if x.shape[axis] == p1.numel()]
    return sorted(axes, key=lambda axis: axis != place)


def candidates(layer: Layer, seen: Seen, settings: list[Setting]) -> Iterator[Candidate]:
    """Yield every candidate, the most trusted first."""
    for source, where, ordinal, transform, raw in _caught(layer, seen):
        own = getattr(layer.module, where, None) if source == "parameter" else None
        fixed = isinstance(own, nn.Parameter)  # a buffer may be filled for every batch
        for setting in settings:
            for layout in layouts(raw, setting.x, setting.reading.axis, fixed=fixed):
                reading = replace(
                    setting.reading,
                    source=source,
                    where=where,
                    ordinal=ordinal,
                    transform=transform,
                    layout=layout,
                )
                n, c, _ = setting.case.x.shape
                beta = layout.compact(TRANSFORMS[transform](raw), n, c)
                yield setting, reading, folded(beta)
    for setting in settings:
        if setting.reading.identity != "scale":
            yield from _least_squares(seen, setting)
            c = setting.case.x.shape[1]
            yield setting, setting.reading, torch.ones((1, c, 1), device=setting.x.device)


def _caught(layer: Layer, seen: Seen) -> Iterator[tuple[Any, str, int, str, Tensor]]:
    """Yield (source, where, ordinal, transform, tensor), the most trusted first."""
    own = {
        name: whole(tensor.detach())
        for name, tensor in own_tensors(layer.module).items()
        if name not in ("p1", "p2") and tensor.is_floating_point()
    }
    named = [("parameter", name, own[name]) for name in own if "beta" in name.lower()]
    rest = [("parameter", name, own[name]) for name in own if "beta" not in name.lower()]
    for source, name, raw in named:
        yield source, name, 0, "identity", raw
    fired = seen.fired[::-1]
    trusted = GATE_NAMES if layer.kind == "gate" else ("bn2", "fc2")
    fired.sort(key=lambda inner: _trust(inner.path, trusted))
    for inner in fired:
        for transform in transforms(activated=inner.activated or layer.kind == "gate"):
            yield "module", inner.path, inner.ordinal, transform, inner.output
    for key, raw in seen.arguments.items():
        for transform in transforms(activated=True):
            yield "argument", str(key), 0, transform, raw
    for inner in fired:
        for transform in rare_transforms():
            yield "module", inner.path, inner.ordinal, transform, inner.output
    for called in sorted(seen.called, key=lambda c: c.name not in ("sigmoid", "expit")):
        yield "function", called.name, called.ordinal, "identity", called.output
    for source, name, raw in [*named, *rest]:
        for transform in TRANSFORMS:
            yield source, name, 0, transform, raw


def _trust(path: str, names: tuple[str, ...]) -> int:
    last = path.split(".")[-1]
    return names.index(last) if last in names else len(names)


def _least_squares(seen: Seen, setting: Setting) -> Iterator[Candidate]:
    """Yield β = Σ z·d / Σ d² for the gates' arguments z, over coarser and finer groups."""
    case, axis = setting.case, setting.reading.axis
    for called in seen.gates.values():
        z = called.output
        if z.numel() != setting.x.numel() or z.ndim != setting.x.ndim:
            continue
        target = setting.x.movedim(axis, 1).shape
        for z_axis in dict.fromkeys((axis, *range(1, z.ndim))):
            if z.movedim(z_axis, 1).shape != target:
                continue
            d = regressor(setting.reading.identity, case.x, case.p1, case.p2)
            folded = fold(z, z_axis) * GATES[called.name]
            n, c, p = case.x.shape
            groups: dict[Granularity, int] = {"static": n * p, "layer": c * p, "channel": p}
            for granularity, size in groups.items():
                # One element a β fits always and proves nothing; one sample cannot be static.
                if size < 2 or (granularity == "static" and n == 1):
                    continue
                layout = Layout(granularity, axis=z_axis)
                reading = replace(
                    setting.reading,
                    source="least squares",
                    where=called.name,
                    ordinal=called.ordinal,
                    layout=layout,
                )
                yield setting, reading, fitted(folded, d, granularity)


def regressor(identity: str, x: Tensor, p1: Tensor, p2: Tensor) -> Tensor:
    """Return what β multiplies inside the gate, (N, C, P): d, or x for the plain gate."""
    return x if identity == "plain_gate" else (p1 - p2) * x


def fitted(z: Tensor, d: Tensor, granularity: str) -> Tensor:
    """Return β = Σ z·d / Σ d² over the axes on which β does not depend; NaN where d is 0.

    Parameters
    ----------
    z, d : Tensor
        (N, C, P): the gate's argument and what β multiplies in it.
    granularity : str
        "static" sums over samples and pixels, "channel" over pixels, "layer" over channels and
        pixels.

    Returns
    -------
    Tensor
        Folded β in float32, or in float64 for float64 input.
    """
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    z, d = z.to(wide), d.to(wide)
    axes = {"static": (0, 2), "layer": (1, 2), "channel": (2,)}[granularity]
    return (z * d).sum(axes, keepdim=True) / (d * d).sum(axes, keepdim=True)
