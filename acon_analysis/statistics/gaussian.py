"""What Gaussian inputs would give: linearity from gain, contrast and offset; logit-normal moments.

For x = std·(z + ν), z standard normal, an ACON layer is, up to the factor m·std,
(z + ν) + ρ·(z + ν)·tanh(κ(z + ν)/2): its linearity depends on the gain κ = |β·d|·std(x), the
contrast ρ = (p1 - p2)/(p1 + p2) and the offset ν = mean(x)/std(x) alone.

Integrals are sums over Gauss-Legendre panels on [-10, 10] that shrink towards z = -ν, where the
gate switches within a width 1/κ. Gauss-Hermite nodes cannot see that width: 64 of them miss V(∞)
by 0.008, and the error only halves when their number doubles.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: L of a ReLU on Gaussian inputs of mean 0: π/(2(π - 1)), the yardstick of every sentence on L.
RELU_L = float(np.pi / (2 * (np.pi - 1)))

#: Values up to which `relu_own` is simulated, and samples that it simulates.
_SIMULATED, _DRAWN = 100, 20_000

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_GRID = np.arange(-10.0, 10.5, 1.0)
_LEVELS = np.array([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 36.0])
_BOTH_SIDES = np.concatenate([-_LEVELS[:0:-1], _LEVELS])
_CHUNK = 2000
_ROUNDING = 16 * float(np.finfo(np.float64).eps)


@lru_cache(maxsize=256)
def relu_own(values: float) -> float:
    """Return L_own of a ReLU whose samples are N independent Gaussian values of mean 0 each.

    A line of its own fits few values well whatever they are: 0.93 of 4 values, 0.75 of 64. Above
    100 values 1 - (1 - L)(1 - 4/N), whose error falls as 1/N²; NaN below 3, where a line is exact.
    """
    count = round(values) if np.isfinite(values) else 0
    if count < 3:
        return float("nan")
    if count > _SIMULATED:
        return 1 - (1 - RELU_L) * (1 - 4 / count)
    x = np.random.default_rng(0).standard_normal((_DRAWN, count))
    y = np.maximum(x, 0.0)
    x, y = (part - part.mean(axis=1, keepdims=True) for part in (x, y))
    sse = (y * y).sum(axis=1) - (x * y).sum(axis=1) ** 2 / (x * x).sum(axis=1)
    return float(1 - sse.mean() / (count * (0.5 - 0.5 / np.pi)))


class GaussianFit(NamedTuple):
    """Prediction for Gaussian inputs; arrays of the broadcast shape of the arguments.

    Attributes
    ----------
    L : ndarray
        Share of the output's variance that the best affine fit explains.
    nonlinearity : ndarray
        1 - L, with its own digits where L is nearly 1.
    slope : ndarray
        Slope of the fit of (z + ν)·tanh(κ(z + ν)/2) on z, so that the layer's fit has the slope
        m·(1 + ρ·slope).
    bump : ndarray
        Mean of (z + ν)·tanh(κ(z + ν)/2).
    """

    L: FloatArray
    nonlinearity: FloatArray
    slope: FloatArray
    bump: FloatArray


def gaussian_fit(kappa: npt.ArrayLike, rho: npt.ArrayLike, nu: npt.ArrayLike = 0.0) -> GaussianFit:
    """Predict the linearity of an ACON layer from (κ, ρ, ν) for Gaussian inputs.

    For ν = 0 this is L = 1/(1 + ρ²·V(κ)), V(κ) = Var[z·tanh(κz/2)]; otherwise the residual of the
    best line is integrated directly, so that 1 - L has no cancellation.

    Parameters
    ----------
    kappa : array_like
        Gain |β·(p1 - p2)|·std(x); 0 to inf.
    rho : array_like
        (p1 - p2)/(p1 + p2) with p1 and p2 named so that β·(p1 - p2) >= 0 (the sign matters only
        where ν is not 0). ±inf where p1 = -p2.
    nu : array_like
        mean(x)/std(x).

    Returns
    -------
    GaussianFit
        κ = 0 or ρ = 0 gives L = 1, and so does an output that vanishes up to rounding, as for
        ReLU with ν << 0 (the convention for dead outputs). NaN in gives NaN out.
    """
    gain, contrast, offset = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (kappa, rho, nu))
    )
    parts = _bump(gain.ravel(), offset.ravel())
    bump, slope, rest = (part.reshape(gain.shape) for part in parts)
    endless = np.isinf(contrast)
    finite = np.where(endless, 1.0, contrast)
    line = np.where(endless, np.sign(contrast) * slope, 1 + finite * slope) ** 2
    bend = finite * finite * rest
    total = line + bend
    floor = _ROUNDING**2 * (1 + finite * finite) * (1 + offset * offset)
    alive = total > floor
    nonlinearity = np.where(alive, bend / np.where(alive, total, 1.0), total * 0)
    return GaussianFit(1 - nonlinearity, nonlinearity, slope, bump)


def bump_variance(kappa: npt.ArrayLike) -> FloatArray:
    """Return V(κ) = Var[z·tanh(κz/2)], z standard normal, for a gain κ from 0 to inf.

    About κ²/2 for small κ, 1 - 2/π for κ = ∞; NaN for NaN.
    """
    gain = np.asarray(kappa, dtype=np.float64)
    *_, rest = _bump(gain.ravel(), np.zeros(gain.size))
    return rest.reshape(gain.shape)


def gaussian_gate(kappa: npt.ArrayLike, nu: npt.ArrayLike = 0.0) -> FloatArray:
    """Return G = 4·Var(σ(κ(z + ν))), in [0, 1], for Gaussian inputs of gain κ and offset ν.

    0 for κ = 0, 4·Φ(ν)Φ(-ν) for κ = ∞; NaN for NaN.
    """
    gain, offset = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (kappa, nu)))
    flat = [_gate_moments(k, o)[1] for k, o in _chunks(gain.ravel(), offset.ravel())]
    return np.concatenate([*flat, np.zeros(0)]).reshape(gain.shape)


def logit_normal_moments(
    bias: npt.ArrayLike, weight: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of σ(b + γ·z), z standard normal.

    The BatchNorm-only null model of β: bn2's bias b and weight γ, which are broadcast, set the
    distribution of the logit over the data. γ = 1, b = 0 gives 0.5 and 0.2083, γ = 0 gives σ(b) and
    0, NaN gives NaN; the sign of γ does not matter.
    """
    shift, scale = np.broadcast_arrays(
        *(np.asarray(a, dtype=np.float64) for a in (bias, np.abs(weight)))
    )
    flat_shift, gain = shift.ravel(), scale.ravel()
    moving = gain > 0
    offset = np.where(moving, flat_shift / np.where(moving, gain, 1.0), 0.0)
    parts = [_gate_moments(k, o) for k, o in _chunks(gain, offset)]
    mean = np.concatenate([*(m for m, _ in parts), np.zeros(0)])
    spread = np.concatenate([*(g for _, g in parts), np.zeros(0)])
    fixed = 0.5 + 0.5 * np.tanh(flat_shift / 2) + gain * 0
    mean = np.where(moving | np.isnan(gain), mean, fixed)
    return mean.reshape(shift.shape), np.sqrt(spread).reshape(shift.shape) / 2


def _bump(gain: FloatArray, offset: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean of e = (z + ν)·tanh(κ(z + ν)/2), and its slope and residual variance on z."""
    means, slopes, rests = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for k, o in _chunks(gain, offset):
        z, weight = _panels(k, o)
        even = (z + o) * _switch(k, z + o)
        mean = (weight * even).sum(-1, keepdims=True)
        slope = (weight * even * z).sum(-1, keepdims=True)
        rest = even - mean - slope * z
        means.append(mean[:, 0])
        slopes.append(slope[:, 0])
        rests.append((weight * rest * rest).sum(-1))
    return np.concatenate(means), np.concatenate(slopes), np.concatenate(rests)


def _gate_moments(gain: FloatArray, offset: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean of σ(κ(z + ν)) and four times its variance, i.e. the variance of tanh(κ(z + ν)/2)."""
    z, weight = _panels(gain, offset)
    switch = _switch(gain, z + offset)
    mean = (weight * switch).sum(-1, keepdims=True)
    spread = (weight * (switch - mean) ** 2).sum(-1)
    return (1 + mean[:, 0]) / 2, spread


def _switch(gain: FloatArray, x: FloatArray) -> FloatArray:
    """tanh(κx/2); the sign of x for infinite κ."""
    steep = np.isinf(gain)
    smooth = np.tanh(np.where(steep, 0.0, gain) * x / 2)
    return np.where(steep, np.sign(x), smooth)


def _panels(gain: FloatArray, offset: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights, (channels, nodes), of integrals against the standard normal."""
    # Panels: a unit grid, and a geometric ladder in units of the gate's width about -ν.
    width = 1 / np.clip(gain, 0.05, None)
    ladder = np.clip(-offset + width * _BOTH_SIDES, -10.0, 10.0)
    grid = np.broadcast_to(_GRID, (len(gain), len(_GRID)))
    edges = np.sort(np.concatenate([grid, ladder], axis=1), axis=1)
    half = np.diff(edges, axis=1)[..., None] / 2
    z = (edges[:, :-1, None] + half) + half * _NODES
    weight = half * _WEIGHTS * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return z.reshape(len(gain), -1), weight.reshape(len(gain), -1)


def _chunks(gain: FloatArray, offset: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
    """Columns of at most `_CHUNK` channels, so that memory stays bounded."""
    return [
        (gain[i : i + _CHUNK, None], offset[i : i + _CHUNK, None])
        for i in range(0, len(gain), _CHUNK)
    ]
