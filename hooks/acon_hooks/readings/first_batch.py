"""The first batch of a layer: everything inside it is watched, and how β is read is settled."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from acon_hooks.engine.aliases import same_values
from acon_hooks.engine.functions import Listener
from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.visited import ForwardPasses, Visited
from acon_hooks.errors import ProofError
from acon_hooks.layers.elementwise import is_activation
from acon_hooks.layers.gates import GATE_NAMES, is_named_gate
from acon_hooks.layers.reading import fold, halved_axis
from acon_hooks.layers.scan import Layer, owns_slopes
from acon_hooks.readings import proof
from acon_hooks.readings.call_trace import CallTrace
from acon_hooks.readings.live import argument
from acon_hooks.readings.proof import Case, ProofReport
from acon_hooks.readings.search import search, verify

_Norm = torch.nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class ResolvedCall:
    """A layer after one watched call: how it is read, what the proof found, and β."""

    layer: Layer
    # A copy of the activated input.
    x: Tensor
    # None for activations, which have no β.
    report: ProofReport | None = None
    # Compact: (N, C), (N, 1), (C,), or (N, C or 1, P) where it differs between pixels.
    beta: Tensor | None = None


class FirstBatchHooks(Visitor):
    """Watches everything that happens inside one layer, call by call."""

    def __init__(self, visit: ForwardPasses, layer: Layer) -> None:
        self.layer = layer
        self.inside = not layer.plain
        self.trace: CallTrace | None = None
        self.outside: set[nn.Module] = set()  # inner modules that also ran outside of a call
        self._listener = Listener(self._run)
        self._inner: list[Visited] = []
        if self.inside and not isinstance(layer.module, torch.jit.ScriptModule):
            self._inner = [
                visit.add(Site(path, module, inner=True), self)
                for path, module in layer.module.named_modules()
                if path and not isinstance(module, torch.jit.ScriptModule)
            ]
        self._activated = {
            visited.site.name: _ends_in_activation(visited.site.module) for visited in self._inner
        }

    def begin_call(self, call: SiteCall) -> None:
        """Start watching one call; copies the arguments."""
        self.trace = CallTrace.of(call)
        if self.inside:
            self._listener.on()

    def end_call(self) -> CallTrace | None:
        """End the call; return what was caught, or None if its beginning was missed."""
        trace = self.trace
        self.stop()
        return trace

    def after(self, call: SiteCall, output: Any) -> None:
        """Write down a call of an inner module."""
        if self.trace is None:
            self.outside.add(call.site.module)
            return
        self.trace.module(call, output, activated=self._activated[call.site.name])

    def stop(self) -> None:
        """Forget a call that did not end."""
        self.trace = None
        self._listener.off()

    def remove(self) -> None:
        """Take all hooks inside the layer away."""
        self.stop()
        for visited in self._inner:
            visited.remove()

    def certain(self, trace: CallTrace) -> bool:
        """Whether the structure leaves no doubt about the kind of the layer."""
        module = self.layer.module
        if self.layer.plain:
            return False
        if self.layer.kind == "acon_frelu":
            return hasattr(module, "conv_frelu")
        if self.layer.kind == "gate":
            named = any(call.path in GATE_NAMES for call in trace.modules)
            return is_named_gate(module) and named
        return owns_slopes(module)

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        trace = self.trace
        return func(*args, **kwargs) if trace is None else trace.function(func, args, kwargs)


def _ends_in_activation(module: nn.Module) -> bool:
    leaves = [part for part in module.modules() if next(part.children(), None) is None]
    return bool(leaves) and is_activation(leaves[-1])


def resolve_call(
    layer: Layer,
    call: SiteCall,
    trace: CallTrace,
    output: Any,
    axis: tuple[int, bool],
    *,
    again: bool = False,
) -> ResolvedCall:
    """Settle how a layer is read from a watched call that has ended, or raise a ProofError.

    `axis` is the channel axis of a plain activation, and whether it is known; `again` proves the
    reading that the layer has, as for a further call.
    """
    if layer.plain:
        return _resolve_plain(layer, call, trace, output, axis)
    if layer.kind == "acon_frelu":
        resolved = _resolve_frelu(layer, call.number, trace)
    else:
        find = verify if call.number or again else search
        found = find(layer, call.number, trace, output)
        reading = found.layer.reading
        x = trace.arguments[reading.x if reading is not None else 0]
        beta = _compact(found.layer, found.beta)
        resolved = ResolvedCall(found.layer, x, found.report, beta)
    original = argument(resolved.layer, call)
    if isinstance(original, Tensor) and not same_values(original, resolved.x):
        return replace(resolved, layer=replace(resolved.layer, in_place=True))
    return resolved


def _resolve_plain(
    layer: Layer, call: SiteCall, trace: CallTrace, output: Any, axis: tuple[int, bool]
) -> ResolvedCall:
    x = next(iter(trace.arguments.values()), None)
    if x is None:
        dtype = next((str(value.dtype) for value in call.tensors()), "no tensor")
        raise ProofError(f"its input is {dtype}, and only floating-point numbers are measured")
    shape = x.shape
    if layer.halved:
        shape, dim = output.shape, halved_axis(x, output)
        if dim == 0:
            raise ProofError("it splits its input along axis 0, which is that of the samples")
        axis = axis if axis[1] else (dim, False)
    channels = 1 if x.ndim < 2 else shape[axis[0]]
    overwritten = isinstance(output, Tensor) and output.data_ptr() in trace.pointers.values()
    overwritten = overwritten or (not trace.kept and not same_values(trace.given[0], x))
    words = "" if axis[1] else f"channels assumed on axis {axis[0]}"
    found = replace(layer, axis=axis[0], channels=channels, in_place=overwritten, reader=words)
    return ResolvedCall(found, x)


def _compact(layer: Layer, beta: Tensor) -> Tensor:
    if layer.granularity == "static":
        return beta[0, :, 0]
    return beta if layer.granularity == "pixel" else beta[:, :, 0]


def _resolve_frelu(layer: Layer, call: int, trace: CallTrace) -> ResolvedCall:
    """Prove bn2's argument to be (x1 - x2)·S(x1 - x2) + x2, with x2 the first BN's output."""
    norms = [m for m in trace.modules if isinstance(layer.module.get_submodule(m.path), _Norm)]
    x = next(iter(trace.arguments.values()))
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
    channels = case.x.shape[1]
    report = found.report(layer, call, layer.reader, "acon", (limit, dtype), channels)
    return ResolvedCall(replace(layer, channels=channels), x, report, beta[0, :, 0])
