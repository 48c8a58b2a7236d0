"""How β is read from one layer: plain data, found on the first batch and kept.

Notation: S is the sigmoid, d = (p1 - p2)·x, and a tensor is *folded* when it has the shape
(N, C, P): samples, channels, and all other axes together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from acon_analysis.screen import counted
from acon_hooks.errors import HookError

Granularity = Literal["channel", "layer", "pixel", "static", "elementwise", "unknown"]

#: What turns the tensor that was caught into β; the proof decides which of them fits.
TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "identity": torch.clone,
    "hardsigmoid": torch.nn.functional.hardsigmoid,
    "softplus": torch.nn.functional.softplus,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "abs": torch.abs,
    "1 + tanh": lambda t: 1 + torch.tanh(t),
    "2 sigmoid": lambda t: 2 * torch.sigmoid(t),
}
_COMMON = ("sigmoid", "identity")
#: Those to try once the common ones have failed.
RARE = tuple(name for name in TRANSFORMS if name not in _COMMON)

#: Functions whose argument is a multiple of the gate's β·d: that multiple.
GATES = {"sigmoid": 1.0, "expit": 1.0, "silu": 1.0, "tanh": 2.0, "exp": -1.0}


@dataclass(frozen=True)
class Layout:
    """How the caught tensor lies in memory."""

    granularity: Granularity
    # Channel axis of the caught tensor ("pixel" only).
    axis: int = 1
    # Whether the channels come before the samples ("channel" only).
    transposed: bool = False

    def compact(self, raw: Tensor, samples: int, channels: int) -> Tensor:
        """Return the caught tensor as (N, C), (N, 1), (C,), or (N, C or 1, P) for "pixel"."""
        match self.granularity:
            case "channel" if self.transposed:
                return raw.reshape(channels, samples).T
            case "channel":
                return raw.reshape(samples, channels)
            case "layer":
                return raw.reshape(samples, 1)
            case "static":
                return raw.reshape(-1).expand(channels)
            case _:
                return fold(raw, self.axis)


def folded(compact: Tensor) -> Tensor:
    """Return a compact β as (N, C, 1), (N, 1, 1), (1, C, 1) or (N, C, P), which broadcasts."""
    if compact.ndim == 1:
        return compact[None, :, None]
    return compact.unsqueeze(2) if compact.ndim == 2 else compact


@dataclass
class LiveCall:
    """One call of a layer whose reading is known."""

    layer: str
    # The activated input, as it was before the call.
    x: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    # What the hooks inside the layer have caught.
    caught: Tensor | None = None


class BetaSource(ABC):
    """Where β, or what it is computed from, is found in a layer: see `readings.sources`.

    A source finds its candidates on the first batch by a class method ``of``. In later batches
    one call of the module `inner` returns, or of the function `function`, is caught; what is read
    from anything else must be new in every call.
    """

    #: Name of the torch function, called inside the layer, that is listened to.
    function: str = ""
    #: Whether its first argument is caught, not its result.
    takes_argument: ClassVar[bool] = False
    #: Which call of that function, or of the inner module, within one call of the layer.
    ordinal: int = 0
    #: Whether β is the same in every batch, whatever the input.
    fixed: ClassVar[bool] = False
    #: Whether β is fitted or assumed, and no tensor that the layer itself computes.
    inferred: ClassVar[bool] = False

    @abstractmethod
    def describe(self) -> str:
        """Return the source in words, as shown in tables."""

    @abstractmethod
    def raw(self, module: nn.Module, reading: "Reading", call: LiveCall) -> Tensor | None:
        """Return the tensor that becomes β by the reading's layout; None if there is none."""

    def own_tensor(self, module: nn.Module) -> Tensor | None:
        """Return the layer's own parameter or buffer that is the source, if it is one."""
        return None

    def inner(self, module: nn.Module) -> nn.Module | None:
        """Return the inner module whose output must be caught, if there is one."""
        return None

    def beta(self, module: nn.Module, reading: "Reading", call: LiveCall) -> Tensor:
        """Return β of a call, compact, or raise a HookError; see `Layout.compact`."""
        raw = self.raw(module, reading, call)
        samples, channels = call.x.shape[0], call.x.shape[reading.axis]
        if raw is None:
            raise HookError(
                f"layer {call.layer!r}: {reading.describe()} gave nothing in this call, but was "
                "the source of β on the first batch"
            )
        try:
            return reading.layout.compact(raw, samples, channels)
        except RuntimeError as error:
            raise HookError(
                f"layer {call.layer!r}: {reading.describe()} has the shape {tuple(raw.shape)}, "
                f"which is no β for {counted(samples, 'sample')} of {counted(channels, 'channel')}"
            ) from error


@dataclass(frozen=True)
class Reading:
    """One proved way to read β from a layer.

    Parameters
    ----------
    source : BetaSource
        Where the tensor is caught.
    transform : str
        Key of `TRANSFORMS`, applied to what was caught.
    layout : Layout
        How the caught tensor lies in memory.
    identity : str
        Which formula was proved; see `acon_hooks.readings.proof`.
    x : int or str
        The layer's argument that is activated: a position, or a keyword.
    axis, y_axis : int
        Channel axis of that argument and of the layer's output.
    """

    source: BetaSource
    layout: Layout
    transform: str = "identity"
    identity: str = "acon"
    x: int | str = 0
    axis: int = 1
    y_axis: int = 1

    def describe(self) -> str:
        """Return the reading in words, as shown in tables."""
        text = self.source.describe()
        return text if self.transform == "identity" else f"{text}, {self.transform}"


class Factors(NamedTuple):
    """What a gated product z = a·g(x) is made of besides x, each of the shape of z."""

    a: Tensor
    # h = g(x); zeros where no elementwise call makes a gate of x.
    gate: Tensor


def halves(x: Tensor, z: Tensor) -> tuple[Tensor, Factors]:
    """Return what a GLU has multiplied, z = a·σ(b): b, and a with the gate σ(b)."""
    a, b = x.chunk(2, halved_axis(x, z))
    return b, Factors(a, torch.sigmoid(b))


def halved_axis(x: Tensor, z: Tensor) -> int:
    """Return the axis along which a GLU has split its input x."""
    return next((axis for axis, size in enumerate(z.shape) if size != x.shape[axis]), 0)


def fold(x: Tensor, axis: int) -> Tensor:
    """Return (N, ..., C, ...) as (N, C, P), (N,) as (N, 1, 1); a view where strides allow it."""
    if x.ndim < 2:
        return x.reshape(-1, 1, 1)
    return x.movedim(axis, 1).reshape(x.shape[0], x.shape[axis], -1)


def layouts(raw: Tensor, x: Tensor, axis: int, *, fixed: bool = False) -> Iterator[Layout]:
    """Yield every layout in which a tensor can be the β of an input, coarsest first."""
    n, c = x.shape[0], x.shape[axis]
    sizes = [size for size in raw.shape if size != 1]
    if fixed and raw.numel() in (1, c) and sizes in ([], [c]):
        yield Layout("static")
        return
    if n > 1 and raw.numel() in (1, c) and sizes in ([], [c]) and n != c:
        yield Layout("static")
    if raw.numel() == n * c and sizes == [size for size in (n, c) if size != 1]:
        yield Layout("channel")
    if raw.numel() == n and sizes == [size for size in (n,) if size != 1] and c > 1:
        yield Layout("layer")
    if n > 1 and n == c and sizes == [c]:  # as many samples as channels: either may be meant
        yield Layout("static")
    if n > 1 and c > 1 and sizes == [c, n]:
        yield Layout("channel", transposed=True)
    if raw.ndim == x.ndim > 2 and raw.shape[0] == n and raw.numel() > n * c // max(c, 1):
        yield from _pixel_layouts(raw, x, axis)


def _pixel_layouts(raw: Tensor, x: Tensor, axis: int) -> Iterator[Layout]:
    target = x.movedim(axis, 1).shape
    for raw_axis in dict.fromkeys((axis, *range(1, raw.ndim))):
        shape = raw.movedim(raw_axis, 1).shape
        if shape[2:] == target[2:] and shape[1] in (1, target[1]):
            yield Layout("pixel", axis=raw_axis)


def transforms(*, activated: bool) -> tuple[str, ...]:
    """Return the transforms worth trying first on a tensor that an activation returned, or not."""
    return _COMMON[::-1] if activated else _COMMON
