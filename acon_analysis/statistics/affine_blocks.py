"""How linear a map of vectors is: the nonlinearity coefficient, and R² of the best affine map.

Both are of a whole map such as a block of a network, not of single channels as L is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from acon_analysis.errors import AconError
from acon_analysis.moments.gram import EPS, EPS32, ROUNDINGS, Gram
from acon_analysis.moments.state import FloatArray

#: Ridges that are tried, relative to the mean variance of the inputs.
RIDGES = (0.0, 1e-6, 1e-4, 1e-2, 1e-1, 1.0)

#: Vectors for each dimension of the input that R² needs at least.
VECTORS_PER_DIMENSION = 5


def ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> tuple[float, float]:
    """Return Σ above / Σ below over independent groups, and its standard error by linearisation."""
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    total, count = float(b.sum()), len(b)
    if not total > 0:
        return np.nan, np.nan
    value = float(a.sum()) / total
    if count < 2:
        return value, np.nan
    spread = float(np.square(a - value * b).sum()) * count / (count - 1)
    return value, float(np.sqrt(spread)) / total


def nonlinearity_coefficient(above: npt.ArrayLike, below: npt.ArrayLike) -> tuple[float, float]:
    """Estimate the nonlinearity coefficient and its standard error from triples of samples.

    NLC² = Σ‖J(x)·(x' - x'')‖² / Σ‖f(x') - f(x'')‖² over triples x, x', x'' of different samples;
    J is the derivative of f (Philipp and Carbonell, arXiv:1806.00179). ``above`` and ``below`` are
    the two terms of every triple, (B, N): N triples each of B batches. The same pairs stand above
    and below, so it is exactly 1 for every affine map. NLC >= 1 holds for Gaussian inputs only: on
    inputs in two clusters far from the bend it is below 1.
    """
    value, influences = _coefficient(above, below)
    return value, _error(influences)


def coefficient_change(before: npt.ArrayLike, after: npt.ArrayLike) -> tuple[float, float]:
    """Return by how much the coefficient changes with the map, and the standard error of that.

    ``before`` and ``after`` are the terms above and below of both maps on the same triples,
    (2, B, N); what the triples have in common cancels.
    """
    (old, olds), (new, news) = (_coefficient(*np.asarray(one)) for one in (before, after))
    return new - old, _error([b - a for a, b in zip(olds, news, strict=True)])


def _coefficient(above: npt.ArrayLike, below: npt.ArrayLike) -> tuple[float, list[FloatArray]]:
    """Return the coefficient, and by how much each column and each batch has moved it."""
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    total = float(b.sum())
    square = float(a.sum()) / total if total > 0 else np.nan
    value = float(np.sqrt(square))
    slope = 1 / (2 * value * total) if value > 0 else 1 / total if total > 0 else np.nan
    return value, [slope * (a.sum(axis) - square * b.sum(axis)) for axis in (0, 1)]


def _error(influences: Sequence[FloatArray]) -> float:
    """Return the larger standard error of those from the columns and from the batches."""
    counts = [len(one) for one in influences]
    spreads = [
        np.sqrt(np.square(one).sum() * n / (n - 1)) if n > 1 else np.nan
        for one, n in zip(influences, counts, strict=True)
    ]
    return float(np.fmax.reduce(spreads))


@dataclass(frozen=True)
class HeldOut:
    """R² of the best affine map, scored on samples that it was not fitted on (not clipped at 0).

    ``low`` and ``high`` are its 95 % interval, by Student's t over the folds. ``without_input`` is
    R² of output minus input, by maps of its own: NaN where the two differ in size, where output
    minus input varies more than the output (there is no shortcut then), and where it varies by no
    more than the rounding of the output to float32. ``ridges`` are those chosen for each fold.
    """

    r2: float
    low: float
    high: float
    without_input: float
    ridges: tuple[float, ...]


def held_out_r2(sums: Gram, inputs: int) -> HeldOut:
    """Score affine maps from the first `inputs` variables to the others on held-out folds.

    Each fold, an entry of sums of shape (K,), is predicted by the ridge regression on all others;
    its ridge is the one that predicts the two folds next to it best, each left out in turn as well.
    NaN for an output that does not vary beyond rounding, for fewer than `VECTORS_PER_DIMENSION`
    vectors for each input, and where the sums are NaN.
    """
    folds, size = len(sums.n), sums.mean.shape[-1]
    if folds < 3 or not 0 < inputs < size:
        raise AconError(
            f"a held-out R² needs three folds, inputs and outputs: given {folds} folds and "
            f"{inputs} inputs of {size} variables"
        )
    whole = sums.merge(0)
    if not _measurable(whole, inputs) or not bool((sums.n > 0).all()):
        return HeldOut(np.nan, np.nan, np.nan, np.nan, ())
    parts = _Folds(sums, whole)
    chosen = _chosen_ridges(sums, parts, inputs)
    errors, totals = np.zeros((2, folds, len(chosen[0])))
    for fold, ridges in enumerate(chosen):
        fit = _AffineFits(parts.without(fold), inputs)
        errors[fold] = [
            own[ridge] for own, ridge in zip(fit.errors(sums[fold]), ridges, strict=True)
        ]
        totals[fold] = fit.spreads(sums[fold])
    lost, error = ratio(errors[:, 0], totals[:, 0])
    width = float(stdtrit(folds - 1, 0.975)) * error
    shortcut = _rounding(whole, inputs) < totals[:, -1].sum() < totals[:, 0].sum()
    without = 1 - ratio(errors[:, -1], totals[:, -1])[0] if shortcut else np.nan
    ridges = tuple(RIDGES[own[0]] for own in chosen)
    return HeldOut(1 - lost, 1 - lost - width, 1 - lost + width, without, ridges)


def _measurable(whole: Gram, inputs: int) -> bool:
    """Return whether there are enough vectors and the outputs vary."""
    own = np.trace(whole.C[inputs:, inputs:])
    enough = bool(whole.n >= VECTORS_PER_DIMENSION * inputs)
    finite = bool(np.isfinite(whole.C).all())
    return enough and finite and bool(own > _rounding(whole, inputs))


def _rounding(whole: Gram, inputs: int) -> float:
    """Return the squares that roundings of the outputs to float32 add up to at most."""
    square = np.trace(whole.C[inputs:, inputs:]) + whole.n * np.square(whole.mean[inputs:]).sum()
    return float((ROUNDINGS * EPS32) ** 2 * square)


def _chosen_ridges(sums: Gram, parts: "_Folds", inputs: int) -> npt.NDArray[np.int64]:
    """Return the ridges that predict the folds next to each best, indices, (folds, targets)."""
    lost: list[Any] = [0.0] * len(sums.n)
    for first in range(len(sums.n)):
        second = (first + 1) % len(sums.n)
        fit = _AffineFits(parts.without(first, second), inputs)
        lost[first] = lost[first] + fit.errors(sums[second])
        lost[second] = lost[second] + fit.errors(sums[first])
    return np.asarray(np.stack(lost).argmin(-1))


class _Folds:
    """Sums of the folds about one origin, so that those of several are only added."""

    def __init__(self, sums: Gram, whole: Gram) -> None:
        self.whole, self.n, self.steps = whole, sums.n, sums.mean - whole.mean
        self.squares = sums.C + self.n[:, None, None] * self.steps[:, :, None] * self.steps[:, None]

    def without(self, *left_out: int) -> Gram:
        """Return the sums of all folds but some."""
        n = self.whole.n - self.n[list(left_out)].sum()
        step = -(self.n[list(left_out)] @ self.steps[list(left_out)]) / n
        C = self.whole.C - n * np.multiply.outer(step, step)
        for fold in left_out:
            C -= self.squares[fold]
        return Gram(n, self.whole.mean + step, C)


class _AffineFits:
    """Ridge regressions on inputs from sums, one for each of `RIDGES` and each target.

    Targets are the outputs and, where sizes agree, output minus input. In the basis of the inputs'
    principal axes a ridge only divides: what it needs of the data is computed once for all.
    """

    def __init__(self, train: Gram, inputs: int) -> None:
        self.train, self.inputs = train, inputs
        values, self.axes = np.linalg.eigh(train.C[:inputs, :inputs])
        self.crosses = self._targets(
            self.axes.T @ train.C[:inputs, inputs:], values[:, None] * self.axes.T
        )
        self.products = [cross @ cross.T for cross in self.crosses]
        ridge = np.multiply(RIDGES, values.mean())[:, None]
        kept = values > EPS * inputs * max(float(values[-1]), 0.0)
        self.divisors = kept / (np.where(kept, values, 1.0) + ridge)

    def errors(self, test: Gram) -> FloatArray:
        """Return the squared errors on other data, (targets, len(RIDGES))."""
        d, divisors = self.inputs, self.divisors
        inner = self.axes.T @ test.C[:d, :d]
        crosses = self._targets(self.axes.T @ test.C[:d, d:], inner)
        inner = inner @ self.axes
        moved = self.axes.T @ (test.mean - self.train.mean)[:d]
        found = []
        for own, step, cross, fitted, products in zip(
            self._within(test), self._steps(test), crosses, self.crosses, self.products, strict=True
        ):
            weights = inner * products
            within = own - 2 * divisors @ (cross * fitted).sum(1)
            within += ((divisors @ weights) * divisors).sum(1)
            missed = step - (divisors * moved) @ fitted
            found.append(within.clip(min=0) + test.n * np.square(missed).sum(1))
        return np.stack(found)

    def spreads(self, test: Gram) -> FloatArray:
        """Return the squared errors of the means of the fitted data on others, (targets,)."""
        missed = [test.n * np.square(step).sum() for step in self._steps(test)]
        return np.add(self._within(test), missed)

    def _within(self, test: Gram) -> list[Any]:
        """Return the sum of squared deviations of each target."""
        d, C = self.inputs, test.C
        y = np.trace(C[d:, d:])
        if len(self.crosses) == 1:
            return [y]
        return [y, y + np.trace(C[:d, :d]) - 2 * np.trace(C[:d, d:])]

    def _steps(self, test: Gram) -> list[FloatArray]:
        """Return by how much the mean of each target differs from that of the fitted data."""
        step = test.mean - self.train.mean
        return self._targets(step[self.inputs :], step[: self.inputs])

    def _targets(self, output: FloatArray, given: FloatArray) -> list[FloatArray]:
        """Return what is of the output, and of output minus input where their sizes agree."""
        return [output, output - given] if output.shape == given.shape else [output]
