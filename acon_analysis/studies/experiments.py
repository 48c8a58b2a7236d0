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
    seeds: Sequence[int] = (0, 1, 2), *, layers: int = 50, width: int = 128, samples: int = 128
) -> pd.DataFrame:
    """Measure mean and variance of activations through dense layers with LeCun's initialisation.

    Input N(0, 1); weights N(0, 1/width), no bias. Every one of `SIGNAL_ACTIVATIONS` sees the same
    input and the same weights of a seed. Returns ``activation``, ``seed``, ``layer`` (0 is the
    input), ``mean``, ``variance`` (over all units and samples). With SELU both stay near 0 and 1
    (Klambauer, Unterthiner, Mayr and Hochreiter, NIPS 2017, arXiv:1706.02515).
    """
    if min(layers, width, samples) < 1 or not seeds:
        raise UsageError("layers, width and samples must be at least 1, and one seed is needed")
    rows: list[tuple[str, int, int, float, float]] = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        start = rng.standard_normal((samples, width))
        states = dict.fromkeys(SIGNAL_ACTIVATIONS, start)
        rows += [(name, seed, 0, float(start.mean()), float(start.var())) for name in states]
        for layer in range(1, layers + 1):
            weights = rng.standard_normal((width, width)) / np.sqrt(width)
            for name, function in SIGNAL_ACTIVATIONS.items():
                state = np.asarray(function(states[name] @ weights))
                states[name] = state
                rows.append((name, seed, layer, float(state.mean()), float(state.var())))
    return pd.DataFrame(rows, columns=["activation", "seed", "layer", "mean", "variance"])


def signal_bands(signals: pd.DataFrame) -> pd.DataFrame:
    """Summarise `signal_through_layers` over its seeds.

    Returns ``activation``, ``layer``, ``quantity`` ("mean" or "variance"), ``middle`` (the median),
    ``low``, ``high`` (least and greatest of the seeds).
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


#: Random starts of a fit.
STARTS = 8


def fit_maxout(
    target: Callable[[FloatArray], Any], pieces: int, *, reach: float = 3.0, points: int = 201
) -> tuple[FloatArray, FloatArray, float]:
    """Learn the linear pieces of a Maxout unit by least squares on a target function.

    From `STARTS` random starts, points (equidistant, from -reach to reach) are given to the piece
    that is greatest there and each piece is fitted to its points, in turn (Magnani and Boyd 2009,
    Optimization and Engineering 10, doi:10.1007/s11081-008-9045-3); the results are polished by
    Levenberg and Marquardt's method. A maximum of lines is convex, so a target that is not stays
    unmatched. Returns slopes and intercepts of the best result, (pieces,) by rising slope, and its
    root mean squared error.
    """
    if pieces < 1 or points < 2 * pieces:
        raise UsageError(
            f"{pieces} pieces, {points} points: at least one piece and two points a piece are "
            "needed"
        )
    x = np.linspace(-reach, reach, points)
    y = np.asarray(target(x), dtype=np.float64)
    rng = np.random.default_rng(0)

    def residual(flat: FloatArray) -> FloatArray:
        return np.asarray(family.maxout(x, flat[:pieces], flat[pieces:])) - y

    best: tuple[float, FloatArray] | None = None
    for _ in range(STARTS):
        found = _alternate(x, y, np.sort(rng.uniform(-reach, reach, pieces - 1)))
        polished = least_squares(residual, found, method="lm" if points > 2 * pieces else "trf").x
        for flat in (found, np.asarray(polished)):
            error = float(np.sqrt(np.mean(residual(flat) ** 2)))
            if best is None or error < best[0]:
                best = error, flat
    assert best is not None
    order = np.argsort(best[1][:pieces], kind="stable")
    return best[1][:pieces][order], best[1][pieces:][order], best[0]


def _alternate(x: FloatArray, y: FloatArray, borders: FloatArray) -> FloatArray:
    """Fit each piece to its own points and give points to the greatest piece, until they stay."""
    pieces = borders.size + 1
    owner = np.searchsorted(borders, x)
    flat = np.zeros(2 * pieces)
    for _ in range(50):
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
    plan: Mapping[str, Sequence[int]] | None = None, *, reach: float = 3.0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit Maxout units to several targets; ``plan``: numbers of pieces by name in `MAXOUT_TARGETS`.

    Returns the curves (``target``, ``pieces``, 0 for the target itself, ``x``, ``y``) and the lines
    (``target``, ``pieces``, ``piece``, ``slope``, ``intercept`` and ``error``, the root mean
    squared error of the whole fit).
    """
    wanted = {"ReLU": (2,), "|x|": (2,), "x²": (2, 5), "tanh": (2, 5)} if plan is None else plan
    x = np.linspace(-reach, reach, 401)
    curves, lines = [], []
    for name, counts in wanted.items():
        target = MAXOUT_TARGETS[name]
        curves.append(pd.DataFrame({"target": name, "pieces": 0, "x": x, "y": target(x)}))
        for count in counts:
            slopes, intercepts, error = fit_maxout(target, count, reach=reach)
            y = family.maxout(x, slopes, intercepts)
            curves.append(pd.DataFrame({"target": name, "pieces": count, "x": x, "y": y}))
            head = {"target": name, "pieces": count, "piece": range(count)}
            fit = {"slope": slopes, "intercept": intercepts, "error": error}
            lines.append(pd.DataFrame(head | fit))
    return pd.concat(curves, ignore_index=True), pd.concat(lines, ignore_index=True)
