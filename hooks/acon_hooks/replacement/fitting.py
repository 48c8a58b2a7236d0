"""The line of every channel of a network, fitted on some images; the table plans are made of."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_analysis.moments.fields import FEWEST_BLOCKS
from acon_analysis.moments.frames import merge_rows
from acon_analysis.moments.state import FloatArray
from acon_analysis.statistics.linearity import channel_table
from acon_hooks.captures.identity import model_name, state_sha256
from acon_hooks.engine.feed import Feed
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.inputs import Forward, Mask, input_options
from acon_hooks.engine.plans import fitted
from acon_hooks.errors import NoImagesError
from acon_hooks.guards import unwrap
from acon_hooks.layers.reading import fold
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.options import MomentOptions
from acon_hooks.readings.batch import Key
from acon_hooks.readings.layer_tables import channel_table as parameter_table
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.plan import Plan, PlannedLayer, choose_units, make_plan

#: Every kind of layer whose channels can become lines.
LINEARIZABLE = ("meta_acon", "acon", "acon_frelu", "activation")

#: Kinds whose output is m·x + e with the β that is read.
_EXACT = ("meta_acon", "acon")


@dataclass(frozen=True)
class Fit:
    """The line of every channel of a network, and how well it describes the channel.

    Parameters
    ----------
    table : DataFrame
        Columns `columns.LINEARITY_CHANNEL_COLUMNS`, one row a layer, call and channel.
    layers : tuple of PlannedLayer
        Every use of a layer.
    model, weights_sha256, data, run_id : str
        As for `Plan`.
    """

    table: pd.DataFrame
    layers: tuple[PlannedLayer, ...]
    model: str
    weights_sha256: str
    data: str
    run_id: str = ""

    def plan(
        self,
        *,
        budget: int | float | None = None,
        by: str = "s_c",
        within: bool = False,
        layers: Iterable[str] | None = None,
        units: Iterable[Sequence[Any]] | None = None,
    ) -> Plan:
        """Choose channels and write them down; see `plan.choose_units` for the arguments."""
        names = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
        chosen = choose_units(
            self.table, budget=budget, by=by, within=within, layers=names, units=units
        )
        words = "the given units"
        if units is None:
            where = "all layers" if names is None else ", ".join(names)
            words = f"whole layers: {where}"
            if budget is not None:
                scope = "within" if within else "over"
                words = f"budget {budget}, least {by} {scope} {where}"
        return make_plan(
            chosen,
            self.layers,
            model=self.model,
            weights_sha256=self.weights_sha256,
            data=self.data,
            run_id=self.run_id,
            chosen_by=words,
        )


def fit_units(
    model: nn.Module,
    data: Any,
    *,
    kinds: Sequence[str] = LINEARIZABLE,
    layers: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    run_id: str = "",
    forward: Forward | None = None,
    mask: Mask | None = None,
    sample_axis: int = 0,
    kernel: str = "eager",
) -> Fit:
    """Fit a line to every channel of a network's activation layers.

    One pass over the images, moments in float64 (`acon_hooks.moments.accumulating.Accumulator`).

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        Images, or other inputs such as the ids of tokens; see
        `acon_hooks.engine.feeding.open_feed`. Fit on one split, measure on another.
    kinds : sequence of str
        Kinds of layers.
    layers : sequence of str, optional
        Only these layers.
    limit : int, optional
        Only the first so many images.
    batch_size : int
        Images a forward pass.
    run_id : str
        Written into the plans that are made of the fit.
    forward, mask, sample_axis
        How samples enter the network; as for `acon_hooks.captures.capturing.capture`.

    kernel : {"eager", "auto", "compiled"}
        What sums; see `acon_hooks.moments.options.MomentOptions`. The eager one takes the values in
        float64 and is several times slower.

    Returns
    -------
    Fit
        Layers in order of execution. A layer used several times has its own lines at each use.

    Raises
    ------
    UsageError
        If there is no such layer, or no image.
    ProofError
        If β of a layer cannot be read.
    HookError
        If no layer can be measured, such as those whose inputs have one axis only.
    """
    network = unwrap(model)
    try:
        options = input_options(network, forward, mask, sample_axis)
        feed = open_feed(data, limit=limit, batch_size=batch_size, options=options)
        moments, uses = _summed(network, feed, kinds, layers, kernel)
    except NoImagesError as error:
        raise UsageError(f"there are no images to fit lines on: {error}") from error
    found = {layer.name: layer for layer, _ in uses.values()}
    table = channel_table(moments, _parameters(list(found.values())))
    return Fit(
        table,
        planned_layers(uses),
        model_name(network),
        state_sha256(network),
        str(feed.identity["data"]),
        run_id,
    )


def planned_layers(uses: dict[Key, tuple[Layer, int]]) -> tuple[PlannedLayer, ...]:
    """Return what a plan must know of uses of layers, given with their number of channels.

    A layer that overwrites its input in one use does so in all: in others it may have written the
    values that were there before.

    Raises
    ------
    UsageError
        If a layer does not activate its first argument, or returns its channels on another axis.
    """
    for layer, _ in uses.values():
        reading = layer.reading
        if reading is not None and (
            reading.x not in (0, "x", "input") or reading.y_axis != reading.axis
        ):
            raise UsageError(
                f"layer {layer.name!r} activates its argument {reading.x!r}, or moves its "
                "channels; a line takes the first argument and keeps the axes: leave the layer out "
                "with layers=[...]"
            )
    calls = Counter(name for name, _ in uses)
    in_place = {layer.name for layer, _ in uses.values() if layer.in_place}
    return tuple(
        PlannedLayer(name, call, calls[name], channels, layer.axis, layer.kind, name in in_place)
        for (name, call), (layer, channels) in uses.items()
    )


def _summed(
    network: nn.Module,
    feed: Feed,
    kinds: Sequence[str],
    layers: Sequence[str] | None,
    kernel: str,
) -> tuple[pd.DataFrame, dict[Key, tuple[Layer, int]]]:
    """Run the network over all images; return moments, and layer and channels of each use."""
    # A fit has no intervals, so the samples need no blocks of their own.
    sums = Accumulator(MomentOptions(kernel=kernel, blocks=FEWEST_BLOCKS), kinds=kinds)
    uses: dict[Key, tuple[Layer, int]] = {}

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        if x.is_floating_point() and kernel == "eager":
            x, y = x.double(), y.double()
        sums.observe(layer, call, x, y, beta)
        if (layer.name, call) in sums.constants:
            uses[layer.name, call] = layer, x.shape[layer.axis]

    with Tap(network, layers, kinds=tuple(kinds), observe=observe) as tap, torch.no_grad():
        for batch in feed.batches():
            if batch.ids:
                own = fitted(network, batch)
                sums.places = own.places
                tap.run(own)
                sums.batch()
                sums.require_some()
    return merge_rows(sums.frame()), {key: uses[key] for key in sums.constants}


def acon_slopes(layer: Layer) -> tuple[Tensor, Tensor] | None:
    """Return p1 and p2 of a layer of the ACON family, (C,) each; None outside it."""
    if layer.kind in _EXACT and layer.p1 is not None and layer.p2 is not None:
        return layer.p1, layer.p2
    return None


def _parameters(layers: list[Layer]) -> pd.DataFrame:
    """Return p1, p2 and static β of every channel of the ACON family."""
    frame = parameter_table([layer for layer in layers if layer.kind in _EXACT])
    return frame[["layer", "channel", "p1", "p2", "beta"]]


def folded_values(values: Tensor, axis: int) -> FloatArray:
    """Return (N, C, positions), float64."""
    return np.asarray(fold(values.detach(), axis).double().cpu().numpy())
