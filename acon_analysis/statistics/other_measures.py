"""Other measures of nonlinearity; their pages in the documentation show how each misleads.

They are here to be compared with L and s_c (`statistics.linearity`), not to replace them. All
take data of one layer as matrices (n, C), one row a value (a sample and a position), one column a
channel; no measure sees which values belong to one sample.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.errors import AconError, UsageError
from acon_analysis.moments.gram import ROUNDINGS
from acon_analysis.moments.state import FloatArray
from acon_analysis.screen import counted
from acon_analysis.statistics.affine_fit import linearity

#: Most rows for which the transport between clouds of points is solved exactly: n³ operations.
MAX_POINTS = 2000


def affine_r2(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Measure how much of a layer's output (n, q) one affine map of all its inputs (n, p) explains.

    1 - Σ|residual|²/Σ|y - ȳ|² of the least-squares fit; 1 if y is constant (dead); NaN for n = 0.
    With n <= p + 1 rows the fit is exact and the value 1 says nothing.
    """
    eps = _rounding(x, y)
    xs, ys = _checked(x, y)
    if not len(xs):
        return float("nan")
    dx, dy = _centred(xs), _centred(ys)
    total = float((dy * dy).sum())
    if total <= (ROUNDINGS * eps) ** 2 * float((ys * ys).sum()):
        return 1.0
    fit, *_ = np.linalg.lstsq(dx, dy, rcond=None)
    rest = dy - dx @ fit
    return float(np.clip(1 - (rest * rest).sum() / total, 0, 1))


def affinity_score(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Measure the affinity score of Bouniot et al. between two clouds of points.

    T(x) = ȳ + A(x - x̄), A = Σx^(-1/2)·(Σx^(1/2)·Σy·Σx^(1/2))^(1/2)·Σx^(-1/2), is the optimal
    transport map if both are Gaussian; W2 is the distance between T(X) and Y, by sorting in one
    dimension and by exact assignment in more.

    Parameters
    ----------
    x, y : array_like
        Both (n,) or both (n, p); finite. At most `MAX_POINTS` rows for p > 1.

    Returns
    -------
    float
        1 - W2(T·X, Y)/√(2·tr Σy), in [0, 1]. Y constant: 1 (dead). X constant, Y not: NaN; fewer
        than two rows: NaN.

    References
    ----------
    Bouniot, Redko, Mallasto, Laclau, Struckmeier, Arndt, Heinonen, Kaski, Kyrki: Understanding
    deep neural networks through the lens of their non-linearity, arXiv:2310.11439, section 3.
    """
    eps = _rounding(x, y)
    xs, ys = _checked(x, y)
    if xs.shape != ys.shape:
        raise AconError(f"the affinity score needs equal shapes: x {xs.shape}, y {ys.shape}")
    count, dimension = xs.shape
    if count < 2:
        return float("nan")
    dx, dy = _centred(xs), _centred(ys)
    spread = float((dy * dy).sum() / count)
    tiny = (ROUNDINGS * np.finfo(np.float64).eps) ** 2
    if spread <= (ROUNDINGS * eps) ** 2 * float((ys * ys).sum() / count):
        return 1.0
    if float((dx * dx).sum()) <= tiny * float((xs * xs).sum()):
        return float("nan")
    if dimension == 1:
        moved = np.sort(dx[:, 0]) * np.sqrt(spread / float(dx[:, 0] @ dx[:, 0] / count))
        distance = float(((moved - np.sort(dy[:, 0])) ** 2).mean())
    else:
        if count > MAX_POINTS:
            raise UsageError(
                f"the affinity score of {counted(dimension, 'channel')} together is exact only up "
                f"to {MAX_POINTS} rows, given {count}: take a subset"
            )
        moved = dx @ _transport(dx.T @ dx / count, dy.T @ dy / count)
        cost = ((moved[:, None, :] - dy[None, :, :]) ** 2).sum(-1)
        from scipy.optimize import linear_sum_assignment  # takes a while to load

        rows, columns = linear_sum_assignment(cost)
        distance = float(cost[rows, columns].mean())
    return float(np.clip(1 - np.sqrt(distance / (2 * spread)), 0, 1))


def _transport(source: FloatArray, target: FloatArray) -> FloatArray:
    """Return the symmetric matrix that takes covariance source to target (pseudo-inverse)."""
    root = _root(source)
    inverse = np.linalg.pinv(root, hermitian=True)
    return np.asarray(inverse @ _root(root @ target @ root) @ inverse)


def _root(matrix: FloatArray) -> FloatArray:
    """Return the square root of a symmetric, positive semidefinite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def gate_entropy(positive: npt.ArrayLike) -> FloatArray:
    """Return the entropy of the sign of the gate in bits, of the share of positive inputs.

    0 for one-signed inputs, NaN for NaN.
    """
    share = np.asarray(positive, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(p == 0, 0.0, -p * np.log2(p)) for p in (share, 1 - share)]
    return np.asarray(parts[0] + parts[1])


def gradient_variance(slopes: npt.ArrayLike) -> FloatArray:
    """Return Var f'/(mean f')², the squared coefficient of variation of derivatives at the data.

    Of slopes f'(x), (n,) or (n, C), per channel; 0 for constant slopes, inf for a mean of 0
    otherwise, NaN for n = 0.
    """
    values = np.asarray(slopes, dtype=np.float64)
    if not len(values):
        return np.full(values.shape[1:], np.nan)
    variance, mean = values.var(0), values.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(variance == 0, 0.0, variance / mean**2) + 0 * variance)


def abs_beta(beta: npt.ArrayLike) -> FloatArray:
    """Return the mean of abs(β) over samples, (N, C) to (C,); static β, (C,), stays."""
    values = np.abs(np.asarray(beta, dtype=np.float64))
    if values.ndim == 1:
        return values
    return np.asarray(values.mean(0)) if len(values) else np.full(values.shape[1:], np.nan)


def measure_table(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    slopes: npt.ArrayLike | None = None,
    beta: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Tabulate the measures of every channel of a layer.

    Parameters
    ----------
    x, y : array_like
        Inputs and outputs, shape (n, C), finite.
    slopes : array_like, optional
        Derivatives f'(x) at the inputs, shape (n, C).
    beta : array_like, optional
        Shape (N, C) or (C,).

    Returns
    -------
    DataFrame
        One row a channel: channel, L, s_c, affinity, gate_entropy, gradient_variance, abs_beta;
        NaN where the data for a measure were not given, and for n = 0. Dead channels (see
        `affine_fit.linearity`, by the dtype given) have L = 1 and add nothing to the shares s_c.
    """
    eps = _rounding(x, y)
    xs, ys = _checked(x, y)
    if xs.shape != ys.shape:
        raise AconError(f"x and y need one shape, given {xs.shape} and {ys.shape}")
    count, channels = xs.shape
    blank = np.full(channels, np.nan)
    columns: dict[str, npt.NDArray[Any]] = {"channel": np.arange(channels)}
    if count:
        fits = [linearity(xs[:, c], ys[:, c], eps=eps) for c in range(channels)]
        columns["L"] = np.array([fit.L for fit in fits])
        alive = np.array(["dead" not in fit.flags for fit in fits])
        sse = np.where(alive, [fit.sse for fit in fits], 0.0)
        whole = float((_centred(ys[:, alive]) ** 2).sum())
        columns["s_c"] = sse / whole if whole > 0 else np.zeros(channels)
        pairs = zip(*(np.asarray(v).reshape(count, channels).T for v in (x, y)), strict=True)
        columns["affinity"] = np.array([affinity_score(*pair) for pair in pairs])
        columns["gate_entropy"] = gate_entropy((xs > 0).mean(0))
    else:
        columns |= dict.fromkeys(("L", "s_c", "affinity", "gate_entropy"), blank)
    columns["gradient_variance"] = blank if slopes is None else gradient_variance(slopes)
    columns["abs_beta"] = blank if beta is None else abs_beta(beta)
    return pd.DataFrame(columns)


def _centred(values: FloatArray) -> FloatArray:
    """Subtract the columns' means, and the rounding of the means."""
    deviation = values - values.mean(0)
    return np.asarray(deviation - deviation.mean(0))


def _rounding(*given: npt.ArrayLike) -> float:
    """Return the relative rounding of the coarsest floating dtype given."""
    kinds = [np.asarray(values).dtype for values in given]
    return max(float(np.finfo(k if k.kind == "f" else np.float64).eps) for k in kinds)


def _checked(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both as finite float64 matrices of equal length."""
    arrays = []
    for name, given in {"x": x, "y": y}.items():
        array = np.asarray(given, dtype=np.float64)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise AconError(f"{name} must have shape (n,) or (n, C), given {array.shape}")
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise AconError(f"{name} holds {bad} NaN or infinite of {counted(array.size, 'value')}")
        arrays.append(array)
    if len(arrays[0]) != len(arrays[1]):
        raise AconError(
            f"x and y need equally many rows: x has {len(arrays[0])}, y has {len(arrays[1])}"
        )
    return arrays[0], arrays[1]
