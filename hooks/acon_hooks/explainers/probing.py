"""β of one layer as a differentiable function of the images: the reading, with its gradient."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn

from acon_hooks.errors import HookError
from acon_hooks.guards import eager, exclusive, refuse_unwatchable, unwrap
from acon_hooks.layers.reading import GATES, TRANSFORMS, Reading, fold
from acon_hooks.layers.scan import Layer, slopes, whole
from acon_hooks.readings.call_trace import ModeSwitch, function_name, hook_after, hook_before
from acon_hooks.readings.candidates import fitted, regressor
from acon_hooks.readings.live import OneCall, argument


class KeptCall(OneCall):
    """Catches one call of one torch function as `OneCall` does, but keeps its gradient."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the function; copy what is wanted before anything can overwrite it."""
        if self.left < 0 or function_name(func) != self.name:
            return func(*args, **(kwargs or {}))
        self.left -= 1
        wanted = self.left < 0
        if wanted and self.argument:
            self.caught = args[0].clone()
        out = func(*args, **(kwargs or {}))
        if wanted and not self.argument:
            self.caught = out.clone()
        return out


class BetaProbe:
    """Context manager: inside it, ``probe(images)`` is β of one layer, with its gradient.

    Hooks are on the model inside the context only. Outputs, parameters and their ``.grad`` stay
    as they are.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    layer : Layer
        One of its layers, with a proved reading that depends on the sample.
    call : int
        Which use of the layer within one forward pass.

    Raises
    ------
    HookError
        On entering, if the model cannot be watched.
    """

    def __init__(self, model: nn.Module, layer: Layer, call: int = 0) -> None:
        if layer.reading is None:
            raise HookError(f"layer {layer.name!r} has no reading: settle it with find_layers")
        self.given = model
        self.model = unwrap(model)
        self.layer = layer
        self.reading: Reading = layer.reading
        self.call = call
        self._exit = ExitStack()
        self._owner = 0
        self._switch = ModeSwitch()
        self._clear()

    def __enter__(self) -> Self:
        refuse_unwatchable(self.given, [self.layer.name])
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.model))
            stack.enter_context(eager())
            self._owner = threading.get_ident()
            handles = [
                hook_before(self.layer.module, self._before),
                hook_after(self.layer.module, self._after),
            ]
            for handle in handles:
                stack.callback(handle.remove)
            if self.reading.source == "module":
                inner = self.layer.module.get_submodule(self.reading.where)
                stack.callback(inner.register_forward_hook(self._inside(inner)).remove)
            stack.callback(self._switch.off)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._owner = 0
        self._clear()
        self._exit.close()

    def __call__(self, images: Tensor) -> Tensor:
        """Return β, compact: (N, C), (N, 1), or (N, C or 1, P) where it differs between pixels.

        Raises
        ------
        HookError
            If the layer did not run.
        """
        self._clear()
        try:
            self.model(images)
            beta = self._beta
        finally:
            self._switch.off()
            seen = self._calls
            self._clear()
        if beta is None:
            raise HookError(
                f"layer {self.layer.name!r} ran {seen} times in this forward pass, so there is "
                f"no call {self.call} (calls count from 0)"
            )
        return beta

    def target(self, channel: int | None) -> Callable[[Tensor], Tensor]:
        """Return images -> β (N,) of a channel, or the mean over the channels for None.

        Where β differs between pixels, its mean over the pixels is meant.
        """

        def beta_of(images: Tensor) -> Tensor:
            beta = self(images)
            if beta.ndim == 3:
                beta = beta.nanmean(2)
            if channel is None:
                return beta.mean(1)
            return beta[:, 0 if beta.shape[1] == 1 else channel]

        return beta_of

    def _clear(self) -> None:
        self._calls = 0
        self._fired = 0
        self._inside_call = False
        self._caught: Tensor | None = None
        self._x: Tensor | None = None
        self._beta: Tensor | None = None
        self._mode: KeptCall | None = None

    def _mine(self) -> bool:
        """Whether this is the forward pass, not one recomputed for a gradient."""
        in_backward = torch._C._current_graph_task_id() != -1
        return threading.get_ident() == self._owner and not in_backward

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is not self.layer.module or not self._mine():
            return
        self._inside_call = self._calls == self.call
        if not self._inside_call:
            return
        reading = self.reading
        self._x = argument(self.layer, args, kwargs)
        if reading.source == "argument":
            key = reading.where
            self._caught = (args[int(key)] if key.isdigit() else kwargs[key]).clone()
        elif reading.source in ("function", "least squares"):
            if reading.source == "least squares" and self._x is not None:
                self._x = self._x.clone()
            self._mode = KeptCall(reading)
            self._switch.on(self._mode)

    def _inside(self, inner: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            if module is inner and self._inside_call and self._mine():
                if self._fired == self.reading.ordinal:
                    self._caught = output.clone()  # later in-place work cannot reach it
                self._fired += 1

        return hook

    def _after(self, module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        if module is not self.layer.module or not self._mine():
            return
        self._switch.off()
        if self._inside_call and output is not None:
            self._beta = self._read()
        self._inside_call = False
        self._calls += 1

    def _read(self) -> Tensor:
        reading, x = self.reading, self._x
        raw = self._caught if self._mode is None else self._mode.caught
        if raw is None or x is None:
            raise HookError(
                f"layer {self.layer.name!r}: {reading.describe()} gave nothing in this call, but "
                "was the source of β in the proof"
            )
        if reading.source == "least squares":
            return self._fit(x, raw)
        beta = TRANSFORMS[reading.transform](raw)
        return reading.layout.compact(beta, x.shape[0], x.shape[reading.axis])

    def _fit(self, x: Tensor, z: Tensor) -> Tensor:
        reading, pair = self.reading, slopes(self.layer.module)
        if pair is None:
            raise HookError(f"layer {self.layer.name!r} has lost its p1 and p2")
        p1, p2 = (whole(p).reshape(1, -1, 1) for p in pair)
        d = regressor(reading.identity, fold(x, reading.axis), p1, p2)
        granularity = reading.layout.granularity
        beta = fitted(fold(z, reading.layout.axis) * GATES[reading.where], d, granularity)
        return beta if granularity == "pixel" else beta[:, :, 0]
