"""The one mechanism for looking at a network while it runs, and for changing what its parts return.

``with visiting(model, sites, visitor): model(x)``

All hooks of this package are set here and nowhere else, function modes in `engine.functions`. They
are gone when the context ends, however it ends. Only forward passes of the visited model in the
thread that entered the context count; those that are recomputed in a backward pass do not.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.hooks import RemovableHandle

from acon_hooks.engine.aliases import Given, put
from acon_hooks.engine.functions import listening
from acon_hooks.engine.sites import Args, Kwargs, Site, SiteCall, Visitor
from acon_hooks.errors import HookError
from acon_hooks.guards import (
    eager,
    exclusive,
    is_compiled,
    mode_sensitive_modules,
    refuse_compiling,
    refuse_training,
    refuse_unwatchable,
    say_once,
    slow_path,
    unwrap,
)

_SILENT = (
    "none of the {count} layers ran in this forward pass ({names}): hooks stay silent where a "
    "model runs as compiled, traced (TorchScript, fx) or exported code or as a replayed CUDA "
    "graph, in another thread, and where a layer's forward is called directly; give and call the "
    "plain Python module in one thread"
)

_new: Any = tuple.__new__  # of a named tuple, without its slower constructor
_NONE: Kwargs = {}


class Visited:
    """The hooks at one site, its calls in the current forward pass, and those of the first one.

    Attributes
    ----------
    calls : int
        How often the site ran in the current forward pass.
    expected : list of (tuple of int, dtype)
        Of every call in the first forward pass: shape of the input without the axis of the
        samples, and its dtype.
    active : bool
        False once the site is left alone.
    elsewhere : bool
        Whether it has run in another thread during a forward pass, where it is not seen.
    """

    def __init__(self, visit: "Visit", site: Site, visitor: Visitor) -> None:
        self.visit, self.site, self.visitor = visit, site, visitor
        self.calls = 0
        self.expected: list[tuple[torch.Size, torch.dtype | None]] = []
        self.active, self.elsewhere = True, False
        self._given: list[tuple[Given, ...]] = []
        module = site.module
        # Called on the class, since TorchScript modules block the method though hooks work there.
        self._before: RemovableHandle | None = None
        if site.inner:
            self._after = nn.Module.register_forward_hook(module, self._inner_hook())
            return
        self._before = nn.Module.register_forward_pre_hook(
            module, self._before_hook(), with_kwargs=True
        )
        self._after = nn.Module.register_forward_hook(
            module, self._after_hook(), prepend=True, with_kwargs=True, always_call=True
        )

    def remove(self) -> None:
        """Take the hooks away."""
        self.active = False
        self.skip_before()
        self._after.remove()
        self.visit.sites.pop(self, None)
        self.visit.parts.pop(self, None)

    def skip_before(self) -> None:
        """Take away the hook that runs before the site: the visitor needs only the output."""
        if self._before is not None:
            self._before.remove()
            self._before = None

    def forget(self) -> None:
        """Forget the first forward pass: the next one is the first again."""
        self.restart()
        self.expected.clear()

    def restart(self) -> None:
        """Begin to count the calls of a forward pass."""
        self.calls = 0
        self._given.clear()

    def _before_hook(self) -> Callable[..., None]:
        site, visitor, visit = self.site, self.visitor, self.visit

        def before(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
            if module is not site.module or not self.active or not visit.mine(site):
                return
            if site.call is None or site.call == self.calls:
                call = SiteCall(site, self.calls, args, kwargs)
                if self._leaves(call):
                    return
                if visitor.replaces(site):
                    self._given.append(tuple(Given.of(value) for value in call.tensors()))
                visitor.before(call)

        return before

    def _after_hook(self) -> Callable[..., Any]:
        """Return the hook after a site. It runs once a call of every layer: it is kept short."""
        site, visitor, visit, expected = self.site, self.visitor, self.visit, self.expected
        thread, target = threading.get_ident, self.site.module

        def after(module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
            if module is not target or not self.active:
                return None
            if thread() != visit.owner:
                self.elsewhere = self.elsewhere or visit.running
                return None
            if output is None:  # its forward has raised
                self._given[-1:] = []
                if visit.running:
                    visitor.raised(site)
                return None
            if not visit.running and not visit.mine(site):
                return None
            number = self.calls
            self.calls = number + 1
            call = _new(SiteCall, (site, number, args, kwargs, ()))
            x: Any = args[0] if args else None
            if type(x) is not Tensor or x.is_nested or number >= len(expected):
                if self._leaves(call):
                    return None
                self._compare(call)
            else:
                shape, dtype = expected[number]
                if x.shape[1:] != shape or x.dtype is not dtype:
                    self._compare(call)
            if site.call is not None and site.call != number:
                return None
            if self._given:
                call = call._replace(given=self._given.pop())
            if type(output) is Tensor and not listening():
                new = visitor.after(call, output)
            else:  # what a visitor computes is no part of a layer that is being listened to
                with torch._C.DisableTorchFunction():
                    new = visitor.after(call, output)
            if new is None:
                return None
            overwrites = getattr(target, "inplace", False) is True
            return put(new, output, call.given, in_place=overwrites)

        return after

    def _inner_hook(self) -> Callable[..., None]:
        """Return the hook after a part of a site: it only looks, and sees no keyword arguments."""
        site, visitor, visit = self.site, self.visitor, self.visit
        thread, target = threading.get_ident, self.site.module

        def after(module: nn.Module, args: Args, output: Any) -> None:
            if module is not target or thread() != visit.owner or not visit.running:
                return
            call = _new(SiteCall, (site, 0, args, _NONE, ()))
            if type(output) is Tensor and not listening():
                visitor.after(call, output)
            else:
                with torch._C.DisableTorchFunction():
                    visitor.after(call, output)

        return after

    def _leaves(self, call: SiteCall) -> bool:
        """Leave the site alone if tensors of a call cannot be read, and return whether it is.

        Raises
        ------
        HookError
            If it was read on the first batch.
        """
        reason = next(filter(None, map(_unreadable, call.tensors())), "")
        if not reason:
            return False
        self.calls, self.active = 0, False
        self.visitor.unseen(call, reason)
        if not self.visit.first:
            where = f"layer {self.site.name!r}, call {call.number}, batch {self.visit.passes}"
            raise HookError(f"{where}: {reason}, which was not so on the first batch")
        return True

    def _compare(self, call: SiteCall) -> None:
        """Compare the input of a call with that of the first forward pass.

        Raises
        ------
        HookError
            If shape or dtype differ, or the call is one more than in the first forward pass.
        """
        if not self.visit.counts:
            return
        number = call.number
        x = next(call.tensors(), None)
        shape, dtype = (torch.Size(), None) if x is None else (x.shape[1:], x.dtype)
        if number < len(self.expected):
            known, known_dtype = self.expected[number]
            if dtype is known_dtype and (shape == known or self._fits(call, shape, known)):
                return
        elif self.visit.first:
            self.expected.append((shape, dtype))
            return
        where = f"layer {self.site.name!r}, call {number}, batch {self.visit.passes}"
        if number >= len(self.expected):
            raise HookError(
                f"{where}: it ran more often than on the first batch ({len(self.expected)} times)"
            )
        given = "none" if x is None else f"{tuple(x.shape)} {dtype}"
        sizes = ", ".join(map(str, self.expected[number][0]))
        raise HookError(
            f"{where}: its input is {given}, but on the first batch it was "
            f"(N, {sizes}) {self.expected[number][1]}"
        )

    def _fits(self, call: SiteCall, shape: torch.Size, known: torch.Size) -> bool:
        """Whether a shape differs from the first only where the visitor allows it."""
        axis = self.visitor.fixed_axis(call)
        if axis is None or not 0 < axis <= len(known) or len(shape) != len(known):
            return False
        return shape[axis - 1] == known[axis - 1]


class Visit:
    """Context manager that lets visitors see the sites of a model in every forward pass.

    Every forward pass is compared with the first one: each site must run as often, on inputs of
    the same shape (number of samples apart, and see `Visitor.fixed_axis`) and dtype. Without
    replacements, outputs of the model are bit for bit the same with and without visitors.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode. Compiled models run eagerly inside the context.
    visitor : Visitor
        Is called at the beginning and the end of every forward pass.
    sites : sequence of (Site, Visitor)
        Who sees which site.

    Attributes
    ----------
    running : bool
        Whether a forward pass is under way.
    passes : int
        How many forward passes have ended.
    counts : bool
        False while the model is run `again`: that pass is not compared with the first.
    arguments : tuple
        Positional and keyword arguments of the forward pass that is running.

    Raises
    ------
    HookError
        On entering, if the model cannot be visited; in a forward pass, if hooks were silent or
        the pass differs from the first one.
    """

    def __init__(
        self, model: nn.Module, visitor: Visitor, sites: Sequence[tuple[Site, Visitor]]
    ) -> None:
        self.given = model
        self.model = unwrap(model)
        self.visitor = visitor
        self.sites: dict[Visited, None] = {}  # in the order in which they were added
        self.parts: dict[Visited, None] = {}  # the inner sites
        self._given_sites = sites
        self.running = False
        self._inside = 0  # calls of the model by itself that are running
        self._inside_ended = False
        self.passes = 0
        self.arguments: tuple[Args, Kwargs] = ((), {})
        self.owner = 0
        self.counts = True
        self._sensitive = mode_sensitive_modules(self.model)
        self._exit = ExitStack()

    @property
    def first(self) -> bool:
        """Whether the first forward pass is still to come, or is running."""
        return self.passes == 0

    def __enter__(self) -> Self:
        if self.owner:
            raise HookError("a visit serves one context: make a new one")
        refuse_unwatchable(self.given, [site.name for site, _ in self._given_sites])
        if is_compiled(self.given):
            say_once("a compiled model runs eagerly while it is watched")
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.model))
            stack.enter_context(eager())
            stack.enter_context(slow_path(self.model))
            self.owner = threading.get_ident()
            stack.callback(self._leave)
            self._root_hooks(stack)
            for site, visitor in self._given_sites:
                self.add(site, visitor)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def add(self, site: Site, visitor: Visitor) -> Visited:
        """Let a visitor see one more site, until `Visited.remove` or the end of the context."""
        visited = Visited(self, site, visitor)
        (self.parts if site.inner else self.sites)[visited] = None
        return visited

    def again(self, args: Args, kwargs: Kwargs) -> Any:
        """Run the model in a forward pass that visitors see, but that is not counted."""
        self.counts = False
        try:
            return self.model(*args, **kwargs)
        finally:
            self.counts = True

    def forget(self) -> None:
        """Take the next forward pass for the first."""
        self.passes = 0
        for visited in self.sites:
            visited.forget()

    def mine(self, site: Site) -> bool:
        """Whether a hook that runs now belongs to a forward pass of the visited model.

        Raises
        ------
        HookError
            If a site runs outside of a forward pass.
        """
        if threading.get_ident() != self.owner:
            return False
        if self.running:
            return True
        # What is recomputed in a backward pass was seen before.
        if site.inner or torch._C._current_graph_task_id() != -1:
            return False
        raise HookError(
            "a watched layer ran outside a forward pass of the watched model "
            f"({type(self.model).__name__}): call the model itself, not a part of it"
        )

    def _leave(self) -> None:
        self.owner, self.running = -1, False  # no thread
        for visited in [*self.sites, *self.parts]:
            visited.remove()
        self.visitor.abort()

    def _root_hooks(self, stack: ExitStack) -> None:
        """Register the hooks that begin and end a forward pass."""
        model = self.model

        def mine(module: nn.Module) -> bool:
            return module is model and threading.get_ident() == self.owner

        def begin(module: nn.Module, args: Args, kwargs: Kwargs) -> None:
            refuse_compiling()
            if mine(module) and self.running and _calls_on_stack(model) > 1:
                self._inside += 1  # the model calls itself: part of the same forward pass
            elif mine(module):
                self.arguments = args, kwargs
                self._begin()

        def end(module: nn.Module, _args: Any, _output: Any) -> None:
            if not mine(module) or not self.running:
                return
            if self._inside:
                self._inside, self._inside_ended = self._inside - 1, True
            else:
                self._end()

        def abort(module: nn.Module, _args: Any, _output: Any) -> None:
            if not mine(module) or not self.running:
                return
            if self._inside_ended:
                self._inside_ended = False
            elif self._inside:  # what called it may go on without it
                self._inside -= 1
            else:  # the forward pass has raised
                self._abort()

        handle = nn.Module.register_forward_pre_hook(model, begin, with_kwargs=True)
        stack.callback(handle.remove)
        for hook, always in ((end, False), (abort, True)):
            handle = nn.Module.register_forward_hook(model, hook, always_call=always)
            stack.callback(handle.remove)

    def _begin(self) -> None:
        if self.running:  # an interrupted forward pass has not ended
            self._abort()
        if any(module.training for module in self._sensitive):
            refuse_training(self.model)
        if self.first:
            for visited in self.sites:
                visited.forget()
        self.visitor.begin()
        self.running = True

    def _end(self) -> None:
        self.running = False
        try:
            if self.counts:
                self._compare()
            self.visitor.end()
        except BaseException:
            self.visitor.abort()
            raise
        finally:
            self.arguments = (), {}
            for visited in self.sites:
                visited.restart()
        if self.counts:
            self.passes += 1
            self.visitor.ended()

    def _abort(self) -> None:
        self.running = False
        self._inside, self._inside_ended = 0, False
        self.arguments = (), {}
        for visited in self.sites:
            visited.restart()
        self.visitor.abort()

    def _compare(self) -> None:
        """Raise if a site did not run as often as in the first forward pass, or none ran in it."""
        if self.first:
            watched = [visited for visited in self.sites if visited.active]
            if watched and not any(visited.calls for visited in watched):
                names = list(dict.fromkeys(repr(visited.site.name) for visited in watched))
                raise HookError(_SILENT.format(count=len(names), names=", ".join(names[:5])))
            return
        for visited in self.sites:
            if visited.calls != len(visited.expected) and visited.active:
                raise HookError(
                    f"layer {visited.site.name!r} ran {visited.calls} times in batch "
                    f"{self.passes}, but {len(visited.expected)} times in the first one: its "
                    "readings would be incomplete (compiled or replayed code, or a model that "
                    "branches on its input)"
                )


@contextmanager
def visiting(model: nn.Module, sites: Iterable[Site], visitor: Visitor) -> Iterator[Visit]:
    """Let one visitor see some sites of a model in every forward pass inside the context.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    sites : iterable of Site
        Where to look.
    visitor : Visitor
        What to do there, and when a forward pass begins and ends.

    Yields
    ------
    Visit
    """
    with Visit(model, visitor, [(site, visitor) for site in sites]) as visit:
        yield visit


def _unreadable(value: Tensor) -> str:
    """Say why nothing can be read of a tensor; empty if it can."""
    if is_functorch_wrapped_tensor(value):
        return "it runs inside torch.func (vmap, grad), where samples cannot be seen"
    if value.is_nested:
        return "it is given nested tensors, whose samples have no common shape"
    return ""


def _calls_on_stack(model: nn.Module) -> int:
    """Return how many calls of a model are running in this thread."""
    code, count = nn.Module._call_impl.__code__, 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        count += frame.f_code is code and frame.f_locals.get("self") is model
        frame = frame.f_back
    return count
