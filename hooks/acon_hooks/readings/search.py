"""The search for β in one layer on the first batch: candidates by trust, the proof decides."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from acon_analysis.screen import counted
from acon_hooks.engine.aliases import same_values
from acon_hooks.errors import ProofError
from acon_hooks.layers.reading import Layout, Reading, fold, folded, layouts
from acon_hooks.layers.scan import Layer, slopes
from acon_hooks.readings import proof
from acon_hooks.readings.call_trace import CallTrace, FunctionCall
from acon_hooks.readings.candidates import Setting, candidates, settings_of
from acon_hooks.readings.proof import ProofReport
from acon_hooks.readings.sources import FunctionResult

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


def search(layer: Layer, call: int, trace: CallTrace, output: Any) -> Found:
    """Find how β can be read from an ACON layer or a gate, and prove it.

    Of the candidates that pass, the first that has power and that the layer itself has computed;
    else the first that the layer has computed; else the first with power. One with power that fits
    far worse than a more trusted one without does not count. If none passes, a ProofError.
    """
    settings = list(settings_of(layer, trace, output))
    if not settings:
        raise ProofError(_shape_message(layer, trace, output))
    if not settings[0].case.y.numel():
        shape = tuple(settings[0].case.y.shape)
        raise ProofError(
            f"layer {layer.name!r}: its output is {shape}, without values, on the first batch: "
            "nothing can be proved on it; begin with other samples"
        )
    attempts: dict[tuple[str, str], float] = {}
    best: tuple[int, Found] | None = None
    for setting, reading, beta in candidates(layer, trace, settings):
        found, error = _try(layer, call, setting, reading, beta)
        fits = found is not None and reading.source.takes_argument
        if fits and reading.identity == "acon" and _is_plain(layer, trace, settings):
            break  # the fit is β/(p1 - p2): another function, written with a β of its own
        key = (reading.describe(), reading.identity)
        attempts[key] = min(error, attempts.get(key, torch.inf))
        if found is None:
            continue
        found = _where_it_ends(found, setting, trace)
        occurs = _occurs(reading, beta, trace)
        if layer.kind == "gate" and not occurs:
            continue  # where x·1 is the output, many functions give the 1
        rank = 2 * occurs + (found.report.power > 0)
        if best is None or (rank > best[0] and not _barely(found, best[1])):
            best = rank, found
        if best[0] == 3 or (rank == 2 and _without_power(setting, reading)):
            break
    if best is not None:
        return best[1]
    raise ProofError(_failure(layer, call, trace, settings, attempts))


def _barely(found: Found, trusted: Found) -> bool:
    """Return whether a candidate fits far worse than a more trusted one: by chance."""
    # Next to a saturated gate the gate itself, near 1, may pass for β with an error just below the
    # tolerance. In half precision errors say too little for that.
    own, other = found.report, trusted.report
    return own.tolerance < proof.FINE and own.error > max(2 * other.error, own.tolerance / 20)


def verify(layer: Layer, call: int, trace: CallTrace, output: Any) -> Found:
    """Prove the reading that a layer already has on another call of it, or raise a ProofError."""
    reading = layer.reading
    for setting, candidate, beta in candidates(
        layer, trace, list(settings_of(layer, trace, output))
    ):
        if candidate == reading:
            found, error = _try(layer, call, setting, candidate, beta)
            if found is not None:
                return replace(found, layer=layer)
            text = f"layer {layer.name!r}: its reading ({reading.describe()})"
            if call:
                text += " was proved on call 0 of the forward pass, but"
            raise ProofError(f"{text} misses by {error:.1e} on call {call}")
    words = "nothing" if reading is None else reading.describe()
    raise ProofError(f"layer {layer.name!r}: call {call} offers no {words}, as call 0 did")


def _try(
    layer: Layer, call: int, setting: Setting, reading: Reading, beta: Tensor
) -> tuple[Found | None, float]:
    """Check a candidate on a part of the data, then on all of it."""
    case = setting.case
    limit, dtype = proof.tolerance(case.x, case.y, beta)
    # A fit has no β where d is 0; any value explains the output there.
    tested = beta.nan_to_num(0.0) if reading.source.takes_argument else beta
    error = _misses(setting, reading.identity, tested, limit)
    if error > limit:
        return None, error
    full = proof.check(reading.identity, case, tested, limit)
    if full.error > limit:
        return None, full.error
    channels = case.x.shape[1]
    report = full.report(
        layer, call, reading.describe(), reading.identity, (limit, dtype), channels
    )
    return Found(_settled(layer, reading, channels), report, beta), full.error


def _misses(setting: Setting, identity: str, beta: Tensor, limit: float) -> float:
    """Return a candidate's error on a part of the data: most are far off, and that shows there."""
    _, part = setting.case.small()
    return proof.check(identity, setting.small, part(beta), limit, power=False).error


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


def _occurs(reading: Reading, beta: Tensor, trace: CallTrace) -> bool:
    """Return whether the layer itself has computed this β, to the last bit."""
    # Near 0 many functions agree to within the tolerance: σ(z) and the hard sigmoid, for one. Only
    # the one that the layer applies gives the very same numbers.
    if reading.transform == "identity" and not reading.source.inferred:
        return True
    made = [call.output for call in trace.modules] + [call.output for call in trace.functions]
    flat = beta.reshape(-1)
    return any(
        tensor.numel() == flat.numel()
        and tensor.dtype == flat.dtype
        and same_values(_like(tensor, reading.layout, beta), flat)
        for tensor in made
    )


#: Functions that hand on the values of their argument.
_COPIES = frozenset({
    "__getitem__", "clone", "contiguous", "detach", "dropout", "expand", "expand_as", "flatten",
    "permute", "reshape", "squeeze", "to", "transpose", "type_as", "unsqueeze", "view",
    "view_as",
})  # fmt: skip


def _where_it_ends(found: Found, setting: Setting, trace: CallTrace) -> Found:
    """Read β from the last function that changed nothing on this batch, if there is one."""
    # A clamp after the sigmoid hands on every value while none is beyond its bounds. On another
    # batch it may not, so β must be read behind it.
    reading = found.layer.reading
    if reading is None or reading.source.fixed or reading.source.inferred:
        return found
    same: list[tuple[FunctionCall, Layout]] = []
    n, c, _ = setting.case.x.shape
    for called in trace.functions[: trace.gated or None]:
        if called.name in _COPIES or called.output.numel() != found.beta.numel():
            continue
        for layout in layouts(called.output, setting.x, reading.axis):
            if same_values(folded(layout.compact(called.output, n, c)), found.beta):
                same.append((called, layout))
                break
    if len(same) < 2:
        return found
    last, layout = same[-1]
    moved = replace(
        reading, source=FunctionResult(last.name, last.ordinal), transform="identity", layout=layout
    )
    words = moved.describe()
    return Found(
        replace(found.layer, reading=moved, reader=words),
        replace(found.report, reader=words),
        found.beta,
    )


def _like(tensor: Tensor, layout: Layout, beta: Tensor) -> Tensor:
    """Return a tensor flat, in the order of a folded β that was caught in some layout."""
    if layout.granularity == "pixel":
        fits = tensor.ndim > layout.axis and fold(tensor, layout.axis).shape == beta.shape
        return fold(tensor, layout.axis).reshape(-1) if fits else tensor.reshape(-1)
    return layout.compact(tensor, beta.shape[0], beta.shape[1]).reshape(-1)


def _without_power(setting: Setting, reading: Reading) -> bool:
    """Return whether even β = 0 would explain the output, so that no search decides."""
    case = setting.case
    limit = proof.tolerance(case.x, case.y)[0]
    zero = torch.zeros((1, 1, 1), dtype=case.x.dtype, device=case.x.device)
    return proof.check(reading.identity, case, zero, limit, power=False).error <= limit


def _is_plain(layer: Layer, trace: CallTrace, settings: list[Setting]) -> bool:
    """Return whether some tensor as β explains the output without p1 - p2 in the gate."""
    plain = [replace(s, reading=replace(s.reading, identity="plain_gate")) for s in settings]
    for setting, reading, beta in candidates(layer, trace, plain):
        if not reading.source.inferred:
            case = setting.case
            limit = proof.tolerance(case.x, case.y, beta)[0]
            if _misses(setting, "plain_gate", beta, limit) > limit:
                continue
            if proof.check("plain_gate", case, beta, limit, power=False).error <= limit:
                return True
    return False


def _shape_message(layer: Layer, trace: CallTrace, output: Any) -> str:
    outputs = output if isinstance(output, tuple | list) else (output,)
    given = [tuple(t.shape) for t in trace.arguments.values()]
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
    trace: CallTrace,
    settings: list[Setting],
    attempts: dict[tuple[str, str], float],
) -> str:
    """Say by how much each candidate failed and which variant comes close."""
    limit, dtype = proof.tolerance(settings[0].case.x, settings[0].case.y)
    case = settings[0].case
    formula = _IDENTITY_TEXT[settings[0].reading.identity]
    which = f" on call {call}" if call else ""
    text = f"layer {layer.name!r} (class {layer.class_name}){which}: "
    if not bool(case.finite.any()):
        if not bool(case.x.isfinite().all(2).all(1).any()):
            return text + (
                f"each of the {counted(len(case.x), 'sample')} of the first batch has NaN or "
                "infinity in the "
                "layer's input: nothing can be proved on them; begin with other samples"
            )
        bad = int((~torch.isfinite(case.y)).sum())
        return text + (
            f"{bad} of {counted(case.y.numel(), 'output')} are infinite or NaN in {dtype}; "
            f"the largest |x| is {float(case.x.abs().max()):.3g} (float16 ends at 65504): "
            "run the model in float32 or bfloat16, or scale its input"
        )
    shown = list(attempts.items())[:4]  # the most trusted ones
    tried = "; ".join(f"{reader} misses by {error:.1e}" for (reader, _), error in shown)
    text += f"no reading of β explains the output as {formula} to {limit:.0e} ({tried})"
    if isinstance(layer.module, torch.jit.ScriptModule):
        text += "; the layer is TorchScript, so nothing inside it can be traced"
    near = _near(layer, trace, settings[:1])
    return text + near + "; leave the layer out with layers=[...] or kinds=[...]"


def _near(layer: Layer, trace: CallTrace, settings: list[Setting]) -> str:
    """Name the variant formula that fits, with the reading that makes it fit."""
    if layer.kind == "gate":
        return ""
    best: tuple[float, str, str] = (torch.inf, "", "")
    limit = proof.tolerance(settings[0].case.x, settings[0].case.y)[0]
    for setting, reading, beta in candidates(layer, trace, settings):
        for name in proof.NEAR:
            error = _misses(setting, name, beta, limit)
            if error < best[0] / 2:  # of equals the most trusted
                best = error, name, reading.describe()
    error, name, reader = best
    if error > max(limit, 1e-3):
        return "; no known variant comes close either"
    text = f"; it looks like the variant with {proof.NEAR[name]} ({reader}: error {error:.1e})"
    if name == "plain_gate":
        text += ": pass kinds=('acon_plain_gate',) to read it as its own kind"
    return text
