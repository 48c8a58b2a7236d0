"""What an image is compared with when β is explained: the baselines, and their names."""

import torch
from torch import Tensor

from acon_analysis.errors import UsageError, closest
from acon_analysis.screen import counted

#: Name -> what it is.
BASELINES = {
    "zero": "0 everywhere in the network's input",
    "mean": "the mean of the reference images, pixel by pixel",
    "blur": "each image under a Gaussian with a quarter of its shorter side as standard deviation",
}


def make_baseline(
    images: Tensor, baseline: str | Tensor, reference: Tensor | None = None
) -> tuple[Tensor, str]:
    """Return baselines (N, ...) like the images, and the name of what was chosen.

    `baseline` is a key of `BASELINES`, or an image (...), (1, ...), or one each, (N, ...); "mean"
    is that of `reference` (M, ...), by default of the images.
    """
    if isinstance(baseline, Tensor):
        return _given(images, baseline)
    match baseline:
        case "zero":
            return torch.zeros_like(images), "zero"
        case "mean":
            return _mean(images, reference)
        case "blur":
            return _blur(images)
        case _:
            raise UsageError(
                f"there is no baseline {baseline!r}: {closest(str(baseline), BASELINES)}, "
                "or an image as a tensor"
            )


def _given(images: Tensor, baseline: Tensor) -> tuple[Tensor, str]:
    """Return a given image, or one each, in the images' shape."""
    shape = tuple(images.shape)
    if tuple(baseline.shape) not in (shape, shape[1:], (1, *shape[1:])):
        raise UsageError(
            f"the baseline has the shape {tuple(baseline.shape)}; images of shape {shape} need "
            f"{shape[1:]}, or one each, {shape}"
        )
    single = baseline.ndim < images.ndim or len(baseline) < max(len(images), 2)
    spread = baseline.detach().to(images).expand(shape).clone()
    return spread, "given image" if single else "given images"


def _mean(images: Tensor, reference: Tensor | None) -> tuple[Tensor, str]:
    """Return the mean of the reference images."""
    reference = images if reference is None else reference
    if reference.shape[1:] != images.shape[1:]:
        raise UsageError(
            f"the reference images have the shape {tuple(reference.shape)}; those to explain "
            f"{tuple(images.shape)}"
        )
    if len(reference) < 2:
        raise UsageError(
            "the mean of one image is that image: give reference=images of the data set, or "
            "another baseline"
        )
    mean = reference.detach().to(images).mean(0, keepdim=True)
    return mean.expand_as(images).clone(), f"mean of {counted(len(reference), 'image')}"


def _blur(images: Tensor) -> tuple[Tensor, str]:
    """Return the images under a Gaussian."""
    if images.ndim != 4:
        raise UsageError(f"blur needs images (N, C, H, W); these have {tuple(images.shape)}")
    sigma = min(images.shape[2:]) / 4
    blurred = images
    for axis in (2, 3):
        blurred = _smooth(blurred, axis, sigma)
    return blurred, f"blur (σ = {sigma:g} px)"


def _smooth(images: Tensor, axis: int, sigma: float) -> Tensor:
    """Blur along one axis; beyond the border the image has its border value."""
    size = images.shape[axis]
    radius = int(4 * sigma + 0.5)
    steps = torch.arange(-radius, radius + 1)
    weights = torch.exp(-0.5 * (steps.double() / sigma) ** 2)
    positions = torch.arange(size)
    sources = (positions[:, None] + steps[None, :]).clamp(0, size - 1)
    # A matrix product, so that a σ larger than the image needs no padding.
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_add_(1, sources, (weights / weights.sum()).expand(size, -1))
    moved = images.movedim(axis, -1) @ matrix.T.to(images)
    return moved.movedim(-1, axis)
