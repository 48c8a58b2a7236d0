"""The search for β in one layer on the first batch: candidates by trust, the proof decides."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from acon_hooks import proof
from acon_hooks.errors import ProofError
from acon_hooks.finding import Layer, own_tensors, slopes, whole
from acon_hooks.gates import GATE_NAMES
from acon_hooks.proof import Case, Check, ProofReport
from acon_hooks.reading import (
    GATES,
    TRANSFORMS,
    Layout,
    Reading,
    fold,
    layouts,
    rare_transforms,
    transforms,
)
from acon_hooks.watch import Seen

_IDENTITY_TEXT = {
    "acon": "d·S(β·d) + p2·x, d = (p1 - p2)·x",
    "plain_gate": "(p1 - p2)·x·S(β·x) + p2·x",
    "scale": "x·gate",
}


@dataclass(frozen=True)
class Found:
    """The outcome of a search: the layer with its reading, the report, and β itself, folded."""

    layer: Layer
    report: ProofReport
    beta: Tensor


@dataclass(frozen=True)
class Setting:
    """One way to see the layer's input and output; the reading is filled in by the candidates."""

    case: Case
    small: Case
    x: Tensor
    reading: Reading


def search(layer: Layer, call: int, seen: Seen, output: Any) -> Found:
    """Find how β can be read from a layer, and prove it.

    Parameters
    ----------
    layer : Layer
        An ACON layer, or a gate.
    call : int
        Which use of the layer in this forward pass.
    seen : Seen
        What was caught during the call.
    output : Tensor or tuple of Tensor
        What the layer returned.

    Returns
    -------
    Found
        Of the candidates that pass, the first that has power and that the layer itself has
        computed; else the first that the layer has computed; else the first with power.

    Raises
    ------
    ProofError
        If no candidate passes.
    """
    settings = list(_settings(layer, seen, output))
    if not settings:
        raise ProofError(_shape_message(layer, seen, output))
    attempts: dict[tuple[str, str], float] = {}
    best: tuple[int, Found] | None = None
    for setting, reading, beta in _candidates(layer, seen, settings):
        found, error = _try(layer, call, setting, reading, beta)
        fits = found is not None and reading.source == "least squares"
        if fits and reading.identity == "acon" and _is_plain(layer, seen, settings):
            break  # the fit is β/(p1 - p2): another function, written with a β of its own
        key = (reading.describe(), reading.identity)
        attempts[key] = min(error, attempts.get(key, torch.inf))
        if found is None:
            continue
        rank = 2 * _occurs(reading, beta, seen) + (found.report.power > 0)
        if best is None or rank > best[0]:
            best = rank, found
        if rank == 3 or (rank == 2 and _without_power(setting, reading)):
            break
    if best is not None:
        return _with_pooled(best[1], seen)
    raise ProofError(_failure(layer, call, seen, settings, attempts))


def verify(layer: Layer, call: int, seen: Seen, output: Any) -> Found:
    """Prove the reading that a layer already has on another call of it.

    Raises
    ------
    ProofError
        If it does not hold there.
    """
    reading = layer.reading
    for setting, candidate, beta in _candidates(layer, seen, list(_settings(layer, seen, output))):
        if reading is not None and candidate == replace(reading, pooled=""):
            found, error = _try(layer, call, setting, candidate, beta)
            if found is not None:
                return replace(found, layer=layer)
            raise ProofError(
                f"layer {layer.name!r}: its reading ({reading.describe()}) was proved on call 0 "
                f"of the forward pass, but misses by {error:.1e} on call {call}"
            )
    words = "nothing" if reading is None else reading.describe()
    raise ProofError(f"layer {layer.name!r}: call {call} offers no {words}, as call 0 did")


def _try(
    layer: Layer, call: int, setting: Setting, reading: Reading, beta: Tensor
) -> tuple[Found | None, float]:
    """Check a candidate on a part of the data, then on all of it."""
    case = setting.case
    limit, dtype = proof.tolerance(case.x, case.y, beta)
    _, part = case.small()
    # A fit has no β where d is 0; any value explains the output there.
    tested = beta.nan_to_num(0.0) if reading.source == "least squares" else beta
    quick = proof.check(reading.identity, setting.small, part(tested), limit, power=False)
    if quick.error > limit:
        return None, quick.error
    full = proof.check(reading.identity, case, tested, limit)
    if full.error > limit:
        return None, full.error
    report = _report(layer, call, reading, full, limit, dtype, case.x.shape[1])
    return Found(_settled(layer, reading, case.x.shape[1]), report, beta), full.error


def _report(
    layer: Layer,
    call: int,
    reading: Reading,
    full: Check,
    limit: float,
    dtype: torch.dtype,
    channels: int,
) -> ProofReport:
    return ProofReport(
        layer=layer.name,
        call=call,
        reader=reading.describe(),
        identity=reading.identity,
        error=full.error,
        tolerance=limit,
        dtype=str(dtype).removeprefix("torch."),
        channels=channels,
        power=full.power,
        silent=full.silent,
        status=proof.status_of(full),
    )


def _settled(layer: Layer, reading: Reading, channels: int) -> Layer:
    """Return the layer with what the proof has settled."""
    kind = layer.kind
    if reading.identity == "plain_gate":
        kind = "acon_plain_gate"
    elif reading.identity == "acon":
        kind = "acon" if reading.layout.granularity == "static" else "meta_acon"
    return replace(
        layer,
        kind=kind,
        channels=channels,
        granularity=reading.layout.granularity,
        reader=reading.describe(),
        axis=reading.axis,
        reading=reading,
    )


def _with_pooled(found: Found, seen: Seen) -> Found:
    """Note which inner module is handed the mean of x over the pixels, if one is."""
    reading = found.layer.reading
    if reading is None or reading.layout.granularity != "channel":
        return found
    x = fold(seen.arguments[reading.x], reading.axis)
    mean = x.double().mean(2) if x.device.type != "mps" else x.mean(2)
    limit = proof.tolerance(x)[0] * max(1.0, float(x.abs().max()))
    for fired in seen.fired:
        taken = fired.taken
        if taken is None or taken.numel() != mean.numel() or fired.ordinal:
            continue
        if float((taken.reshape(mean.shape) - mean).abs().max()) <= limit:
            named = replace(reading, pooled=fired.path)
            return replace(found, layer=replace(found.layer, reading=named))
    return found


def _settings(layer: Layer, seen: Seen, output: Any) -> Iterator[Setting]:
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


def _candidates(
    layer: Layer, seen: Seen, settings: list[Setting]
) -> Iterator[tuple[Setting, Reading, Tensor]]:
    """Yield every candidate, the most trusted first."""
    for source, where, ordinal, transform, raw in _caught(layer, seen):
        for setting in settings:
            for layout in layouts(raw, setting.x, setting.reading.axis):
                reading = replace(
                    setting.reading,
                    source=source,
                    where=where,
                    ordinal=ordinal,
                    transform=transform,
                    layout=layout,
                )
                beta = TRANSFORMS[transform](layout.fold(raw, setting.case.x.shape[1]))
                yield setting, reading, beta
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


def _occurs(reading: Reading, beta: Tensor, seen: Seen) -> bool:
    """Tell whether the layer itself has computed this β, to the last bit.

    Near 0 many functions agree to within the tolerance: σ(z) and the hard sigmoid, for one. Only
    the one that the layer applies gives the very same numbers.
    """
    if reading.transform == "identity" and reading.source not in ("least squares", "constant"):
        return True
    made = [fired.output for fired in seen.fired] + [called.output for called in seen.called]
    flat = beta.reshape(-1)
    return any(
        tensor.numel() == flat.numel()
        and tensor.dtype == flat.dtype
        and torch.equal(reading.layout.fold(tensor, beta.shape[1]).reshape(-1), flat)
        for tensor in made
    )


def _without_power(setting: Setting, reading: Reading) -> bool:
    """Tell whether even β = 0 would explain the output, so that no search can tell more."""
    case = setting.case
    limit = proof.tolerance(case.x, case.y)[0]
    zero = torch.zeros((1, 1, 1), dtype=case.x.dtype, device=case.x.device)
    return proof.check(reading.identity, case, zero, limit, power=False).error <= limit


def _is_plain(layer: Layer, seen: Seen, settings: list[Setting]) -> bool:
    """Tell whether a β that exists as a tensor explains the output without p1 - p2 in the gate."""
    plain = [replace(s, reading=replace(s.reading, identity="plain_gate")) for s in settings]
    for setting, reading, beta in _candidates(layer, seen, plain):
        if reading.source not in ("least squares", "constant"):
            case = setting.case
            limit = proof.tolerance(case.x, case.y, beta)[0]
            if proof.check("plain_gate", case, beta, limit, power=False).error <= limit:
                return True
    return False


def _trust(path: str, names: tuple[str, ...]) -> int:
    last = path.split(".")[-1]
    return names.index(last) if last in names else len(names)


def _least_squares(seen: Seen, setting: Setting) -> Iterator[tuple[Setting, Reading, Tensor]]:
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
            for granularity in ("static", "layer", "channel", "pixel"):
                if granularity == "static" and case.x.shape[0] == 1:
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
        pixels, "pixel" over nothing.

    Returns
    -------
    Tensor
        Folded β in float32, or in float64 for float64 input.
    """
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    z, d = z.to(wide), d.to(wide)
    if granularity == "pixel":
        return z / d
    axes = {"static": (0, 2), "layer": (1, 2), "channel": (2,)}[granularity]
    return (z * d).sum(axes, keepdim=True) / (d * d).sum(axes, keepdim=True)


def _shape_message(layer: Layer, seen: Seen, output: Any) -> str:
    outputs = output if isinstance(output, tuple | list) else (output,)
    given = [tuple(t.shape) for t in seen.arguments.values()]
    made = [tuple(t.shape) for t in outputs if isinstance(t, Tensor)]
    pair = slopes(layer.module)
    own = f" with p1 of shape {tuple(pair[0].shape)}" if pair else ""
    text = (
        f"layer {layer.name!r} (class {layer.class_name}){own} took {given or 'no float tensor'} "
        f"and returned {made or 'no tensor'}: β can only be read where the output has the shape "
        "of an input, with the channels on one of its axes"
    )
    if any(len(m) > len(g) for m in made for g in given):
        text += "; the parameters were broadcast over the wrong axes, a fault of the layer"
    return text


def _failure(
    layer: Layer,
    call: int,
    seen: Seen,
    settings: list[Setting],
    attempts: dict[tuple[str, str], float],
) -> str:
    """Say by how much each candidate failed and which variant comes close."""
    limit, dtype = proof.tolerance(settings[0].case.x, settings[0].case.y)
    case = settings[0].case
    formula = _IDENTITY_TEXT[settings[0].reading.identity]
    which = f" on call {call}" if call else ""
    text = f"layer {layer.name!r} (class {layer.class_name}){which}: "
    if not bool(torch.isfinite(case.y).all()):
        bad = int((~torch.isfinite(case.y)).sum())
        return text + (
            f"{bad} of {case.y.numel()} outputs are infinite or NaN in {dtype}; "
            f"the largest |x| is {float(case.x.abs().max()):.3g} (float16 ends at 65504): "
            "run the model in float32 or bfloat16, or scale its input"
        )
    best = sorted(attempts.items(), key=lambda item: item[1])[:4]
    tried = "; ".join(f"{reader} misses by {error:.1e}" for (reader, _), error in best)
    text += f"no reading of β explains the output as {formula} to {limit:.0e} ({tried})"
    near = _near(layer, seen, settings[:1])
    return text + near + "; leave the layer out with layers=[...] or kinds=[...]"


def _near(layer: Layer, seen: Seen, settings: list[Setting]) -> str:
    """Name the variant formula that fits, with the reading that makes it fit."""
    if layer.kind == "gate":
        return ""
    best: tuple[float, str, str] = (torch.inf, "", "")
    limit = proof.tolerance(settings[0].case.x, settings[0].case.y)[0]
    for setting, reading, beta in _candidates(layer, seen, settings):
        for name in proof.NEAR:
            _, part = setting.case.small()
            found = proof.check(name, setting.small, part(beta), limit, power=False)
            best = min(best, (found.error, name, reading.describe()))
    error, name, reader = best
    if error > max(limit, 1e-3):
        return "; no known variant comes close either"
    text = f"; it looks like the variant with {proof.NEAR[name]} ({reader}: error {error:.1e})"
    if name == "plain_gate":
        text += ": pass kinds=('acon_plain_gate',) to read it as its own kind"
    return text
