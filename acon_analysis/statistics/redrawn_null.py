"""The empirical null of β: the same layer on the same inputs with a β network that learned nothing.

fc1 and fc2 are drawn anew, the statistics of both BatchNorms are estimated again on the stored
pooled inputs, and the trained weight and bias of the last BatchNorm are kept. What remains is what
BatchNorm, the inputs' distribution and the rank of fc2 impose without learning. Without a
BatchNorm before β nothing imposes a spread: then the reference is an untrained β network with
weights from its initialisation, and the result says so (``kind="untrained"``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from acon_analysis.errors import AconError, UsageError
from acon_analysis.screen import counted
from acon_analysis.statistics.batchnorm_null import ks_distance
from acon_analysis.statistics.beta_variance import FloatArray, Seed, matrix, variance_split

Init = Literal["uniform", "normal"]

_KS_CHANNELS = 16


@dataclass(frozen=True)
class BetaNetwork:
    """Shape and kept parameters of a β network: pooled -> fc1 -> (bn1) -> (ReLU) -> fc2 -> (bn2).

    Attributes
    ----------
    hidden : int
        Outputs of fc1.
    bn_weight, bn_bias : ndarray or None
        γ and b of the last BatchNorm, shape (C,); None without one.
    inner_norm : bool
        Whether fc1 is followed by a BatchNorm.
    relu : bool
        Whether a ReLU follows (some re-implementations).
    init : {"uniform", "normal"}
        Where fc1 and fc2 come from: PyTorch's default U(-1/√fan_in, 1/√fan_in), biases too, or
        He's N(0, 2/fan_in), biases 0. It hardly matters with BatchNorm, and sets the scale
        without.
    eps : float
        Of the BatchNorms.
    """

    hidden: int
    bn_weight: FloatArray | None = None
    bn_bias: FloatArray | None = None
    inner_norm: bool = True
    relu: bool = False
    init: Init = "uniform"
    eps: float = 1e-5

    @property
    def normalised(self) -> bool:
        """Whether a BatchNorm sets the scale of the logits."""
        return self.bn_weight is not None and self.bn_bias is not None


def redraw_beta(pooled: npt.ArrayLike, network: BetaNetwork, seed: Seed) -> npt.NDArray[np.float32]:
    """Compute β, float32 (N, C), of a network with newly drawn weights on pooled inputs (N, C).

    With a last BatchNorm each logit has mean b and, up to eps, standard deviation abs(γ) over the
    samples. One sample: σ(b).
    """
    return _Redrawing(matrix(pooled, "the table of pooled inputs"), network).beta(
        np.random.default_rng(seed)
    )


class _Redrawing:
    """Draws β networks on the same pooled inputs, (N, C)."""

    def __init__(self, inputs: npt.NDArray[np.floating[Any]], network: BetaNetwork) -> None:
        self.network = network
        self.centre = inputs.mean(0, dtype=np.float64)
        # float32 is enough for statistics; the mean is taken out before digits could cancel.
        self.inputs = (inputs - self.centre).astype(np.float32)

    def beta(self, generator: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return β of a network with new weights, (N, C)."""
        network, channels = self.network, self.inputs.shape[1]
        weight, bias = _drawn(channels, network.hidden, network.init, generator)
        hidden = (self.inputs @ weight.astype(np.float32)).astype(np.float64)
        if network.inner_norm:
            hidden -= hidden.mean(0)
            hidden /= np.sqrt((hidden * hidden).mean(0) + network.eps)
        else:
            hidden += self.centre @ weight + bias
        if network.relu:
            np.maximum(hidden, 0.0, out=hidden)
        weight, bias = _drawn(network.hidden, channels, network.init, generator)
        if network.bn_weight is not None and network.bn_bias is not None:
            weight, bias = _folded(hidden, weight, network.bn_weight, network.bn_bias, network.eps)
        middle = hidden.mean(0)
        logits = (hidden - middle).astype(np.float32) @ weight.astype(np.float32)
        logits += (middle @ weight + bias).astype(np.float32)
        logits *= np.float32(0.5)
        beta = np.tanh(logits, out=logits)
        beta *= np.float32(0.5)
        beta += np.float32(0.5)
        return np.asarray(beta)


def _drawn(
    fan_in: int, outputs: int, init: Init, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Weight (fan_in, outputs) and bias (outputs,) of a linear layer at initialisation."""
    if init == "uniform":
        bound = 1 / np.sqrt(fan_in)
        weight = generator.uniform(-bound, bound, (fan_in, outputs))
        return weight, generator.uniform(-bound, bound, outputs)
    if init == "normal":
        return generator.normal(0, np.sqrt(2 / fan_in), (fan_in, outputs)), np.zeros(outputs)
    raise UsageError(f"init must be 'uniform' or 'normal', given {init!r}")


def _folded(
    inputs: FloatArray, weight: FloatArray, gamma: FloatArray, shift: FloatArray, eps: float
) -> tuple[FloatArray, FloatArray]:
    """Fold a linear layer (without its bias) and the BatchNorm after it, on these inputs."""
    # The outputs' variances are wᵀ·Cov(inputs)·w: no pass over the outputs.
    mean = inputs.mean(0)
    centred = inputs - mean
    covariance = centred.T @ centred / len(inputs)
    variance = np.maximum(np.einsum("io,io->o", weight, covariance @ weight), 0.0)
    scaled = weight * (gamma / np.sqrt(variance + eps))
    return scaled, shift - mean @ scaled


@dataclass(frozen=True)
class EmpiricalNull:
    """Statistics of the measured β and of redrawn β networks.

    Attributes
    ----------
    kind : {"batchnorm", "untrained"}
        What the null keeps: the last BatchNorm, or nothing.
    observed : Series
        Statistics of the measured β: ratio (see `beta_variance.VarianceSplit`), sample_share,
        sample_std, within_std, and ks, the mean Kolmogorov-Smirnov distance of up to 16 channels
        from their logit-normals (NaN without BatchNorm).
    draws : DataFrame
        The same, one row a redrawn network.
    samples : int
        Samples used.
    """

    kind: Literal["batchnorm", "untrained"]
    observed: "pd.Series[float]"
    draws: pd.DataFrame
    samples: int

    def p_value(self, statistic: str = "ratio") -> float:
        """Chance that a redrawn network is as high: (1 + #{draw >= observed})/(1 + draws)."""
        values = self.draws[statistic].to_numpy(dtype=np.float64)
        seen = float(self.observed[statistic])
        if np.isnan(seen) or np.isnan(values).any():
            return float("nan")
        return float((1 + (values >= seen).sum()) / (1 + len(values)))


def empirical_null(
    pooled: npt.ArrayLike,
    beta: npt.ArrayLike,
    network: BetaNetwork,
    *,
    seed: Seed,
    draws: int = 100,
    max_samples: int = 512,
) -> EmpiricalNull:
    """Compare the measured β with redrawn β networks on the same pooled inputs.

    Parameters
    ----------
    pooled : array_like
        Pooled inputs, shape (N, C).
    beta : array_like
        Measured β of the same samples, shape (N, C).
    network : BetaNetwork
        Shape and kept parameters of the β network.
    seed : int or Generator
        Of the subset and the weights; equal seeds give equal results.
    draws : int
        Redrawn networks, at least 20; p-values can be no smaller than 1/(draws + 1).
    max_samples : int
        Of larger runs this number of samples is drawn, without replacement.

    Returns
    -------
    EmpiricalNull
    """
    measured, inputs = matrix(beta, "β"), matrix(pooled, "the table of pooled inputs")
    if measured.shape != inputs.shape:
        raise AconError(
            f"β and the pooled inputs must belong together: β is {measured.shape}, the pooled "
            f"inputs are {inputs.shape}"
        )
    if draws < 20:
        raise UsageError(f"the empirical null needs at least 20 draws, given {draws}")
    for name, kept in {"bn_weight": network.bn_weight, "bn_bias": network.bn_bias}.items():
        if kept is not None and np.shape(kept) != measured.shape[1:]:
            raise AconError(
                f"{name} must have one value a channel: β has "
                f"{counted(measured.shape[1], 'channel')}, {name} has shape {np.shape(kept)}"
            )
    generator = np.random.default_rng(seed)
    rows = drawn_rows(len(measured), max_samples, generator)
    measured, inputs = measured[rows], inputs[rows]
    redrawing = _Redrawing(inputs, network)
    each = (redrawing.beta(generator) for _ in range(draws))
    # Products this small are slower with several threads, tenfold where other work has the cores.
    with threadpool_limits(1, user_api="blas"):
        table = _statistics(chain([measured], each), network)
    kind: Literal["batchnorm", "untrained"] = "batchnorm" if network.normalised else "untrained"
    redrawn = table.iloc[1:].reset_index(drop=True)
    return EmpiricalNull(kind, table.iloc[0], redrawn, len(measured))


def drawn_rows(
    samples: int, max_samples: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the samples that an empirical null uses, ascending: all, or as many drawn of them."""
    if samples <= max_samples:
        return np.arange(samples)
    return np.sort(generator.choice(samples, max_samples, replace=False))


def _statistics(
    betas: Iterable[npt.NDArray[np.floating[Any]]], network: BetaNetwork
) -> pd.DataFrame:
    """Return the statistics that networks are compared by, a row for each β (N, C)."""
    names, rows, kept = ["ratio", "sample_share", "sample_std", "within_std"], [], []
    for beta in betas:
        split = variance_split(beta.astype(np.float64))  # once, not in every sum
        rows.append([getattr(split, name) for name in names])
        some = np.linspace(0, beta.shape[1] - 1, min(beta.shape[1], _KS_CHANNELS)).astype(np.int64)
        kept.append(beta[:, some])
    table = pd.DataFrame(rows, columns=names).assign(ks=np.nan)
    if network.bn_weight is not None and network.bn_bias is not None:
        bias, weight = (np.tile(of[some], len(kept)) for of in (network.bn_bias, network.bn_weight))
        distances, _ = ks_distance(np.hstack(kept), bias, weight)  # all at once, for small layers
        table["ks"] = distances.reshape(len(kept), -1).mean(axis=1)
    return table
