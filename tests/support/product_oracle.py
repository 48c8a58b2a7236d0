"""L of gated products by numpy's least squares, in float64, from the factors themselves."""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


def lost(z: Values, *factors: Values) -> tuple[float, float]:
    """Return sse of the best fit of z on (1, factors), and z's sum of squared deviations."""
    design = np.stack([np.ones(z.size), *(f.ravel() for f in factors)], 1)
    scale = np.abs(design).max(0)
    fit = np.linalg.lstsq(design / scale, z.ravel(), rcond=None)[0]
    rest = z.ravel() - design / scale @ fit
    centred = z.ravel() - z.mean()
    return float(rest @ rest), float(centred @ centred)


def linearity(z: Values, *factors: Values) -> tuple[Values, float, Values]:
    """Return L by channel (C,), of the layer, and by sample (N,) of (N, C, P) arrays."""
    samples, channels, _ = z.shape
    by_channel = np.array([lost(z[:, c], *(f[:, c] for f in factors)) for c in range(channels)])
    each = np.array(
        [
            [lost(z[s, c], *(f[s, c] for f in factors)) for c in range(channels)]
            for s in range(samples)
        ]
    ).sum(1)
    sse, total = by_channel.T
    with np.errstate(all="ignore"):  # one value a sample varies nothing
        by_sample = 1 - each[:, 0] / each[:, 1]
    return 1 - sse / total, 1 - float(sse.sum() / total.sum()), by_sample
