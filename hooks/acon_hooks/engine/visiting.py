"""The one mechanism for looking at a network while it runs, and for changing what its parts return.

``with visiting(model, sites, visitor): model(x)``

Hooks are set here and in `engine.visited` only, function modes in `engine.functions`. They are
gone when the context ends, however it ends. Only forward passes of the visited model in the thread
that entered the context count; those that are recomputed in a backward pass do not.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Self

from torch import nn

from acon_analysis.screen import counted
from acon_hooks.engine.function_calls import FunctionSites
from acon_hooks.engine.sites import Args, Kwargs, Site, Visitor, split_name
from acon_hooks.engine.visited import ForwardPasses, Visited
from acon_hooks.errors import HookError
from acon_hooks.guards import (
    eager,
    exclusive,
    is_compiled,
    refuse_compiling,
    refuse_training,
    refuse_unwatchable,
    say_once,
    slow_path,
    training_flags,
    unwrap,
)

_SILENT = (
    "none of {count} ran in this forward pass ({names}): hooks stay silent where a "
    "model runs as compiled, traced (TorchScript, fx) or exported code or as a replayed CUDA "
    "graph, in another thread, and where a layer's forward is called directly; give and call the "
    "plain Python module in one thread"
)


class Visit(ForwardPasses):
    """Context manager that lets visitors see the sites of a model in every forward pass.

    Every forward pass is compared with the first one: each site must run as often, on inputs of the
    same shape (number of samples apart, and see `Visitor.fixed_axis`) and dtype. Without
    replacements, outputs of the model are bit for bit the same with and without visitors. Compiled
    models run eagerly inside the context; `visitor` is called at the beginning and the end of every
    forward pass. A HookError where the model cannot be visited, hooks were silent or a pass
    differs.
    """

    def __init__(
        self, model: nn.Module, visitor: Visitor, sites: Sequence[tuple[Site, Visitor]]
    ) -> None:
        super().__init__(unwrap(model))
        # The model as it was given; `model` is what it wraps.
        self.given, self.visitor = model, visitor
        # Listens to functions while a forward pass runs, if some are sites or are to be found.
        self.functions = FunctionSites(self)
        self._given_sites = sites
        self._inside = 0  # calls of the model by itself that are running
        self._inside_ended = False
        self._trains = training_flags(self.model)
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        if self.owner:
            raise HookError("a visit serves one context: make a new one")
        names = [split_name(site.name)[0] for site, _ in self._given_sites]
        refuse_unwatchable(self.given, names)
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
        visited = super().add(site, visitor)
        self.functions.add(visited)
        return visited

    def again(self, run: Callable[[], Any]) -> None:
        """Run the model in a forward pass that visitors see, but that is not counted."""
        self.counts = False
        try:
            run()
        finally:
            self.counts = True

    @contextmanager
    def only(self, visitor: Visitor, sites: Iterable[Site]) -> Iterator[None]:
        """Let a visitor alone see some sites inside the context, in passes that do not count."""
        others = [one for one in (*self.sites, *self.parts) if one.active]
        for one in others:
            one.active = False
        own = [self.add(site, visitor) for site in sites]
        self.visitor, kept, self.counts = visitor, self.visitor, False
        try:
            yield
        finally:
            self.visitor, self.counts = kept, True
            for one in own:
                one.remove()
            for one in others:
                one.active = True

    def forget(self) -> None:
        """Take the next forward pass for the first."""
        self.passes = 0
        for visited in self.sites:
            visited.forget()

    def _leave(self) -> None:
        self.owner, self.running = -1, False  # no thread
        self.functions.stop()
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
        if self._trains():
            refuse_training(self.model)
        if self.first:
            for visited in self.sites:
                visited.forget()
        self.visitor.begin()
        self.running = True
        self.functions.start()

    def _end(self) -> None:
        self.running = False
        self.functions.stop()
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
                visited.calls = 0
        if self.counts:
            self.passes += 1
            self.visitor.ended()

    def _abort(self) -> None:
        self.running = False
        self.functions.stop()
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
                few = counted(len(names), "layer")
                raise HookError(_SILENT.format(count=few, names=", ".join(names[:5])))
            return
        for visited in self.sites:
            if visited.calls != len(visited.expected) and visited.active:
                raise HookError(
                    f"layer {visited.site.name!r} ran {counted(visited.calls, 'time')} in batch "
                    f"{self.passes}, but {counted(len(visited.expected), 'time')} in the first "
                    "one: its readings would be incomplete (compiled or replayed code, or a model "
                    "that branches on its input)"
                )


@contextmanager
def visiting(model: nn.Module, sites: Iterable[Site], visitor: Visitor) -> Iterator[Visit]:
    """Let one visitor see some sites of a model in every forward pass inside the context."""
    with Visit(model, visitor, [(site, visitor) for site in sites]) as visit:
        yield visit


def _calls_on_stack(model: nn.Module) -> int:
    """Return how many calls of a model are running in this thread."""
    code, count = nn.Module._call_impl.__code__, 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        count += frame.f_code is code and frame.f_locals.get("self") is model
        frame = frame.f_back
    return count
