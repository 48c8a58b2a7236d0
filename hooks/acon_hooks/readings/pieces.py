"""Calls of functions that may be pieces of an activation: held back until that is known."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_hooks.engine.sites import Visitor
from acon_hooks.engine.sources import Sources

#: Modules that may be pieces of an activation, as in x * self.sigmoid(x).
PIECES = (nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.Softplus, nn.ReLU6)

#: What activations in pieces compute as a rule, by the names of their modules.
_FORMULAS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "GELU": (F.gelu, partial(F.gelu, approximate="tanh")),
    "QuickGELU": (lambda x: x * torch.sigmoid(1.702 * x),),
    "SiLU": (F.silu,),
    "Mish": (F.mish,),
    "Hardswish": (F.hardswish,),
}

#: Elements that are compared with `_FORMULAS`, at most.
_COMPARED = 1 << 16


def computed(x: Tensor, y: Tensor) -> str:
    """Return the name of the one activation of which y is a multiple, or "" if none or several are.

    In x * (1 + erf(x / sqrt(2))) / 2 the two branches meet before the division.
    """
    x, y = (tensor.detach().reshape(-1)[:_COMPARED] for tensor in (x, y))
    if x.shape != y.shape or x.dtype != y.dtype:
        return ""
    near = max(8 * torch.finfo(x.dtype).eps, 1e-6)

    def fits(made: Tensor) -> bool:
        factor = (made * y).sum() / (made * made).sum()
        return bool(((y - factor * made).abs() <= near * factor.abs() * (1 + x.abs())).all())

    fitting = [name for name, own in _FORMULAS.items() if any(fits(f(x)) for f in own)]
    return fitting[0] if len(fitting) == 1 else ""


@dataclass
class _Held:
    """A call of a layer, what it returned, and what settles it; `only` if it has no other."""

    layer: Visitor
    output: Tensor
    settle: Callable[[], None]
    only: bool
    piece: bool = False


class Pieces:
    """The calls of a forward pass of which it is not known yet whether they are layers.

    Sigmoid in x * sigmoid(x) is none. What a call returned shows it: as long as only elementwise
    functions of it are computed, a product may follow. A module is one if all its calls are.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._held: list[_Held] = []
        self._layers: set[Visitor] = set()  # of which a call was settled

    def hold(
        self, layer: Visitor, output: Tensor, settle: Callable[[], None], *, only: bool
    ) -> None:
        """Hold a call back, if it may be a piece."""
        if layer in self._layers:
            settle()
        else:
            self._held.append(_Held(layer, output, settle, only))

    def clear(self) -> None:
        """Forget all calls."""
        self._held = []
        self._layers.clear()

    def settle(self) -> set[Visitor]:
        """Settle all calls, the forward pass has ended; return layers that are pieces alone."""
        layers = {one.layer for one in self._held if not one.piece}
        pieces = {one.layer for one in self._held} - layers
        self._settle(layers)
        return pieces

    def consumed(self, tensors: Iterable[Tensor]) -> None:
        """Settle the calls from which some tensors come: they are layers."""
        if not self._held:
            return
        made = {id(tensor) for x in tensors for tensor, _ in self.sources.chain(x)}
        self._settle({one.layer for one in self._held if id(one.output) in made})

    def _settle(self, layers: set[Visitor]) -> None:
        """Settle the calls of some layers."""
        self._layers |= layers
        settled = [one for one in self._held if one.layer in layers]
        self._held = [one for one in self._held if one.layer not in layers]
        for one in settled:
            one.settle()

    def joined(self, factors: Iterable[Tensor], source: Tensor) -> list[Visitor]:
        """Return the functions between two factors and what both are made of; they are dropped."""
        # Calls of modules are held until it is known whether all calls of the module are pieces.
        between = set()
        for factor in factors:
            for tensor, _ in self.sources.chain(factor):
                if tensor is source:
                    break
                between.add(id(tensor))
        for one in self._held:
            one.piece |= id(one.output) in between
        dropped = [one.layer for one in self._held if one.piece and one.only]
        self._held = [one for one in self._held if one.layer not in dropped]
        return dropped
