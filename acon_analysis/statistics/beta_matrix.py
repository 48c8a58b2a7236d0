"""β of one use of one layer as a matrix, from a run or from a long frame."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError, UsageError
from acon_analysis.screen import counted
from acon_analysis.selection import (
    choose_call,
    choose_layer,
    choose_samples,
    require_columns,
    require_finite,
)

Samples = int | Sequence[int]


@dataclass(frozen=True)
class BetaMatrix:
    """β of one use of one layer, one row a sample.

    Attributes
    ----------
    layer : str
        Exact name in ``named_modules()``.
    call : int
        Which use of the layer within one forward pass, from 0.
    sample_ids : ndarray
        int64, shape (N,).
    values : ndarray
        float32, shape (N, C); what comes from a frame keeps the frame's floating type. To be read
        only.
    channels : ndarray
        Channels of the columns, int64, shape (C,); by default 0 to C - 1.
    name : str
        What figures call the layer, by default ``layer``; see `statistics.sentences.layer_names`.
    """

    layer: str
    call: int
    sample_ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.floating[Any]]
    channels: npt.NDArray[np.int64] = field(default_factory=lambda: np.arange(0))
    name: str = ""

    def __post_init__(self) -> None:
        """Give the channels their numbers, and the layer its name, where there are none."""
        object.__setattr__(self, "name", self.name or self.layer)
        if not len(self.channels):
            object.__setattr__(self, "channels", np.arange(self.values.shape[1]))

    @cached_property
    def sample_means(self) -> npt.NDArray[np.float64]:
        """The mean over the channels of each sample, (N,)."""
        return np.asarray(self.values.mean(1, dtype=np.float64))

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        layer: str | None = None,
        call: int | None = None,
        samples: Samples | None = None,
        seed: int | np.random.Generator = 0,
    ) -> "BetaMatrix":
        """Read β of one layer from a long frame.

        Parameters
        ----------
        frame : pandas.DataFrame
            Columns ``sample``, ``layer``, ``channel``, ``beta`` (and ``call``).
        layer : str, optional
            By default the last layer in the frame's order.
        call : int, optional
            Which use of the layer, by default its last one.
        samples : int or sequence of int, optional
            How many samples to draw, or the samples themselves; by default all, in rising order.
        seed : int or numpy.random.Generator
            Draws the samples.

        Raises
        ------
        UsageError
            For an unknown layer, call or sample.
        AconError
            If the frame is empty or a column is missing, if a β is not finite, or if a sample has
            not exactly one β for every channel.
        """
        require_columns(frame, ("sample", "layer", "channel", "beta"), "the frame of β")
        name = choose_layer(frame, layer)
        own = choose_call(frame[frame["layer"] == name], call)
        chosen = None
        if samples is not None:
            chosen = choose_samples(own["sample"], samples, seed)
            own = own[own["sample"].isin(chosen)]
        require_finite(own, name)
        number = int(own["call"].iloc[0]) if "call" in own.columns else 0
        found = cls(name, number, *_pivoted(own, name))
        return found if chosen is None else found.rows(chosen)

    def rows(self, samples: Sequence[int]) -> "BetaMatrix":
        """Return the rows of some of the samples, in the order given."""
        order = np.argsort(self.sample_ids)
        found = order[np.searchsorted(self.sample_ids, samples, sorter=order)]
        return replace(self, sample_ids=self.sample_ids[found], values=self.values[found])


def as_matrix(
    betas: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    call: int | None = None,
    samples: Samples | None = None,
    seed: int | np.random.Generator = 0,
) -> BetaMatrix:
    """Return finite β of one layer and of chosen samples, from `Run.beta` or from a long frame.

    Frame, arguments and errors are those of `BetaMatrix.from_frame`.
    """
    if not isinstance(betas, BetaMatrix):
        return BetaMatrix.from_frame(betas, layer, call, samples, seed)
    if layer not in (None, betas.layer) or call not in (None, betas.call):
        raise UsageError(
            f"the β are of layer {betas.layer!r}, call {betas.call}; asked for was "
            f"{betas.layer if layer is None else layer!r}, call {call or 0}"
        )
    if not betas.values.size:
        raise AconError(f"there is no β of layer {betas.layer!r} to show")
    if samples is not None:
        betas = betas.rows(choose_samples(betas.sample_ids, samples, seed))
    bad = np.argwhere(~np.isfinite(betas.values))
    if len(bad):
        row, column = bad[0]
        raise AconError(
            f"β is NaN or infinite in {len(bad)} of {counted(betas.values.size, 'value')} of layer "
            f"{betas.layer!r}, first at sample {betas.sample_ids[row]}, channel "
            f"{betas.channels[column]}"
        )
    return betas


def long_frame(
    layer: str, call: int, samples: npt.ArrayLike, values: npt.NDArray[Any], name: str = "beta"
) -> pd.DataFrame:
    """Return values (N, C) as rows: sample, layer, call, channel and the value."""
    count, width = values.shape
    return pd.DataFrame(
        {
            "sample": np.repeat(np.asarray(samples, dtype=np.int64), width),
            "layer": pd.Series(layer, index=range(count * width), dtype="str"),
            "call": np.full(count * width, call, dtype=np.int64),
            "channel": np.tile(np.arange(width, dtype=np.int64), count),
            name: values.reshape(-1),
        }
    )


def _pivoted(
    rows: pd.DataFrame, layer: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.floating[Any]], npt.NDArray[np.int64]]:
    """Return samples (N,), β (N, C) and channels (C,) of a layer's rows."""
    samples, row = np.unique(rows["sample"].to_numpy(dtype=np.int64), return_inverse=True)
    channels, column = np.unique(rows["channel"].to_numpy(dtype=np.int64), return_inverse=True)
    if rows.duplicated(["sample", "channel"]).any():
        raise AconError(f"in layer {layer!r} a sample has several β for one channel")
    if len(rows) != len(samples) * len(channels):
        raise AconError(f"in layer {layer!r} not every sample has a β for every channel")
    beta = rows["beta"].to_numpy()
    dtype = beta.dtype if beta.dtype.kind == "f" else np.float64
    values = np.empty((len(samples), len(channels)), dtype)
    values[row, column] = beta
    return samples, values, channels
