"""R² of affine maps by nested cross-validation on the rows themselves, with scikit-learn."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from acon_analysis.statistics.affine_blocks import RIDGES

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def nested_r2(x: Array, y: Array, folds: Ints, count: int = 5) -> tuple[float, float]:
    """Return R² of y and of y - x, each fold predicted from the others."""

    def lost(y: Array, train: Bools, test: Bools, ridge: float) -> float:
        scale = np.square(x[train] - x[train].mean(0)).sum() / x.shape[1]
        model = Ridge(max(ridge, 1e-13) * scale, solver="svd").fit(x[train], y[train])
        return float(np.square(y[test] - model.predict(x[test])).sum())

    def r2(target: Array) -> float:
        errors, total = 0.0, 0.0
        for outer in range(count):
            train, test = folds != outer, folds == outer
            others = [(outer - 1) % count, (outer + 1) % count]
            inner = [
                sum(lost(target, train & (folds != fold), folds == fold, r) for fold in others)
                for r in RIDGES
            ]
            errors += lost(target, train, test, RIDGES[int(np.argmin(inner))])
            total += float(np.square(target[test] - target[train].mean(0)).sum())
        return 1 - errors / total

    shortcut = x.shape == y.shape and (y - x).var(0).sum() < y.var(0).sum()
    return r2(y), r2(y - x) if shortcut else np.nan
