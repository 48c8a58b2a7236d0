"""Which pixels decide β: Captum's attributions with β of a layer as what is explained.

`explain(model, images, layer="layer3.0.acon", channel=5) -> Explanation`
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from acon_analysis.errors import UsageError, closest
from acon_analysis.screen import counted, listed
from acon_analysis.selection import layer_path
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.inputs import Forward, InputOptions
from acon_hooks.engine.plans import fitted
from acon_hooks.engine.sites import split_name
from acon_hooks.errors import HookError
from acon_hooks.explainers import attribution
from acon_hooks.explainers.attribution import METHODS
from acon_hooks.explainers.baselines import make_baseline
from acon_hooks.explainers.explanations import Explanation
from acon_hooks.explainers.probing import BetaProbe
from acon_hooks.guards import full_precision, unwrap
from acon_hooks.layers.scan import KINDS, Layer, scan_layers
from acon_hooks.readings.tap import Tap

#: Kinds of layers whose β (or gate) can depend on the image.
EXPLAINABLE = ("meta_acon", "acon", "gate")


class ConvergenceWarning(UserWarning):
    """Integrated gradients missed their sum by more than the tolerance."""


def explain(
    model: nn.Module,
    images: Tensor,
    layer: str | Layer,
    channel: int | None = None,
    method: str = "integrated_gradients",
    baseline: str | Tensor = "zero",
    *,
    call: int = 0,
    reference: Tensor | None = None,
    samples: Sequence[int] | None = None,
    tolerance: float = 1e-3,
    steps: int = 32,
    max_steps: int = 1024,
    window: int | None = None,
    at: str | None = None,
    batch_size: int = 64,
    forward: Forward | None = None,
) -> Explanation:
    """Attribute β of a layer, or of one of its channels, to the pixels of images.

    β is read as `acon_hooks.record` reads it, proved on these images, but with its gradient; so
    it works for every layer that can be recorded, gates included.

    Parameters
    ----------
    model : Module
        The network, in evaluation mode.
    images : Tensor
        (N, C, H, W), as the network takes them; also signals (N, C, L). Taken to the device and
        dtype of the network.
    layer : str or Layer
        Whose β.
    channel : int, optional
        Which channel; by default the mean over all channels of the layer.
    method : str
        A key of `METHODS`: "integrated_gradients", "saliency", "occlusion" or "grad_cam".
    baseline : str or Tensor
        A key of `acon_hooks.explainers.baselines.BASELINES`: "zero", "mean" or "blur"; or an
        image, one for all or one each. With another image of the data the map shows what switches β
        from that image to this one.
    call : int
        Which use of the layer within one forward pass.
    reference : Tensor, optional
        The images that the baseline "mean" is the mean of, by default those explained.
    samples : sequence of int, optional
        Names of the images, by default 0, 1, ...
    tolerance : float
        Accepted size of delta of integrated gradients, in units of β. Steps are doubled until it
        is met or `max_steps` are reached.
    steps, max_steps : int
        Of integrated gradients.
    window : int, optional
        Side of the occluding window in pixels, by default an eighth of the image, at least 2.
    at : str, optional
        The module whose output "grad_cam" maps, by default the input of the layer itself.
    batch_size : int
        Images a forward pass, at most.
    forward : callable, optional
        Runs the network on a batch of images: (model, images) -> output.

    Returns
    -------
    Explanation
        Attributions, both β, delta; `Explanation.to_frame` gives a table.

    Raises
    ------
    UsageError
        For an unknown layer, channel, method or baseline, and for a layer whose β is a parameter.
    ProofError
        If β of the layer cannot be read.
    HookError
        If the model cannot be watched, or β is not finite or has no gradient.

    Warns
    -----
    ConvergenceWarning
        If delta stays above the tolerance.
    """
    if not isinstance(images, Tensor):
        raise UsageError(f"images must be a tensor (N, C, H, W); got {type(images).__name__}")
    _check(images, method, samples, tolerance, steps, max_steps, batch_size)
    with torch.inference_mode(False), torch.no_grad():
        images = fitted(unwrap(model), Batch(0, [], images.detach())).inputs
        baselines, baseline_name = make_baseline(images, baseline, reference)
    found = settled(model, images, baselines, layer, forward)
    _check_channel(found, channel)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(),
        _naming_checkpoints(found),
        BetaProbe(model, found, call, forward) as probe,
    ):
        score = probe.target(channel)
        beta = attribution.score_in_batches(score, images, batch_size)
        beta_baseline = attribution.score_in_batches(score, baselines, batch_size)
        _refuse_undefined(found, beta, "the images")
        _refuse_undefined(found, beta_baseline, f"the baseline ({baseline_name})")
        if method != "occlusion":
            attribution.refuse_without_gradient(score, images)
        delta = torch.full_like(beta, torch.nan)
        taken = torch.zeros(len(images), dtype=torch.int64)
        match method:
            case "integrated_gradients":
                attributions, delta, taken = attribution.integrated_gradients(
                    score, images, baselines, tolerance=tolerance, steps=steps,
                    max_steps=max_steps, batch_size=batch_size,
                )  # fmt: skip
            case "saliency":
                attributions = attribution.saliency(score, images, batch_size)
            case "occlusion":
                attributions = attribution.occlusion(
                    score, images, baselines, window=window, batch_size=batch_size
                )
            case _:
                module, into = _cam_module(unwrap(model), found, at)
                attributions = attribution.grad_cam(
                    score, images, module, into=into, batch_size=batch_size
                )
    result = Explanation(
        layer=found.name, kind=found.kind, granularity=found.granularity, channel=channel,
        call=call, method=method, baseline=baseline_name,
        samples=tuple(range(len(images))) if samples is None else tuple(map(int, samples)),
        images=_array(images), baselines=_array(baselines), attributions=_array(attributions),
        beta=_array(beta), beta_baseline=_array(beta_baseline), delta=_array(delta),
        steps=taken.cpu().numpy(), tolerance=tolerance, class_name=found.class_name,
    )  # fmt: skip
    _warn(result)
    return result


@contextmanager
def _naming_checkpoints(layer: Layer) -> Iterator[None]:
    """Name checkpointing where a backward pass cannot run through the layer again."""
    try:
        yield
    except CheckpointError as error:
        raise HookError(
            f"layer {layer.name!r} lies in a part of the network that is checkpointed: its "
            "backward pass runs the part again, where β is not read; switch checkpointing off"
        ) from error


def settled(
    model: nn.Module,
    images: Tensor,
    baselines: Tensor,
    layer: str | Layer,
    forward: Forward | None = None,
) -> Layer:
    """Return the layer with its reading, proved on some of the images and baselines.

    A UsageError if there is no such layer, or its β does not depend on the image.
    """
    if isinstance(layer, str):
        layer = layer_path(layer, dict(unwrap(model).named_modules()))
        _check_layer(unwrap(model), layer)
    example = torch.cat([images[:8], baselines[:8]])
    with Tap(model, [layer], kinds=EXPLAINABLE, check_rows=True) as tap, torch.no_grad():
        InputOptions(forward=forward).call(tap.model, example)
        found = tap.layers[0]
    reading = found.reading
    if reading is None or found.granularity == "static" or reading.source.fixed:
        raise UsageError(
            f"β of layer {found.name!r} is a parameter of the network ({found.reader}): it is "
            f"the same for every image, so no pixel decides it; {_others(unwrap(model))}"
        )
    return found


def _refuse_undefined(layer: Layer, beta: Tensor, where: str) -> None:
    """Raise where β is not finite."""
    if not bool(torch.isfinite(beta).all()):
        raise HookError(
            f"β of layer {layer.name!r} is not defined for {where}: as it is read ({layer.reader}) "
            "it is not finite there; choose another baseline, such as 'blur' or another image"
        )


def _check_layer(model: nn.Module, name: str) -> None:
    """Raise for a name that is no layer, or a layer without β."""
    known = {layer.name: layer for layer in scan_layers(model, KINDS)}
    if name in known and known[name].kind in EXPLAINABLE:
        return
    if name in known:
        raise UsageError(
            f"layer {name!r} ({known[name].class_name}) is of kind {known[name].kind!r}, which "
            f"has no β that depends on the image; {_others(model)}"
        )
    if split_name(name)[1] is not None:
        raise UsageError(
            f"layer {name!r} is an activation that is called as a function, which has no β that "
            f"depends on the image; {_others(model)}"
        )
    offered = [layer.name for layer in known.values() if layer.kind in ("meta_acon", "gate")]
    what = "is no activation layer" if name in dict(model.named_modules()) else "does not exist"
    raise UsageError(f"layer {name!r} {what}: {closest(name, offered)}")


def _others(model: nn.Module) -> str:
    """Return which layers have a β that depends on the image, for a message."""
    there = [layer.name for layer in scan_layers(model, ("meta_acon", "gate"))]
    if not there:
        return "this network has no layer whose β depends on the image"
    return f"layers whose β depends on the image: {listed(there, 5, repr)}"


def _check_channel(layer: Layer, channel: int | None) -> None:
    """Raise for a channel that the layer does not have."""
    count = layer.channels or 0
    if channel is not None and not 0 <= channel < count:
        raise UsageError(
            f"layer {layer.name!r} has no channel {channel}: it has {count}, numbered from 0 to "
            f"{count - 1} (leave the channel out for their mean)"
        )


def _check(
    images: Tensor,
    method: str,
    samples: Sequence[int] | None,
    tolerance: float,
    steps: int,
    max_steps: int,
    batch_size: int,
) -> None:
    """Raise for arguments out of range."""
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}: {closest(method, METHODS)}")
    if not images.is_floating_point() or images.ndim < 3:
        raise UsageError(
            "images must be floating-point, (N, C, H, W) or (N, C, L); got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
    if len(images) == 0:
        raise UsageError("there are no images to explain")
    if samples is not None and len(samples) != len(images):
        raise UsageError(
            f"samples: got {counted(len(samples), 'name')} for {counted(len(images), 'image')}"
        )
    if not tolerance > 0 or not 1 <= steps <= max_steps or batch_size < 1:
        raise UsageError(
            "tolerance and batch size must be positive and 1 <= steps <= max_steps; got "
            f"tolerance={tolerance}, batch_size={batch_size}, steps={steps}, max_steps={max_steps}"
        )


def _cam_module(model: nn.Module, layer: Layer, at: str | None) -> tuple[nn.Module, bool]:
    """Return the module that Grad-CAM maps, and whether by its input."""
    if at is None:
        if layer.axis != 1:
            raise UsageError(
                f"layer {layer.name!r} has its channels on axis {layer.axis}: give a module with "
                "(N, C, H, W) by at='name'"
            )
        return layer.module, True
    modules = dict(model.named_modules())
    if at not in modules:
        raise UsageError(f"there is no module {at!r}: {closest(at, modules)}")
    return modules[at], False


def _array(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array; bfloat16 as float32."""
    tensor = tensor.detach().cpu()
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _warn(result: Explanation) -> None:
    """Warn of attributions that miss the change of β."""
    missed = ~result.converged
    if missed.any():
        worst = float(np.abs(result.delta).max())
        warnings.warn(
            f"the attributions of {int(missed.sum())} of {counted(len(missed), 'image')} miss the "
            f"change of β by more than {result.tolerance:g} (at most by {worst:.2g}) after "
            f"{counted(int(result.steps.max()), 'step')}: raise max_steps, or use float64",
            ConvergenceWarning,
            stacklevel=3,
        )
