"""Uncertainty from blocks of samples: delete-one-block jackknife.

Pixels of one image are correlated, images are not; so the unit that is left out is a block of
images, never pixels. Blocks may differ in size: the delete-m jackknife for unequal m of Busing,
Meijer and Van der Leeden (1999, Statistics and Computing 9, 3-8, doi:10.1023/A:1008800423698),
which is the ordinary jackknife where they are equal.

Leaving a block out by subtracting its moments from the total cancels digits; here the blocks
before it and the blocks after it are merged instead.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from acon_analysis.errors import UsageError
from acon_analysis.moments.state import FloatArray, Moments, empty, merge


def leave_one_out(blocks: Moments) -> Iterator[Moments]:
    """Yield, for each of the blocks (B, ...), the state (...) of all others, in order.

    Memory: as much again as the blocks.
    """
    count = blocks.shape[0]
    suffix = [empty(blocks.shape[1:], blocks.groups)]
    for i in range(count - 1, 0, -1):
        suffix.append(merge(blocks.select(i), suffix[-1]))
    prefix = empty(blocks.shape[1:], blocks.groups)
    for i in range(count):
        yield merge(prefix, suffix.pop())
        prefix = merge(prefix, blocks.select(i))


def jackknife_error(
    estimate: FloatArray, without: FloatArray, size: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return standard error and degrees of freedom of estimates.

    With h_j = n/m_j and the pseudo-values T_j = h_j·θ - (h_j - 1)·θ_(-j):
    var = (1/g)·Σ_j (T_j - θ_J)²/(h_j - 1), θ_J = g·θ - Σ_j (1 - 1/h_j)·θ_(-j).

    Parameters
    ----------
    estimate : ndarray
        θ from all data, shape (R,).
    without : ndarray
        θ_(-j) with block j left out, shape (B, R).
    size : ndarray
        Samples m_j in each block, shape (B, R); a block of size 0 does not count.

    Returns
    -------
    error : ndarray
        Standard error, shape (R,); NaN with fewer than two blocks, or where an estimate is NaN.
    freedom : ndarray
        Blocks that count, less one.
    """
    used = size > 0
    count = used.sum(0)
    total = size.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(used, total / np.where(used, size, 1.0), np.inf)
        kept = np.where(used, without, 0.0)
        centre = count * estimate - (np.where(used, 1 - 1 / ratio, 0.0) * kept).sum(0)
        finite = np.where(used, ratio, 2.0)
        pseudo = finite * estimate - (finite - 1) * kept
        terms = np.where(used, (pseudo - centre) ** 2 / (finite - 1), 0.0)
        variance = terms.sum(0) / np.maximum(count, 1)
    error = np.sqrt(np.where(count >= 2, variance, np.nan))
    return error, (count - 1).astype(np.float64)


def symmetric_interval(
    estimate: FloatArray, error: FloatArray, freedom: FloatArray, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return estimate -+ t·error, with Student's t for the degrees of freedom; NaN for NaN."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, given {confidence}")
    width = stdtrit(np.maximum(freedom, 1), 0.5 + confidence / 2) * error
    return estimate - width, estimate + width


def share_interval(
    share: FloatArray, without: FloatArray, size: FloatArray, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return an interval of a share that stays in [0, 1]: the jackknife on the logit scale.

    ``share`` (R,) lies in [0, 1]; ``without`` and ``size`` are those of `jackknife_error`. Where
    the logit is infinite (a share of exactly 0 or 1) or its standard error is above 1 (a share too
    near 0 or 1 for its uncertainty) it is the symmetric interval, clipped to [0, 1]. NaN with fewer
    than two blocks.
    """
    used = size > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        logit = np.log(share) - np.log1p(-share)
        logits = np.log(without) - np.log1p(-without)
        usable = np.isfinite(logit) & np.isfinite(np.where(used, logits, 0.0)).all(0)
        safe = np.where(usable, logit, 0.0)
        error, freedom = jackknife_error(safe, np.where(usable, logits, 0.0), size)
    low, high = symmetric_interval(safe, error, freedom, confidence)
    usable &= ~(error > 1)
    plain_error, _ = jackknife_error(share, without, size)
    plain_low, plain_high = symmetric_interval(share, plain_error, freedom, confidence)
    return (
        np.where(usable, _logistic(low), np.clip(plain_low, 0, 1)),
        np.where(usable, _logistic(high), np.clip(plain_high, 0, 1)),
    )


def _logistic(value: FloatArray) -> npt.NDArray[np.float64]:
    """Return σ(value) with full digits near 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.exp(-np.logaddexp(0.0, -value)))
