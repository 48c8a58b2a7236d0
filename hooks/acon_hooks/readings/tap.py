"""Hooks on a live model: β of every layer, batch by batch, each reading proved.

``with Tap(model, layers) as tap: model(images); batch = tap.take()``
"""

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acon_hooks.errors import HookError, UnusedLayerWarning
from acon_hooks.guards import (
    autocast_dtype,
    eager,
    exclusive,
    mode_sensitive_modules,
    refuse_compiling,
    refuse_training,
    refuse_unwatchable,
    unwrap,
)
from acon_hooks.layers.axes import Producers
from acon_hooks.layers.choosing import choose_layers
from acon_hooks.layers.scan import DEFAULT_KINDS, Layer, check_kinds
from acon_hooks.readings.batch import Batch, Key, count_samples, over_pixels, to_host
from acon_hooks.readings.layer_hooks import Station
from acon_hooks.readings.proof import ProofReport

#: Called inside the hook of every call of every layer with (layer, call, x, y, β): the input and
#: the output as the layer saw them (both with the channels on `layer.axis`), and β folded to
#: (N, C, 1), (N, 1, 1), (1, C, 1) or (N, C, P), or None for activations. Nothing may be kept.
Observer = Callable[[Layer, int, Tensor, Tensor, Tensor | None], None]

__all__ = ["Observer", "Tap", "to_host"]

_SILENT = (
    "none of the {count} layers ran in this forward pass ({names}): hooks stay silent where a "
    "model runs as compiled, traced (TorchScript, fx) or exported code or as a replayed CUDA "
    "graph, and where a layer's forward is called directly; give and call the plain Python module"
)


class Tap:
    """Context manager that reads β of a model's layers in every forward pass.

    The first batch settles how each layer is read and proves it (see `acon_hooks.readings.search`);
    from then on only cheap hooks remain, and every batch is compared with the first: each layer
    must run as often, on the same shape (batch size apart) and dtype. A layer whose first proof has
    no power is proved again on up to eight more batches. Outputs of the model are bit-identical
    with and without.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode. Compiled models run eagerly inside the context.
    layers : sequence of Layer or str, optional
        Layers of this model, or their names; by default all of the given kinds.
    kinds : iterable of str
        Keys of `acon_hooks.KINDS`.
    observe : callable, optional
        See `Observer`.
    full : bool
        Also keep β of every pixel where it differs between pixels.
    prove : bool
        False trusts the readings that `layers` already have from an earlier forward pass.
        Layers without a reading are searched and proved in any case.
    report_failures : bool
        True keeps the failed proof as a report and leaves the layer out, instead of raising.
    allow_autocast : bool
        True accepts autocast, with β rounded to its dtype (bfloat16: errors of 2e-3).

    Raises
    ------
    HookError
        On entering, if the model cannot be watched; in a forward pass, if hooks were silent or
        the pass differs from the first one.
    ProofError
        In the first forward pass, if β of a layer cannot be read.
    UsageError
        If a layer or a kind is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer | str] | None = None,
        *,
        kinds: Iterable[str] = DEFAULT_KINDS,
        observe: Observer | None = None,
        full: bool = False,
        prove: bool = True,
        report_failures: bool = False,
        allow_autocast: bool = False,
    ) -> None:
        self.model = unwrap(model)
        self.given = model
        self._minding = mode_sensitive_modules(self.model)
        self._device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        self.named = layers is not None and any(isinstance(layer, str) for layer in layers)
        self._stations = [
            Station(self, layer) for layer in choose_layers(self.model, layers, check_kinds(kinds))
        ]
        self.observe = observe
        self.full = full
        self.prove = prove
        self.report_failures = report_failures
        self.allow_autocast = allow_autocast
        self.reports: list[ProofReport] = []
        self.unused: list[str] = []
        self.autocast: torch.dtype | None = None
        self.shapes: dict[Key, tuple[int, ...]] = {}
        self._finished: Batch | None = None
        self.current: Batch | None = None
        self.owner = 0
        self.batches = 0
        self._producers = Producers(self.model)
        self._first_handles: list[RemovableHandle] = []
        self._exit = ExitStack()
        self._end: Callable[[], None] | None = None

    @property
    def layers(self) -> list[Layer]:
        """The layers, in the order of `named_modules()`; settled after the first batch."""
        return [station.layer for station in self._stations if not station.failed]

    def settled(self) -> list[Layer]:
        """Return all layers, those whose proof has failed too."""
        return [station.layer for station in self._stations]

    @property
    def first(self) -> bool:
        """Whether the first batch is still to come, or is running."""
        return self.batches == 0

    def __enter__(self) -> Self:
        if self.owner:
            raise HookError("a Tap serves one context: make a new one")
        names = [station.layer.name for station in self._stations]
        refuse_unwatchable(self.given, names)
        with ExitStack() as stack:
            stack.enter_context(exclusive(self.model))
            stack.enter_context(eager())
            self.owner = threading.get_ident()
            self._hold(stack, [self.model.register_forward_pre_hook(self._begin_hook())])
            for station in self._stations:
                stack.callback(station.remove)
                station.attach()
            self._hold(
                stack,
                [
                    self.model.register_forward_hook(self._finish_hook()),
                    self.model.register_forward_hook(self._abort_hook(), always_call=True),
                ],
            )
            if any(station.layer.kind == "activation" for station in self._stations):
                self._first_handles = self._producers.attach()
            stack.callback(self._drop_first)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.owner = -1  # no thread
        self.current = self._finished = None
        self._exit.close()

    def take(self) -> Batch:
        """Return β of the forward pass since the last call, and forget it.

        Raises
        ------
        HookError
            If the model did not run since.
        """
        batch, self._finished = self._finished, None
        if batch is None:
            raise HookError(
                "no forward pass of the model has ended since the last take(): call the very "
                "model that is watched, in the thread that watches it (a compiled copy made from "
                "it, or a replayed CUDA graph, does not reach its hooks)"
            )
        return batch

    def on_batch(self, call: Callable[[], None]) -> None:
        """Have a function called at the end of every forward pass; it may `take` the batch."""
        self._end = call

    def mine(self) -> bool:
        """Tell whether the calling hook belongs to a forward pass that is being read.

        Raises
        ------
        HookError
            If a layer runs outside a forward pass of the watched model.
        """
        if threading.get_ident() != self.owner:
            return False
        if self.current is not None:
            return True
        if torch._C._current_graph_task_id() != -1:  # recomputed in a backward pass: read before
            return False
        raise HookError(
            "a watched layer ran outside a forward pass of the watched model "
            f"({type(self.model).__name__}): call the model itself, not a part of it"
        )

    @staticmethod
    def _hold(stack: ExitStack, handles: list[RemovableHandle]) -> None:
        for handle in handles:
            stack.callback(handle.remove)

    def _drop_first(self) -> None:
        for handle in self._first_handles:
            handle.remove()
        self._first_handles = []

    def _begin_hook(self) -> Callable[..., None]:
        def begin(module: nn.Module, _args: Any) -> None:
            refuse_compiling()
            if module is self.model and threading.get_ident() == self.owner:
                self._begin()

        return begin

    def _begin(self) -> None:
        if self._finished is not None:
            raise HookError("a second forward pass began before take() fetched the first one's β")
        if any(module.training for module in self._minding):
            refuse_training(self.model)
        dtype = autocast_dtype(self._device)
        self.refuse_autocast(dtype)
        if not self.first and dtype != self.autocast:
            raise HookError(f"autocast was {self.autocast} on the first batch and is {dtype} now")
        self.autocast = dtype
        if self.first:
            self._forget()
        elif self.current is not None:  # an interrupted pass
            self._stop()
        self.current = Batch()

    def _forget(self) -> None:
        """Forget a first forward pass that did not end."""
        self.reports.clear()
        self.shapes.clear()
        for station in self._stations:
            station.forget()

    def _stop(self) -> None:
        for station in self._stations:
            station.stop()

    def refuse_autocast(self, dtype: torch.dtype | None) -> None:
        """Raise if autocast is on and was not allowed."""
        if dtype is not None and not self.allow_autocast:
            raise HookError(
                f"the model runs under autocast ({dtype}), which rounds β (errors of 2e-3 in "
                "bfloat16): leave autocast, or pass allow_autocast=True"
            )

    def _finish_hook(self) -> Callable[..., None]:
        def finish(module: nn.Module, _args: Any, _output: Any) -> None:
            if module is self.model and threading.get_ident() == self.owner:
                self._finish()

        return finish

    def _abort_hook(self) -> Callable[..., None]:
        def abort(module: nn.Module, _args: Any, _output: Any) -> None:
            mine = module is self.model and threading.get_ident() == self.owner
            if mine and self.current is not None:  # the pass has raised
                self.current = None
                self._stop()

        return abort

    def _finish(self) -> None:
        batch, self.current = self.current, None
        if batch is None:
            return
        if self.first:
            self._end_first()
        else:
            self._compare()
            for station in self._stations:
                if station.watcher is not None:
                    station.go_live()
        batch.samples = count_samples(batch)
        self.batches += 1
        self._finished = batch
        if self._end is not None:
            self._end()

    def _end_first(self) -> None:
        self._drop_wrappers()
        active = [s for s in self._stations if not s.failed]
        if not active and not self.reports:
            names = ", ".join(repr(station.layer.name) for station in self._stations[:5])
            raise HookError(f"what looked like layers of the kinds are none: {names}")
        ran = [s for s in active if s.calls]
        idle = [s.layer.name for s in active if not s.calls]
        if active and not ran:
            names = ", ".join(repr(name) for name in idle[:5])
            raise HookError(_SILENT.format(count=len(idle), names=names))
        if idle:
            text = f"{len(idle)} layers did not run in the first forward pass: {', '.join(idle)}"
            if self.named:
                raise HookError(f"{text}; leave them out")
            warnings.warn(text, UnusedLayerWarning, stacklevel=2)
        self.unused = idle
        self._drop_first()
        for station in self._stations:
            station.calls = 0
            station.go_live()

    def _drop_wrappers(self) -> None:
        """Drop modules that are gates only because a gate inside them is their last step."""
        gates = [s for s in self._stations if s.layer.kind == "gate" and not s.failed]
        proved = {s.layer.module for s in gates if s.calls}
        for station in gates:
            own = station.layer.module
            if any(inner in proved for inner in own.modules() if inner is not own):
                station.leave()

    def _compare(self) -> None:
        for station in self._stations:
            calls, expected = station.calls, len(station.expected)
            station.calls = 0
            if calls != expected:
                self._stop()
                raise HookError(
                    f"layer {station.layer.name!r} ran {calls} times in batch {self.batches}, "
                    f"but {expected} times in the first one: its readings would be incomplete "
                    "(compiled or replayed code, or a model that branches on its input)"
                )

    def report(self, report: ProofReport) -> None:
        """Keep a proof; a later one of the same call takes its place."""
        calls = [(old.layer, old.call) for old in self.reports]
        if (report.layer, report.call) in calls:
            self.reports[calls.index((report.layer, report.call))] = report
        else:
            self.reports.append(report)

    def store(self, layer: Layer, key: Key, beta: Tensor) -> None:
        """Put β of one call, compact, into the current batch."""
        batch = self.current
        if batch is None:
            return
        if layer.granularity != "pixel":
            batch[key] = beta
            return
        batch[key], batch.spread[key] = over_pixels(beta)
        if self.full:
            shape = list(self.shapes[key])
            del shape[layer.axis - 1]
            batch.maps[key] = beta.reshape(*beta.shape[:2], *shape).clone()

    def channel_axis(self, x: Tensor) -> int:
        """Return where the channels of a plain activation's input lie (first batch only)."""
        return self._producers.axis(x)

    def is_shared(self, layer: Layer, path: str) -> bool:
        """Tell whether an inner module of a layer is also reached by a name outside it."""
        inner = dict(layer.module.named_modules()).get(path)
        places = self.model.named_modules(remove_duplicate=False)
        return inner is not None and sum(module is inner for _, module in places) > 1

    def drop(self, layer: Layer) -> None:
        """Drop what a layer has yielded in the current batch: its proof has failed."""
        batch = self.current
        if batch is not None:
            for part in (batch, batch.spread, batch.maps):
                for key in [key for key in part if key[0] == layer.name]:
                    del part[key]
        for key in [key for key in self.shapes if key[0] == layer.name]:
            del self.shapes[key]
        self.reports[:] = [report for report in self.reports if report.layer != layer.name]
