"""Captum's attributions of a score to the pixels: one function a method.

Each takes a score (images (N, ...) -> (N,)), works in batches and returns (N, ...).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from acon_analysis.errors import UsageError
from acon_analysis.screen import counted
from acon_hooks.errors import HookError

#: Images -> one number each.
Score = Callable[[Tensor], Tensor]

#: Name -> what it is.
METHODS = {
    "integrated_gradients": "gradients gathered on the way from the baseline (complete)",
    "saliency": "the gradient of β at the image, signed",
    "occlusion": "how β falls when a window of the image becomes the baseline",
    "grad_cam": "the layer's input channels, weighed by their gradients, enlarged to the image",
}


def score_in_batches(score: Score, images: Tensor, batch_size: int) -> Tensor:
    """Return the scores (N,), without gradient."""
    with torch.no_grad():
        return torch.cat([score(part) for part in torch.split(images, batch_size)])


def refuse_without_gradient(score: Score, images: Tensor) -> None:
    """Raise a HookError if no gradient of the score arrives at the images."""
    with torch.enable_grad():
        image = images[:1].clone().requires_grad_()
        value = score(image)
        (gradient,) = (
            torch.autograd.grad(value.sum(), image, allow_unused=True)
            if value.requires_grad
            else (None,)
        )
    if gradient is None:
        raise HookError(
            "β has no gradient with respect to the images: the model detaches something on the "
            "way, or this β does not depend on the image; method='occlusion' needs no gradient"
        )


def integrated_gradients(
    score: Score,
    images: Tensor,
    baselines: Tensor,
    *,
    tolerance: float,
    steps: int,
    max_steps: int,
    batch_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Integrate gradients over (N, ...) images; double an image's steps until its sum is right.

    Returns attributions (N, ...), their sums minus (score at the image - score at the baseline),
    (N,), and how many steps each image took, (N,) int64.
    """
    # Source: M. Sundararajan, A. Taly, Q. Yan (2017), Axiomatic Attribution for Deep Networks,
    # ICML, arXiv:1703.01365.
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(score)
    shift = score_in_batches(score, images, batch_size)
    shift = shift - score_in_batches(score, baselines, batch_size)
    attributions = torch.zeros_like(images)
    delta = torch.full_like(shift, torch.inf)
    taken = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    count = steps
    open_ = torch.arange(len(images), device=images.device)
    with tqdm(total=len(images), desc="explain", unit="sample", disable=None) as bar:
        while len(open_):
            for part in torch.split(open_, batch_size):
                found = method.attribute(
                    images[part].requires_grad_(),
                    baselines[part],
                    n_steps=count,
                    internal_batch_size=batch_size,
                ).detach()
                total = found.double().flatten(1).sum(1).to(shift.dtype)
                new = total - shift[part]
                # More steps are not always better: the best so far stays.
                better = new.abs() < delta[part].abs()
                attributions[part[better]] = found.to(images.dtype)[better]
                delta[part[better]] = new[better]
                taken[part[better]] = count
            if count >= max_steps:
                break
            open_ = open_[~(delta[open_].abs() <= tolerance)]
            count = min(2 * count, max_steps)
            bar.set_postfix(steps=count, refresh=False)
            bar.update(len(images) - len(open_) - bar.n)
    return attributions, delta, taken


def saliency(score: Score, images: Tensor, batch_size: int) -> Tensor:
    """Return the gradient of the score at each image, with its sign."""
    # Source: K. Simonyan, A. Vedaldi, A. Zisserman (2014), Deep Inside Convolutional Networks,
    # arXiv:1312.6034.
    from captum.attr import Saliency

    method = Saliency(score)
    parts = torch.split(images, batch_size)
    return torch.cat(
        [method.attribute(p.clone().requires_grad_(), abs=False).detach() for p in parts]
    )


def occlusion_window(shape: tuple[int, ...], window: int | None) -> tuple[int, int]:
    """Return side and stride of the window for images (C, H, W) or signals (C, L)."""
    shorter = min(shape[1:], default=1)
    side = min(max(2, shorter // 8), shorter) if window is None else window
    if not 1 <= side <= shorter:
        raise UsageError(f"a window of {counted(side, 'pixel')} does not fit an image of {shape}")
    return side, max(1, side // 2)


def occlusion(
    score: Score, images: Tensor, baselines: Tensor, *, window: int | None, batch_size: int
) -> Tensor:
    """Return by how much the score falls where a window shows the baseline, averaged."""
    # Captum adds up in float32, also for float64 images. Source: M. D. Zeiler, R. Fergus (2014),
    # Visualizing and Understanding Convolutional Networks, ECCV, DOI 10.1007/978-3-319-10590-1_53.
    from captum.attr import Occlusion

    side, stride = occlusion_window(tuple(images.shape[1:]), window)
    channels, *axes = images.shape[1:]
    method = Occlusion(score)
    with torch.no_grad():
        parts = [
            method.attribute(
                part,
                sliding_window_shapes=(channels, *(side for _ in axes)),
                strides=(channels, *(stride for _ in axes)),
                baselines=blank,
                perturbations_per_eval=max(1, batch_size // len(part)),
            ).to(images.dtype)
            for part, blank in zip(
                torch.split(images, batch_size), torch.split(baselines, batch_size), strict=True
            )
        ]
    return torch.cat(parts)


def grad_cam(
    score: Score, images: Tensor, module: nn.Module, *, into: bool, batch_size: int
) -> Tensor:
    """Return Σ over a module's channels of (mean gradient)·(activation), enlarged, (N, 1, H, W).

    Signed: no ReLU, since β falling is as interesting as β rising. `into`: of the module's (first)
    input, not of its output. Images are (N, C, H, W) or (N, C, L).
    """
    # Source: R. R. Selvaraju et al. (2017), Grad-CAM, ICCV, DOI 10.1109/ICCV.2017.74.
    from captum.attr import LayerAttribution, LayerGradCam

    mode = {3: "linear", 4: "bilinear"}.get(images.ndim)
    method = LayerGradCam(score, module)
    maps = []
    for part in torch.split(images, batch_size):
        try:
            found = method.attribute(part.clone().requires_grad_(), attribute_to_layer_input=into)
        except RuntimeError as error:
            raise HookError(
                f"Grad-CAM finds no gradient of β at the {'input' if into else 'output'} of this "
                f"module ({str(error).splitlines()[0]}): choose an earlier one with at='name'"
            ) from error
        found = found[0] if isinstance(found, tuple) else found
        if mode is None or found.ndim != images.ndim:
            raise HookError(
                f"Grad-CAM needs an activation with pixels; here it is {tuple(found.shape)}: "
                "choose an earlier module with at='name'"
            )
        size = tuple(images.shape[2:])
        maps.append(LayerAttribution.interpolate(found.detach(), size, mode))
    return torch.cat(maps)
