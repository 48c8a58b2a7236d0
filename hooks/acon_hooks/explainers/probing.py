"""β of one layer as a differentiable function of the images: the reading, with its gradient."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from acon_analysis.screen import counted
from acon_hooks.engine.inputs import Forward, InputOptions
from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.visiting import Visit
from acon_hooks.errors import HookError
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.live import LiveHooks


class BetaProbe(Visitor):
    """Context manager: inside it, ``probe(images)`` is β of one layer, with its gradient.

    The layer has a proved reading that depends on the sample; `call` is which of its uses within
    one forward pass. Outputs, parameters and their ``.grad`` stay as they are.
    """

    def __init__(
        self, model: nn.Module, layer: Layer, call: int = 0, forward: Forward | None = None
    ) -> None:
        if layer.reading is None:
            raise HookError(f"layer {layer.name!r} has no reading: settle it with find_layers")
        self.model, self.options = model, InputOptions(forward=forward)
        self.layer = layer
        self.call = call
        self._visit = Visit(model, self, [(Site(layer.name, layer.module), self)])
        self._ran = 0
        self._beta: Tensor | None = None

    def __enter__(self) -> Self:
        self._visit.__enter__()
        keep = self.layer.reading is not None and bool(self.layer.reading.source.function)
        self._live = LiveHooks(self._visit, self.layer, keep_input=keep, gradient=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._visit.__exit__(*exc)

    def __call__(self, images: Tensor) -> Tensor:
        """Return β, compact: (N, C), (N, 1), or (N, C or 1, P) where it differs between pixels."""
        self.options.call(self._visit.model, images.clone())  # a network may overwrite its input
        beta, self._beta = self._beta, None
        if beta is None:
            raise HookError(
                f"layer {self.layer.name!r} ran {counted(self._ran, 'time')} in this forward pass, "
                f"so there is no call {self.call} (calls count from 0)"
            )
        return beta

    def target(self, channel: int | None) -> Callable[[Tensor], Tensor]:
        """Return images -> β (N,) of a channel, or of their mean for None; the mean over pixels."""

        def beta_of(images: Tensor) -> Tensor:
            beta = self(images)
            if beta.ndim == 3:
                beta = beta.nanmean(2)
            if channel is None:
                return beta.mean(1)
            return beta[:, 0 if beta.shape[1] == 1 else channel]

        return beta_of

    def begin(self) -> None:
        """Prepare for a forward pass."""
        self._live.stop()
        self._ran = 0
        self._beta = None

    def abort(self) -> None:
        """Forget a forward pass that has failed."""
        self._beta = None

    def before(self, call: SiteCall) -> None:
        """Prepare for the call of the layer whose β is wanted."""
        if call.number == self.call:
            self._live.begin_call(call)

    def after(self, call: SiteCall, output: Any) -> None:
        """Read β."""
        self._ran = call.number + 1
        if call.number == self.call and output is not None:
            self._beta = self._live.beta(call, self._live.argument(call))
            self._live.stop()
