"""The hooks of one layer: watched closely on the first batch, read cheaply afterwards."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acon_hooks.errors import HookError, ProofError
from acon_hooks.guards import autocast_dtype
from acon_hooks.layers.gates import GATE_NAMES, is_named_gate
from acon_hooks.layers.reading import folded
from acon_hooks.layers.scan import owns_slopes, slopes
from acon_hooks.readings.call_trace import Seen, Watcher, hook_after, hook_before
from acon_hooks.readings.first import Settled, settle
from acon_hooks.readings.live import Live, argument, listening
from acon_hooks.readings.proof import failed_report

if TYPE_CHECKING:
    from acon_hooks.layers.scan import Layer
    from acon_hooks.readings.batch import Key
    from acon_hooks.readings.tap import Tap


#: So many more batches are watched closely while no proof of a layer had power.
_PATIENCE = 8


class Station:
    """One layer under a `Tap`.

    Parameters
    ----------
    tap : Tap
        Gets what is read.
    layer : Layer
        The layer as found; replaced by what the first batch settles.
    """

    def __init__(self, tap: Tap, layer: Layer) -> None:
        self.tap = tap
        self.layer = layer
        self.failed = False
        self.calls = 0  # in the current forward pass
        self.expected: list[tuple[tuple[int, ...], torch.dtype]] = []  # of each call
        self.keys: list[Key] = []
        self.computed: dict[Key, Tensor] = {}  # static β on the first batch, if not parameters
        self.power = 0.0  # the largest of all proofs
        self.watcher: Watcher | None = None
        self.live: Live | None = None
        self.quick = False  # whether `_deliver_quickly` may be tried
        self._outer: list[RemovableHandle] = []
        self._before: RemovableHandle | None = None
        self._inner: list[RemovableHandle] = []

    def attach(self) -> None:
        """Register the hooks for the first batch."""
        module = self.layer.module
        self._before = hook_before(module, self._pre_hook())
        self._outer = [self._before, hook_after(module, self._post_hook())]
        if self.layer.reading is not None and not self.tap.prove:
            self._read_live()
        else:
            inside = self.layer.kind != "activation"
            self.watcher = Watcher(module, inside=inside, owner=self.tap.owner)
            self._inner = self.watcher.attach()

    def go_live(self) -> None:
        """Exchange the close watch for the cheap hooks, once a proof had power."""
        if self.watcher is not None and not self._waits():
            self.watcher.stop()
            self.watcher = None
            self._drop_inner()
            if not self.failed:
                self._read_live()

    def _waits(self) -> bool:
        """Whether a first batch that proves nothing (zeros, for one) needs another to prove it."""
        if self.failed or self.layer.reading is None or self.power > 0 or not self.expected:
            return False
        pair = slopes(self.layer.module)
        hopeless = pair is not None and torch.equal(*pair)  # β has no influence at all
        return not hopeless and self.tap.batches < _PATIENCE

    def remove(self) -> None:
        """Take every hook away."""
        self.stop()
        for handle in self._outer:
            handle.remove()
        self._outer, self._before = [], None
        self._drop_inner()
        self.watcher = self.live = None

    def stop(self) -> None:
        """Forget a forward pass that did not end."""
        self.calls = 0
        if self.watcher is not None:
            self.watcher.stop()
        if self.live is not None:
            self.live.stop()

    def forget(self) -> None:
        """Forget also what earlier calls in an unfinished first batch have shown."""
        self.stop()
        self.failed = False
        self.expected, self.keys, self.computed, self.power = [], [], {}, 0.0

    def _drop_inner(self) -> None:
        for handle in self._inner:
            handle.remove()
        self._inner = []

    def _read_live(self) -> None:
        tap, layer = self.tap, self.layer
        needs_input = tap.observe is not None or layer.kind != "activation"
        self.live = Live(
            layer,
            tap.owner,
            keep_input=layer.in_place and needs_input,
            shared=layer.reading is not None and tap.is_shared(layer, layer.reading.where),
        )
        self._inner = self.live.attach()
        reading = layer.reading
        same = reading is not None and reading.y_axis == reading.axis
        self.quick = self.live.plain and (tap.observe is None or same)
        # The root's own hooks are being iterated while the first batch ends: leave them alone.
        if not self.live.needs_before and self._before and layer.module is not tap.model:
            self._before.remove()

    def _pre_hook(self) -> Any:
        target = self.layer.module

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if module is not target or self.failed or not self.tap.mine():
                return
            if self.watcher is not None:
                self.watcher.before(args, kwargs)
            elif self.live is not None and self.live.needs_before:
                self.live.before(args, kwargs)

        return before

    def _post_hook(self) -> Any:
        target, tap, thread = self.layer.module, self.tap, threading.get_ident

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if module is not target or thread() != tap.owner:
                return
            if self.quick and output is not None and self._deliver_quickly(args, output):
                return
            if output is None:  # the forward raised
                self.stop()
            elif self.failed or (tap.current is None and not tap.mine()):
                return
            else:
                # What is done here is no part of a layer around this one that is being listened to.
                with torch._C.DisableTorchFunction():
                    if self.live is not None:
                        self._deliver(self.live, args, kwargs, output)
                    else:
                        self._settle(args, kwargs, output)

        return after

    def _settle(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Search and prove; in the first batch, and again until a proof has power."""
        tap, watcher = self.tap, self.watcher
        seen = watcher.after() if watcher is not None else None
        if seen is None:
            return
        any_input = next(iter(seen.arguments.values()), None)
        if any_input is not None:
            tap.refuse_autocast(autocast_dtype(any_input.device))
        axis = 1 if any_input is None else tap.channel_axis(any_input)
        try:
            again = not tap.first
            settled = settle(self.layer, self.calls, seen, output, axis, again=again)
        except ProofError as error:
            if again:
                raise HookError(
                    f"{error}; it was read so in the batches before batch {tap.batches}, which "
                    "could prove nothing: begin with one that is not (nearly) 0 at this layer"
                ) from error
            if not self._certain(seen):
                self.leave()  # it only looked like one
            elif tap.report_failures:
                call = self.calls
                self.leave()
                tap.reports.append(failed_report(self.layer, call, str(error)))
            else:
                raise
            return
        original = argument(settled.layer, args, kwargs)
        if isinstance(original, Tensor) and not torch.equal(original, settled.x):
            settled = replace(settled, layer=replace(settled.layer, in_place=True))
        self.layer = settled.layer
        if settled.report is not None:
            self.power = max(self.power, settled.report.power)
            tap.report(settled.report)
        self._hand_over(settled, output)

    def _hand_over(self, settled: Settled, output: Any) -> None:
        tap, x, beta = self.tap, settled.x, settled.beta
        key = self._expect(x)
        if beta is not None:
            if self.layer.granularity == "static":
                self._compare_static(key, beta)
            tap.store(self.layer, key, beta)
        if tap.observe is not None:
            self._show(key, x, output, beta)

    def _deliver_quickly(self, args: tuple[Any, ...], output: Any) -> bool:
        """Do what `_deliver` does for a `Live.plain` reading, if all is as on the first batch.

        Runs once a layer and forward pass. Whatever is odd is left to `_deliver`, which names it.
        """
        tap = self.tap
        live, batch, call, observe = self.live, tap.current, self.calls, tap.observe
        if live is None or batch is None or not args or call >= len(self.expected):
            return False
        x, beta = args[0], live.caught
        if beta is None or type(x) is not Tensor:
            return False
        shape = x.shape
        expected, dtype = self.expected[call]
        if shape[1:] != expected or x.dtype is not dtype:
            return False
        samples = shape[0]
        width = shape[self.layer.axis] if self.layer.granularity == "channel" else 1
        if beta.numel() != samples * width:
            return False
        if observe is not None:
            usual = type(output) is Tensor and output.shape == shape and not output.requires_grad
            if not usual or x.requires_grad or listening():
                return False
        beta = beta.reshape(samples, width)
        batch[self.keys[call]] = beta
        self.calls = call + 1
        live.caught = None
        live.fired = 0
        if observe is not None:
            observe(self.layer, call, x, output, beta.unsqueeze(2))
        return True

    def _deliver(self, live: Live, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        """Read β of one call; runs once a layer and forward pass, so it is kept short."""
        tap, layer = self.tap, self.layer
        x = live.argument(args, kwargs)
        key = self._expect(x)
        beta: Tensor | None = None
        if layer.kind != "activation":
            beta = live.beta(x, args, kwargs)
            if layer.granularity == "static":
                self._compare_static(key, beta)
            tap.store(layer, key, beta)
        if tap.observe is not None:
            self._show(key, x, output, beta)
        live.stop()

    def _compare_static(self, key: Key, beta: Tensor) -> None:
        """Refuse a β that all samples share and that is still another one in every batch.

        Raises
        ------
        HookError
            If β is not that of the first batch.
        """
        reading = self.layer.reading
        if reading is None or reading.source in ("parameter", "constant"):
            return
        first = self.computed.setdefault(key, beta)
        limit = 1e-3 if reading.source == "least squares" else 1e-5  # a fit depends on x
        gap = ((beta - first).abs() / first.abs().clamp(min=1)).nan_to_num(0.0).max()
        if float(gap) > limit:
            raise HookError(
                f"layer {key[0]!r}: all samples of a batch have one β in common, but it differs "
                f"between batches (by {float(gap):.1e} in batch {self.tap.batches}): it is no "
                "property of the layer nor of a sample, but of the batch (a mean over the "
                "samples, perhaps); read one batch at a time, each in a context of its own"
            )

    def _expect(self, x: Tensor) -> Key:
        """Compare the input of a call with that of the first batch; return the call's key.

        Raises
        ------
        HookError
            If shape or dtype differ, or the call is one more than on the first batch.
        """
        call = self.calls
        self.calls = call + 1
        if call < len(self.expected):
            shape, dtype = self.expected[call]
            if x.shape[1:] == shape and x.dtype is dtype:
                return self.keys[call]
        name, tap = self.layer.name, self.tap
        if tap.first:
            key = name, call
            self.keys.append(key)
            self.expected.append((x.shape[1:], x.dtype))
            tap.shapes[key] = tuple(x.shape[1:])
            return key
        where = f"layer {name!r}, call {call}, batch {tap.batches}"
        if call >= len(self.expected):
            raise HookError(
                f"{where}: it ran more often than on the first batch ({len(self.expected)} times)"
            )
        known = ", ".join(map(str, self.expected[call][0]))
        raise HookError(
            f"{where}: its input is {tuple(x.shape)} {x.dtype}, but on the first batch it was "
            f"(N, {known}) {self.expected[call][1]}"
        )

    def _show(self, key: Key, x: Tensor, output: Any, beta: Tensor | None) -> None:
        """Hand one call to the observer."""
        observe = self.tap.observe
        if observe is None:
            return
        y = output
        if not isinstance(y, Tensor):
            y = next(t for t in output if isinstance(t, Tensor) and t.numel() == x.numel())
        reading = self.layer.reading
        if reading is not None and reading.y_axis != reading.axis:
            y = y.movedim(reading.y_axis, reading.axis)
        shown = None if beta is None else folded(beta)
        observe(self.layer, key[1], x.detach(), y.detach(), shown)

    def _certain(self, seen: Seen) -> bool:
        """Whether the structure leaves no doubt about the kind."""
        module = self.layer.module
        if self.layer.kind == "acon_frelu":
            return hasattr(module, "conv_frelu")
        if self.layer.kind == "gate":
            return is_named_gate(module) and any(f.path in GATE_NAMES for f in seen.fired)
        return owns_slopes(module)

    def leave(self) -> None:
        """Leave the layer alone from here on."""
        self.forget()
        self.failed = True
        self.tap.drop(self.layer)
        self._drop_inner()
