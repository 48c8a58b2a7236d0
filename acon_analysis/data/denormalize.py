"""From a network's input back to a picture for people: RGB, 0 to 1."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def viewable(images: npt.ArrayLike, spec: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Undo what a preprocessing did to the colours of images (N, C, H, W).

    ``spec``, of a `acon_analysis.data.preprocess.Preprocess`, says "channels" (BGR is reversed),
    "mean" and "std" of each channel in R, G, B (multiplied and added back) and "range" ("0..255" is
    divided); what it does not say stays as it is. Returns float64 (N, C, H, W), three channels in
    R, G, B; values outside 0 to 1, as a baseline may have, stay.
    """
    shown = np.asarray(images, dtype=np.float64)
    if spec.get("range") == "0..255":
        shown = shown / 255
    if spec.get("channels") == "BGR" and shown.ndim == 4 and shown.shape[1] == 3:
        shown = shown[:, ::-1]
    mean, std = (np.asarray(spec.get(name, ()), dtype=np.float64) for name in ("mean", "std"))
    if shown.ndim == 4 and len(mean) == len(std) == shown.shape[1]:
        shown = shown * std[:, None, None] + mean[:, None, None]
    return shown
