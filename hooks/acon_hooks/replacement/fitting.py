"""The line, or another form, of every channel, fitted on some images: what plans are made of."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from acon_analysis.errors import UsageError
from acon_analysis.moments.fields import FEWEST_BLOCKS
from acon_analysis.moments.frames import merge_rows
from acon_analysis.statistics.linearity import channel_table
from acon_hooks.captures.identity import model_name, state_sha256
from acon_hooks.engine.feed import Feed, hashes
from acon_hooks.engine.feeding import open_feed
from acon_hooks.engine.inputs import Forward, Mask, input_options
from acon_hooks.engine.plans import fitted
from acon_hooks.engine.rows import Rows
from acon_hooks.errors import NoImagesError
from acon_hooks.guards import full_precision, unwrap
from acon_hooks.layers.reading import fold
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.constants import GATED_KINDS
from acon_hooks.moments.masked import samples_first, valid_positions
from acon_hooks.moments.options import MomentOptions
from acon_hooks.readings.batch import Key
from acon_hooks.readings.layer_tables import channel_table as parameter_table
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.forms import FormSums, degree_of
from acon_hooks.replacement.plan import KEYS, Plan, PlannedLayer, choose_units, make_plan

#: Every kind of layer whose channels can become lines.
LINEARIZABLE = ("meta_acon", "acon", "acon_frelu", "activation")


@dataclass(frozen=True)
class Fit:
    """The line or other form of every channel of a network, and how well it describes the channel.

    Parameters
    ----------
    table : DataFrame
        Columns `columns.LINEARITY_CHANNEL_COLUMNS`, one row a layer, call and channel. Of another
        form than the line slope, intercept, L and s_c are those of `plan.PlannedUnit`, as are the
        further columns form and coefficients.
    layers : tuple of PlannedLayer
        Every use of a layer.
    model, weights_sha256, data, run_id : str
        As for `Plan`.
    seen : frozenset of str
        SHA-256 of the samples of the fit.
    """

    table: pd.DataFrame
    layers: tuple[PlannedLayer, ...]
    model: str
    weights_sha256: str
    data: str
    run_id: str = ""
    seen: frozenset[str] = frozenset()

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
        return self.plan_of(chosen, words)

    def plan_of(self, chosen: pd.DataFrame, words: str) -> Plan:
        """Return the plan of some rows of the table, chosen as words say."""
        return make_plan(
            chosen, self.layers, model=self.model, weights_sha256=self.weights_sha256,
            data=self.data, run_id=self.run_id, chosen_by=words,
        )  # fmt: skip


def fit_units(
    model: nn.Module,
    data: Any,
    *,
    kinds: Sequence[str] = LINEARIZABLE,
    layers: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    run_id: str = "",
    form: str = "line",
    forward: Forward | None = None,
    mask: Mask | None = None,
    sample_axis: int = 0,
    kernel: str = "eager",
) -> Fit:
    """Fit a line, or another form, to every channel of a network's activation layers.

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
        Only the first N images.
    batch_size : int
        Images a forward pass.
    run_id : str
        Written into the plans that are made of the fit.
    form : str
        "line", "relu", "two-piece", "hardswish" or "poly:K"; see
        `acon_hooks.replacement.forms`.
    forward, mask, sample_axis
        How samples enter the network; as for `acon_hooks.captures.capturing.capture`.

    kernel : {"eager", "auto", "compiled"}
        What sums; see `acon_hooks.moments.options.MomentOptions`. The eager one takes the values in
        float64 and is several times slower.

    Returns
    -------
    Fit
        Layers in order of execution. A layer used several times has its own forms at each use.

    Raises
    ------
    UsageError
        If there is no such layer or form, or no image.
    ProofError
        If β of a layer cannot be read.
    HookError
        If no layer can be measured, such as those whose inputs have one axis only.
    """
    network = unwrap(model)
    degree_of(form)
    try:
        options = input_options(network, forward, mask, sample_axis)
        feed = open_feed(data, limit=limit, batch_size=batch_size, options=options)
        forms = None if form == "line" else _Forms(form)
        moments, uses, seen = _summed(network, feed, kinds, layers, kernel, forms)
    except NoImagesError as error:
        raise UsageError(f"there are no images to fit lines on: {error}") from error
    found = {layer.name: layer for layer, _ in uses.values() if layer.kind in GATED_KINDS}
    table = channel_table(moments, parameter_table(list(found.values())))
    return Fit(
        table if forms is None else forms.put_into(table),
        planned_layers(uses),
        model_name(network),
        state_sha256(network),
        str(feed.identity["data"]),
        run_id,
        frozenset(seen),
    )


def planned_layers(uses: dict[Key, tuple[Layer, int]]) -> tuple[PlannedLayer, ...]:
    """Return what a plan must know of uses of layers, given with their number of channels.

    A layer that overwrites its input in one use does so in all: in others it may have written the
    values that were there before. A UsageError for a layer that does not activate its first
    argument, or returns its channels on another axis.
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
    forms: "_Forms | None",
) -> tuple[pd.DataFrame, dict[Key, tuple[Layer, int]], set[str]]:
    """Run the network over all images; return moments, layer and channels of each use, hashes."""
    # A fit has no intervals, so the samples need no blocks of their own.
    sums = Accumulator(MomentOptions(kernel=kernel, blocks=FEWEST_BLOCKS), kinds=kinds)
    uses: dict[Key, tuple[Layer, int]] = {}
    seen: set[str] = set()

    def observe(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        if x.is_floating_point() and kernel == "eager":
            x, y = x.double(), y.double()
        sums.observe(layer, call, x, y, beta)
        if (layer.name, call) in sums.constants:
            uses[layer.name, call] = layer, x.shape[layer.axis]
            if forms is not None:
                forms.observe(sums.tensor_rows, layer, call, x, y)

    with (
        Tap(network, layers, kinds=tuple(kinds), observe=observe) as tap,
        torch.no_grad(),
        full_precision(),
        tqdm(total=feed.count, desc="fit", unit="sample", disable=None) as bar,
    ):
        for batch in feed.batches():
            bar.update(len(batch.ids))
            if batch.ids:
                own = fitted(network, batch)
                seen |= hashes(feed, batch)
                sums.tensor_rows = own.tensor_rows
                tap.run(own)
                sums.batch()
                sums.require_some()
    return merge_rows(sums.frame()), {key: uses[key] for key in sums.constants}, seen


class _Forms:
    """The sums that a form is fitted on, of every use of a layer."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.sums: dict[Key, FormSums] = {}

    def observe(self, rows: Rows, layer: Layer, call: int, x: Tensor, y: Tensor) -> None:
        """Sum one call; samples with NaN or infinity are left out of all channels of the layer."""
        layer, x, y, _ = samples_first(rows, layer, x, y, None)
        valid = valid_positions(rows, layer, x)
        x, y = (fold(value, layer.axis).double() for value in (x, y))  # (N, C, P)
        if valid is not None:
            x, y = (torch.where(valid.unsqueeze(1), value, 0) for value in (x, y))
        finite = (x.isfinite() & y.isfinite()).all(2).all(1)
        kept = finite[:, None].expand(-1, x.shape[2]) & (
            valid if valid is not None else finite[:, None]
        )
        x, y = (value.transpose(1, 2)[kept] for value in (x, y))
        key = layer.name, call
        if key not in self.sums:
            self.sums[key] = FormSums.of(self.form, x)
        self.sums[key].add(x, y)

    def put_into(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table of channels with the forms instead of the lines."""
        own = {key: sums.table() for key, sums in self.sums.items()}
        found = pd.concat(own, names=KEYS)
        lines = table.drop(columns=found.columns.intersection(table.columns))
        table = lines.join(found, on=KEYS)[[*table.columns, "coefficients"]]
        return table.assign(form=self.form)
