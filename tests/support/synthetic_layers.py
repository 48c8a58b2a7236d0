"""Layers made of numbers: inputs, outputs and moments for tests of the tables."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from acon_analysis.moments.frames import to_frame
from acon_analysis.moments.state import FloatArray, Moments
from moment_oracle import acon_parts, as_samples, by_block, from_samples

Z = stats.norm.ppf((np.arange(4096) + 0.5) / 4096)


@dataclass(frozen=True)
class Layer:
    """Moments and parameters of one synthetic layer."""

    moments: pd.DataFrame
    channels: pd.DataFrame
    state: Moments
    y: FloatArray


def frame_of(state: Moments, name: str, blocks: int) -> pd.DataFrame:
    samples = np.arange(state.shape[0])
    return to_frame(
        by_block(state, samples, blocks),
        layer=name,
        call=0,
        channel=np.arange(state.shape[1]),
        block=np.arange(blocks)[:, None],
    )


def acon_layer(
    x: FloatArray,
    p1: Sequence[float],
    p2: Sequence[float],
    beta: FloatArray | float,
    *,
    reference: float = 0.5,
    name: str = "layer4.2.acon",
    blocks: int = 10,
) -> Layer:
    """x (samples, channels, positions); β (samples, channels) or a number."""
    first, second = np.asarray(p1, dtype=float), np.asarray(p2, dtype=float)
    each = np.broadcast_to(np.asarray(beta, dtype=float), x.shape[:2])
    parts = acon_parts(x, first[:, None], second[:, None], each[..., None], reference)
    state = from_samples(x, parts.output, parts=parts)
    static = float(beta) if np.ndim(beta) == 0 else np.nan
    channels = pd.DataFrame(
        {
            "layer": name,
            "channel": np.arange(len(first)),
            "p1": first,
            "p2": second,
            "beta": static,
            "beta_reference": reference,
        }
    )
    return Layer(frame_of(as_samples(state, each), name, blocks), channels, state, parts.output)


def plain_layer(x: FloatArray, y: FloatArray, name: str = "relu", blocks: int = 10) -> pd.DataFrame:
    return frame_of(as_samples(from_samples(x, y)), name, blocks)


def random_layer(seed: int = 0, samples: int = 40, name: str = "layer4.2.acon") -> Layer:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, 3, 25)) + rng.standard_normal((samples, 3, 1))
    beta = rng.uniform(0.1, 1.5, (samples, 3))
    return acon_layer(x, [1.2, 1, -0.5], [-0.8, 0.25, 1], beta, name=name)
