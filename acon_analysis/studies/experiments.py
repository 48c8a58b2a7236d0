"""Two small experiments in numpy: signals through many layers, and Maxout with learned pieces."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import least_squares

from acon_analysis import family
from acon_analysis.errors import UsageError

FloatArray = npt.NDArray[np.float64]

SIGNAL_ACTIVATIONS: dict[str, Callable[[FloatArray], Any]] = {
    "SELU": family.selu,
    "ELU": family.elu,
    "ReLU": family.relu,
}


def signal_through_layers(
    seeds: Sequence[int] = (0, 1, 2),
    *,
    layers: int = 50,
    width: int = 128,
    samples: int = 128,
    activations: Mapping[str, Callable[[FloatArray], Any]] | None = None,
) -> pd.DataFrame:
    """Measure mean and variance of activations through dense layers with LeCun's initialisation.

    Input N(0, 1); weights N(0, 1/width), no bias. Every activation sees the same input and the
    same weights of a seed.

    Parameters
    ----------
    seeds : sequence of int
        One network each.
    layers, width, samples : int
        Depth, units a layer, and input vectors.
    activations : mapping of str to callable, optional
        By default SELU, ELU and ReLU.

    Returns
    -------
    pandas.DataFrame
        Columns ``activation``, ``seed``, ``layer`` (0 is the input), ``mean``, ``variance`` (over
        all units and samples).

    References
    ----------
    Klambauer, Unterthiner, Mayr and Hochreiter, Self-Normalizing Neural Networks, NIPS 2017,
    arXiv:1706.02515: with SELU both stay near 0 and 1.
    """
    if min(layers, width, samples) < 1 or not seeds:
        raise UsageError("layers, width and samples must be at least 1, and one seed is needed")
    functions = SIGNAL_ACTIVATIONS if activations is None else activations
    rows: list[tuple[str, int, int, float, float]] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        start = rng.standard_normal((samples, width))
        states = dict.fromkeys(functions, start)
        rows += [(name, seed, 0, float(start.mean()), float(start.var())) for name in functions]
        for layer in range(1, layers + 1):
            weights = rng.standard_normal((width, width)) / np.sqrt(width)
            for name, function in functions.items():
                state = np.asarray(function(states[name] @ weights))
                states[name] = state
                rows.append((name, seed, layer, float(state.mean()), float(state.var())))
    return pd.DataFrame(rows, columns=["activation", "seed", "layer", "mean", "variance"])


def signal_bands(signals: pd.DataFrame) -> pd.DataFrame:
    """Summarise `signal_through_layers` over its seeds.

    Returns
    -------
    pandas.DataFrame
        Columns ``activation``, ``layer``, ``quantity`` ("mean" or "variance"), ``middle`` (the
        median), ``low``, ``high`` (least and greatest of the seeds).
    """
    long = signals.melt(["activation", "layer", "seed"], ["mean", "variance"], var_name="quantity")
    groups = long.groupby(["activation", "layer", "quantity"], sort=False)["value"]
    return groups.agg(middle="median", low="min", high="max").reset_index()


MAXOUT_TARGETS: dict[str, Callable[[FloatArray], Any]] = {
    "ReLU": family.relu,
    "|x|": np.abs,
    "x²": np.square,
    "tanh": np.tanh,
}


def fit_maxout(
    target: Callable[[FloatArray], Any],
    pieces: int,
    *,
    reach: float = 3.0,
    points: int = 201,
    starts: int = 8,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray, float]:
    """Learn the linear pieces of a Maxout unit by least squares on a target function.

    From several random starts, points are given to the piece that is greatest there and each
    piece is fitted to its points, in turn; the best result is polished by Levenberg and
    Marquardt's method. A maximum of lines is convex, so a target that is not stays unmatched.

    Parameters
    ----------
    target : callable
        Function of an array.
    pieces : int
        Number of lines.
    reach, points : float, int
        Equidistant points from -reach to reach.
    starts, seed : int
        Random starts.

    Returns
    -------
    slopes, intercepts : numpy.ndarray, shape (pieces,)
        By rising slope.
    error : float
        Root mean squared error.

    References
    ----------
    Magnani and Boyd, Convex piecewise-linear fitting, Optimization and Engineering 10 (2009),
    doi:10.1007/s11081-008-9045-3. Goodfellow et al., Maxout Networks, ICML 2013, arXiv:1302.4389.
    """
    if pieces < 1 or points < 2 * pieces or starts < 1:
        raise UsageError(
            f"{pieces} pieces, {points} points and {starts} starts: at least one piece, two "
            "points a piece and one start are needed"
        )
    x = np.linspace(-reach, reach, points)
    y = np.asarray(target(x), dtype=np.float64)
    rng = np.random.default_rng(seed)

    def residual(flat: FloatArray) -> FloatArray:
        return np.asarray(family.maxout(x, flat[:pieces], flat[pieces:])) - y

    best: tuple[float, FloatArray] | None = None
    for _ in range(starts):
        found = _alternate(x, y, np.sort(rng.uniform(-reach, reach, pieces - 1)))
        polished = least_squares(residual, found, method="lm" if points > 2 * pieces else "trf").x
        for flat in (found, np.asarray(polished)):
            error = float(np.sqrt(np.mean(residual(flat) ** 2)))
            if best is None or error < best[0]:
                best = error, flat
    assert best is not None
    order = np.argsort(best[1][:pieces], kind="stable")
    return best[1][:pieces][order], best[1][pieces:][order], best[0]


def _alternate(x: FloatArray, y: FloatArray, borders: FloatArray, rounds: int = 50) -> FloatArray:
    """Fit each piece to its own points and give points to the greatest piece, until they stay."""
    pieces = borders.size + 1
    owner = np.searchsorted(borders, x)
    flat = np.zeros(2 * pieces)
    for _ in range(rounds):
        for piece in range(pieces):
            mine = owner == piece
            if mine.sum() >= 2:
                slope, intercept = np.polyfit(x[mine], y[mine], 1)
                flat[piece], flat[pieces + piece] = slope, intercept
        lines = x[:, None] * flat[None, :pieces] + flat[None, pieces:]
        now = lines.argmax(axis=1)
        if (now == owner).all():
            break
        owner = now
    return flat


def learned_maxout(
    plan: Mapping[str, Sequence[int]] | None = None, *, reach: float = 3.0, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit Maxout units to several targets.

    Parameters
    ----------
    plan : mapping of str to sequence of int, optional
        Names of `MAXOUT_TARGETS` and numbers of pieces to fit to each.
    reach : float
        Half the interval.
    seed : int
        Of the random starts.

    Returns
    -------
    curves : pandas.DataFrame
        Columns ``target``, ``pieces`` (0 is the target itself), ``x``, ``y``.
    lines : pandas.DataFrame
        Columns ``target``, ``pieces``, ``piece``, ``slope``, ``intercept``, ``error`` (root mean
        squared, of the whole fit).
    """
    wanted = {"ReLU": (2,), "|x|": (2,), "x²": (2, 5), "tanh": (2, 5)} if plan is None else plan
    x = np.linspace(-reach, reach, 401)
    curves, lines = [], []
    for name, counts in wanted.items():
        target = MAXOUT_TARGETS[name]
        curves.append(pd.DataFrame({"target": name, "pieces": 0, "x": x, "y": target(x)}))
        for count in counts:
            slopes, intercepts, error = fit_maxout(target, count, reach=reach, seed=seed)
            y = family.maxout(x, slopes, intercepts)
            curves.append(pd.DataFrame({"target": name, "pieces": count, "x": x, "y": y}))
            head = {"target": name, "pieces": count, "piece": range(count)}
            fit = {"slope": slopes, "intercept": intercepts, "error": error}
            lines.append(pd.DataFrame(head | fit))
    return pd.concat(curves, ignore_index=True), pd.concat(lines, ignore_index=True)
