"""What figures show of a run that the run does not store: pictures, inputs, other measures.

Images come from the run's data. The rest is measured anew where that is cheap and sure: the run is
of a network with shipped weights, and its first images are still those that were captured.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.data.image_source import ImageSource
from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError
from acon_analysis.models.registry import build_model
from acon_analysis.plotdata.channels import channel_facts
from acon_analysis.plotdata.sample_extremes import sample_extremes
from acon_analysis.runs.images import images_of
from acon_analysis.runs.run import Run
from acon_hooks.blocks.measuring import block_linearity
from acon_hooks.captures.identity import state_sha256
from acon_hooks.errors import BlockWarning
from acon_hooks.explainers.data import explain_data
from acon_hooks.layers.reading import fold
from acon_hooks.layers.scan import Layer
from acon_hooks.readings.tap import Tap
from acon_hooks.replacement.damage import channel_measures

#: Images for the histograms of inputs, and for the other measures (which hold all values).
INPUT_IMAGES, MEASURE_IMAGES = 500, 100
#: Images for the linearity of blocks.
BLOCK_IMAGES = 320
#: Explained images at either end of β.
EXPLAINED = 2
BATCH = 100
BINS = 60


def figure_sources() -> dict[str, Callable[[Run], Any]]:
    """Return what `acon_figures.drawing.draw` takes as `sources`: run -> frame or None, by name."""
    return {
        "images": images_of,
        "inputs": input_histograms,
        "measures": other_measures,
        "explained": explained,
        "blocks": blocks,
    }


def input_histograms(run: Run) -> pd.DataFrame | None:
    """Count the inputs of the last ACON layer on the run's images: `columns.INPUT_COLUMNS`."""
    again = _again(run, INPUT_IMAGES)
    facts = channel_facts([run]).dropna(subset=["p1", "beta_middle", "min_x"])
    if again is None or facts.empty:
        return None
    model, source = again
    last = facts[["layer", "call"]].iloc[-1]
    own = facts[(facts["layer"] == last["layer"]) & (facts["call"] == last["call"])]
    edges = np.linspace(own["min_x"], own["max_x"], BINS + 1, axis=1)
    counts = np.zeros((len(own), BINS), dtype=np.int64)

    def observe(layer: Layer, call: int, x: Tensor, _y: Tensor, _beta: Tensor | None) -> None:
        if call != last["call"]:
            return
        values = fold(x, layer.axis).double().cpu().transpose(0, 1).flatten(1).numpy()
        for channel, row in enumerate(values):
            inside = np.clip(row, edges[channel, 0], edges[channel, -1])
            counts[channel] += np.histogram(inside, edges[channel])[0]

    with torch.no_grad(), Tap(model, [str(last["layer"])], observe=observe) as tap:
        for start in range(0, len(source), BATCH):
            model(_stack(source, start, min(start + BATCH, len(source))))
            tap.take()
    head = own[["network", "layer", "call", "channel"]]
    table = head.loc[head.index.repeat(BINS)].reset_index(drop=True)
    ends = {"left": edges[:, :-1].ravel(), "right": edges[:, 1:].ravel()}
    numbers: dict[str, Any] = {**ends, "count": counts.ravel(), "images": len(source)}
    # `BINS` rows a channel, from the smallest to the greatest input of the run.
    return pd.DataFrame({**table.to_dict("series"), **numbers})


def other_measures(run: Run) -> pd.DataFrame | None:
    """Return affinity and gradient variance of the last ACON layer, on the first images."""
    again = _again(run, MEASURE_IMAGES)
    own = run.layers[run.layers["kind"].isin(["meta_acon", "acon"])]
    if again is None or own.empty:
        return None
    model, source = again
    table = channel_measures(
        model, _stack(source, 0, len(source)), layers=[str(own["layer"].iloc[-1])],
        kinds=("meta_acon", "acon"),
    )  # fmt: skip
    table.insert(0, "network", run.network)
    return table[["network", "layer", "call", "channel", "affinity", "gradient_variance"]]


def explained(run: Run) -> dict[str, Any] | None:
    """Return the inputs of the figure ``explanation``: β of the channel that switches most."""
    again = _again(run, 1)
    own = run.per_sample_layers
    if again is None or own.empty:
        return None
    facts = channel_facts([run])
    if facts.empty:
        return None
    layer, call = str(own["layer"].iloc[-1]), int(own["call"].iloc[-1])
    data = str(run.identity["data"])
    ends = sample_extremes(facts, run.beta(layer, call), count=EXPLAINED)
    found, labels = explain_data(
        again[0], data, layer, int(ends.facts["channel"]), list(ends.samples["sample"]),
        device="cpu",
    )  # fmt: skip
    arrays = {"images": found.images, "baselines": found.baselines, "maps": found.maps}
    return {**arrays, "frame": found.to_frame(), "labels": labels}


def blocks(run: Run) -> pd.DataFrame | None:
    """Return the run's `columns.BLOCK_COLUMNS`, measured on its first images."""
    again = _again(run, BLOCK_IMAGES)
    if again is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlockWarning)  # the figure shows it
        return block_linearity(*again)


def _again(run: Run, count: int) -> tuple[nn.Module, ImageSource] | None:
    """Return a run's network and its first images, if both are surely what was captured."""
    identity, origin = run.identity, run.manifest.get("origin") or {}
    if origin.get("weights") != "shipped":
        return None
    model = _shipped(run.model)
    if model is None or state_sha256(model) != identity["weights_sha256"]:
        return None
    try:
        source = open_data(str(identity["data"]), download=False)
    except AconError:
        return None
    source = source.head(min(count, len(run.samples)))
    noted = run.samples["sha256"].iloc[: len(source)]
    return (model, source) if list(noted) == list(source.samples["sha256"]) else None


@lru_cache(maxsize=2)
def _shipped(name: str) -> nn.Module | None:
    if ":" in name:  # names code: a file that only says "shipped" must not run it
        return None
    try:
        return build_model(name)
    except AconError:
        return None


def _stack(source: ImageSource, start: int, stop: int) -> Tensor:
    return torch.stack([source[index] for index in range(start, stop)])
