"""Small frames of the kinds that figures take, and every figure drawn from them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from acon_figures import AconFigure, find

LAYERS = ("layer3.5.acon", "layer4.2.acon")


def betas(samples: int = 9, channels: int = 64) -> pd.DataFrame:
    """β per sample, layer and channel; every sample has a level of its own."""
    rng = np.random.default_rng(11)
    parts = []
    for layer in LAYERS:
        for sample in range(samples):
            logit = rng.normal(1.3 * rng.normal(), 0.7, channels)
            values = 1.0 / (1.0 + np.exp(-logit))
            head = {"sample": 100 + sample, "layer": layer, "call": 0}
            parts.append(pd.DataFrame(head | {"channel": range(channels), "beta": values}))
    return pd.concat(parts, ignore_index=True)


def static(channels: int = 64) -> pd.DataFrame:
    """β of a static network; some lie beyond 1."""
    rng = np.random.default_rng(5)
    parts = []
    for layer in LAYERS:
        columns = {"channel": range(channels), "beta": rng.normal(0.8, 0.15, channels)}
        parts.append(pd.DataFrame({"layer": layer, **columns}))
    return pd.concat(parts, ignore_index=True)


def null(channels: int = 64) -> pd.DataFrame:
    """BatchNorm's scale and shift."""
    rng = np.random.default_rng(6)
    parts = []
    for layer in LAYERS:
        weight, bias = rng.normal(1.0, 0.1, channels), rng.normal(0.0, 0.3, channels)
        columns = {"channel": range(channels), "bn_weight": weight, "bn_bias": bias}
        parts.append(pd.DataFrame({"layer": layer, **columns}))
    return pd.concat(parts, ignore_index=True)


FRAMES: dict[str, Callable[[], pd.DataFrame]] = {"frame": betas, "static": static, "null": null}


def draw(name: str, **arguments: Any) -> AconFigure:
    """Draw a registered figure with all frames that it needs or takes."""
    spec = find(name)
    needed = [FRAMES[need]() for need in spec.needs]
    optional = {option: FRAMES[option]() for option in spec.options}
    return spec.function(*needed, **(optional | arguments))
