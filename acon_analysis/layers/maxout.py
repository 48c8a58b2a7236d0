"""Maxout over linear pieces of each element."""

import torch
from torch import Tensor, nn

from acon_analysis.errors import UsageError
from acon_analysis.layers.checks import require_channels


class Maxout(nn.Module):
    """Maxout of n linear pieces: max over i of (slopes_i·x + intercepts_i), per channel.

    The elementwise member of the Maxout family, a convex piecewise linear function of x; its
    pieces hold per channel. Two pieces with slopes (1, p) and no intercepts are PReLU.

    Parameters
    ----------
    channels : int
        C, the size of the input's second axis.
    pieces : int
        Number n of straight lines, at least 1.

    Attributes
    ----------
    slopes : Parameter
        (n, C), starting as N(0, 1).
    intercepts : Parameter
        (n, C), starting at 0.

    References
    ----------
    Goodfellow et al., "Maxout Networks", ICML 2013, arXiv 1302.4389.
    """

    def __init__(self, channels: int, pieces: int = 2) -> None:
        super().__init__()
        if pieces < 1:
            raise UsageError(f"Maxout needs at least 1 piece, not {pieces}")
        self.channels = channels
        self.slopes = nn.Parameter(torch.randn(pieces, channels))
        self.intercepts = nn.Parameter(torch.zeros(pieces, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C) or (N, C, ...); raises `ShapeError`."""
        return _maxout(x, self.slopes, self.intercepts)

    def extra_repr(self) -> str:
        """Return the arguments for `print(layer)`."""
        return f"{self.channels}, pieces={self.slopes.shape[0]}"


def _maxout(x: Tensor, slopes: Tensor, intercepts: Tensor) -> Tensor:
    """Maximum of the lines, one line at a time: never n copies of the input."""
    pieces, channels = slopes.shape
    require_channels("Maxout", x, channels)
    shape = (pieces, channels, *[1] * (x.ndim - 2))
    slopes, intercepts = slopes.reshape(shape), intercepts.reshape(shape)
    result = torch.addcmul(intercepts[0], slopes[0], x)
    for slope, intercept in zip(slopes[1:], intercepts[1:], strict=True):
        result = torch.maximum(result, torch.addcmul(intercept, slope, x))
    return result


# A leaf of torch.fx, which cannot trace through a decision on a shape.
torch.fx.wrap("_maxout")
