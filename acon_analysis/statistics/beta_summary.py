"""Summaries of β: matrices in, a frame out."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.columns import BETA_STATISTIC_COLUMNS, names
from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.statistics.beta_matrix import BetaMatrix

#: What a summary can be by.
BY = ("layer", "channel", "sample")


def summarize(betas: Iterable[BetaMatrix], by: str = "layer") -> pd.DataFrame:
    """Summarise β by layer, channel or sample.

    Parameters
    ----------
    betas : iterable of BetaMatrix
        β of one layer after the other, as `Run.betas_of_layers` yields them.
    by : {"layer", "channel", "sample"}
        What a row is.

    Returns
    -------
    pandas.DataFrame
        By layer: ``layer, call, channels, samples, mean, std, std_samples, std_channels, min,
        q05, median, q95, max`` with the standard deviations over all values, of the samples'
        means, and of the channels' means (all with denominator n; 0 for one value). By channel or
        sample: the same statistics of that channel's or sample's own values. β is a pure number;
        NaN where there is no value at all.

    Raises
    ------
    UsageError
        For an unknown `by`.
    AconError
        If there is no layer.
    """
    if by not in BY:
        raise UsageError(f"summary by {by!r}: {closest(by, BY)}")
    tables = [_table(beta, by) for beta in betas]
    if not tables:
        raise AconError("there is no layer with a β to summarise")
    return pd.concat(tables, ignore_index=True)


def _table(beta: BetaMatrix, by: str) -> pd.DataFrame:
    """Summarise one layer."""
    keys: dict[str, Any] = {"layer": beta.layer, "call": beta.call}
    if by == "layer":
        shape = {"channels": beta.values.shape[1], "samples": len(beta.values)}
        full = beta.values.size > 0
        by_channel = beta.values.mean(0, dtype=np.float64) if full else np.full(1, np.nan)
        by_sample = beta.sample_means if full else by_channel
        means = {"std_samples": [by_sample.std()], "std_channels": [by_channel.std()]}
        found = {name: [value[()]] for name, value in _statistics(beta.values, axis=None).items()}
        values, keys = found | means, keys | shape
    elif by == "channel":
        values, keys = _statistics(beta.values, axis=0), keys | {"channel": beta.channels}
    else:
        values, keys = _statistics(beta.values, axis=1), keys | {"sample": beta.sample_ids}
    ordered = [name for name in names(BETA_STATISTIC_COLUMNS) if name in values]
    return pd.DataFrame(keys | {name: values[name] for name in ordered})


#: Values that are taken in float64 at a time: 8 MB.
_PIECE = 1_000_000


def _statistics(
    matrix: npt.NDArray[np.floating[Any]], axis: int | None
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the statistics along an axis, by the columns' names; NaN where it is empty."""
    count = matrix.size if axis is None else matrix.shape[axis]
    if count == 0:
        shape = () if axis is None else (matrix.shape[1 - axis],)
        own = (name for name in names(BETA_STATISTIC_COLUMNS) if not name.startswith("std_"))
        return {name: np.full(shape, np.nan) for name in own}
    low, q05, median, q95, high = quantiles(matrix, (0, 0.05, 0.5, 0.95, 1), axis)
    mean = matrix.mean(axis=axis, dtype=np.float64)
    return {
        "mean": mean,
        "std": _std(matrix, mean, axis),
        "min": low,
        "q05": q05,
        "median": median,
        "q95": q95,
        "max": high,
    }


def quantiles(
    matrix: npt.NDArray[np.floating[Any]],
    shares: Sequence[float],
    axis: int | None,
    dtype: npt.DTypeLike | None = None,
) -> list[npt.NDArray[np.float64]]:
    """Return quantiles along an axis, as numpy.quantile, which takes three to ten times as long.

    ``dtype`` is that of the interpolation, by default the matrix's.
    """
    ordered = matrix.flatten() if axis is None else np.moveaxis(matrix, axis, -1).copy()
    ordered.sort(axis=-1)
    found = []
    for share in shares:
        place = np.float64(share * (ordered.shape[-1] - 1))
        ends = int(place), int(place) + bool(place % 1)
        below, above = (np.asarray(ordered[..., end], dtype) for end in ends)
        step, part = above - below, place % 1
        found.append(below + step * part if part < 0.5 else above - step * (1 - part))
    return [np.where(np.isnan(ordered[..., -1]), np.nan, values) for values in found]


def _std(
    matrix: npt.NDArray[np.floating[Any]], mean: npt.NDArray[np.float64], axis: int | None
) -> npt.NDArray[np.float64]:
    """Return the standard deviations about given means along an axis, in float64 piece by piece."""
    rows = max(1, _PIECE // matrix.shape[1])
    squares = []
    for start in range(0, len(matrix), rows):
        piece = slice(start, start + rows)
        centred = matrix[piece] - (mean[piece, None] if axis == 1 else mean)
        squares.append(np.square(centred, out=centred).sum(axis))
    whole = np.concatenate(squares) if axis == 1 else np.sum(squares, axis=0)
    count = matrix.size if axis is None else matrix.shape[axis]
    return np.asarray(np.sqrt(whole / count))
