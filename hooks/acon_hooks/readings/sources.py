"""The ways to read β: one class each.

A source says in which tensors of the first batch β may be (`candidates` tries them), what has to
be caught in later batches, and how β is computed from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from acon_hooks.errors import HookError
from acon_hooks.layers.gates import GATE_NAMES
from acon_hooks.layers.reading import GATES, TRANSFORMS, BetaSource, LiveCall, Reading, fold
from acon_hooks.layers.scan import Layer, own_tensors, slopes, whole
from acon_hooks.readings.call_trace import CallTrace, ModuleCall


@dataclass(frozen=True)
class OwnTensor(BetaSource):
    """A parameter or buffer of the layer itself."""

    name: str
    fixed: ClassVar[bool] = True

    @classmethod
    def of(cls, layer: Layer) -> list[tuple["OwnTensor", Tensor]]:
        """Return the own tensors that may be β, those named so first."""
        found = [
            (cls(name), whole(tensor.detach()))
            for name, tensor in own_tensors(layer.module).items()
            if name not in ("p1", "p2") and tensor.is_floating_point()
        ]
        return sorted(found, key=lambda pair: not pair[0].named_beta)

    @property
    def named_beta(self) -> bool:
        """Whether the name says that it is β."""
        return "beta" in self.name.lower()

    def own_tensor(self, module: nn.Module) -> Tensor | None:
        """Return the tensor itself."""
        return own_tensors(module)[self.name]

    def is_parameter(self, module: nn.Module) -> bool:
        """Whether it is a parameter; a buffer may be filled anew for every batch."""
        return isinstance(getattr(module, self.name, None), nn.Parameter)

    def raw(self, module: nn.Module, reading: Reading, call: LiveCall) -> Tensor:
        """Return the transformed tensor."""
        return TRANSFORMS[reading.transform](whole(getattr(module, self.name).detach()))

    def describe(self) -> str:
        """Return the source in words."""
        return f"parameter {self.name}"


@dataclass(frozen=True)
class InnerModule(BetaSource):
    """The output of a module inside the layer, in one of its calls within a call of the layer."""

    path: str
    ordinal: int = 0

    @classmethod
    def of(cls, layer: Layer, trace: CallTrace) -> list[tuple["InnerModule", ModuleCall]]:
        """Return the calls of inner modules, the most trusted first, then the last to run."""
        trusted = GATE_NAMES if layer.kind == "gate" else ("bn2", "fc2")

        def trust(pair: tuple["InnerModule", ModuleCall]) -> int:
            last = pair[0].path.split(".")[-1]
            return trusted.index(last) if last in trusted else len(trusted)

        return sorted([(cls(c.path, c.ordinal), c) for c in trace.modules[::-1]], key=trust)

    def inner(self, module: nn.Module) -> nn.Module:
        """Return the module inside the layer."""
        return module.get_submodule(self.path)

    def raw(self, module: nn.Module, reading: Reading, call: LiveCall) -> Tensor | None:
        """Return the output; the hook has transformed it before anything could overwrite it."""
        return call.caught

    def describe(self) -> str:
        """Return the source in words."""
        return f"module {self.path}{_which(self.ordinal)}"


@dataclass(frozen=True)
class Argument(BetaSource):
    """An argument of the layer: a position, or a keyword."""

    key: int | str

    @classmethod
    def of(cls, trace: CallTrace) -> list[tuple["Argument", Tensor]]:
        """Return the floating-point arguments."""
        return [(cls(key), raw) for key, raw in trace.arguments.items()]

    def raw(self, module: nn.Module, reading: Reading, call: LiveCall) -> Tensor:
        """Return the transformed argument."""
        if self.key == reading.x:  # as it was before the call
            given = call.x
        else:
            given = call.kwargs[self.key] if isinstance(self.key, str) else call.args[self.key]
        return TRANSFORMS[reading.transform](given)

    def describe(self) -> str:
        """Return the source in words."""
        return f"argument {self.key}"


@dataclass(frozen=True)
class FunctionResult(BetaSource):
    """The result of a torch function that the layer calls."""

    function: str
    ordinal: int = 0

    @classmethod
    def of(cls, trace: CallTrace) -> list[tuple["FunctionResult", Tensor]]:
        """Return the results, those of sigmoids first."""
        calls = sorted(trace.functions, key=lambda call: call.name not in ("sigmoid", "expit"))
        return [(cls(call.name, call.ordinal), call.output) for call in calls]

    def raw(self, module: nn.Module, reading: Reading, call: LiveCall) -> Tensor | None:
        """Return the result."""
        return call.caught

    def describe(self) -> str:
        """Return the source in words."""
        return f"function {self.function}{_which(self.ordinal)}"


@dataclass(frozen=True)
class LeastSquares(BetaSource):
    """β = Σ z·d / Σ d² for the argument z = β·d of the gate's function."""

    function: str
    ordinal: int = 0
    takes_argument: ClassVar[bool] = True
    inferred: ClassVar[bool] = True

    @classmethod
    def of(cls, trace: CallTrace) -> Iterator[tuple["LeastSquares", Tensor]]:
        """Yield the arguments of functions that can be the gate."""
        for call in trace.gates.values():
            yield cls(call.name, call.ordinal), call.output

    def raw(self, module: nn.Module, reading: Reading, call: LiveCall) -> Tensor | None:
        """Return the gate's argument."""
        return call.caught

    def beta(self, module: nn.Module, reading: Reading, call: LiveCall) -> Tensor:
        """Return the fitted β, compact."""
        if call.caught is None:
            return super().beta(module, reading, call)
        pair = slopes(module)
        if pair is None:
            raise HookError(f"layer {call.layer!r} has lost its p1 and p2")
        p1, p2 = (whole(p.detach()).reshape(1, -1, 1) for p in pair)
        d = regressor(reading.identity, fold(call.x, reading.axis), p1, p2)
        z = fold(call.caught, reading.layout.axis) * GATES[self.function]
        beta = fitted(z, d, reading.layout.granularity)
        return beta[0, :, 0] if reading.layout.granularity == "static" else beta[:, :, 0]

    def describe(self) -> str:
        """Return the source in words."""
        return f"least squares on the argument of {self.function}{_which(self.ordinal)}"


@dataclass(frozen=True)
class Constant(BetaSource):
    """One number, whatever the input."""

    value: int
    fixed: ClassVar[bool] = True
    inferred: ClassVar[bool] = True

    def raw(self, module: nn.Module, reading: Reading, call: LiveCall) -> Tensor:
        """Return the number."""
        return torch.full((1,), float(self.value), dtype=call.x.dtype, device=call.x.device)

    def describe(self) -> str:
        """Return the source in words."""
        return f"constant {self.value}"


def _which(ordinal: int) -> str:
    return f" (call {ordinal})" if ordinal else ""


def regressor(identity: str, x: Tensor, p1: Tensor, p2: Tensor) -> Tensor:
    """Return what β multiplies inside the gate, (N, C, P): d, or x for the plain gate."""
    return x if identity == "plain_gate" else (p1 - p2) * x


def fitted(z: Tensor, d: Tensor, granularity: str) -> Tensor:
    """Return β = Σ z·d / Σ d² over the axes on which β does not depend; NaN where d is 0.

    z (the gate's argument) and d (what β multiplies in it) are (N, C, P). "static" sums over
    samples and pixels, "channel" over pixels, "layer" over channels and pixels. β is folded,
    float32, or float64 for float64 input.
    """
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    z, d = z.to(wide), d.to(wide)
    if granularity == "static":  # a sample with NaN or infinity is no evidence
        finite = (z.isfinite() & d.isfinite()).all(2, keepdim=True).all(1, keepdim=True)
        z, d = (torch.where(finite, values, 0.0) for values in (z, d))
    axes = {"static": (0, 2), "layer": (1, 2), "channel": (2,)}[granularity]
    return (z * d).sum(axes, keepdim=True) / (d * d).sum(axes, keepdim=True)
