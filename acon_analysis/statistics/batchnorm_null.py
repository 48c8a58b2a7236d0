"""The BatchNorm-only null model of β: the logit-normal of each channel, and how far β is from it.

In the official Meta-ACON, β = σ(bn2(...)): over the data, bn2 gives each channel's logit the mean
b (its bias) and the standard deviation abs(γ) (its weight), whatever its input means. If the logit
is about normal, β is logit-normal with parameters b and γ² (Aitchison and Shen 1980, Biometrika
67(2), doi:10.1093/biomet/67.2.261), in a trained network and in one that learned nothing.

The distance is Kolmogorov and Smirnov's, D, the greatest gap between the measured distribution
function and that of the null. Under the null (√N + 0.12 + 0.11/√N)·D follows Kolmogorov's
distribution, of mean √(π/2)·ln 2, for practical purposes from N = 5 on: Stephens (1970, Journal of
the Royal Statistical Society B 32, 115-122, doi:10.1111/j.2517-6161.1970.tb00821.x). b and γ are
the network's own, not fitted to the data, so no Lilliefors correction is due; but bn2's running
statistics come from the training data, and a test set that differs a little shows as excess, too.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, kolmogorov, logit, ndtr

from acon_analysis.columns import NULL_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.screen import counted
from acon_analysis.statistics.beta_variance import FloatArray, matrix
from acon_analysis.statistics.gaussian import logit_normal_moments

#: Deviation of β from σ(b) that still counts as equal where γ = 0.
_SAME = 1e-5

_MEAN_D = float(np.sqrt(np.pi / 2) * np.log(2))
_CHUNK = 2**18


def logit_normal_cdf(
    beta: npt.ArrayLike, bias: npt.ArrayLike = 0.0, weight: npt.ArrayLike = 1.0
) -> FloatArray:
    """Return the distribution function of σ(b + γ·z), z standard normal: Φ((logit β - b)/abs(γ)).

    Arguments are broadcast. γ = 0: a step at σ(b). NaN gives NaN.
    """
    values, shift, scale = (np.asarray(a, dtype=np.float64) for a in (beta, bias, weight))
    inside = np.where(np.isnan(values), np.nan, np.clip(values, 0.0, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        away = logit(inside) - shift
        z = np.where(scale == 0, np.where(away >= 0, np.inf, -np.inf), away / np.abs(scale))
    z = np.where(np.isnan(inside) | np.isnan(shift), np.nan, z)
    return np.asarray(ndtr(z))


def logit_normal_pdf(
    beta: npt.ArrayLike, bias: npt.ArrayLike = 0.0, weight: npt.ArrayLike = 1.0
) -> FloatArray:
    """Return the density of σ(b + γ·z), z standard normal.

    φ((logit β - b)/abs(γ))/(abs(γ)·β·(1 - β)) within (0, 1), 0 elsewhere; arguments are broadcast.
    γ = 0 has no density: NaN. NaN gives NaN.
    """
    values, shift, scale = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (beta, bias, np.abs(weight)))
    )
    scale = np.where(scale == 0, np.nan, scale)
    inside = (values > 0) & (values < 1)
    safe = np.where(inside, values, 0.5)
    z = (logit(safe) - shift) / scale
    density = np.exp(-z * z / 2) / (np.sqrt(2 * np.pi) * scale * safe * (1 - safe))
    return np.asarray(np.where(inside | np.isnan(density), density, 0.0) + 0 * values)


def expected_distance(count: npt.ArrayLike) -> FloatArray:
    """Return the Kolmogorov-Smirnov distance to expect of n samples of the null, ~0.8687/√n."""
    return np.asarray(_MEAN_D / _effective_root(np.asarray(count, dtype=np.float64)))


def _effective_root(count: FloatArray) -> FloatArray:
    """Stephens's replacement of √n in the limit distribution."""
    root = np.sqrt(count)
    return np.asarray(root + 0.12 + 0.11 / root)


def ks_distance(
    beta: npt.ArrayLike, bias: npt.ArrayLike, weight: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Measure the distance of each channel's β, (N, C), from its logit-normal.

    Returns D, (C,), NaN where bias or weight, (C,), are NaN for want of a BatchNorm; and its
    standard error √(F(1 - F)/N) with the measured F where the distance is found, 0 at the ends.
    γ = 0: D is the share of samples on one side of σ(b), beyond 1e-5.
    """
    values = matrix(beta, "β")
    count, channels = values.shape
    shift, scale = (
        np.broadcast_to(np.asarray(a, dtype=np.float64), channels) for a in (bias, weight)
    )
    distance, error = np.full(channels, np.nan), np.full(channels, np.nan)
    steps = np.arange(count + 1)[:, None] / count
    for part in _parts(values):
        ordered = np.sort(values[:, part].astype(np.float64), axis=0)
        flat = scale[part] == 0
        point = expit(shift[part])
        near = flat & (np.abs(ordered - point) <= _SAME)
        F = logit_normal_cdf(np.where(near, point, ordered), shift[part], scale[part])
        # Only the last of equal values ends a step; the step before begins at the first of them.
        above = np.where(near, 0.0, steps[1:] - F)
        below = np.where(near, 0.0, F - steps[:-1])
        gap = np.maximum(above, below)
        at = gap.argmax(0)
        column = np.arange(gap.shape[1])
        distance[part] = np.where(np.isnan(gap).any(0), np.nan, np.maximum(gap[at, column], 0))
        taken = np.where(above[at, column] >= below[at, column], at + 1, at) / count
        sampling = np.sqrt(taken * (1 - taken) / count) + 0 * distance[part]
        error[part] = np.where(distance[part] == 0, 0.0, sampling)
    return distance, error


def _parts(values: npt.NDArray[Any]) -> list[slice]:
    """Return slices of some channels each of (N, C)."""
    count, channels = values.shape
    width = max(1, _CHUNK // max(count, 1))
    return [slice(start, start + width) for start in range(0, channels, width)]


def null_table(beta: npt.ArrayLike, bias: npt.ArrayLike, weight: npt.ArrayLike) -> pd.DataFrame:
    """Compare the β (N, C) of every channel with the BatchNorm-only null model.

    ``bias`` and ``weight`` are b and γ of the last BatchNorm before β, (C,), NaN where there is
    none: then the null is not defined and its columns are NaN. Returns `columns.NULL_COLUMNS`, one
    row a channel. γ = 0: null_std 0, std_ratio and p_value NaN. One sample: std 0.
    """
    values = matrix(beta, "β")
    count, channels = values.shape
    b, gamma = (np.asarray(a, dtype=np.float64) for a in (bias, weight))
    for name, array in {"bias": b, "weight": gamma}.items():
        if array.shape != (channels,):
            raise AconError(
                f"{name} must have one value a channel: β has {counted(channels, 'channel')}, "
                f"{name} has shape {array.shape}"
            )
    null_mean, null_std = logit_normal_moments(b, gamma)
    null_mean, null_std = null_mean + 0 * gamma, null_std + 0 * b
    std = np.concatenate([values[:, p].std(axis=0, dtype=np.float64) for p in _parts(values)])
    distance, error = ks_distance(values, b, gamma)
    expected = expected_distance(count) + 0 * distance
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(null_std > 0, std / null_std, np.nan)
    p_value = np.where(
        gamma == 0, np.nan, kolmogorov(_effective_root(np.asarray(float(count))) * distance)
    )
    columns = {
        "channel": np.arange(channels),
        "n": np.full(channels, count, dtype=np.int64),
        "mean": values.mean(axis=0, dtype=np.float64),
        "std": std,
        "bn_weight": gamma,
        "bn_bias": b,
        "null_mean": null_mean,
        "null_std": null_std,
        "std_ratio": ratio,
        "ks": distance,
        "ks_error": error,
        "ks_expected": expected,
        "ks_excess": distance - expected,
        "p_value": p_value,
    }
    return pd.DataFrame({name: columns[name] for name in names(NULL_COLUMNS)})
