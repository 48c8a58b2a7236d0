"""How linear is y as a function of x: the index L of two 1-D arrays."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from acon_analysis.errors import AconError
from acon_analysis.moments.gram import ROUNDINGS
from acon_analysis.screen import counted

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Linearity:
    """How well the best affine fit a·x + b explains y.

    Attributes
    ----------
    L : float
        Share of the variance of y that the fit explains, in [0, 1]: Cxy²/(Cxx·Cyy).
    sse : float
        Sum of squared residuals, in units of y².
    slope, intercept : float
        The fit.
    flags : tuple of str
        Of ``"empty"``, ``"exact_fit"`` (at most two points), ``"constant_input"``, ``"dead"``
        (the output does not vary beyond rounding), ``"one_signed"`` (no x < 0, or no x > 0).
    n : int
        Number of points.
    nonlinearity : float
        1 - L, with its own digits where L is nearly 1.
    """

    L: float
    sse: float
    slope: float
    intercept: float
    flags: tuple[str, ...]
    n: int
    nonlinearity: float


def linearity(x: npt.ArrayLike, y: npt.ArrayLike, *, eps: float | None = None) -> Linearity:
    """Measure how linear y is in x.

    L = Cxy²/(Cxx·Cyy) is the squared Pearson correlation, the coefficient of determination of
    the affine fit. It is computed from the residuals in float64, so that 1 - L keeps its digits
    far below 1e-13.

    Parameters
    ----------
    x, y : array_like
        Real numbers, 1-D, of one length; finite.
    eps : float, optional
        Relative rounding of y; by default that of the coarsest floating dtype given.

    Returns
    -------
    Linearity
        No points: L, slope and intercept NaN, flag empty. One or two points: the line is exact,
        flag exact_fit. Constant x: slope 0, flag constant_input; L = 1 if y is constant too,
        otherwise 0. Dead y (its deviations are below 8 roundings of its root mean square): L = 1,
        flag dead.

    Raises
    ------
    AconError
        Not 1-D, different lengths, not real numbers, NaN or infinity.
    """
    xs, ys, coarse = _checked(x, y)
    if not xs.size:
        return Linearity(np.nan, 0.0, np.nan, np.nan, ("empty",), 0, np.nan)
    xs, x_power = _scaled(xs)
    ys, y_power = _scaled(ys)
    mean_x, dx = _centred(xs)
    mean_y, dy = _centred(ys)
    cxx, cyy = float(dx @ dx), float(dy @ dy)
    tolerance = (ROUNDINGS * (coarse if eps is None else eps)) ** 2
    # float64's own rounding decides whether x is constant: x is given, not computed.
    constant = cxx <= (ROUNDINGS * np.finfo(np.float64).eps) ** 2 * float(xs @ xs)
    dead = cyy <= tolerance * float(ys @ ys)
    slope = 0.0 if constant else float(dx @ dy) / cxx
    rest = dy - slope * dx
    if not constant:  # a second step removes the rounding of the slope
        step = float(dx @ rest) / cxx
        slope, rest = slope + step, rest - step * dx
    sse = min(float(rest @ rest), cyy)
    bend = 0.0 if dead else sse / cyy
    flags = {
        "exact_fit": xs.size <= 2,
        "constant_input": constant,
        "dead": dead,
        "one_signed": bool(xs.min() >= 0 or xs.max() <= 0),
    }
    with np.errstate(over="ignore"):
        slope_y = float(np.ldexp(slope, y_power - x_power))
        intercept = float(np.ldexp(mean_y - slope * mean_x, y_power))
        sse = float(np.ldexp(sse, 2 * y_power))
    raised = tuple(name for name, is_raised in flags.items() if is_raised)
    return Linearity(1 - bend, sse, slope_y, intercept, raised, int(xs.size), bend)


def _checked(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray, float]:
    """Return both as float64 and the rounding of the coarsest floating dtype."""
    given = {"x": np.asarray(x), "y": np.asarray(y)}
    eps = float(np.finfo(np.float64).eps)
    for name, values in given.items():
        if values.ndim != 1:
            raise AconError(
                f"linearity needs 1-D arrays, {name} has shape {values.shape}; "
                f"flatten it with {name}.ravel() or call it once per channel"
            )
        if values.size and values.dtype.kind not in "fiub":
            raise AconError(f"linearity needs real numbers, {name} has dtype {values.dtype}")
        if values.dtype.kind == "f":
            eps = max(eps, float(np.finfo(values.dtype).eps))
    if given["x"].size != given["y"].size:
        raise AconError(
            "linearity needs x and y of one length: "
            f"x has {counted(given['x'].size, 'value')}, y has {given['y'].size}"
        )
    arrays = []
    for name, values in given.items():
        array = values.astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(array))
        if bad.size:
            raise AconError(
                f"linearity needs finite numbers: {name} holds {bad.size} NaN or infinite of "
                f"{counted(array.size, 'value')}, the first at index {bad[0]}"
            )
        arrays.append(array)
    return arrays[0], arrays[1], eps


def _scaled(values: FloatArray) -> tuple[FloatArray, int]:
    """Divide by a power of two (exactly), so that squares neither overflow nor vanish."""
    power = int(np.frexp(np.abs(values).max())[1])
    return np.ldexp(values, -power), power


def _centred(values: FloatArray) -> tuple[float, FloatArray]:
    """Return the mean and the deviations from it, both without the rounding of the mean."""
    mean = float(values.mean())
    deviation = values - mean
    rest = float(deviation.mean())
    return mean + rest, deviation - rest
