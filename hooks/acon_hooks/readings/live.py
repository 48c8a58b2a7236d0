"""The cheap hooks that read β after the first batch."""

from typing import Any

import torch
from torch import Tensor

from acon_hooks.engine.functions import Listener, function_name
from acon_hooks.engine.sites import Args, Site, SiteCall, Visitor
from acon_hooks.engine.visited import ForwardPasses, Visited
from acon_hooks.layers.reading import TRANSFORMS, LiveCall
from acon_hooks.layers.scan import Layer


class LiveHooks(Visitor):
    """Reads β of one layer whose reading is known, call by call."""

    __slots__ = (
        "_inner", "_listener", "_ordinal", "_transform", "caught", "gradient", "keep_input",
        "kept", "layer", "needs_before", "ran", "source",
    )  # fmt: skip

    # `keep_input`: the input must be copied before the layer overwrites it; `shared`: the inner
    # module that is read also runs outside this layer; `gradient`: β keeps its gradient.
    def __init__(
        self,
        visit: ForwardPasses,
        layer: Layer,
        *,
        keep_input: bool = False,
        shared: bool = False,
        gradient: bool = False,
    ) -> None:
        self.layer = layer
        self.keep_input = keep_input
        self.gradient = gradient
        reading = layer.reading
        self.source = None if reading is None else reading.source
        self.caught: Tensor | None = None
        self.kept: Tensor | None = None
        self.ran = 0  # calls of the inner module or function within one call of the layer
        # Which of these calls is read, and what is done to its output.
        self._ordinal = 0 if self.source is None else self.source.ordinal
        self._transform = TRANSFORMS["identity" if reading is None else reading.transform]
        self._listener = Listener(self._run)
        inner = None if self.source is None else self.source.inner(layer.module)
        self._inner: Visited | None = None
        if inner is not None:
            self._inner = visit.add(Site(layer.name, inner, inner=True), self)
            self._inner.quick = self._catch
        listens = self.source is not None and bool(self.source.function)
        self.needs_before = keep_input or listens or (inner is not None and shared)

    @property
    def plain(self) -> bool:
        """Whether β is the caught tensor as it is, but for its axes, and x the first argument."""
        reading = self.layer.reading
        if reading is None or self.needs_before or self._inner is None:
            return False
        layout = reading.layout
        return (
            layout.granularity in ("channel", "layer") and not layout.transposed and reading.x == 0
        )

    def begin_call(self, call: SiteCall) -> None:
        """Prepare for one call of the layer."""
        self.stop()
        if self.keep_input:
            x = argument(self.layer, call)
            self.kept = self._own(x).clone() if isinstance(x, Tensor) else None
        if self.source is not None and self.source.function:
            self._listener.on()

    def stop(self) -> None:
        """Forget the last call."""
        self.caught = self.kept = None
        self.ran = 0
        if self.needs_before:
            self._listener.off()

    def remove(self) -> None:
        """Take all hooks inside the layer away."""
        self.stop()
        if self._inner is not None:
            self._inner.remove()

    def argument(self, call: SiteCall) -> Any:
        """Return the argument that is activated, as it was before the call."""
        return self.kept if self.kept is not None else argument(self.layer, call)

    def beta(self, call: SiteCall, x: Tensor) -> Tensor:
        """Return β of a call that has ended on an input x, compact; see `Layout.compact`."""
        layer = self.layer
        if layer.reading is None or self.source is None:  # ACON-FReLU: β is 1
            return torch.ones(x.shape[1], dtype=x.dtype, device=x.device)
        live = LiveCall(layer.name, x, call.args, call.kwargs, self.caught)
        return self._own(self.source.beta(layer.module, layer.reading, live))

    def after(self, call: SiteCall, output: Any) -> None:
        """Catch the output of the inner module."""
        self._catch(call.number, call.args, output)

    def _catch(self, _number: int, _args: Args, output: Any) -> bool:
        """Catch the output of the inner module, transformed: always a new tensor."""
        ran = self.ran
        self.ran = ran + 1
        if ran == self._ordinal:
            if output.requires_grad and not self.gradient:
                output = output.detach()
            self.caught = self._transform(output)
        return True

    def _own(self, value: Tensor) -> Tensor:
        return value.detach() if value.requires_grad and not self.gradient else value

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function; copy what is wanted before anything can overwrite it."""
        source, ran = self.source, self.ran
        if source is None or ran > source.ordinal or function_name(func) != source.function:
            return func(*args, **kwargs)
        self.ran = ran + 1
        if ran == source.ordinal and source.takes_argument:
            self.caught = self._own(args[0]).clone()
        out = func(*args, **kwargs)
        if ran == source.ordinal and not source.takes_argument:
            self.caught = self._own(out).clone()
        return out


def argument(layer: Layer, call: SiteCall) -> Any:
    """Return the argument that a layer activates: the proved one, or the first tensor."""
    key: int | str = layer.reading.x if layer.reading is not None else 0
    if isinstance(key, str):
        return call.kwargs.get(key)
    if key < len(call.args):
        return call.args[key]
    return next((value for value in call.kwargs.values() if isinstance(value, Tensor)), None)
