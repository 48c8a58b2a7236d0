"""The cheap hooks that read β after the first batch."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from acon_hooks.errors import HookError
from acon_hooks.layers.reading import GATES, TRANSFORMS, Reading, fold
from acon_hooks.layers.scan import Layer, slopes, whole
from acon_hooks.readings.call_trace import ModeSwitch, function_name
from acon_hooks.readings.candidates import fitted, regressor

#: Tells whether function modes are active, such as `OneCall` of a layer around this one.
listening: Callable[[], int] = torch._C._len_torch_function_stack


class OneCall(TorchFunctionMode):
    """Catches the result, or the first argument, of one call of one torch function.

    Parameters
    ----------
    reading : Reading
        Names the function and which call of it is meant.
    """

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.name = reading.where
        self.left = reading.ordinal
        self.argument = reading.source == "least squares"
        self.caught: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run the function; copy what is wanted before anything can overwrite it."""
        if self.left < 0 or function_name(func) != self.name:
            return func(*args, **(kwargs or {}))
        self.left -= 1
        if self.left >= 0:
            return func(*args, **(kwargs or {}))
        if self.argument:
            self.caught = args[0].detach().clone()
        out = func(*args, **(kwargs or {}))
        if not self.argument:
            self.caught = out.detach().clone()
        return out


class Live:
    """Reads β of one layer whose reading is known, call by call.

    Parameters
    ----------
    layer : Layer
        With its reading; activations and ACON-FReLU have none.
    owner : int
        The thread whose calls count.
    keep_input : bool
        Whether the input must be copied before the layer overwrites it.
    shared : bool
        Whether the inner module that is read also runs outside this layer.
    """

    def __init__(self, layer: Layer, owner: int, *, keep_input: bool, shared: bool) -> None:
        self.layer = layer
        self.owner = owner
        self.keep_input = keep_input
        self.shared = shared
        reading = layer.reading
        self.traces = reading is not None and reading.source in ("function", "least squares")
        self.caught: Tensor | None = None
        self.kept: Tensor | None = None
        self.fired = 0
        self.switch = ModeSwitch()
        self.mode: OneCall | None = None

    @property
    def plain(self) -> bool:
        """Whether β is the caught tensor as it is, but for its axes, and x the first argument."""
        reading = self.layer.reading
        if reading is None or self.needs_before:
            return False
        layout = reading.layout
        per_sample = layout.granularity in ("channel", "layer") and not layout.transposed
        return reading.source == "module" and per_sample and reading.x == 0

    @property
    def needs_before(self) -> bool:
        """Whether something must be done before the layer's forward."""
        reading = self.layer.reading
        inner = reading is not None and reading.source == "module"
        return self.keep_input or self.traces or (inner and self.shared)

    def attach(self) -> list[RemovableHandle]:
        """Register hooks on the inner modules; the caller removes them."""
        module, reading = self.layer.module, self.layer.reading
        handles = []
        if reading is not None and reading.source == "module":
            inner = module.get_submodule(reading.where)
            handles.append(inner.register_forward_hook(self._inner(inner, reading)))
        return handles

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Prepare for one call of the layer."""
        self.stop()
        if self.keep_input:
            x = self.argument(args, kwargs)
            self.kept = x.detach().clone() if isinstance(x, Tensor) else None
        if self.traces and self.layer.reading is not None:
            self.mode = OneCall(self.layer.reading)
            self.switch.on(self.mode)

    def stop(self) -> None:
        """Forget the last call, and leave the function mode."""
        self.caught = self.kept = None
        self.fired = 0
        if self.mode is not None:
            self.switch.off()
            self.mode = None

    def argument(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the argument that is activated, as it was before the call."""
        if self.kept is not None:
            return self.kept
        return argument(self.layer, args, kwargs)

    def beta(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Return β of the call that just ended, compact; see `Layout.compact`.

        Raises
        ------
        HookError
            If what β is read from did not run, or has another shape than on the first batch.
        """
        layer, reading = self.layer, self.layer.reading
        if reading is None:  # ACON-FReLU: β is 1
            return torch.ones(x.shape[1], dtype=x.dtype, device=x.device)
        channels = x.shape[reading.axis]
        if reading.source == "constant":
            return torch.full((channels,), float(reading.where), dtype=x.dtype, device=x.device)
        raw = self.caught if reading.source == "module" else self._raw(reading, args, kwargs)
        if raw is None:
            raise HookError(
                f"layer {layer.name!r}: {reading.describe()} gave nothing in this call, but was "
                "the source of β on the first batch"
            )
        if reading.source == "least squares":
            return self._fit(reading, x, raw)
        try:
            return reading.layout.compact(raw, x.shape[0], channels)
        except RuntimeError as error:
            raise HookError(
                f"layer {layer.name!r}: {reading.describe()} has the shape {tuple(raw.shape)}, "
                f"which is no β for {x.shape[0]} samples of {channels} channels"
            ) from error

    def _fit(self, reading: Reading, x: Tensor, z: Tensor) -> Tensor:
        pair = slopes(self.layer.module)
        if pair is None:
            raise HookError(f"layer {self.layer.name!r} has lost its p1 and p2")
        p1, p2 = (whole(p.detach()).reshape(1, -1, 1) for p in pair)
        d = regressor(reading.identity, fold(x.detach(), reading.axis), p1, p2)
        granularity = reading.layout.granularity
        beta = fitted(fold(z, reading.layout.axis) * GATES[reading.where], d, granularity)
        return beta[0, :, 0] if granularity == "static" else beta[:, :, 0]

    def _raw(
        self, reading: Reading, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        transform = TRANSFORMS[reading.transform]
        match reading.source:
            case "parameter":
                return transform(whole(getattr(self.layer.module, reading.where).detach()))
            case "argument" if reading.where == str(reading.x):  # as it was before the call
                return transform(self.argument(args, kwargs).detach())
            case "argument" if reading.where.isdigit():
                return transform(args[int(reading.where)].detach())
            case "argument":
                return transform(kwargs[reading.where].detach())
            case _:
                return None if self.mode is None else self.mode.caught

    def _inner(self, inner: nn.Module, reading: Reading) -> Callable[..., None]:
        transform, ordinal = TRANSFORMS[reading.transform], reading.ordinal
        owner, thread = self.owner, threading.get_ident

        def hook(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            if module is not inner or thread() != owner:
                return
            fired = self.fired
            self.fired = fired + 1
            if fired != ordinal:
                return
            # Always a new tensor: later in-place work cannot reach it.
            if type(output) is Tensor and not output.requires_grad and not listening():
                self.caught = transform(output)
            else:
                with torch._C.DisableTorchFunction():
                    self.caught = transform(output.detach())

        return hook


def argument(layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the argument that a layer activates: the proved one, or the first tensor."""
    key: int | str = layer.reading.x if layer.reading is not None else 0
    if isinstance(key, str):
        return kwargs.get(key)
    if key < len(args):
        return args[key]
    return next((value for value in kwargs.values() if isinstance(value, Tensor)), None)
