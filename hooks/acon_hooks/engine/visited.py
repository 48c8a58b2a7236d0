"""A site while it is visited: its hooks, its calls, and how they compare with the first batch."""

import threading
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.hooks import RemovableHandle

from acon_analysis.screen import counted
from acon_hooks.engine.aliases import Given, put
from acon_hooks.engine.functions import listening
from acon_hooks.engine.sites import Args, Kwargs, Site, SiteCall, Visitor
from acon_hooks.errors import HookError

_new: Any = tuple.__new__  # of a named tuple, without its slower constructor
_NONE: Kwargs = {}
_thread = threading.get_ident


class ForwardPasses:
    """The forward passes of a visited model: which one is under way, and what is visited in it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        # In the order in which they were added, and the inner ones.
        self.sites: dict[Visited, None] = {}
        self.parts: dict[Visited, None] = {}
        # The thread whose forward passes count (0 before the visit, -1 after it), and how many of
        # them have ended.
        self.owner, self.passes = 0, 0
        # False while a pass runs that is not compared with the first.
        self.running, self.counts = False, True
        # Of the forward pass that is running, positional and keyword.
        self.arguments: tuple[Args, Kwargs] = ((), {})
        # Of the function whose call a site sees, in the first pass: "negative_slope=0.1".
        self.parameters = ""

    @property
    def first(self) -> bool:
        """Whether the first forward pass is still to come, or is running."""
        return self.passes == 0

    def add(self, site: Site, visitor: Visitor) -> "Visited":
        """Let a visitor see one more site, until `Visited.remove` or the end of the context."""
        visited = Visited(self, site, visitor)
        (self.parts if site.inner else self.sites)[visited] = None
        return visited

    def mine(self, site: Site) -> bool:
        """Return whether a hook that runs belongs to a forward pass of the visited model."""
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


class Visited:
    """The hooks at one site, its calls in the current forward pass, and those of the first one."""

    # Its hooks run once a layer and forward pass: they find attributes sooner in slots.
    __slots__ = (
        "_after", "_before", "_given", "_module", "active", "begin_call", "calls", "elsewhere",
        "end_call", "expected", "quick", "site", "usual", "visit", "visitor",
    )  # fmt: skip

    def __init__(self, visit: ForwardPasses, site: Site, visitor: Visitor) -> None:
        self.visit, self.site, self.visitor, self._module = visit, site, visitor, site.module
        # How often the site ran in the current forward pass.
        self.calls = 0
        # Of every call in the first forward pass: shape of the input without the axis of the
        # samples, and its dtype.
        self.expected: list[tuple[torch.Size, torch.dtype | None]] = []
        # Whole shape and dtype of the first argument when a call was last compared with the first
        # forward pass.
        self.usual: dict[int, tuple[torch.Size, torch.dtype]] = {}
        # Sees (number, args, output) of a call whose first argument is as usual, of a part every
        # tensor that it returns; returns True where the visitor need not see the call.
        self.quick: Callable[[int, Args, Any], bool] | None = None
        # `active` until the site is left alone; `elsewhere` once it has run in another thread
        # during a forward pass, where it is not seen.
        self.active, self.elsewhere = True, False
        self._given: list[tuple[Given, ...]] = []
        self._before: RemovableHandle | None = None
        self._after: RemovableHandle | None = None
        # The hooks before (None where the visitor needs only the output) and after a module; of a
        # function they are called by `FunctionSites`. They are methods, not closures: what they
        # need lies together in memory, which the network has pushed out of the cache.
        self.begin_call: Callable[..., None] | None = None
        self.end_call: Callable[..., Any] = self._after_inner if site.inner else self._after_call
        if not site.inner:
            self.begin_call = self._before_call
        elif site.function is not None:
            self.begin_call, self.end_call = self._before_inner, self._after_inner_function
        if site.function is None:
            self._register(site.module)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: the hooks of a copy of the model know that it is not visited."""
        return self

    def _register(self, module: nn.Module) -> None:
        """Register the hooks of a module."""
        # Called on the class, since TorchScript modules block the method though hooks work there.
        if self.begin_call is None:
            self._after = nn.Module.register_forward_hook(module, self.end_call)
            return
        self._before = nn.Module.register_forward_pre_hook(
            module, self.begin_call, with_kwargs=True
        )
        self._after = nn.Module.register_forward_hook(
            module, self.end_call, prepend=True, with_kwargs=True, always_call=True
        )

    def remove(self) -> None:
        """Take the hooks away."""
        self.active = False
        self.skip_before()
        if self._after is not None:
            self._after.remove()
        self.visit.sites.pop(self, None)
        self.visit.parts.pop(self, None)

    def skip_before(self) -> None:
        """Take away the hook that runs before the site: the visitor needs only the output."""
        self.begin_call = None
        if self._before is not None:
            self._before.remove()
            self._before = None

    def forget(self) -> None:
        """Forget the first forward pass: the next one is the first again."""
        self.restart()
        self.expected.clear()
        self.usual.clear()

    def restart(self) -> None:
        """Begin to count the calls of a forward pass."""
        self.calls = 0
        self._given.clear()

    def _before_call(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Show the visitor a call before the site runs."""
        site, visitor = self.site, self.visitor
        if module is not site.module or not self.active or not self.visit.mine(site):
            return
        if site.call is None or site.call == self.calls:
            call = SiteCall(site, self.calls, args, kwargs)
            if self._leaves(call):
                return
            if visitor.replaces(site):
                self._given.append(tuple(Given.of(value) for value in call.tensors()))
            visitor.before(call)

    def _after_call(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Any) -> Any:
        """Show the visitor a call that has ended. Kept short: it runs once a call."""
        visit = self.visit
        if module is not self._module or not self.active:
            return None
        if _thread() != visit.owner:
            self.elsewhere = self.elsewhere or visit.running
            return None
        if output is None:  # its forward has raised
            self._given[-1:] = []
            if visit.running:
                self.visitor.raised(self.site)
            return None
        if not visit.running and not visit.mine(self.site):
            return None
        number = self.calls
        self.calls = number + 1
        x: Any = args[0] if args else None
        as_usual = (
            type(x) is Tensor
            and not (x.is_nested or is_functorch_wrapped_tensor(x))
            and (x.shape, x.dtype) == self.usual.get(number)
        )
        quick = self.quick if as_usual and not listening() else None
        if quick is not None and quick(number, args, output):
            return None
        site = self.site
        call = _new(SiteCall, (site, number, args, kwargs, ()))
        if not as_usual:
            if self._leaves(call):
                return None
            self._compare(call)
        if site.call is not None and site.call != number:
            return None
        if self._given:
            call = call._replace(given=self._given.pop())
        if type(output) is Tensor and not listening():
            new = self.visitor.after(call, output)
        else:  # what a visitor computes is no part of a layer that is being listened to
            with torch._C.DisableTorchFunction():
                new = self.visitor.after(call, output)
        if new is None:
            return None
        # A function that returns its input's memory has overwritten it.
        overwrites = site.function is not None or getattr(module, "inplace", False) is True
        return put(new, output, call.given, in_place=overwrites)

    def _before_inner(self, _module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        """Show the visitor the call of a function that is a part of a site, before it runs."""
        if self.active and _thread() == self.visit.owner and self.visit.running:
            self.visitor.before(SiteCall(self.site, 0, args, kwargs))

    def _after_inner(self, module: nn.Module, args: Args, output: Any) -> None:
        """Show the visitor a part of a site, without keyword arguments; nothing is replaced."""
        visit = self.visit
        if module is not self._module or _thread() != visit.owner or not visit.running:
            return
        if not self.active or output is None:
            return
        if type(output) is Tensor and not listening():
            if self.quick is None or not self.quick(0, args, output):
                self.visitor.after(SiteCall(self.site, 0, args, _NONE), output)
        else:
            with torch._C.DisableTorchFunction():
                self.visitor.after(SiteCall(self.site, 0, args, _NONE), output)

    def _after_inner_function(
        self, module: nn.Module, args: Args, _kwargs: Kwargs, output: Any
    ) -> None:
        """Show the visitor the call of a function that is a part of a site."""
        self._after_inner(module, args, output)

    def _leaves(self, call: SiteCall) -> bool:
        """Leave the site alone if tensors of a call cannot be read, and return whether it is."""
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
        """Raise a HookError if a call differs from that of the first forward pass."""
        if not self.visit.counts:
            return
        number = call.number
        x = next(call.tensors(), None)
        own = (torch.Size(), None) if x is None else (x.shape[1:], x.dtype)
        if self.visit.first and number == len(self.expected):
            self.expected.append(own)
        where = f"layer {self.site.name!r}, call {number}, batch {self.visit.passes}"
        if number >= len(self.expected):
            raise HookError(
                f"{where}: it ran more often than on the first batch "
                f"({counted(len(self.expected), 'time')})"
            )
        shape, dtype = self.expected[number]
        if own == (shape, dtype):
            if x is not None and call.args and x is call.args[0]:
                self.usual[number] = x.shape, x.dtype
        elif own[1] is not dtype or not self._fits(call, own[0], shape):
            given = "none" if x is None else f"{tuple(x.shape)} {x.dtype}"
            sizes = ", ".join(map(str, shape))
            raise HookError(
                f"{where}: its input is {given}, but on the first batch it was (N, {sizes}) {dtype}"
            )

    def _fits(self, call: SiteCall, shape: torch.Size, known: torch.Size) -> bool:
        """Whether a shape differs from the first only where the visitor allows it."""
        axis = self.visitor.fixed_axis(call)
        if axis is None or not 0 < axis <= len(known) or len(shape) != len(known):
            return False
        return shape[axis - 1] == known[axis - 1]


def _unreadable(value: Tensor) -> str:
    """Say why nothing can be read of a tensor; empty if it can."""
    if is_functorch_wrapped_tensor(value):
        return "it runs inside torch.func (vmap, grad), where samples cannot be seen"
    if value.is_nested:
        return "it is given nested tensors, whose samples have no common shape"
    return ""
