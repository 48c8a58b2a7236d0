"""Hooks on products of two tensors: read with the input of the call that makes their gate."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from acon_hooks.engine.sites import Site, SiteCall, Visitor, split_name
from acon_hooks.engine.visited import Visited
from acon_hooks.engine.visiting import Visit
from acon_hooks.errors import HookError
from acon_hooks.layers.axes import ChannelAxes
from acon_hooks.layers.functions import DataDependence, silent_modules
from acon_hooks.layers.provenance import Gated, Provenance, View
from acon_hooks.layers.reading import Factors
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.batch import Results
from acon_hooks.readings.layer_hooks import LayerHooks


class Source(Visitor):
    """Keeps input and output of calls of a site until all their products have taken them."""

    def __init__(self, site: Site) -> None:
        self.site = replace(site, inner=True)
        self.calls = 0
        self.wanted: dict[int, tuple[int, bool]] = {}
        self._takers: Counter[int] = Counter()  # products of each call
        self._left: Counter[int] = Counter()  # those in this forward pass
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._copy: Tensor | None = None

    def restart(self) -> None:
        """Begin a forward pass."""
        self.calls = 0
        self._kept.clear()
        self._copy = None

    def want(self, number: int, argument: int, *, in_place: bool) -> None:
        """Keep one of the calls of every later forward pass."""
        self.wanted[number] = argument, in_place
        self._takers[number] += 1

    def before(self, call: SiteCall) -> None:
        """Copy an input that is about to be overwritten."""
        argument, in_place = self.wanted.get(self.calls, (0, False))
        if in_place and argument < len(call.args):
            self._copy = call.args[argument].detach().clone()

    def after(self, call: SiteCall, output: Any) -> None:
        """Keep what a product will read."""
        number, self.calls = self.calls, self.calls + 1
        if number in self.wanted and isinstance(output, Tensor):
            argument, _ = self.wanted[number]
            x = call.args[argument] if self._copy is None else self._copy
            self._kept[number], self._copy = (x, output), None
            self._left[number] = self._takers[number]

    def take(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Return input and output of a call; the last product that takes them ends their life."""
        self._left[number] -= 1
        if self._left[number] > 0:
            return self._kept.get(number)
        return self._kept.pop(number, None)


class Gates(Visitor):
    """What makes the gates of a network's products: found on the first batch, then watched."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        # Modules that are measured as a whole.
        self.silent = silent_modules(visit.model)
        # Follows the data through the first forward pass.
        self.data = DataDependence(visit.model)
        # Knows in that pass what made each tensor.
        self.provenance = Provenance(self.data, visit.functions)
        visit.functions.naming = True
        self._sources: dict[str, Source] = {}
        self._visited: list[Visited] = []
        self._modules: list[Visited] = []

    def start(self) -> None:
        """Begin a forward pass; the first one is followed function by function."""
        for source in self._sources.values():
            source.restart()
        if not self.visit.first or not self.visit.counts:
            return
        self.clear()
        self.data.start(self.visit.arguments)
        self.provenance.start()
        for name, module in self.visit.model.named_modules():
            own = type(module).__module__.startswith("torch.nn.")
            if module in self.silent and not own:
                self._modules.append(self.visit.add(Site(name, module, inner=True), self))

    def stop(self) -> None:
        """End a forward pass."""
        self.provenance.stop()
        self.data.stop()
        while self._modules:
            self._modules.pop().remove()
        for source in self._sources.values():
            source.restart()

    def clear(self) -> None:
        """Forget what an unfinished first forward pass has shown."""
        self.stop()
        self._sources.clear()
        while self._visited:
            self._visited.pop().remove()

    def after(self, call: SiteCall, output: Any) -> None:
        """Note that a module of several functions is an activation."""
        x = call.args[0] if call.args else None
        if isinstance(x, Tensor) and isinstance(output, Tensor):
            self.provenance.module(call.site, x, output)

    def source(self, site: Site) -> Source:
        """Return the visitor of a site, from the next forward pass on."""
        if site.name not in self._sources:
            source = self._sources[site.name] = Source(site)
            self._visited.append(self.visit.add(source.site, source))
        return self._sources[site.name]


@dataclass
class _Use:
    """How one call of a product is read."""

    gated: Gated
    # What makes the gate, and which of its calls.
    source: Source | None = None
    number: int = 0
    # Whether the factor is a view of what the source returns.
    shared: bool = False


class ProductHooks(LayerHooks):
    """The product of two tensors as a layer of a `Tap`."""

    def __init__(
        self,
        layer: Layer,
        results: Results,
        axes: ChannelAxes,
        gates: Gates,
        *,
        allow_autocast: bool,
        report_failures: bool,
    ) -> None:
        super().__init__(
            layer, results, axes, allow_autocast=allow_autocast, report_failures=report_failures
        )
        self.gates = gates
        self._uses: list[_Use] = []
        self._taken: tuple[Tensor, Factors] | None = None

    def attach(self, visited: Visited, *, prove: bool) -> None:
        """Set no further hooks."""
        self.visited, self.visit = visited, visited.visit

    def stop(self) -> None:
        """Forget a call that did not end."""
        self._taken = None

    def forget(self) -> None:
        """Forget also what earlier calls in an unfinished first batch have shown."""
        super().forget()
        self._uses = []

    def before(self, call: SiteCall) -> None:
        """Take the factors, and the input of the gate's call."""
        with torch._C.DisableTorchFunction():
            if self.visit.first and self.visit.counts:
                self._taken = self._first(call)
            elif call.number < len(self._uses):
                self._taken = self._later(call)

    def after(self, call: SiteCall, output: Any) -> None:
        """Show the factors and the product to the observer."""
        taken, self._taken = self._taken, None
        if taken is None or not isinstance(output, Tensor):
            return
        x, factors = taken[0].expand(output.shape), taken[1]
        factors = Factors(*(value.expand(output.shape) for value in factors))
        layer = None
        if self.visit.first and self.visit.counts:
            layer = self._settled(call, output)
            if layer is None:
                return
        self._hand_over(call.number, x, output, factors, layer)

    def _first(self, call: SiteCall) -> tuple[Tensor, Factors] | None:
        """Settle how a call is read, in the first batch."""
        found = self.gates.provenance.gated(call.args)
        if found is None:
            reason = "its factors come from no activation, and not both from linear operators"
            self.leave(reason, lost=True)
            return None
        use, given, made = _Use(found), None, None
        tensors = tuple(x.detach().clone() for x in call.args)  # it may overwrite them
        if found.gate is not None and found.source is not None and found.source.site is not None:
            origin, given, made = found.source, found.source.parent, found.source.made
            use.source, use.number = self.gates.source(found.source.site), origin.number
            use.source.want(origin.number, origin.argument, in_place=origin.in_place)
            use.shared = View.of(call.args[found.gate]).storage == made.storage
        self._uses.append(use)
        return _factors(use, tensors, call.args, given, made)

    def _later(self, call: SiteCall) -> tuple[Tensor, Factors]:
        """Read a call as in the first batch; a HookError if the gate is made by something else."""
        use, given, made = self._uses[call.number], None, None
        if use.source is not None:
            kept = use.source.take(use.number)
            if kept is not None:
                given, made = kept[0], View.of(kept[1])
            gate = use.gated.gate
            own = None if gate is None else View.of(call.args[gate]).storage
            if made is None or (use.shared and own != made.storage):
                raise HookError(
                    f"layer {self.layer.name!r}, batch {self.visit.passes}: its gate does not come "
                    f"from {use.source.site.name!r}, as on the first batch"
                )
        copied = call.args
        if self.layer.in_place:
            copied = tuple(x.detach().clone() for x in call.args)
        return _factors(use, copied, call.args, given, made)

    def _settled(self, call: SiteCall, output: Tensor) -> Layer | None:
        """Return the layer as a call of the first batch uses it; None if it is left alone."""
        whole = [x for x in call.args if x.shape == output.shape] or list(call.args)
        found = [self.axes.axis(self.layer, [x]) for x in whole]
        axis, known = next((pair for pair in found if pair[1]), found[0])
        if output.ndim > 1 and axis == 0:
            self._without_samples(output)
            return None
        source, gate = self._uses[call.number].gated.source, None
        if source is not None and source.site is not None:
            name = source.site.name  # of the layer that it is, or is a part of
            silent = source.site.module in self.gates.silent
            gate = split_name(name)[0] if silent else name, source.number
        layer = replace(
            self.layer,
            axis=axis,
            channels=1 if output.ndim < 2 else output.shape[axis],
            reader="" if known else f"channels assumed on axis {axis}",
            in_place=any(View.of(output).storage == View.of(x).storage for x in call.args),
            gate=gate,
        )
        if call.number == 0:
            self.layer = layer
        return layer


def _factors(
    use: _Use,
    tensors: tuple[Tensor, ...],
    views: tuple[Tensor, ...],
    given: Tensor | None,
    made: View | None,
) -> tuple[Tensor, Factors]:
    """Return the input of a product's gate, and its factors."""
    # `tensors` are the arguments, and `views` the same before they were copied; `given` is the
    # input of the call that makes the gate, and `made` its output.
    gate = use.gated.gate
    if gate is None or given is None or made is None:
        a, x = tensors
        return x.detach(), Factors(a.detach(), torch.zeros_like(x))
    x = _arranged(given.detach(), made, views[gate])
    return x, Factors(tensors[1 - gate].detach(), tensors[gate].detach())


def _arranged(x: Tensor, made: View, shown: Tensor) -> Tensor:
    """Arrange the input of an elementwise call as a tensor does that comes from its output."""
    view = View.of(shown)
    if view == made:
        return x
    if view.storage != made.storage:
        return x.reshape(view.size)
    laid = x.new_empty_strided(made.size, made.stride).copy_(x)
    return laid.as_strided(view.size, view.stride, view.offset - made.offset)


def multiplies(layer: Layer) -> bool:
    """Return whether a layer is the product of two tensors."""
    return layer.kind == "product" and layer.function is not None and layer.function[0] == "mul"
