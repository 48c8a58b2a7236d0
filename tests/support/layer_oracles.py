"""The layers' formulas once more in numpy, float64, channel by channel, to test against."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]


def weights_of(layer: nn.Module) -> dict[str, Array]:
    """Return the state dict as float64 arrays."""
    return {name: tensor.double().numpy() for name, tensor in layer.state_dict().items()}


def sigmoid(z: Any) -> Array:
    """Return 1 / (1 + exp(-z))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(z, dtype=float))))


def acon_c(x: Array, p1: Array, p2: Array, beta: Array) -> Array:
    """ACON-C sample by sample and channel by channel; β (N, C), (N, C, ...) or (1, C)."""
    out = np.empty_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            d = p1.ravel()[c] - p2.ravel()[c]
            b = beta[n if beta.shape[0] > 1 else 0, c]
            z = x[n, c]
            out[n, c] = d * z * sigmoid(b * d * z) + p2.ravel()[c] * z
    return out


def batch_norm(x: Array, weights: Weights, prefix: str, *, training: bool = False) -> Array:
    """Batch normalisation over every axis but the second, eps 1e-5."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, variance = (
        (x.mean(axes), x.var(axes))
        if training
        else (weights[f"{prefix}.running_mean"], weights[f"{prefix}.running_var"])
    )
    standard = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 1e-5)
    scale, shift = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
    return np.asarray(standard * scale.reshape(shape) + shift.reshape(shape))


def dense(x: Array, weights: Weights, prefix: str) -> Array:
    """1x1 convolution of (N, C) as a matrix product."""
    matrix = weights[f"{prefix}.weight"][:, :, 0, 0]
    return np.asarray(x @ matrix.T + weights[f"{prefix}.bias"])


def spatial_mean(x: Array) -> Array:
    """Mean over every axis after the second, (N, C)."""
    return np.asarray(x.reshape(x.shape[0], x.shape[1], -1).mean(2))


def meta_beta(x: Array, weights: Weights, *, training: bool = False, norm: bool = True) -> Array:
    """β of channel-wise Meta-ACON, (N, C)."""
    z = dense(spatial_mean(x), weights, "fc1")
    z = batch_norm(z, weights, "bn1", training=training) if norm else z
    z = dense(z, weights, "fc2")
    z = batch_norm(z, weights, "bn2", training=training) if norm else z
    return sigmoid(z)


def depthwise(x: Array, weights: Weights, prefix: str, stride: int = 1) -> Array:
    """3x3 depthwise convolution, padding 1, with a bias."""
    kernel, bias = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
    rows, columns = (x.shape[2] - 1) // stride + 1, (x.shape[3] - 1) // stride + 1
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty((*x.shape[:2], rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, :, i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[:, :, i, j] = (window * kernel[None, :, 0]).sum((2, 3)) + bias
    return out


def max_pool(x: Array) -> Array:
    """3x3 maximum, stride 2, padding 1."""
    rows, columns = (x.shape[2] - 1) // 2 + 1, (x.shape[3] - 1) // 2 + 1
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    out = np.empty((*x.shape[:2], rows, columns))
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((2, 3))
    return out
