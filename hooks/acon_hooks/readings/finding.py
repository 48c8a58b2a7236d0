"""Finds the functions that are layers, while the first forward pass runs."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor

from acon_hooks.engine.function_calls import FunctionCall
from acon_hooks.engine.trees import count_samples
from acon_hooks.engine.visiting import Visit
from acon_hooks.errors import HookError
from acon_hooks.layers.functions import could_be_layer, function_layer, is_layer
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.layer_hooks import LayerHooks
from acon_hooks.readings.pieces import Pieces
from acon_hooks.readings.products import Gates


class FunctionFinder:
    """Watches the calls of functions that are elementwise activations of the data, or products."""

    # `watch` a layer from now on; `drop` one that is a piece of another.
    def __init__(
        self,
        visit: Visit,
        kinds: tuple[str, ...],
        gates: Gates,
        watch: Callable[[Layer], LayerHooks],
        drop: Callable[[Any], None],
    ) -> None:
        self.visit, self.kinds, self.watch, self.drop = visit, kinds, watch, drop
        self.gates = gates
        self._silent, self._data = gates.silent, gates.data
        self.pieces = Pieces(visit.functions.sources)
        visit.functions.discovery = self

    def start(self) -> None:
        """Follow the data through the first forward pass."""
        self.pieces.clear()

    def stop(self) -> None:
        """Follow it no longer."""
        self.pieces.clear()

    def end(self) -> None:
        """Settle what is left at the end of the forward pass."""
        for layer in self.pieces.settle():
            self.drop(layer)

    def found(self, call: FunctionCall) -> None:
        """Watch a call that is a layer; a HookError if it was not in the first forward pass."""
        if not self.visit.first:
            samples = count_samples(self.visit.arguments)
            if self._asked(call) and could_be_layer(call, self._silent, samples):
                raise HookError(
                    f"layer {call.site.name!r}, batch {self.visit.passes}: it did not run in the "
                    "first batch, so it is not measured (a model that branches on its input)"
                )
            return
        if not self._asked(call) or not is_layer(call, self._silent, self._data):
            return
        formula, name = self._joined(call) if call.factors else "", call.site.name
        if call.factors and not formula:
            return
        if _multiplies(call):
            if self.gates.provenance.gated(call.tensors) is not None:
                self.watch(function_layer(self.visit.model, name, self.kinds, kind="product"))
            return
        sources, source = self.visit.functions.sources, call.tensors[0]
        pieces = [piece for factor in call.factors for piece in sources.pieces(factor, source)]
        layer = function_layer(self.visit.model, name, self.kinds, formula)
        self.watch(replace(layer, pieces=tuple(dict.fromkeys(pieces)))).pieces = self.pieces

    def _asked(self, call: FunctionCall) -> bool:
        """Return whether a call would be a layer of the kinds that were asked for."""
        glu = call.site.function is not None and call.site.function[0] == "glu"
        return ("product" if glu or _multiplies(call) else "activation") in self.kinds

    def consumed(self, tensors: Iterable[Tensor]) -> None:
        """Settle calls whose results go where no activation in pieces continues."""
        self.pieces.consumed(tensors)

    def _joined(self, call: FunctionCall) -> str:
        """Drop the pieces of a product; return its formula, empty if it is no activation."""
        source, sources = call.tensors[0], self.visit.functions.sources
        first, second = (sources.formula(factor, source) for factor in call.factors)
        if first == second == "x":
            return ""
        for layer in self.pieces.joined(call.factors, source):
            self.drop(layer)
        sign = "*" if call.site.function is not None and call.site.function[0] == "mul" else "/"
        return f"{first}{sign}{second}"


def _multiplies(call: FunctionCall) -> bool:
    """Return whether a call is a product of two tensors that are not made of one."""
    return call.site.function is not None and call.site.function[0] == "mul" and not call.factors
