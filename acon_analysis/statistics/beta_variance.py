"""Where β varies: between samples, between channels, or both; and how much the label explains."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import betainc

from acon_analysis.errors import AconError
from acon_analysis.screen import counted

FloatArray = npt.NDArray[np.float64]
Seed = int | np.random.Generator

_BATCH = 64
_MANY = 5_000  # samples from which on the permutation distribution is near its limit
_CHUNK = 2**18  # values in float64 at a time: 2 MB


@dataclass(frozen=True)
class VarianceSplit:
    """Two-way split of β[s, c] into samples, channels and remainder.

    Σ(β - β̄)² = C·Σ_s(β̄_s - β̄)² + N·Σ_c(β̄_c - β̄)² + remainder, exactly.

    Attributes
    ----------
    samples, channels : int
        N and C.
    mean : float
        β̄.
    ss_sample, ss_channel, ss_rest, ss_total : float
        Sums of squares.
    ratio : float
        Variance of the samples' means over what independent channels would give them,
        Var_s(β̄_s)·C / mean_c Var_s(β_sc): 1 in expectation without a common effect of samples,
        C if all channels move together. NaN with fewer than two samples, or if β is constant over
        samples.
    """

    samples: int
    channels: int
    mean: float
    ss_sample: float
    ss_channel: float
    ss_rest: float
    ss_total: float
    ratio: float

    @property
    def sample_share(self) -> float:
        """Share of the total sum of squares that whole samples explain; NaN if β is constant."""
        return self.ss_sample / self.ss_total if self.ss_total > 0 else np.nan

    @property
    def channel_share(self) -> float:
        """Share of the total sum of squares that channels explain; NaN if β is constant."""
        return self.ss_channel / self.ss_total if self.ss_total > 0 else np.nan

    @property
    def rest_share(self) -> float:
        """Share that neither explains alone; NaN if β is constant."""
        return self.ss_rest / self.ss_total if self.ss_total > 0 else np.nan

    @property
    def sample_std(self) -> float:
        """Standard deviation of the samples' means."""
        return float(np.sqrt(self.ss_sample / (self.channels * self.samples)))

    @property
    def within_std(self) -> float:
        """Root mean square over channels of the standard deviation over samples."""
        both = self.ss_sample + self.ss_rest
        return float(np.sqrt(both / (self.channels * self.samples)))

    @property
    def expected_sample_std(self) -> float:
        """Standard deviation of the samples' means if channels were independent: σ/√C."""
        return self.within_std / float(np.sqrt(self.channels))


def variance_split(beta: npt.ArrayLike) -> VarianceSplit:
    """Split the variance of β, a finite matrix (N, C), over samples and channels, in float64.

    One sample: ss_sample = ss_rest = 0. Constant β: all sums 0, shares and ratio NaN.
    """
    values = matrix(beta, "β")
    count, channels = values.shape
    rows = max(1, _CHUNK // channels)
    chunks = [slice(i, i + rows) for i in range(0, count, rows)]
    by_channel = (
        sum((values[c].sum(0, dtype=np.float64) for c in chunks), np.zeros(channels)) / count
    )
    mean = float(by_channel.mean())
    by_channel -= mean
    by_sample, ss_rest = np.zeros(count), 0.0
    for chunk in chunks:
        rest = values[chunk].astype(np.float64)
        rest -= mean
        rest -= by_channel
        by_sample[chunk] = rest.mean(1)
        rest -= by_sample[chunk, None]
        ss_rest += float(np.einsum("sc,sc->", rest, rest))
    ss_sample = channels * float(by_sample @ by_sample)
    ss_channel = count * float(by_channel @ by_channel)
    within = ss_sample + ss_rest
    # Rounding of constant data is no variance.
    largest = float(max(values.max(), -values.min()))
    floor = values.size * (8 * np.finfo(np.float64).eps * largest) ** 2
    ss_total = ss_sample + ss_channel + ss_rest
    if ss_total <= floor:
        ss_sample = ss_channel = ss_rest = ss_total = 0.0
    ratio = ss_sample * channels / within if count > 1 and within > floor else np.nan
    return VarianceSplit(
        count, channels, mean, ss_sample, ss_channel, ss_rest, ss_total, float(ratio)
    )


def matrix(values: npt.ArrayLike, name: str) -> npt.NDArray[np.floating[Any]]:
    """Return a finite, non-empty (samples, channels) matrix, or raise an AconError about `name`.

    Floating point keeps its dtype (no copy); anything else becomes float64.
    """
    array = np.asarray(values)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if array.ndim != 2 or not array.size:
        raise AconError(
            f"{name} must be a non-empty matrix (samples, channels), given shape {array.shape}"
        )
    if not np.isfinite(array.sum(dtype=np.float64)):
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            raise AconError(f"{name} holds {bad} NaN or infinite of {counted(array.size, 'value')}")
    return array


@dataclass(frozen=True)
class LabelEffect:
    """How much of a quantity per sample the label explains.

    Attributes
    ----------
    eta2 : float
        Σ_k n_k(v̄_k - v̄)² / Σ(v - v̄)²; NaN with fewer than two classes, no more samples than
        classes, or a constant quantity.
    expected : float
        Its expectation under exchangeable labels, (K - 1)/(N - 1).
    p_value : float
        Permutation test, (1 + #{η²_perm >= η²})/(1 + permutations); of more than 5,000 samples its
        limit, Beta((K - 1)/2, (N - K)/2), whose mean is `expected`.
    classes, samples, unlabelled, permutations : int
        Classes and samples with a label; samples left out for want of one; permutations drawn
        (0: the limit).
    """

    eta2: float
    expected: float
    p_value: float
    classes: int
    samples: int
    unlabelled: int
    permutations: int


def label_effect(
    values: npt.ArrayLike, labels: npt.ArrayLike, *, seed: Seed, permutations: int = 999
) -> LabelEffect:
    """Measure how much of a quantity per sample its label explains (η², permutation test).

    The quantity, finite and of shape (N,), is usually the sample effect β̄_s, the mean of β over a
    layer's channels. Of the labels, (N,), None, NaN and empty strings are left out. The seed is
    that of the permutations; equal seeds give equal results.
    """
    array = np.asarray(values, dtype=np.float64)
    named = pd.Series(np.asarray(labels))
    if array.ndim != 1 or array.shape != named.shape:
        raise AconError(
            f"one label a value: values have shape {array.shape}, labels {np.shape(labels)}"
        )
    if not np.isfinite(array).all():
        raise AconError("the values of the samples hold NaN or infinity")
    known = (named.notna() & (named.astype(str) != "")).to_numpy()
    codes, classes = pd.factorize(named[known])
    v = array[known] - (array[known].mean() if known.any() else 0.0)
    count, groups = len(v), len(classes)
    total = float(v @ v)
    floor = count * (8 * np.finfo(np.float64).eps * np.abs(array).max(initial=0.0)) ** 2
    if groups < 2 or count <= groups or total <= floor:
        return LabelEffect(np.nan, np.nan, np.nan, groups, count, int((~known).sum()), 0)
    observed = float(_between(v[None], codes, groups)[0]) / total
    if count > _MANY:
        permutations = 0
        p_value = float(betainc((count - groups) / 2, (groups - 1) / 2, 1 - observed))
    else:
        p_value = _permuted(v, codes, groups, observed * total, permutations, seed)
    return LabelEffect(
        eta2=observed,
        expected=(groups - 1) / (count - 1),
        p_value=p_value,
        classes=groups,
        samples=count,
        unlabelled=int((~known).sum()),
        permutations=permutations,
    )


def _permuted(
    values: FloatArray,
    codes: npt.NDArray[np.intp],
    groups: int,
    observed: float,
    permutations: int,
    seed: Seed,
) -> float:
    """Return how often permuted values, (N,), have as large a sum of squares between classes."""
    generator = np.random.default_rng(seed)
    limit, larger = observed - 1e-12 * float(values @ values), 0
    for start in range(0, permutations, _BATCH):
        size = (min(_BATCH, permutations - start), len(values))
        shuffled = generator.permuted(np.broadcast_to(values, size), axis=1)
        larger += int((_between(shuffled, codes, groups) >= limit).sum())
    return (1 + larger) / (1 + permutations)


def _between(values: FloatArray, codes: npt.NDArray[np.intp], groups: int) -> FloatArray:
    """Sum of squares between classes of centred values, one a row of (rows, N)."""
    size = np.bincount(codes, minlength=groups)
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(size)[:-1]])
    sums = np.add.reduceat(values[:, order], starts, axis=1)
    return np.asarray((sums * sums / size).sum(1))
