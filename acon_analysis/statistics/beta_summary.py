"""Summaries of β: matrices in, a frame out."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

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
    names: dict[str, Any] = {"layer": beta.layer, "call": beta.call}
    if by == "layer":
        shape = {"channels": beta.values.shape[1], "samples": len(beta.values)}
        return pd.DataFrame([names | shape | _layer_statistics(beta.values)])
    if by == "channel":
        return pd.DataFrame(names | {"channel": beta.channels} | _statistics(beta.values, axis=0))
    return pd.DataFrame(names | {"sample": beta.sample_ids} | _statistics(beta.values, axis=1))


def _layer_statistics(matrix: npt.NDArray[np.floating[Any]]) -> dict[str, float]:
    """Return the statistics of all values of a matrix (N, C), and of its marginal means."""
    values = {key: float(value) for key, value in _statistics(matrix, axis=None).items()}
    empty = matrix.size == 0
    of_samples = np.nan if empty else float(matrix.mean(axis=1, dtype=np.float64).std())
    of_channels = np.nan if empty else float(matrix.mean(axis=0, dtype=np.float64).std())
    head = {"mean": values.pop("mean"), "std": values.pop("std")}
    return head | {"std_samples": of_samples, "std_channels": of_channels} | values


def _statistics(
    matrix: npt.NDArray[np.floating[Any]], axis: int | None
) -> dict[str, npt.NDArray[np.float64]]:
    """Return mean, standard deviation and quantiles along an axis; NaN where it is empty."""
    names = ("mean", "std", "min", "q05", "median", "q95", "max")
    count = matrix.size if axis is None else matrix.shape[axis]
    if count == 0:
        shape = () if axis is None else (matrix.shape[1 - axis],)
        return {name: np.full(shape, np.nan) for name in names}
    low, q05, median, q95, high = np.quantile(matrix, [0, 0.05, 0.5, 0.95, 1], axis=axis)
    mean = matrix.mean(axis=axis, dtype=np.float64)
    spread = matrix.std(axis=axis, dtype=np.float64)
    return dict(zip(names, (mean, spread, low, q05, median, q95, high), strict=True))
