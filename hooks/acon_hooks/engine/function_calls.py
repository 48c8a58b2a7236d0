"""Calls of functions as sites: `layer1.0:relu#1` is call 1 of relu in one call of module layer1.0.

Which module is running is read from Python's stack, so that modules need no hooks for it.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from acon_hooks.engine.functions import ELEMENTWISE, Listener, site_function
from acon_hooks.engine.parameters import call_parameters
from acon_hooks.engine.sites import Args, Kwargs, Site
from acon_hooks.engine.sources import FOLLOWED, JOINS, Sources
from acon_hooks.engine.visited import ForwardPasses, Visited
from acon_hooks.errors import HookError

#: Functions whose calls are sites wherever they are.
_SITES = ELEMENTWISE | {"glu"}

#: Number of a function's call, the modules that run, and the innermost one that is known.
Numbered = tuple[int, tuple[nn.Module, ...], nn.Module]
#: Module, function, number.
Key = tuple[nn.Module, str, int]

_MODULE_CALL = nn.Module._call_impl.__code__


class FunctionCall(NamedTuple):
    """A call of a function for which there is no site."""

    # What its site would be.
    site: Site
    # The modules that run, the innermost first.
    running: tuple[nn.Module, ...]
    # Its tensor arguments, the activated one first.
    tensors: tuple[Tensor, ...]
    # Of a product of two results that are made of one tensor, which is activated, those two.
    factors: tuple[Tensor, ...] = ()


class Discovery(Protocol):
    """Finds the calls of functions that are layers."""

    def found(self, call: FunctionCall) -> None:
        """See a call of `ELEMENTWISE`, "glu" or a product without a site; perhaps add one."""

    def consumed(self, tensors: Iterable[Tensor]) -> None:
        """See the arguments of a function whose result is not made of one of them alone."""


class RunningModules:
    """Numbers the calls of each function within one call of the innermost of `named_modules()`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._known = set(model.modules())
        # Of each call that is running. It is known by its keyword arguments, a dict of its own: its
        # frame would keep the tensors of a call that has ended.
        self._counts: dict[int, tuple[Kwargs, dict[str, int]]] = {}

    def clear(self) -> None:
        """Forget the calls of modules that were running."""
        self._counts = {}

    def number(self, function: str) -> Numbered | None:
        """Count a call; return its number, running modules, the innermost; None outside."""
        calls = self._calls()
        if not calls:
            return None
        inner, module = next((id(call), m) for call, m in calls if m in self._known)
        if inner not in self._counts or len(self._counts) != len(calls):
            ids = ((id(call), call) for call, _ in calls)
            self._counts = {key: self._counts.get(key, (call, {})) for key, call in ids}
        counts = self._counts[inner][1]
        number = counts.get(function, 0)
        counts[function] = number + 1
        return number, tuple(module for _, module in calls), module

    def _calls(self) -> list[tuple[Kwargs, nn.Module]]:
        """Return the running calls of modules, the innermost first, up to that of the model."""
        found: list[tuple[Kwargs, nn.Module]] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is _MODULE_CALL:
                own = frame.f_locals
                found.append((own["kwargs"], own["self"]))
                if own["self"] is self.model:
                    return found
            frame = frame.f_back
        return []


class FunctionSites:
    """The calls of functions in the forward passes of a visited model."""

    def __init__(self, visit: ForwardPasses) -> None:
        self.visit = visit
        # Finds sites in the first forward pass.
        self.discovery: Discovery | None = None
        # What results are made of, in the first forward pass and where some site is the last step
        # of an activation in pieces.
        self.sources = Sources()
        # Whether `running` is needed in the first forward pass, also where nothing is to be found.
        self.naming = False
        # In the first forward pass, the call that is running or was the last to run.
        self.running: FunctionCall | None = None
        self._running = RunningModules(visit.model)
        self._owners = {module: name for name, module in visit.model.named_modules()}
        self._listener = Listener(self._run)
        self._listens = False
        self._added: dict[Visited, None] = {}
        self._visited: dict[Key, list[Visited]] = {}
        self._seen: set[Key] = set()
        self._names: dict[Any, str] = {}

    def start(self) -> None:
        """Listen to a forward pass, if there are sites or they are to be found."""
        self._visited, self._listens = {}, False
        if not (self._added or self.discovery or self.naming):
            return
        for sites in (self.visit.sites, self.visit.parts):
            for visited in self._added:
                if visited in sites:
                    self._register(visited)
        names = {name for _, name, _ in self._visited}
        finds = (self.discovery is not None or self.naming) and self.visit.first
        self._follows = finds or any(_in_pieces(v) for own in self._visited.values() for v in own)
        self._wanted = names | (_SITES if finds or self.discovery else set())
        self._wanted |= FOLLOWED if self._follows else set()
        if self.visit.first and self.visit.counts:
            self._seen.clear()
        self._listens = bool(names or finds)
        if self._listens:
            self._listener.on()

    def add(self, visited: Visited) -> None:
        """Hand the calls of a site on to it, if it is the call of a function."""
        if visited.site.function is not None:
            self._added[visited] = None
            self._register(visited)

    def _register(self, visited: Visited) -> None:
        function = visited.site.function
        if function is not None:
            self._visited.setdefault((visited.site.module, *function), []).append(visited)

    def stop(self) -> None:
        """Listen no longer."""
        if self._listens:
            self._listener.off()
            self._running.clear()
            self.sources.clear()
            self.running = None

    def _run(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Run a function once; hand the calls of sites on as hooks do those of modules."""
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = site_function(func)
        numbered = self._running.number(name) if name in self._wanted else None
        if numbered is None:
            self._consumed(args, kwargs)
            return func(*args, **kwargs)
        given = activated_first(args, kwargs)
        source = self.sources.of(name, given) if self._follows else None
        if source is None:
            self._consumed(given)
        joined = source is not None and name in JOINS
        tensors = (source, *given) if source is not None and joined else given
        visited = self._sites_of(name, numbered, tensors, given[:2] if joined else ())
        if self.visit.first:
            self.visit.parameters = call_parameters(name, args, kwargs)
        output = _seen_by(visited, tensors, lambda: func(*args, **kwargs))
        if source is not None:
            site = self.running.site if self.visit.first and self.running is not None else None
            self.sources.note(name, given, source, output, site)
        return output

    def _sites_of(
        self, name: str, found: Numbered, tensors: tuple[Tensor, ...], factors: tuple[Tensor, ...]
    ) -> Sequence[Visited]:
        """Return who sees a call of a function; the discovery may add someone."""
        number, running, module = found
        key = module, name, number
        new = key not in self._visited and key not in self._seen
        if self.visit.counts and tensors and (self.visit.first or (new and name in _SITES)):
            owner = self._owners[module]
            site = Site(f"{owner}:{name}#{number}", module, function=(name, number))
            call = self.running = FunctionCall(site, running, tensors, factors)
            apart = name == "mul" and not factors and len(tensors) == 2
            finds = name in _SITES or len(factors) > 1 or apart
            if self.discovery is not None and new and finds:
                with torch._C.DisableTorchFunction():
                    self.discovery.found(call)
        if self.visit.first and self.visit.counts:
            self._seen.add(key)
        visited = self._visited.get(key, [])
        if not factors and any(one.active and _in_pieces(one) for one in visited):
            raise HookError(
                f"layer {visited[0].site.name!r}, batch {self.visit.passes}: its factors are not "
                "made of one tensor, as those of an activation in pieces are"
            )
        return visited

    def _consumed(self, *arguments: Any) -> None:
        """Show the discovery the arguments of a function, in the first forward pass."""
        if self.discovery is not None and self.visit.first and self.visit.counts:
            leaves = tree_leaves(arguments)
            self.discovery.consumed(leaf for leaf in leaves if isinstance(leaf, Tensor))


def _in_pieces(visited: Visited) -> bool:
    """Return whether a site is the last step of an activation in pieces."""
    function = visited.site.function
    return function is not None and function[0] in JOINS and not visited.site.product


def _seen_by(
    visited: Sequence[Visited], tensors: tuple[Tensor, ...], run: Callable[[], Any]
) -> Any:
    """Run a function as the hooks of those who see it run a module."""
    for one in visited:
        if one.begin_call is not None:
            one.begin_call(one.site.module, tensors, {})
    try:
        output = run()
    except Exception:
        for one in visited:
            one.end_call(one.site.module, tensors, {}, None)
        raise
    for one in visited:
        new = one.end_call(one.site.module, tensors, {}, output)
        output = output if new is None else new
    return output


def activated_first(args: Args, kwargs: Kwargs) -> tuple[Tensor, ...]:
    """Return the tensors among the arguments, first the one that a function activates."""
    # That is the first one of full size which is no parameter; an `out` is none.
    given = [*args, *(value for name, value in kwargs.items() if name != "out")]
    tensors = [value for value in given if isinstance(value, Tensor)]
    if len(tensors) > 1:
        sizes = [-1 if isinstance(v, nn.Parameter) else v.numel() for v in tensors]
        largest = sizes.index(max(sizes))
        tensors = [tensors[largest], *tensors[:largest], *tensors[largest + 1 :]]
    out = kwargs.get("out")
    return (*tensors, out) if isinstance(out, Tensor) else tuple(tensors)
