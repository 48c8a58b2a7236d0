"""The hooks of one layer: watched closely on the first batch, read cheaply afterwards."""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from acon_hooks.engine.aliases import same_values, shares_memory
from acon_hooks.engine.sites import Args, Site, SiteCall, Visitor
from acon_hooks.engine.visited import Visited
from acon_hooks.errors import HookError, ProofError
from acon_hooks.guards import autocast_dtype, refuse_autocast
from acon_hooks.layers.axes import ChannelAxes
from acon_hooks.layers.reading import Factors, folded, halves
from acon_hooks.layers.scan import Layer, slopes
from acon_hooks.readings.batch import Key, Results
from acon_hooks.readings.call_trace import CallTrace
from acon_hooks.readings.first_batch import FirstBatchHooks, resolve_call
from acon_hooks.readings.known_functions import computes, function_of, runs_alone
from acon_hooks.readings.live import LiveHooks
from acon_hooks.readings.pieces import Pieces, computed
from acon_hooks.readings.proof import failed_report

#: How many more batches are watched closely while no proof of a layer had power.
_PATIENCE = 8


class LayerHooks(Visitor):
    """One layer of a `Tap`; the first batch settles it."""

    __slots__ = (
        "_early", "_function", "_width_axis", "allow_autocast", "axes", "computed", "failed",
        "hooks", "keys", "layer", "lost", "pieces", "power", "reason", "report_failures",
        "results", "site", "visit", "visited",
    )  # fmt: skip

    def __init__(
        self,
        layer: Layer,
        results: Results,
        axes: ChannelAxes,
        *,
        allow_autocast: bool,
        report_failures: bool,
    ) -> None:
        self.layer = layer
        self.site = layer.site()
        self.results = results
        # Knows, on the first batch, where the channels of plain activations lie.
        self.axes = axes
        self.allow_autocast = allow_autocast
        self.report_failures = report_failures
        self.failed = False
        self.reason = ""  # why it has failed
        self.lost = False  # whether it is a layer nevertheless, which nothing is known of
        self.keys: list[Key] = []  # of each call on the first batch
        self.computed: dict[Key, Tensor] = {}  # static β on the first batch, if not parameters
        self.power = 0.0  # the largest of all proofs
        self._width_axis: int | None = None  # of β, if it is one number a channel
        # What its output may be known to be, and whether a call has been taken in before it ran.
        self._function, self._early = function_of(layer), False
        self.hooks: FirstBatchHooks | LiveHooks | None = None
        self.pieces: Pieces | None = None  # if it may be one, in the first forward pass

    def attach(self, visited: Visited, *, prove: bool) -> None:
        """Set the hooks inside the layer for the first batch."""
        self.visited, self.visit = visited, visited.visit
        if self.layer.reading is not None and not prove:
            self._read_live()
        else:
            self.hooks = FirstBatchHooks(self.visit, self.layer)

    @property
    def live(self) -> bool:
        """Whether the layer is read by the cheap hooks, or not at all."""
        return not isinstance(self.hooks, FirstBatchHooks)

    @property
    def calls(self) -> int:
        """How often the layer has run in the current forward pass."""
        return self.visited.calls

    def before(self, call: SiteCall) -> None:
        """Prepare for a call of the layer."""
        self._early = bool(self._function) and self._take_before(call)
        if self.hooks is not None and not self._early:
            self.hooks.begin_call(call)

    def after(self, call: SiteCall, output: Any) -> None:
        """Read β of the call that has ended."""
        if self._early:
            self._early = False
        elif isinstance(self.hooks, LiveHooks):
            self._deliver(self.hooks, call, output)
        elif self.hooks is not None:
            self._settle_or_hold(self.hooks, call, output)

    def unseen(self, call: SiteCall, reason: str) -> None:
        """Leave a layer alone whose tensors cannot be read."""
        self.leave(reason, lost=True)

    def fixed_axis(self, call: SiteCall) -> int | None:
        """Return the channel axis: other axes may differ, except where maps of β are kept."""
        layer = self.results.calls.get((self.layer.name, call.number), self.layer)
        maps = self.results.full and layer.granularity == "pixel"
        return None if maps else layer.axis

    def raised(self, site: Site) -> None:
        """Forget a call that has raised an exception."""
        self.stop()

    def go_live(self) -> None:
        """Exchange the close watch for the cheap hooks, once a proof had power."""
        if isinstance(self.hooks, FirstBatchHooks) and not self._waits():
            outside = self.hooks.outside
            self.hooks.remove()
            self.hooks = None
            if not self.failed:
                self._read_live(outside)

    def stop(self) -> None:
        """Forget a forward pass that did not end."""
        self._early = False
        if self.hooks is not None:
            self.hooks.stop()

    def forget(self) -> None:
        """Forget also what earlier calls in an unfinished first batch have shown."""
        self.stop()
        self.failed, self.visited.active = False, True
        self.reason, self.lost = "", False
        self.keys, self.computed, self.power = [], {}, 0.0

    def leave(self, reason: str = "", *, lost: bool = False) -> None:
        """Leave the layer alone from here on."""
        self.forget()
        self.failed, self.visited.active = True, False
        self.reason, self.lost = reason, lost
        self.results.drop(self.layer)
        if self.hooks is not None:
            self.hooks.remove()

    def _waits(self) -> bool:
        """Whether a first batch that proves nothing (zeros, for one) needs another to prove it."""
        if self.failed or self.layer.reading is None or self.power > 0 or not self.keys:
            return False
        pair = slopes(self.layer.module)
        hopeless = pair is not None and torch.equal(*pair)  # β has no influence at all
        return not hopeless and self.visit.passes < _PATIENCE

    def _read_live(self, outside: Collection[nn.Module] = ()) -> None:
        """Set the cheap hooks; `outside`: inner modules that other parts of the network run too."""
        layer, observed = self.layer, self.results.observe is not None
        reading = layer.reading
        inner = None if reading is None else reading.source.inner(layer.module)
        in_place = any(self.results.calls[key].in_place for key in self.keys)
        live = LiveHooks(
            self.visit,
            layer,
            keep_input=in_place and (observed or not layer.plain),
            shared=inner is not None
            and (inner in outside or _occurrences(self.visit.model, inner) > 1),
        )
        if not live.needs_before:
            self.visited.skip_before()
        same = reading is not None and reading.y_axis == reading.axis
        if live.plain and (same or not observed):
            self._width_axis = layer.axis if layer.granularity == "channel" else None
            self.visited.quick = self._deliver_quickly
        self.hooks = live

    def _take_before(self, call: SiteCall) -> bool:
        """Have a call of a known function taken in before it runs, if no other has a say."""
        results, x = self.results, call.args[0] if call.args else None
        if not isinstance(self.hooks, LiveHooks) or type(x) is not Tensor:
            return False
        if results.observe_input is None or results.observe is None or results.looking:
            return False
        layer = results.calls.get((self.layer.name, call.number), self.layer)
        usual = self.visited.usual.get(call.number) == (x.shape, x.dtype)
        if not layer.known or not usual or not runs_alone(layer):
            return False
        return results.observe_input(layer, call.number, x.detach())

    def _settle_or_hold(self, hooks: FirstBatchHooks, call: SiteCall, output: Any) -> None:
        """Settle a call, unless it may be a piece of an activation, which is not known yet."""
        trace = hooks.end_call()
        if trace is None:
            return
        called = self.layer.function is not None and self.visit.first
        own = self.visit.parameters if called else self.layer.parameters
        settle = partial(self._settle, hooks, trace, call, output, own)
        given, waits = trace.given, self.pieces is not None and self.visit.first
        if not waits or not isinstance(output, Tensor):
            settle()
        elif any(shares_memory(output, tensor) for tensor in given):
            settle()  # no piece: its input is gone
        elif self.pieces is not None:
            trace.kept = all(map(same_values, given, trace.arguments.values()))
            self.pieces.hold(self, output, settle, only=self.layer.function is not None)

    def _settle(
        self, hooks: FirstBatchHooks, trace: CallTrace, call: SiteCall, output: Any, own: str
    ) -> None:
        """Search and prove; in the first batch, and again until a proof has power.

        ``own`` are the parameters of the activation in this call.
        """
        x = next(iter(trace.arguments.values()), None)
        if x is not None:
            refuse_autocast(autocast_dtype(x.device.type), allowed=self.allow_autocast)
        axis = (1, True) if x is None else self.axes.axis(self.layer, trace.given)
        if x is not None and x.ndim > 1 and axis[0] == 0 and self.layer.plain:
            self._without_samples(x)
            return
        again = not self.visit.first
        try:
            found = resolve_call(self.layer, call, trace, output, axis, again=again)
        except ProofError as error:
            self._disproved(hooks, trace, call.number, error)
            return
        found = replace(found, layer=replace(found.layer, parameters=own))
        if self.layer.pieces and isinstance(output, Tensor) and call.number == 0:
            name = computed(found.x, output) or self.layer.class_name
            found = replace(found, layer=replace(found.layer, class_name=name))
        if call.number == 0 or found.report is not None:
            self.layer = found.layer
        if found.report is not None:
            self.power = max(self.power, found.report.power)
            self.results.report(found.report)
        layer, known = found.layer, self._function
        if known and layer.in_place and self.results.observe_input is not None:
            layer = replace(layer, known=known if computes(known, found.x, output) else "")
        self._hand_over(call.number, found.x, output, found.beta, layer)

    def _without_samples(self, x: Tensor) -> None:
        """Refuse a network without a batch axis; leave a layer that is given one sample a call."""
        text = f"its input of shape {tuple(x.shape)} has its channels on the first axis"
        args, kwargs = self.visit.arguments
        given = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), x)
        if given.ndim <= x.ndim:
            raise HookError(
                f"layer {self.layer.name!r}: {text}, so the batch axis is missing; give the "
                "network inputs of shape (N, ...), a single one as x.unsqueeze(0)"
            )
        self.leave(f"{text}, and no axis of samples", lost=True)

    def _disproved(
        self, hooks: FirstBatchHooks, trace: CallTrace, call: int, error: ProofError
    ) -> None:
        """Raise what a failed proof means, keep it as a report, or leave a layer that is none."""
        if not self.visit.first:
            raise HookError(
                f"{error}; it was read so in the batches before batch {self.visit.passes}, which "
                "could prove nothing: begin with one that is not (nearly) 0 at this layer"
            ) from error
        certain = hooks.certain(trace)
        if certain and not self.report_failures:
            raise error
        self.leave(str(error), lost=self.layer.plain)
        if certain:
            self.results.reports.append(failed_report(self.layer, call, str(error)))

    def _deliver_quickly(self, number: int, args: Args, output: Any) -> bool:
        """Do what `_deliver` does for a `LiveHooks.plain` reading of a usual input."""
        # Runs once a layer and forward pass. Whatever is odd is left to `_deliver`, which names it.
        results, x = self.results, args[0]
        live: Any = self.hooks
        batch, observe, beta, shape = results.batch, results.observe, live.caught, x.shape
        if beta is None or batch is None:
            return False
        if observe is not None:
            usual = type(output) is Tensor and output.shape == shape
            if not usual or output.requires_grad or x.requires_grad:
                return False
        try:
            width = 1 if self._width_axis is None else shape[self._width_axis]
            beta = beta.reshape(shape[0], width)
        except RuntimeError:  # β of another shape
            return False
        batch[self.keys[number]] = beta
        live.caught = None
        live.ran = 0
        if observe is not None:
            observe(self.layer, number, x, output, beta.unsqueeze(2))
        return True

    def _deliver(self, live: LiveHooks, call: SiteCall, output: Any) -> None:
        """Read β of one call; runs once a layer and forward pass, so it is kept short."""
        x = live.argument(call)
        beta = None if self.layer.plain else live.beta(call, x)
        self._hand_over(call.number, x, output, beta)
        live.stop()

    def _hand_over(
        self,
        call: int,
        x: Tensor,
        output: Any,
        beta: Tensor | Factors | None,
        layer: Layer | None = None,
    ) -> None:
        """Store β of one call, and show the call to the observer."""
        shown = folded(beta) if isinstance(beta, Tensor) else beta
        if self.layer.halved:
            x, shown = halves(x.detach(), output.detach())
        if call == len(self.keys):
            self.keys.append((self.layer.name, call))
            self.results.shapes[self.keys[call]] = tuple(x.shape[1:])
        key = self.keys[call]
        if layer is not None:
            self.results.calls[key] = layer
        layer = self.results.calls.setdefault(key, self.layer)
        if layer.known and not computes(layer.known, x, output):
            layer = replace(layer, known="")
        if isinstance(beta, Tensor):
            if self.layer.granularity == "static" and not self.results.looking:
                self._compare_static(key, beta)
            self.results.store(self.layer, key, beta)
        if self.results.observe is not None:
            y = _aligned(output, x, layer)
            self.results.observe(layer, call, x.detach(), y.detach(), shown)

    def _compare_static(self, key: Key, beta: Tensor) -> None:
        """Refuse a β that all samples share and that is still another one in every batch."""
        reading = self.layer.reading
        if reading is None or reading.source.fixed:
            return
        first = self.computed.setdefault(key, beta)
        limit = 1e-3 if reading.source.inferred else 1e-5  # a fit depends on x
        gap = ((beta - first).abs() / first.abs().clamp(min=1)).nan_to_num(0.0).max()
        if float(gap) > limit:
            raise HookError(
                f"layer {key[0]!r}: all samples of a batch have one β in common, but it differs "
                f"between batches (by {float(gap):.1e} in batch {self.visit.passes}): it is no "
                "property of the layer nor of a sample, but of the batch (a mean over the "
                "samples, perhaps); read one batch at a time, each in a context of its own"
            )


def _occurrences(model: nn.Module, module: nn.Module) -> int:
    """Return by how many names a module is reached."""
    return sum(found is module for _, found in model.named_modules(remove_duplicate=False))


def _aligned(output: Any, x: Tensor, layer: Layer) -> Tensor:
    """Return the output that belongs to an input, its channels on the same axis."""
    y: Tensor = output
    if not isinstance(output, Tensor):
        y = next(t for t in output if isinstance(t, Tensor) and t.numel() == x.numel())
    reading = layer.reading
    if reading is not None and reading.y_axis != reading.axis:
        y = y.movedim(reading.y_axis, reading.axis)
    return y
