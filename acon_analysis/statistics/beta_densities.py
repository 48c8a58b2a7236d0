"""Densities of the switching factor β: arrays and frames in, tables of curves and bars out.

The figure of β distributions draws these tables and estimates nothing itself, so that figure
and table cannot disagree.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.columns import DENSITY_BAR_COLUMNS, names
from acon_analysis.errors import AconError, UsageError
from acon_analysis.screen import counted
from acon_analysis.selection import choose_layer, require_columns, require_finite
from acon_analysis.statistics.batchnorm_null import logit_normal_pdf
from acon_analysis.statistics.beta_matrix import BetaMatrix, as_matrix

FloatArray = npt.NDArray[np.float64]

MIN_BANDWIDTH = 0.01
"""Smallest kernel width, in units of β: constant input gives a bump of this width."""

MAX_BINS = 50
"""Most bars of a histogram."""

POINTS = 401
"""Points of a curve between 0 and 1."""


@dataclass(frozen=True)
class BetaDensities:
    """What the figure of β distributions draws, as tables.

    Attributes
    ----------
    layer : str
        What figures call the layer whose channels are shown.
    samples : tuple of int
        The samples shown, in the order of the curves.
    curves : pandas.DataFrame
        Columns ``source`` ("sample", "static" or "null"), ``sample`` (Int64, missing unless the
        source is "sample"), ``x`` (value of β) and ``density`` (per unit of β).
    bars : pandas.DataFrame
        Columns ``left``, ``right``, ``count``, ``density``; empty without a static network.
    groups : pandas.DataFrame
        One row a curve of data: ``source``, ``sample``, ``channels``, ``mean``, ``bandwidth``,
        ``reflected`` and ``outside`` (the share of the channels with β outside [0, 1]).
    """

    layer: str
    samples: tuple[int, ...]
    curves: pd.DataFrame
    bars: pd.DataFrame
    groups: pd.DataFrame


def scott_bandwidth(values: npt.ArrayLike) -> float:
    """Return Scott's kernel width ``std · n^(-1/5)``, at least `MIN_BANDWIDTH`.

    Of n >= 1 finite values and in their unit; D. W. Scott, Multivariate Density Estimation, Wiley
    1992, section 6.5, doi:10.1002/9780470316849.
    """
    data = finite_values(values)
    if data.size < 2:
        return MIN_BANDWIDTH
    return float(max(np.std(data, ddof=1) * data.size ** (-0.2), MIN_BANDWIDTH))


def kernel_density(
    values: npt.ArrayLike,
    grid: npt.ArrayLike,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    bandwidth: float | None = None,
) -> FloatArray:
    """Estimate a density with Gaussian kernels, reflected at the bounds.

    With bounds, what a kernel would spill beyond a bound is folded back in (mirror images of the
    values at both ends, as often as the kernel's width asks for), so the density integrates to 1
    between them. Without, it is the ordinary estimate, which spills over.

    Parameters
    ----------
    values : array_like, shape (n,)
        Finite numbers, n >= 1, within the bounds.
    grid : array_like, shape (m,)
        Where to evaluate; outside the bounds the density is 0.
    bounds : tuple of float or None
        Where the values can lie, or None for no reflection.
    bandwidth : float, optional
        Standard deviation of the kernel; by default `scott_bandwidth`.

    Returns
    -------
    numpy.ndarray, shape (m,), float64
        Density per unit of `values`.

    Raises
    ------
    AconError
        For empty or non-finite input, or values outside the bounds.

    References
    ----------
    B. W. Silverman, Density Estimation for Statistics and Data Analysis, Chapman & Hall 1986,
    sections 2.4 and 2.10 (reflection), doi:10.1201/9781315140919.
    """
    data = finite_values(values)
    at = np.asarray(grid, dtype=np.float64)
    width = scott_bandwidth(data) if bandwidth is None else float(bandwidth)
    if not width > 0:
        raise UsageError(f"the bandwidth must be positive; it is {bandwidth!r}")
    if bounds is None:
        return _kernel_sum(data, at, width) / data.size
    low, high = bounds
    if data.min() < low or data.max() > high:
        raise AconError(
            f"values from {data.min():.4g} to {data.max():.4g} leave the bounds [{low}, {high}]; "
            "give bounds=None for a density without reflection"
        )
    period = 2.0 * (high - low)
    turns = int(np.ceil(8.0 * width / period))
    total = np.zeros_like(at)
    for turn in range(-turns, turns + 1):
        total += _kernel_sum(data + turn * period, at, width)
        total += _kernel_sum(2.0 * low - data + turn * period, at, width)
    total[(at < low) | (at > high)] = 0.0
    return total / data.size


def histogram_bars(values: npt.ArrayLike) -> pd.DataFrame:
    """Count finite values, (n,), in equal bins.

    The width is that of Freedman and Diaconis' rule (1981, Zeitschrift für Wahrscheinlichkeits-
    theorie und verwandte Gebiete 57, doi:10.1007/BF01025868), with at most `MAX_BINS`; where half
    of the values are equal there are √n bins, for constant input one of width ``2·MIN_BANDWIDTH``
    around the value. Columns ``left``, ``right``, ``count`` (int64), ``density``
    (count / (n · width)): the area of all bars is 1.
    """
    data = finite_values(values)
    count, ends = np.histogram(data, bins=_edges(data))
    density = count / (data.size * np.diff(ends))
    columns = (ends[:-1], ends[1:], count.astype(np.int64), density)
    return pd.DataFrame(dict(zip(names(DENSITY_BAR_COLUMNS), columns, strict=True)))


def _edges(data: FloatArray) -> FloatArray:
    """Return the ends of the k bins of `histogram_bars`, (k + 1,)."""
    low, high = float(data.min()), float(data.max())
    if high - low < 1e-9:
        return np.array([low - MIN_BANDWIDTH, high + MIN_BANDWIDTH])
    spread = float(np.subtract(*np.percentile(data, [75, 25])))
    width = 2.0 * spread * data.size ** (-1.0 / 3.0)
    bins = np.ceil((high - low) / width) if width > 0 else np.ceil(np.sqrt(data.size))
    return np.linspace(low, high, int(np.clip(bins, 1, MAX_BINS)) + 1)


def beta_densities(
    frame: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    samples: int | Sequence[int] = 7,
    seed: int | np.random.Generator = 0,
    *,
    static: pd.DataFrame | None = None,
    null: pd.DataFrame | None = None,
    as_published: bool = False,
    call: int | None = None,
) -> BetaDensities:
    """Compute the densities of β over the channels of one layer, one curve a sample.

    Parameters
    ----------
    frame, layer, samples, seed, call
        As in `BetaMatrix.from_frame`; ``frame`` may also be a matrix from `Run.beta`.
    static : pandas.DataFrame, optional
        Columns ``layer``, ``channel``, ``beta``: the parameter β of a static ACON network; its
        same layer is compared. Only one layer in it is taken whatever its name.
    null : pandas.DataFrame, optional
        Columns ``layer``, ``channel``, ``bn_weight``, ``bn_bias``: scale and shift of the
        BatchNorm before the sigmoid; adds the curve of `batchnorm_null`.
    as_published : bool
        Ordinary densities that spill beyond 0 and 1, as in the paper's figure. By default they
        are reflected there, unless values lie outside (a static β is any real number).

    Raises
    ------
    UsageError
        For a layer, sample or call that the frame does not hold.
    AconError
        For missing columns, an empty frame, or a β that is not finite.
    """
    picked = as_matrix(frame, layer, call, samples, seed)
    name, chosen = picked.layer, [int(sample) for sample in picked.sample_ids]
    series: list[tuple[str, int | None, FloatArray]] = [
        ("sample", sample, values.astype(np.float64))
        for sample, values in zip(chosen, picked.values, strict=True)
    ]
    bars = pd.DataFrame(columns=names(DENSITY_BAR_COLUMNS), dtype=np.float64)
    if static is not None:
        values = static_betas(static, name)
        bars = histogram_bars(values)
        series.append(("static", None, values))
    everything = np.concatenate([values for _, _, values in series])
    grid = np.union1d(
        np.linspace(0.0, 1.0, POINTS),
        np.linspace(min(0.0, everything.min()), max(1.0, everything.max()), POINTS),
    )
    pieces = [_curve(*one, grid=grid, as_published=as_published) for one in series]
    curves = [curve for curve, _ in pieces]
    if null is not None:
        inside = np.linspace(0.0, 1.0, POINTS)
        density = batchnorm_null(null, name, inside)
        curves.append(_curve_table("null", None, inside, density))
    return BetaDensities(
        layer=picked.name,
        samples=tuple(chosen),
        curves=pd.concat(curves, ignore_index=True),
        bars=bars,
        groups=pd.DataFrame([group for _, group in pieces]).astype({"sample": "Int64"}),
    )


def batchnorm_null(channels: pd.DataFrame, layer: str, grid: npt.ArrayLike) -> FloatArray:
    """Return the density of β (m,) that BatchNorm alone gives, over the channels of a layer.

    In Meta-ACON β = σ(BatchNorm(·)). If the normalised input of every channel were N(0, 1) and
    nothing else, β of channel c would be σ(bias_c + weight_c · N(0, 1)), a logit-normal number;
    the result is the mean of their densities over the channels, per unit of β, at the values of
    ``grid`` (0 at and beyond 0 and 1). A layer without BatchNorm parameters is an AconError.
    """
    require_columns(channels, ("layer", "bn_weight", "bn_bias"), "the frame of channels")
    choose_layer(channels, layer)
    rows = channels[channels["layer"] == layer]
    weight = np.abs(rows["bn_weight"].to_numpy(dtype=np.float64))
    bias = rows["bn_bias"].to_numpy(dtype=np.float64)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise AconError(f"layer {layer!r} has no BatchNorm before its sigmoid, so no null curve")
    # A weight of 0 is a point mass; the smallest width keeps it drawable (σ' is at most 1/4).
    weight = np.maximum(weight, 4.0 * MIN_BANDWIDTH)
    at = np.asarray(grid, dtype=np.float64)
    density: FloatArray = logit_normal_pdf(at[:, None], bias, weight).mean(axis=1)
    return density


def static_betas(static: pd.DataFrame, layer: str) -> FloatArray:
    """Return the static β of one layer's channels, (channels,).

    ``static`` has the columns ``layer``, ``channel``, ``beta``; rows repeated for several samples
    count once. The layer is ignored where there is only one. A channel with two different β, or
    with one that is not finite, is an AconError.
    """
    require_columns(static, ("layer", "channel", "beta"), "the frame of static β")
    names = static["layer"].drop_duplicates()
    name = choose_layer(static, None if len(names) == 1 else layer)
    rows = static.loc[static["layer"] == name, ["channel", "beta"]].drop_duplicates()
    if rows["channel"].duplicated().any():
        raise AconError(
            f"layer {name!r} has several β for one channel, so it is not static: give it as the "
            "first frame"
        )
    require_finite(rows, name)
    return rows["beta"].to_numpy(dtype=np.float64)


def finite_values(values: npt.ArrayLike) -> FloatArray:
    """Return the values as a flat float64 array; empty or non-finite input raises AconError."""
    data = np.asarray(values, dtype=np.float64).ravel()
    if data.size == 0:
        raise AconError("there are no values, so there is no distribution")
    bad = int(np.count_nonzero(~np.isfinite(data)))
    if bad:
        raise AconError(f"NaN or infinity in {bad} of {counted(data.size, 'value')}")
    return data


def _kernel_sum(data: FloatArray, at: FloatArray, width: float) -> FloatArray:
    """Sum Gaussian kernels of data (n,) at abscissae (m,), (m,)."""
    z = (at[:, None] - data[None, :]) / width
    total: FloatArray = np.exp(-0.5 * z * z).sum(axis=1) / (np.sqrt(2.0 * np.pi) * width)
    return total


def _curve(
    source: str, sample: int | None, values: FloatArray, *, grid: FloatArray, as_published: bool
) -> tuple[pd.DataFrame, dict[Hashable, object]]:
    """Return the curve of one group of values (n,), and its row of `groups`."""
    width = scott_bandwidth(values)
    outside = float(np.mean((values < 0.0) | (values > 1.0)))
    reflected = not as_published and outside == 0.0
    if reflected:
        at = grid[(grid >= 0.0) & (grid <= 1.0)]
    else:
        at = np.linspace(values.min() - 3.0 * width, values.max() + 3.0 * width, grid.size)
    bounds = (0.0, 1.0) if reflected else None
    density = kernel_density(values, at, bounds=bounds, bandwidth=width)
    group: dict[Hashable, object] = {
        "source": source,
        "sample": sample,
        "channels": values.size,
        "mean": float(values.mean()),
        "bandwidth": width,
        "reflected": reflected,
        "outside": outside,
    }
    return _curve_table(source, sample, at, density), group


def _curve_table(
    source: str, sample: int | None, at: FloatArray, density: FloatArray
) -> pd.DataFrame:
    """Return a curve as rows of `curves`."""
    ids = pd.array([sample] * len(at), dtype="Int64")
    return pd.DataFrame({"source": source, "sample": ids, "x": at, "density": density})
