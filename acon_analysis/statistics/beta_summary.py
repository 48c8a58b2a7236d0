"""Summaries of a run's β: frames in, frames out."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError, UsageError, closest
from acon_analysis.runs.run import Run

#: What a summary can be by.
BY = ("layer", "channel", "sample")


def summarize(run: Run, by: str = "layer") -> pd.DataFrame:
    """Summarise β by layer, channel or sample.

    Parameters
    ----------
    run : Run
        A captured run with at least one layer that has a β.
    by : str
        ``"layer"``, ``"channel"`` or ``"sample"``.

    Returns
    -------
    pandas.DataFrame
        By layer: ``layer, call, kind, granularity, channels, samples, mean, std, std_samples,
        std_channels, min, q05, median, q95, max`` with the standard deviations over all values,
        of the samples' means, and of the channels' means (all with denominator n; 0 for one
        value). By channel or sample: the same statistics of that channel's or sample's own
        values. β is a pure number; NaN where there is no value at all.

    Raises
    ------
    UsageError
        For an unknown `by`.
    AconError
        If the run holds no β.
    """
    if by not in BY:
        raise UsageError(f"summary by {by!r}: {closest(by, BY)}")
    rows = list(_rows(run, by))
    if not rows:
        kinds = ", ".join(sorted(run.layers["kind"].unique())) or "none"
        raise AconError(
            f"the run {str(run.path)!r} holds no layer with a beta; its layers are of kind: {kinds}"
        )
    return pd.concat(rows, ignore_index=True)


def _rows(run: Run, by: str) -> Iterator[pd.DataFrame]:
    for row in run.layers.to_dict("records"):
        if not row["column"] and row["granularity"] != "static":
            continue
        matrix = run.beta_matrix(row["layer"], row["call"])
        names = {"layer": row["layer"], "call": row["call"]}
        if by == "layer":
            facts = {key: row[key] for key in ("kind", "granularity", "channels")}
            yield pd.DataFrame([names | facts | _layer_statistics(matrix)])
        elif by == "channel":
            index = {"channel": np.arange(matrix.shape[1])}
            yield pd.DataFrame(names | index | _statistics(matrix, axis=0))
        else:
            yield pd.DataFrame(names | {"sample": run.sample_ids} | _statistics(matrix, axis=1))


def _layer_statistics(matrix: npt.NDArray[np.float32]) -> dict[str, float]:
    values = {key: float(value) for key, value in _statistics(matrix, axis=None).items()}
    empty = matrix.size == 0
    of_samples = np.nan if empty else float(matrix.mean(axis=1, dtype=np.float64).std())
    of_channels = np.nan if empty else float(matrix.mean(axis=0, dtype=np.float64).std())
    head = {"samples": len(matrix), "mean": values.pop("mean"), "std": values.pop("std")}
    return head | {"std_samples": of_samples, "std_channels": of_channels} | values


def _statistics(
    matrix: npt.NDArray[np.float32], axis: int | None
) -> dict[str, npt.NDArray[np.float64]]:
    names = ("mean", "std", "min", "q05", "median", "q95", "max")
    count = matrix.size if axis is None else matrix.shape[axis]
    if count == 0:
        shape = () if axis is None else (matrix.shape[1 - axis],)
        return {name: np.full(shape, np.nan) for name in names}
    low, q05, median, q95, high = np.quantile(matrix, [0, 0.05, 0.5, 0.95, 1], axis=axis)
    mean = matrix.mean(axis=axis, dtype=np.float64)
    spread = matrix.std(axis=axis, dtype=np.float64)
    return dict(zip(names, (mean, spread, low, q05, median, q95, high), strict=True))
