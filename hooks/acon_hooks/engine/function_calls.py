"""Calls of functions as sites: `layer1.0:relu#1` is call 1 of relu in one call of module layer1.0.

Which module is running is read from Python's stack, so that modules need no hooks for it.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from acon_hooks.engine.functions import Listener, site_function
from acon_hooks.engine.sites import Args, Kwargs, Site, function_site
from acon_hooks.engine.visited import ForwardPasses, Visited

_MODULE_CALL = nn.Module._call_impl.__code__


class FunctionCall(NamedTuple):
    """A call of a function for which there is no site.

    Parameters
    ----------
    site : Site
        What its site would be.
    running : tuple of Module
        The modules that run, the innermost first.
    tensors : tuple of Tensor
        Its tensor arguments, the activated one first.
    """

    site: Site
    running: tuple[nn.Module, ...]
    tensors: tuple[Tensor, ...]


#: Sees a call for which there is no site, and may add one to the visit.
Discover = Callable[[FunctionCall], None]


class RunningModules:
    """Numbers the calls of each function within one call of the innermost module that runs.

    Parameters
    ----------
    model : Module
        Functions outside of its calls are not numbered. The innermost module is one of its
        `named_modules()`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._known = set(model.modules())
        self._counts: dict[FrameType, dict[str, int]] = {}

    def clear(self) -> None:
        """Forget the calls of modules that were running."""
        self._counts = {}

    def number(self, function: str) -> tuple[int, tuple[nn.Module, ...], nn.Module] | None:
        """Count a call of a function; return its number, the running modules and the innermost.

        None where the model does not run.
        """
        calls = self._calls()
        if not calls:
            return None
        inner, module = next((f, m) for f, m in calls.items() if m in self._known)
        if inner not in self._counts or len(self._counts) != len(calls):
            # Calls that have ended are forgotten: their frames would keep their tensors.
            self._counts = {frame: self._counts.get(frame, {}) for frame in calls}
        counts = self._counts[inner]
        number = counts.get(function, 0)
        counts[function] = number + 1
        return number, tuple(calls.values()), module

    def _calls(self) -> dict[FrameType, nn.Module]:
        """Return the running calls of modules, the innermost first, up to that of the model."""
        found: dict[FrameType, nn.Module] = {}
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is _MODULE_CALL:
                module: nn.Module = frame.f_locals["self"]
                found[frame] = module
                if module is self.model:
                    return found
            frame = frame.f_back
        return {}


class FunctionSites:
    """The calls of functions in the forward passes of a visited model.

    Parameters
    ----------
    visit : ForwardPasses
        Holds the sites.

    Attributes
    ----------
    discover : Discover or None
        Sees calls without a site in the first forward pass, and calls in later ones that were not
        in the first.
    functions : collection of str
        The functions that it sees.
    """

    def __init__(self, visit: ForwardPasses) -> None:
        self.visit = visit
        self.discover: Discover | None = None
        self.functions: Collection[str] = ()
        self._running = RunningModules(visit.model)
        self._owners = {module: name for name, module in visit.model.named_modules()}
        self._listener = Listener(self._run)
        self._visited: dict[tuple[nn.Module, str, int], list[Visited]] = defaultdict(list)
        self._seen: set[tuple[nn.Module, str, int]] = set()
        self._names: dict[Any, str] = {}

    def start(self) -> None:
        """Listen to a forward pass, if there are sites or they are to be found."""
        self._visited = defaultdict(list)
        for visited in self.visit.sites:
            self.add(visited)
        names = {name for _, name, _ in self._visited}
        self._wanted = names if self.discover is None else names | set(self.functions)
        if self.visit.first and self.visit.counts:
            self._seen.clear()
        if names or (self.discover is not None and self.visit.first):
            self._listener.on()

    def add(self, visited: Visited) -> None:
        """Hand the calls of a site on to it, if it is the call of a function."""
        if visited.site.function is not None:
            self._visited[visited.site.module, *visited.site.function].append(visited)

    def stop(self) -> None:
        """Listen no longer."""
        self._listener.off()
        self._running.clear()

    def _run(self, func: Any, args: Args, kwargs: Kwargs) -> Any:
        """Run a function once; hand the calls of sites on as hooks do those of modules."""
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = site_function(func)
        found = self._running.number(name) if name in self._wanted else None
        if found is None:
            return func(*args, **kwargs)
        number, running, module = found
        tensors = _activated_first(args, kwargs)
        key = module, name, number
        if not self._visited.get(key) and self.visit.counts and self.discover is not None:
            if tensors and key not in self._seen:
                site = function_site(self._owners[module], module, name, number)
                with torch._C.DisableTorchFunction():
                    self.discover(FunctionCall(site, running, tensors))
            if self.visit.first:
                self._seen.add(key)
        visited = self._visited.get(key, ())
        for one in visited:
            if one.begin_call is not None:
                one.begin_call(module, tensors, {})
        try:
            output = func(*args, **kwargs)
        except Exception:
            for one in visited:
                one.end_call(module, tensors, {}, None)
            raise
        for one in visited:
            new = one.end_call(module, tensors, {}, output)
            output = output if new is None else new
        return output


def _activated_first(args: Args, kwargs: Kwargs) -> tuple[Tensor, ...]:
    """Return the tensors among the arguments, first the one that a function activates.

    That is the first one of full size which is no parameter; an `out` is none.
    """
    given = [*args, *(value for name, value in kwargs.items() if name != "out")]
    tensors = [value for value in given if isinstance(value, Tensor)]
    if len(tensors) > 1:
        sizes = [-1 if isinstance(v, nn.Parameter) else v.numel() for v in tensors]
        place = sizes.index(max(sizes))
        tensors = [tensors[place], *tensors[:place], *tensors[place + 1 :]]
    out = kwargs.get("out")
    return (*tensors, out) if isinstance(out, Tensor) else tuple(tensors)
