"""β of one layer as a matrix whose rows and columns are ordered by a clustering."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from acon_analysis.errors import AconError
from acon_analysis.statistics.beta_matrix import BetaMatrix, as_matrix

#: Beyond this many samples a clustering draws some: its memory grows with their square.
MAX_SAMPLES = 1000


@dataclass(frozen=True)
class OrderedBetas:
    """β of one layer in the order of a clustering.

    Attributes
    ----------
    layer : str
        What figures call it.
    values : ndarray
        float64, shape (samples, channels).
    samples, channels : ndarray
        Ids of the rows, channels of the columns, int64.
    """

    layer: str
    values: npt.NDArray[np.float64]
    samples: npt.NDArray[np.int64]
    channels: npt.NDArray[np.int64]


def ordered_betas(
    frame: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    samples: int = MAX_SAMPLES,
    seed: int | np.random.Generator = 0,
    call: int | None = None,
) -> OrderedBetas:
    """Order samples and channels of one layer by clustering their β.

    Ward's linkage on Euclidean distances of β; leaves in scipy's order. Ties and equal data give
    equal orders. Arguments and errors are those of
    `acon_analysis.statistics.beta_matrix.as_matrix`; of more samples than `samples` that number is
    drawn.
    """
    own = as_matrix(frame, layer, call, samples, seed)
    values = own.values.astype(np.float64)
    rows, columns = _order(values), _order(values.T)
    return OrderedBetas(
        own.name, values[np.ix_(rows, columns)], own.sample_ids[rows], own.channels[columns]
    )


def _order(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the order of the rows (R, D) by Ward's linkage, (R,)."""
    if len(values) < 3:
        return np.arange(len(values))
    return np.asarray(leaves_list(linkage(values, method="ward")), dtype=np.int64)


def label_purity(labels: npt.NDArray[np.object_]) -> tuple[float, float]:
    """Return how often neighbours in an order share a label, and how often chance makes them.

    Parameters
    ----------
    labels : ndarray
        Labels in order, shape (N,), N >= 2.

    Returns
    -------
    observed, chance : float
        Share of adjacent pairs with equal labels, and of all pairs.
    """
    if len(labels) < 2:
        raise AconError("neighbours need at least two samples")
    observed = float(np.mean(labels[1:] == labels[:-1]))
    counts = np.unique(labels.astype(str), return_counts=True)[1].astype(np.float64)
    total = float(len(labels))
    return observed, float((counts * (counts - 1)).sum() / (total * (total - 1)))
