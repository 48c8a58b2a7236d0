"""Calls of functions that may be pieces of an activation: held back until that is known."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from acon_hooks.engine.sites import Visitor
from acon_hooks.engine.sources import Sources


@dataclass(frozen=True)
class _Held:
    """A call of a layer, what it returned, and what settles it."""

    layer: Visitor
    output: Tensor
    settle: Callable[[], None]


class Pieces:
    """The calls of a forward pass of which it is not known yet whether they are layers.

    Sigmoid in x * sigmoid(x) is none. What a call returned shows it: as long as only elementwise
    functions of it are computed, a product may follow.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._held: list[_Held] = []

    def hold(self, layer: Visitor, output: Tensor, settle: Callable[[], None]) -> None:
        """Hold a call back."""
        self._held.append(_Held(layer, output, settle))

    def clear(self) -> None:
        """Forget all calls."""
        self._held = []

    def settle(self) -> None:
        """Settle all calls: the forward pass has ended."""
        held, self._held = self._held, []
        for one in held:
            one.settle()

    def consumed(self, tensors: Iterable[Tensor]) -> None:
        """Settle the calls from which some tensors come: they are layers."""
        if not self._held:
            return
        made = {id(tensor) for x in tensors for tensor, _ in self.sources.chain(x)}
        done = {one.layer for one in self._held if id(one.output) in made}
        settled = [one for one in self._held if one.layer in done]
        self._held = [one for one in self._held if one.layer not in done]
        for one in settled:
            one.settle()

    def joined(self, factors: Iterable[Tensor], source: Tensor) -> list[Visitor]:
        """Return the layers between two factors and what both are made of; they are dropped."""
        between = set()
        for factor in factors:
            for tensor, _ in self.sources.chain(factor):
                if tensor is source:
                    break
                between.add(id(tensor))
        dropped = [one.layer for one in self._held if id(one.output) in between]
        self._held = [one for one in self._held if one.layer not in dropped]
        return dropped
