"""Inputs in, β out: by hooks on the network, or on a fused copy that is proved against it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_hooks.captures.devices import channels_last, laid_out, wants_channels_last
from acon_hooks.captures.fusing import TOLERANCE, FusedMetaAconC, difference, fuse, same_outputs
from acon_hooks.captures.padding import warn_of_padding
from acon_hooks.census.counting import census_in
from acon_hooks.engine.aliases import same_values
from acon_hooks.engine.feed import Batch as Samples
from acon_hooks.engine.functions import Listener
from acon_hooks.engine.outputs import Output, pick_output
from acon_hooks.engine.sites import Args, Kwargs, Site, SiteCall, Visitor
from acon_hooks.engine.trees import described, leaves
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import HookError, ProofError
from acon_hooks.guards import refuse_other_images, refuse_training
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.constants import GATED_KINDS
from acon_hooks.readings.batch import Batch, Key
from acon_hooks.readings.layer_tables import beta_networks, channel_table, layer_table
from acon_hooks.readings.second_look import RowCheck, with_rowless
from acon_hooks.readings.tap import Tap

Values = dict[Key, Tensor]


@dataclass(frozen=True)
class LayerMetadata:
    """Layer metadata from the first batch, of the network as it was given."""

    # Columns of `columns.LAYER_COLUMNS` and `columns.CHANNEL_COLUMNS`.
    layers: pd.DataFrame
    channels: pd.DataFrame
    # See `layer_tables.beta_networks`.
    beta_networks: dict[str, dict[str, Any]]
    # Whether rows are samples; None where it was not looked at.
    rows: RowCheck | None
    # Columns of `columns.NONLINEARITY_COLUMNS`.
    census: pd.DataFrame


class ForwardPass:
    """Context manager that runs a network on batches and reads β of every layer.

    Every reading is proved by hooks on the network as it was given. A fused copy has to give the
    same outputs (or the tensor `output` of them) and β on the first batch, or nothing is captured.
    `one_pass`: fused layers have their output written and summed in one pass.
    """

    def __init__(
        self,
        model: nn.Module,
        kinds: Sequence[str],
        *,
        fused: bool = False,
        moments: Accumulator | None = None,
        one_pass: bool = True,
        output: Output = None,
    ) -> None:
        self.output, self.one_pass = output, one_pass
        self.model, self.kinds = model, tuple(kinds)
        self.fused, self.moments = fused, moments
        # None before the first batch.
        self.metadata: LayerMetadata | None = None
        # Whether the network overwrites its input: then it is given copies. None before the first
        # batch.
        self.overwrites: bool | None = None
        self._fast = False  # whether batches run in inference mode
        self.channels_last = wants_channels_last(model)
        self._opening: Callable[[], Samples | None] = lambda: None
        self._stack = ExitStack()
        self._tap: Tap | None = None

    def __enter__(self) -> Self:
        refuse_training(self.model)
        self._stack.enter_context(channels_last(self.model, wanted=self.channels_last))
        return self

    def __exit__(self, *exc: object) -> None:
        self._tap = None
        self._stack.close()

    def start(self, batch: Samples, opening: Callable[[], Samples | None]) -> None:
        """Prove the readings on the first batch; hook the network for all that follow."""
        # `opening` returns the first batch of the data set, None where this is it: all processes
        # take the constants of the moments from it, and count its operators.
        if isinstance(batch.inputs, Tensor) and batch.options.plain:
            refuse_other_images(self.model, batch.inputs)
            refuse_unbatched(self.model, batch.inputs)
        if self.moments is not None:
            warn_of_padding(self.model, batch)
        self._opening = opening
        if self.fused:
            self._speed_up(self._laid_out(_only_tensor(batch)), batch)
        else:
            self._tap = self._stack.enter_context(self._observing(self.model))
        if self.moments is not None and self.moments.learning and self._learns_from_data():
            first = opening()
            if first is not None:
                self._tapped(first)
                self.moments.learned(len(first.ids), self._mixed())

    def __call__(self, batch: Samples) -> Values:
        """Run a batch; return β of every layer and call, on the device."""
        values = self._tapped(batch)
        if self.moments is not None:
            self.moments.batch(batch.ids, self._mixed())
        if self.metadata is None and self._tap is not None:
            self.metadata = self._metadata(self._tap, batch)
        return values

    def _metadata(self, tap: Tap, batch: Samples) -> LayerMetadata:
        """Return the tables of the layers that a tap has proved on its first batch."""
        used = _used(tap)
        layers = layer_table(tap.calls, tap.reports, tap.shapes)
        rowless = {} if self.moments is None else self.moments.rowless
        rows = with_rowless(tap.rows, [name for name, _ in rowless])
        # Of the same batch in all processes, so that all would write the same census.
        first = self._opening()
        census = census_in(tap, (batch if first is None else first).map(self._laid_out))
        return LayerMetadata(layers, channel_table(used), beta_networks(used), rows, census)

    def _learns_from_data(self) -> bool:
        """Whether constants of the moments may be means over a batch: those of ACON layers."""
        layers = [] if self._tap is None else self._tap.layers
        return any(layer.kind in GATED_KINDS for layer in layers)

    def _mixed(self) -> tuple[str, ...]:
        """Return the layers whose rows the second look has found to be no samples."""
        rows = self._tap.rows if self.metadata is None and self._tap else None
        rows = self.metadata.rows if self.metadata is not None else rows
        return rows.layers if rows is not None and rows.status == "mixed" else ()

    def _laid_out(self, images: Tensor) -> Tensor:
        """Return inputs in the memory layout of the weights; a copy if they may be overwritten."""
        copy = self.overwrites is not False
        return laid_out(images, channels_last=self.channels_last, copy=copy)

    def _observing(self, model: nn.Module) -> Tap:
        """Return a tap of the layers, with the moments as its observer."""
        own, look = self.moments, self.metadata is None
        if own is None:
            return Tap(model, kinds=self.kinds, check_rows=look)
        return Tap(
            model,
            kinds=self.kinds,
            observe=own.observe,
            observe_input=own.observe_input if own.compiled else None,
            check_rows=look,
        )

    def _tapped(self, batch: Samples) -> Batch:
        """Run the hooked network; return β of every layer and call."""
        if self._tap is None:
            raise RuntimeError("the forward pass was not started")
        own = batch.map(self._laid_out)
        if self.moments is not None:
            self.moments.tensor_rows = own.tensor_rows
        handed = [value for _, value in leaves(own.inputs)]
        versions = list(map(_version, handed))
        first = self.overwrites is None
        without = torch.inference_mode() if self._fast else torch.no_grad()
        with without, self._watching_gradients() if first else nullcontext():
            values = self._tap.run(own)
        if self._tap.changes:  # what it keeps could not be differentiated later
            self._fast = False
        written = list(map(_version, handed)) != versions
        if first:
            given = [value for _, value in leaves(batch.inputs)]
            self.overwrites = written or not all(map(same_values, handed, given))
        elif written and not self.overwrites:
            raise HookError(
                "the network has overwritten its input in this batch, but not in the first one: "
                "let it work on a copy (x = x.clone())"
            )
        return values

    @contextmanager
    def _watching_gradients(self) -> Iterator[None]:
        """Find out on the first batch whether later ones may run in inference mode."""
        # That takes less time, but a network could not differentiate by itself in it.
        differentiates = False

        def listen(function: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
            nonlocal differentiates
            turned_on = function is torch._C._set_grad_enabled and bool(args[0])
            differentiates |= turned_on or function is Tensor.requires_grad_
            return function(*args, **kwargs)

        with Listener(listen):
            yield
        self._fast = not differentiates

    def _speed_up(self, images: Tensor, batch: Samples) -> None:
        """Make a fused copy, compared with the network that it replaces."""
        # No hooks are set while a copy is made, because it would inherit them.
        with Tap(self.model, kinds=self.kinds, check_rows=True) as tap, torch.no_grad():
            output, values = self.model(images.clone()), tap.take()  # which it may overwrite
            self.metadata = self._metadata(tap, batch)
        model = self.model
        given = Proof(model, self.kinds, _used(tap), images, output, values, self.output)
        model = fuse(model, given.layers, images[:1])
        if self.moments is not None and self.one_pass:
            for name, module in model.named_modules():
                if isinstance(module, FusedMetaAconC):
                    module.activate = partial(self.moments.activated, name)
        self._stack.enter_context(channels_last(model, wanted=self.channels_last))
        output, values = read(model, self.kinds, images)
        given.compare("the fused network", output, values)
        self._tap = self._stack.enter_context(self._observing(model))


def _only_tensor(batch: Samples) -> Tensor:
    """Return the only tensor that a network is given; raise UsageError for other inputs."""
    if not isinstance(batch.inputs, Tensor) or not batch.options.plain:
        raise UsageError(
            "fuse is for networks that are given one tensor, without forward=, mask= and "
            f"sample_axis=; these are given {described(batch.inputs)}: leave --fuse out"
        )
    return batch.inputs


class _Unbatched(Visitor):
    """Refuses a batch whose first axis a layer takes for channels, without an axis of samples."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def after(self, call: SiteCall, output: Any) -> None:
        """Compare the input of a layer with the batch."""
        x = next(call.tensors(), self.images[:0])
        if x.ndim == self.images.ndim and len(x) == len(self.images):
            raise UsageError(
                f"data: the batch axis is missing: a batch has the shape {tuple(self.images.shape)}"
                f", which layer {call.site.name!r} ({type(call.site.module).__name__}) takes for a "
                "single sample; give batches of shape (N, ...), a single sample as x.unsqueeze(0)"
            )


def refuse_unbatched(model: nn.Module, images: Tensor) -> None:
    """Raise if the first batch is one sample without a batch axis, which some layers accept."""
    # The model runs only if it has layers that take samples of as many axes as the batch has.
    axes = {nn.Linear: 1, nn.Conv1d: 2, nn.Conv2d: 3, nn.Conv3d: 4}
    sites = [
        Site(name, module, inner=True)
        for name, module in model.named_modules()
        if axes.get(type(module)) == images.ndim
    ]
    if sites:
        with visiting(model, sites, _Unbatched(images)), torch.no_grad():
            model(images.clone())


def read(model: nn.Module, kinds: Sequence[str], images: Tensor) -> tuple[Any, Batch]:
    """Return the output of a network and β of its layers, every reading proved."""
    with Tap(model, kinds=kinds) as tap, torch.no_grad():
        output = model(images.clone())
        return output, tap.take()


def _version(value: Tensor) -> int:
    """Return how often a tensor was written in place; 0 where torch does not count."""
    return 0 if value.is_inference() else value._version


def _used(tap: Tap) -> list[Layer]:
    """Return the layers that ran in the first forward pass."""
    return [layer for layer in tap.layers if layer.name not in tap.unused]


@dataclass(frozen=True)
class Proof:
    """Outputs and β on the first batch, which a fused network has to reproduce."""

    # The network as given, without hooks.
    model: nn.Module
    kinds: tuple[str, ...]
    # As settled.
    layers: Sequence[Layer]
    images: Tensor
    output: Any
    values: Values
    # Which tensor of the output is meant; by default all.
    wanted: Output = None

    def compare(self, name: str, output: Any, values: Values) -> None:
        """Raise a ProofError unless outputs and β agree within `fusing.TOLERANCE`."""
        # Some networks amplify float32's own rounding beyond that (random weights do). They may
        # differ by four times what rounding does to them, if the exchange holds in float64.
        missing = [layer for layer, call in self.values if (layer, call) not in values]
        if missing:
            raise ProofError(f"{name} has lost layer {missing[0]!r}; capture without this option")
        try:
            self._require(name, self.output, self.values, output, values, TOLERANCE)
        except ProofError:
            allowed = 4 * self._rounding(name)
            if allowed <= TOLERANCE:
                raise
            self._require(name, self.output, self.values, output, values, allowed)

    def _require(
        self, name: str, output: Any, values: Values, other: Any, others: Values, allowed: float
    ) -> None:
        """Raise unless outputs and β of a network agree with others."""
        output, other = self._meant(output), self._meant(other)
        same_outputs(f"outputs of {name} and of the network as given", output, other, allowed)
        for key, value in values.items():
            what = f"β of layer {key[0]!r} in {name} and as given"
            same_outputs(what, value, others[key], allowed)

    def _meant(self, output: Any) -> Any:
        """Return the part of an output that is compared."""
        return output if self.wanted is None else pick_output(output, self.wanted)

    def _rounding(self, name: str) -> float:
        """Return what float32's rounding does to the network on some images."""
        # The larger of two: its distance from float64, and how far weights rounded otherwise lead.
        # A fused network has to equal it in float64.
        images = self.images[:4].double()
        exact = copy.deepcopy(self.model).double()
        output, values = read(exact, self.kinds, images)
        fused = fuse(exact, self.layers, images[:1])
        other, others = read(fused, self.kinds, images)
        self._require(name, output, values, other, others, TOLERANCE)
        noisy = read(_with_rounded_weights(exact), self.kinds, images)
        given = read(self.model, self.kinds, self.images[:4])
        return max(
            difference(mine, theirs)
            for other, betas in (noisy, given)
            for mine, theirs in [
                (self._meant(output), self._meant(other)),
                *((values[key], betas[key]) for key in values),
            ]
        )


def _with_rounded_weights(model: nn.Module) -> nn.Module:
    """Return a copy with every weight off by half of float32's last place, up or down."""
    noisy = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in noisy.parameters():
            sign = torch.randint(0, 2, value.shape, generator=generator) * 2 - 1
            value.mul_(1 + sign.to(value) * 2**-24)
    return noisy
