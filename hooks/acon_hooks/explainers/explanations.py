"""What an explanation of β consists of, and its tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from acon_analysis.data.denormalize import viewable
from acon_analysis.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Explanation:
    """Which pixels decided β of one layer, image by image.

    Parameters
    ----------
    layer, kind, granularity : str
        Whose β: see `acon_hooks.Layer`. Of a β that differs between pixels the mean is explained.
    channel : int or None
        Which channel; None for the mean over the layer's channels.
    call : int
        Which use of the layer within one forward pass.
    method, baseline : str
        A key of `METHODS`, and what the images were compared with.
    samples : tuple of int
        Names of the images.
    images, baselines, attributions : ndarray
        (N, C, H, W) each (or whatever axes the images have); of "grad_cam" (N, 1, H, W).
    beta, beta_baseline : ndarray
        (N,): β of the image and of its baseline.
    delta : ndarray
        (N,): sum of the attributions - (β of the image - β of the baseline); NaN for methods
        that do not promise that sum.
    steps : ndarray
        (N,) int64: steps of the integration; 0 for other methods.
    tolerance : float
        The accepted size of delta.
    preprocess : mapping
        What was done to the images before the network, by their source; `pictures` undoes it.
    class_name : str
        Class of the layer.
    """

    layer: str
    kind: str
    granularity: str
    channel: int | None
    call: int
    method: str
    baseline: str
    samples: tuple[int, ...]
    images: NDArray[Any]
    baselines: NDArray[Any]
    attributions: NDArray[Any]
    beta: NDArray[Any]
    beta_baseline: NDArray[Any]
    delta: NDArray[Any]
    steps: NDArray[np.int64]
    tolerance: float
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    class_name: str = ""

    @property
    def maps(self) -> NDArray[Any]:
        """Attributions summed over the image's channels, (N, H, W)."""
        return np.asarray(self.attributions.sum(axis=1))

    @property
    def pictures(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Images and baselines for people: RGB, 0 to 1, whatever the network takes."""
        return viewable(self.images, self.preprocess), viewable(self.baselines, self.preprocess)

    @property
    def converged(self) -> NDArray[np.bool_]:
        """(N,): whether delta is within the tolerance; true where no sum is promised."""
        return np.asarray(np.isnan(self.delta) | (np.abs(self.delta) <= self.tolerance))

    def to_frame(self) -> "pd.DataFrame":
        """Return a row an image: what was explained, both β, the sum, delta, steps, converged."""
        import pandas as pd

        count = len(self.samples)
        channel = pd.array([self.channel] * count, dtype="Int64")
        return pd.DataFrame(
            {
                "sample": np.asarray(self.samples, dtype=np.int64),
                "layer": [self.layer] * count,
                "call": self.call,
                "channel": channel,
                "method": self.method,
                "baseline": self.baseline,
                "beta": self.beta,
                "beta_baseline": self.beta_baseline,
                "attribution_sum": self.attributions.reshape(count, -1).sum(1, dtype=np.float64),
                "delta": self.delta,
                "steps": self.steps,
                "converged": self.converged,
                "class_name": self.class_name,
            }
        )

    def pixels(self) -> "pd.DataFrame":
        """Return a row a pixel: sample, row, column, attribution (summed over image channels)."""
        import pandas as pd

        if self.attributions.ndim != 4:
            shape = self.attributions.shape
            raise UsageError(f"only images have pixels; these attributions have the shape {shape}")
        n, height, width = self.maps.shape
        sample, row, column = np.indices((n, height, width), dtype=np.int64).reshape(3, -1)
        return pd.DataFrame(
            {
                "sample": np.asarray(self.samples, dtype=np.int64)[sample],
                "row": row,
                "column": column,
                "attribution": self.maps.reshape(-1),
            }
        )
