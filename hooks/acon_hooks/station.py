"""The hooks of one layer: watched closely on the first batch, read cheaply afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acon_hooks.errors import ProofError
from acon_hooks.first import Settled, settle
from acon_hooks.guards import autocast_dtype
from acon_hooks.live import Live
from acon_hooks.proof import TOLERANCES, ProofReport
from acon_hooks.reading import fold
from acon_hooks.watch import Watcher

if TYPE_CHECKING:
    from acon_hooks.finding import Layer
    from acon_hooks.tap import Tap


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
        self.watcher: Watcher | None = None
        self.live: Live | None = None
        self._outer: list[RemovableHandle] = []
        self._before: RemovableHandle | None = None
        self._inner: list[RemovableHandle] = []

    def attach(self) -> None:
        """Register the hooks for the first batch."""
        module = self.layer.module
        self._before = module.register_forward_pre_hook(self._pre_hook(), with_kwargs=True)
        after = module.register_forward_hook(
            self._post_hook(), with_kwargs=True, prepend=True, always_call=True
        )
        self._outer = [self._before, after]
        if self.layer.reading is not None and not self.tap.prove:
            self._read_live()
        else:
            self.watcher = Watcher(module, inside=self.layer.kind != "activation")
            self._inner = self.watcher.attach()

    def go_live(self) -> None:
        """Exchange the close watch for the cheap hooks."""
        if self.watcher is None:
            return
        self.watcher.stop()
        self.watcher = None
        self._drop_inner()
        if not self.failed:
            self._read_live()

    def remove(self) -> None:
        """Take every hook away."""
        self.stop()
        for handle in self._outer:
            handle.remove()
        self._outer, self._before = [], None
        self._drop_inner()
        self.watcher = self.live = None

    def stop(self) -> None:
        """Forget a call that did not end."""
        for part in (self.watcher, self.live):
            if part is not None:
                part.stop()

    def _drop_inner(self) -> None:
        for handle in self._inner:
            handle.remove()
        self._inner = []

    def _read_live(self) -> None:
        tap, layer = self.tap, self.layer
        self.live = Live(
            layer,
            tap.owner,
            pooled=tap.pooled,
            keep_input=layer.in_place and tap.observe is not None,
            shared=layer.reading is not None and tap.is_shared(layer, layer.reading.where),
        )
        self._inner = self.live.attach()
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
        target = self.layer.module

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if module is not target or self.failed or not self.tap.mine():
                return
            if output is None:  # the forward raised
                self.stop()
            elif self.watcher is not None:
                self._settle(output)
            elif self.live is not None:
                self._deliver(self.live, args, kwargs, output)
                self.live.stop()

        return after

    def _settle(self, output: Any) -> None:
        tap, watcher = self.tap, self.watcher
        seen = watcher.after() if watcher is not None else None
        if seen is None:
            return
        key = tap.count(self.layer)
        any_input = next(iter(seen.arguments.values()), None)
        if any_input is not None:
            tap.refuse_autocast(autocast_dtype(any_input.device))
        axis = 1 if any_input is None else tap.channel_axis(any_input)
        try:
            settled = settle(self.layer, key[1], seen, output, axis)
        except ProofError as error:
            if not tap.report_failures:
                raise
            self._fail(key[1], str(error))
            return
        self.layer = settled.layer
        if settled.report is not None:
            tap.reports.append(settled.report)
        self._hand_over(key, settled, output)

    def _hand_over(self, key: tuple[str, int], settled: Settled, output: Any) -> None:
        tap, x, beta = self.tap, settled.x, settled.beta
        tap.expect(key, x)
        if beta is not None:
            tap.store(self.layer, key, beta)
            if tap.pooled and self._pools():
                tap.store_pooled(key, fold(x, self.layer.axis).mean(2))
        self._show(key, x, output, beta)

    def _deliver(self, live: Live, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        tap, layer = self.tap, self.layer
        x = live.argument(args, kwargs)
        key = tap.count(layer)
        tap.expect(key, x)
        beta: Tensor | None = None
        if layer.kind != "activation":
            beta = live.folded_beta(x.detach(), args, kwargs)
            tap.store(layer, key, beta)
            if tap.pooled and self._pools():
                means = live.pooled
                if means is None:
                    means = fold(x.detach(), layer.axis).mean(2)
                tap.store_pooled(key, means.reshape(beta.shape[0], -1))
        self._show(key, x, output, beta)

    def _pools(self) -> bool:
        return self.layer.granularity == "channel" and self.layer.kind != "gate"

    def _show(self, key: tuple[str, int], x: Tensor, output: Any, beta: Tensor | None) -> None:
        observe = self.tap.observe
        if observe is None:
            return
        y = output
        if not isinstance(y, Tensor):
            y = next(t for t in output if isinstance(t, Tensor) and t.numel() == x.numel())
        reading = self.layer.reading
        if reading is not None and reading.y_axis != reading.axis:
            y = y.movedim(reading.y_axis, reading.axis)
        observe(self.layer, key[1], x.detach(), y.detach(), beta)

    def _fail(self, call: int, reason: str) -> None:
        """Keep a failed proof as a report; the layer is left alone from here on."""
        self.failed = True
        self.stop()
        layer = self.layer
        self.tap.forget(layer)
        self.tap.reports.append(
            ProofReport(
                layer=layer.name,
                call=call,
                reader="",
                identity="acon",
                error=float("nan"),
                tolerance=TOLERANCES[next(iter(TOLERANCES))],
                dtype="",
                channels=layer.channels or 0,
                power=0.0,
                silent=0,
                status="failed",
                reason=reason,
            )
        )
