"""The known weights and input of tests/data/official_reference.json, a formula of each key."""

import zlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


def known_tensor(key: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the value that the reference gives to a state-dict key of this shape."""
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    word = key.rpartition(".")[2]
    if word == "num_batches_tracked":
        return np.array(7.0)
    normal = generator.standard_normal(shape)
    if word == "running_var":
        return 0.5 + generator.random(shape)
    if word == "running_mean":
        return 0.1 * normal
    if len(shape) > 1 and word not in ("p1", "p2", "beta"):
        return np.asarray(normal * np.sqrt(2 / np.prod(shape[1:])))
    offset, scale = {
        "weight": (1, 0.1),
        "bias": (0, 0.1),
        "p1": (1, 0.1),
        "p2": (0, 0.1),
        "beta": (1, 0.3),
    }[word]
    return np.asarray(offset + scale * normal)


def fill(model: nn.Module) -> nn.Module:
    """Make a network on the meta device real, float64, in eval mode, with the known weights."""
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    model = model.to_empty(device="cpu").double().eval()
    model.load_state_dict(
        {key: torch.as_tensor(known_tensor(key, shape)) for key, shape in shapes.items()}
    )
    return model


def known_images() -> Tensor:
    """Return the two images of the reference, (2, 3, 224, 224), float64, 0 to 1."""
    pixels = np.random.default_rng(20210419).integers(0, 256, (2, 3, 224, 224))
    return torch.as_tensor(pixels.astype(np.float64) / 255)
