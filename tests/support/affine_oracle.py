"""R² of affine maps by nested cross-validation on the rows themselves, with scikit-learn."""

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from acon_analysis.statistics.affine_blocks import RIDGES

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def nested_r2(x: Array, y: Array, folds: Ints, count: int = 5) -> tuple[float, float]:
    """Return R² of y and of y - x, each fold predicted from the others."""

    def lost(train: npt.NDArray[np.bool_], test: npt.NDArray[np.bool_], ridge: float) -> float:
        scale = np.square(x[train] - x[train].mean(0)).sum() / x.shape[1]
        model = Ridge(max(ridge, 1e-13) * scale, solver="svd").fit(x[train], y[train])
        return float(np.square(y[test] - model.predict(x[test])).sum())

    errors, total, without = 0.0, 0.0, 0.0
    for outer in range(count):
        train, test = folds != outer, folds == outer
        others = [fold for fold in range(count) if fold != outer]
        inner = [
            sum(lost(train & (folds != fold), folds == fold, ridge) for fold in others)
            for ridge in RIDGES
        ]
        errors += lost(train, test, RIDGES[int(np.argmin(inner))])
        total += float(np.square(y[test] - y[train].mean(0)).sum())
        if x.shape == y.shape:
            rest = y - x
            without += float(np.square(rest[test] - rest[train].mean(0)).sum())
    return 1 - errors / total, 1 - errors / without if without else np.nan
