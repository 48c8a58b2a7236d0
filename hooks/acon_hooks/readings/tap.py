"""Hooks on a live model: β of every layer, batch by batch, each reading proved.

``with Tap(model, layers) as tap: model(images); batch = tap.take()``
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn

from acon_analysis.screen import counted
from acon_hooks.engine.feed import Batch as Samples
from acon_hooks.engine.feed import called_batch
from acon_hooks.engine.sites import Site, Visitor
from acon_hooks.engine.visited import Visited
from acon_hooks.engine.visiting import Visit
from acon_hooks.errors import HookError, ProofError, RowWarning, UnusedLayerWarning
from acon_hooks.guards import autocast_dtype, refuse_autocast, refuse_without_values, unwrap
from acon_hooks.layers.axes import ChannelAxes
from acon_hooks.layers.choosing import NoLayerError, choose_layers, none_of
from acon_hooks.layers.scan import DEFAULT_KINDS, PLAIN_KINDS, Layer, check_kinds
from acon_hooks.readings.batch import Batch, InputObserver, Key, Observer, Results, count_samples
from acon_hooks.readings.finding import FunctionFinder
from acon_hooks.readings.layer_hooks import LayerHooks
from acon_hooks.readings.pieces import PIECES
from acon_hooks.readings.products import Gates, ProductHooks, multiplies
from acon_hooks.readings.proof import ProofReport
from acon_hooks.readings.second_look import (
    CHANGED,
    RowCheck,
    RowSums,
    changed,
    second_look,
    state_of,
)


class Tap(Visitor):
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
        See `acon_hooks.readings.batch.Observer`.
    observe_input : callable, optional
        See `acon_hooks.readings.batch.InputObserver`.
    full : bool
        Also keep β of every pixel where it differs between pixels.
    prove : bool
        False trusts the readings that `layers` already have from an earlier forward pass.
        Layers without a reading are searched and proved in any case.
    report_failures : bool
        True keeps the failed proof as a report and leaves the layer out, instead of raising.
    allow_autocast : bool
        True accepts autocast, with β rounded to its dtype (bfloat16: errors of 2e-3).
    check_rows : bool
        Whether the first batch is run again, in another order and in two parts, to prove that
        rows are samples; see `acon_hooks.readings.second_look`.

    Attributes
    ----------
    rows : RowCheck or None
        What that has found; None before, or where it was not asked for.
    changes : str
        What of the network the first forward pass has changed, where that was looked at.

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
        observe_input: InputObserver | None = None,
        full: bool = False,
        prove: bool = True,
        report_failures: bool = False,
        allow_autocast: bool = False,
        check_rows: bool = False,
    ) -> None:
        self.model = unwrap(model)
        self.check_rows = check_rows
        self.rows: RowCheck | None = None
        self.changes = ""
        self.prove = prove
        self.allow_autocast = allow_autocast
        self.unused: list[str] = []
        self._named = layers is not None and any(isinstance(layer, str) for layer in layers)
        self._report_failures = report_failures
        self._kinds = check_kinds(kinds)
        self._results = Results(observe, full, observe_input)
        self._axes = ChannelAxes()
        chosen = choose_layers(self.model, layers, self._kinds)
        self._sites: list[tuple[Site, Visitor]] = []
        self._visit = Visit(model, self, self._sites)
        finds = layers is None and bool(set(PLAIN_KINDS) & set(self._kinds))
        self._gates, self._finder = None, None
        if finds or any(map(multiplies, chosen)):
            self._gates = Gates(self._visit)
        if finds and self._gates is not None:
            self._finder = FunctionFinder(
                self._visit, self._kinds, self._gates, self._watch, self._drop
            )
        self._hooks = [self._layer_hooks(layer) for layer in chosen]
        self._sites += [(hooks.site, hooks) for hooks in self._hooks]
        for hooks in self._hooks:
            if self._finder is not None and isinstance(hooks.layer.module, PIECES):
                hooks.pieces = self._finder.pieces
        self._device_type = next((p.device.type for p in self.model.parameters()), "cpu")
        self.autocast: torch.dtype | None = None
        self._settling = self._hooks  # those whose first batch has not settled them yet
        self._finished: Batch | None = None
        self._on_batch: Callable[[], None] | None = None
        self._on_abort: Callable[[], None] | None = None
        self._row_sums: RowSums | None = None
        self._summed: list[Visited] = []
        self._samples: Samples | None = None  # what `run` was given
        self._given: Samples | None = None  # a copy, for the second look
        self._state: dict[str, Any] = {}

    def _layer_hooks(self, layer: Layer) -> LayerHooks:
        further = {"allow_autocast": self.allow_autocast, "report_failures": self._report_failures}
        if self._gates is not None and multiplies(layer):
            return ProductHooks(layer, self._results, self._axes, self._gates, **further)
        return LayerHooks(layer, self._results, self._axes, **further)

    @property
    def layers(self) -> list[Layer]:
        """The layers, settled after the first batch.

        First modules in the order of `named_modules()`, then functions in that of execution.
        """
        return [hooks.layer for hooks in self._hooks if not hooks.failed]

    def settled(self) -> list[Layer]:
        """Return all layers, those whose proof has failed too."""
        return [hooks.layer for hooks in self._hooks]

    @property
    def reports(self) -> list[ProofReport]:
        """The proof of every call of every layer."""
        return self._results.reports

    @property
    def shapes(self) -> dict[Key, tuple[int, ...]]:
        """(layer, call) -> shape of the activated input without the axis of the samples."""
        return self._results.shapes

    @property
    def calls(self) -> dict[Key, Layer]:
        """(layer, call) -> the layer as this call of it uses it."""
        return self._results.calls

    @property
    def batches(self) -> int:
        """How many forward passes have been read."""
        return self._visit.passes

    def __enter__(self) -> Self:
        refuse_without_values(self.model)
        with ExitStack() as stack:
            stack.enter_context(self._visit)
            for hooks, visited in zip(self._hooks, list(self._visit.sites), strict=True):
                hooks.attach(visited, prove=self.prove)
            stack.callback(self._stop_following)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def run(self, samples: Samples) -> Batch:
        """Run the model on a batch of a feed; return β of the forward pass."""
        self._samples, self._results.tensor_rows = samples, samples.tensor_rows
        try:
            samples.run(self.model)
        finally:  # held longer, its memory could not be used for the next batch
            self._samples = None
        return self.take()

    def take(self) -> Batch:
        """Return β of the forward pass since the last call, and forget it; a HookError without."""
        batch, self._finished = self._finished, None
        if batch is None:
            raise HookError(
                "no forward pass of the model has ended since the last take(): call the very "
                "model that is watched, in the thread that watches it (a compiled copy made from "
                "it, or a replayed CUDA graph, does not reach its hooks)"
            )
        return batch

    def only(self, visitor: Visitor, sites: Iterable[Site]) -> AbstractContextManager[None]:
        """Let another visitor alone see the forward passes inside a context."""
        return self._visit.only(visitor, sites)

    def on_batch(self, call: Callable[[], None], abort: Callable[[], None] | None = None) -> None:
        """Have a function called at the end of every forward pass; it may `take` the batch.

        `abort` is called when a pass has failed: what ``observe`` has seen of it does not count.
        """
        self._on_batch, self._on_abort = call, abort

    def begin(self) -> None:
        """Prepare for a forward pass."""
        if self._finished is not None:
            raise HookError(
                "the model was called a second time in one batch, before take() fetched what the "
                "first call has shown: a batch is one call of the model"
            )
        dtype = autocast_dtype(self._device_type)
        refuse_autocast(dtype, allowed=self.allow_autocast)
        if not self._visit.first and dtype != self.autocast:
            raise HookError(f"autocast was {self.autocast} on the first batch and is {dtype} now")
        self.autocast = dtype
        if self._visit.first:
            self.reports.clear()
            self.shapes.clear()
            self.calls.clear()
            self._forget()
            self._settling = list(self._hooks)
            if self.check_rows:
                self._prepare_second_look()
            if self._finder is not None or any(hooks.layer.plain for hooks in self._hooks):
                self._axes.start(self._results.tensor_rows.axis)
            if self._finder is not None:
                self._finder.start()
        if self._gates is not None:
            self._gates.start()
        self._results.batch = Batch()

    def end(self) -> None:
        """Finish a forward pass: its β can be taken."""
        if self._finder is not None:
            self._finder.end()
        self._stop_following()
        batch = self._results.batch
        if batch is None:
            return
        self._results.batch = None
        if self._results.looking:
            self._finished = batch
            return
        if self._visit.first:
            self._end_first()
        if self._settling:
            for hooks in self._settling:
                hooks.go_live()
            self._settling = [hooks for hooks in self._settling if not hooks.live]
        given = self._samples or called_batch(*self._visit.arguments)
        batch.samples = count_samples(batch) or len(given.ids)
        self._finished = batch

    def ended(self) -> None:
        """Take the second look after the first forward pass, and hand the batch on."""
        if self._row_sums is not None and self._finished is not None:
            first, self._finished = self._finished, None
            self._look_again(first, self._row_sums)
            self._finished = first
        if self._on_batch is not None:
            self._on_batch()

    def abort(self) -> None:
        """Forget a forward pass that has failed."""
        self._stop_following()
        self._results.batch = self._finished = None
        for hooks in self._hooks:
            hooks.stop()
        if self._on_abort is not None and not self._results.looking:
            self._on_abort()

    def _stop_following(self) -> None:
        """Follow functions no longer."""
        if self._visit.first:
            self._axes.stop()
        if self._finder is not None:
            self._finder.stop()
        if self._gates is not None:
            self._gates.stop()

    def _forget(self) -> None:
        """Forget what an unfinished first batch has shown."""
        for hooks in self._hooks:
            hooks.forget()
        if self._finder is not None:
            self._hooks = [hooks for hooks in self._hooks if hooks.layer.function is None]
            for visited in [v for v in self._visit.sites if v.site.function is not None]:
                visited.remove()

    def _watch(self, layer: Layer) -> LayerHooks:
        """Watch a layer that was found while the first forward pass runs."""
        hooks = self._layer_hooks(layer)
        hooks.attach(self._visit.add(hooks.site, hooks), prove=self.prove)
        self._hooks.append(hooks)
        self._settling.append(hooks)
        if self._row_sums is not None:
            self._summed.append(self._visit.add(hooks.site, self._row_sums))
        return hooks

    def _drop(self, hooks: LayerHooks) -> None:
        """Leave a layer out that is a piece of another."""
        hooks.leave()
        self._hooks.remove(hooks)
        self._settling.remove(hooks)
        for visited in [v for v in self._visit.sites if v.site == hooks.site]:
            visited.remove()

    def _prepare_second_look(self) -> None:
        """Keep what the second look compares with: the arguments, and the state of the model."""
        self._given = (self._samples or called_batch(*self._visit.arguments)).copy()
        self._state = state_of(self.model)
        if self._row_sums is None:
            self._row_sums = RowSums(tensor_rows=self._given.tensor_rows)
            self._summed = [self._visit.add(hooks.site, self._row_sums) for hooks in self._hooks]

    def _look_again(self, first: Batch, row_sums: RowSums) -> None:
        """Run the first batch again, and refuse β of rows that are no samples."""
        results, reports = self._results, list(self.reports)
        now = state_of(self.model)
        different = changed(self._state, now)
        self.changes = changed(self._state, now, random=False)
        observe, results.observe, results.looking = results.observe, None, True
        try:
            if different:
                text = f"{CHANGED} {different}, so it was not run again"
                self.rows = RowCheck("skipped", text)
            else:
                read = {layer.name for layer in self.layers}
                seen = _by_row(first, row_sums).items()
                values = {key: value for key, value in seen if key[0] in read}
                self.rows = second_look(
                    self.model,
                    self._given or called_batch((), {}),
                    values,
                    self._run_again,
                    lambda: _by_row(self.take(), row_sums),
                )
        finally:
            results.observe, results.looking = observe, False
            results.reports[:] = reports
            self._finished = None
            for visited in self._summed:
                visited.remove()
            self._row_sums = self._given = None
        self._judge(self.rows, first)

    def _run_again(self, part: Samples) -> None:
        """Run the model on a part of its first batch."""
        self._results.tensor_rows = part.tensor_rows
        if self._row_sums is not None:
            self._row_sums.tensor_rows = part.tensor_rows
        self._visit.again(lambda: part.run(self.model))

    def _judge(self, rows: RowCheck, first: Batch) -> None:
        """Raise or warn where the second look has found that rows are no samples."""
        with_beta = {key[0] for key, beta in first.items() if beta.ndim == 2}
        if rows.status == "mixed" and with_beta & set(rows.layers):
            raise ProofError(
                f"β cannot be assigned to samples: {rows.text}; leave the layer out (layers=..., "
                "kinds=...), or move the samples to its first axis"
            )
        if rows.status in ("mixed", "batch"):
            warnings.warn(rows.text, RowWarning, stacklevel=2)

    def _end_first(self) -> None:
        if not self._hooks:
            raise NoLayerError(none_of(self.model, self._kinds))
        self._drop_wrappers()
        active = [hooks for hooks in self._hooks if not hooks.failed]
        if not active and not self.reports:
            raise HookError(
                f"what looked like layers of these kinds cannot be read: {_reasons(self._hooks)}"
            )
        lost = [hooks for hooks in self._hooks if hooks.lost]
        if lost:
            text = f"left out, and in no result: {_reasons(lost)}"
            if self._named:
                raise HookError(text)
            warnings.warn(text, UnusedLayerWarning, stacklevel=2)
        idle = [hooks.layer.name for hooks in active if not hooks.calls]
        if idle:
            few = counted(len(idle), "layer")
            text = f"{few} did not run in the first forward pass: {', '.join(idle)}"
            elsewhere = [h.layer.name for h in active if not h.calls and h.visited.elsewhere]
            if elsewhere:
                text += f" (in another thread, which is not watched: {', '.join(elsewhere)})"
            if self._named:
                raise HookError(f"{text}; leave them out")
            warnings.warn(text, UnusedLayerWarning, stacklevel=2)
        self.unused = idle

    def _drop_wrappers(self) -> None:
        """Drop modules that are gates only because a gate inside them is their last step."""
        gates = [h for h in self._hooks if h.layer.kind == "gate" and not h.failed]
        proved = {hooks.layer.module for hooks in gates if hooks.calls}
        for hooks in gates:
            own = hooks.layer.module
            if any(inner in proved for inner in own.modules() if inner is not own):
                hooks.leave()


def _reasons(layers: Sequence[LayerHooks]) -> str:
    """Name layers that have failed, and why."""
    shown = [f"{h.layer.name!r} ({h.reason or 'a part of another layer'})" for h in layers[:5]]
    more = [f"{len(layers) - 5} more"] if len(layers) > 5 else []
    return "; ".join(shown + more)


def _by_row(batch: Batch, row_sums: RowSums) -> dict[tuple[str, int, str], Tensor]:
    """Return β and the sums of outputs of the last forward pass, (N, ...) each."""
    values = {(*key, "beta"): beta for key, beta in batch.items() if beta.ndim == 2}
    values |= {(*key, "output"): sums for key, sums in row_sums.sums.items()}
    row_sums.sums = {}
    return values
