"""β of one layer as a matrix whose rows and columns are ordered by a clustering."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from acon_analysis.statistics.beta_matrix import BetaMatrix, as_matrix

#: Beyond this many samples a clustering draws some: its memory grows with their square.
MAX_SAMPLES = 1000


def ordered_betas(
    frame: BetaMatrix | pd.DataFrame,
    layer: str | None = None,
    samples: int = MAX_SAMPLES,
    seed: int | np.random.Generator = 0,
    call: int | None = None,
) -> BetaMatrix:
    """Order samples and channels of one layer by clustering their β.

    Ward's linkage on Euclidean distances of β; leaves in scipy's order; values in float64. Ties and
    equal data give equal orders. Arguments and errors are those of
    `acon_analysis.statistics.beta_matrix.as_matrix`; of more samples than `samples` that number is
    drawn.
    """
    own = as_matrix(frame, layer, call, samples, seed)
    values = own.values.astype(np.float64)
    rows, columns = _order(values), _order(values.T)
    return replace(
        own,
        values=values[np.ix_(rows, columns)],
        sample_ids=own.sample_ids[rows],
        channels=own.channels[columns],
    )


def _order(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the order of the rows (R, D) by Ward's linkage, (R,)."""
    if len(values) < 3:
        return np.arange(len(values))
    return np.asarray(leaves_list(linkage(values, method="ward")), dtype=np.int64)


def label_purity(labels: Sequence[str]) -> float:
    """Return how often neighbours in an order of at least two samples share a label."""
    of = np.asarray(labels)
    return float(np.mean(of[1:] == of[:-1]))
