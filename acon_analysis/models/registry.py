"""Every network that can be named: this project's, the official ones, other libraries', yours."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.models.bottleneck import BottleneckResNet
from acon_analysis.models.checkpoints import load_weights
from acon_analysis.models.listing import shipped_weights
from acon_analysis.models.official import INPUT_SHAPE, OFFICIAL
from acon_analysis.models.shufflenet import SmallShuffleNet
from acon_analysis.paper.numbers import NETWORK_ACTIVATIONS
from acon_analysis.usercode import load_callable


@dataclass(frozen=True)
class ModelSpec:
    """What the registry knows of a network without building it.

    ``source`` is where the architecture comes from; ``build`` makes the network with fresh weights;
    ``input_shape`` is (C, H, W) of one image; ``data`` the data set that it is trained on, as
    `sources.open_data` names it, None for ImageNet; ``preprocess`` what a folder of images goes
    through by default.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, int, int]
    data: str | None = None
    preprocess: str = "none"

    @property
    def shipped(self) -> Path | None:
        """The weights that come with the package, if any."""
        return shipped_weights(self.name)


@dataclass(frozen=True)
class Origin:
    """Where a built model's weights come from; the model carries it as ``acon_origin``.

    ``model`` is the MODEL string; ``weights`` are ``"shipped"``, ``"random"`` (of ``seed``), the
    name of the weights file, or ``"not known"``: a callable of the user's may load weights itself;
    ``preprocess`` is what a folder of images goes through by default.
    """

    model: str
    weights: str
    seed: int | None = None
    weights_sha256: str | None = None
    preprocess: str = field(default="none")


def _own_networks() -> dict[str, ModelSpec]:
    """Return this project's networks, those for the digits first."""
    digits, cifar10 = (1, 8, 8), (3, 32, 32)
    small: dict[str, Any] = {"widths": (16, 32, 128), "blocks": (2, 3, 1)}
    large: dict[str, Any] = {"widths": (16, 32, 64), "blocks": (2, 2, 2), "expansion": 4}
    small |= {"input_shape": digits}
    large |= {"input_shape": cifar10, "stem_stride": 2}

    def spec(name: str, build: Callable[[], nn.Module]) -> ModelSpec:
        data = name.partition("_")[0]
        title, shape = ("digits", digits) if data == "digits" else ("CIFAR-10", cifar10)
        return ModelSpec(name, f"this project, trained on {title}", build, shape, data, data)

    kinds = NETWORK_ACTIVATIONS
    specs = [spec(f"digits_{kind}", partial(BottleneckResNet, kind, **small)) for kind in kinds]
    specs += [spec(f"cifar10_{kind}", partial(BottleneckResNet, kind, **large)) for kind in kinds]
    specs.append(spec("cifar10_shufflenet_metaacon", partial(SmallShuffleNet, "metaacon")))
    return {one.name: one for one in specs}


@cache
def registry() -> Mapping[str, ModelSpec]:
    """Return every network with a name of its own, by name."""
    source = "official ACON code (weights by hand)"
    official = {
        name: ModelSpec(name, source, build, INPUT_SHAPE, preprocess="official")
        for name, build in OFFICIAL.items()
    }
    return {**_own_networks(), **official}


def build_model(
    model: str,
    weights: str | Path | None = "shipped",
    seed: int = 0,
    *,
    announce: Callable[[str], None] | None = None,
) -> nn.Module:
    """Build a network in eval mode.

    Parameters
    ----------
    model : str
        A name of the registry (``acon models`` lists them), ``"torchvision:NAME"``,
        ``"timm:NAME"``, ``"package.module:callable"`` or ``"path/to/file.py:callable"``. The
        last two run the code they name.
    weights : str, Path or None
        ``"shipped"``: the weights that come with the package, and random ones where none do;
        None: random ones; anything else: a checkpoint file, loaded safely and strictly.
    seed : int
        Seed of random weights; equal seeds give equal weights in every process.
    announce : callable, optional
        Called with a sentence where a callable of one's own returns a network in training mode,
        which becomes eval mode, or is a class, which may not have loaded any weights.

    Returns
    -------
    torch.nn.Module
        On the CPU, in eval mode, with ``input_shape`` (C, H, W) where it is known and
        ``acon_origin`` (`Origin`).

    Raises
    ------
    UsageError
        If there is no such network; the message names those that come close.
    CheckpointError
        If the weights file is unsafe or does not fit.
    """
    build, shape, preprocess, shipped, fresh = _resolve(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"model: {model!r} must return a torch.nn.Module; it returned "
            f"{type(network).__name__!r}"
        )
    origin = Origin(model, fresh, seed=seed, preprocess=preprocess)
    path = shipped if weights == "shipped" else None if weights is None else Path(weights)
    if path is not None:
        digest = load_weights(network, path)
        label = "shipped" if weights == "shipped" else path.name
        origin = Origin(model, label, weights_sha256=digest, preprocess=preprocess)
    if fresh == "not known" and announce is not None:
        for text in _doubts(network, model, loaded=path is not None):
            announce(text)
    network.eval()
    if shape is not None and not hasattr(network, "input_shape"):
        network.input_shape = shape  # type: ignore[assignment]
    network.acon_origin = origin  # type: ignore[assignment]
    return network


def _doubts(network: nn.Module, model: str, *, loaded: bool) -> Iterator[str]:
    """Yield what a user's own callable may not have meant."""
    if any(module.training for module in network.modules()):
        yield f"{model} returns the network in training mode; here it runs in evaluation mode"
    if not loaded and type(network).__name__ == model.rpartition(":")[2]:
        yield (
            f"{model} is a class: unless it loads weights itself, they are random; name a function "
            "that returns the trained network, or give --weights FILE"
        )


_Resolved = tuple[Callable[[], Any], tuple[int, int, int] | None, str, Path | None, str]


def _resolve(model: str) -> _Resolved:
    """Return builder, input shape, default preprocessing, shipped weights and what others are."""
    specs = registry()
    if model in specs:
        spec = specs[model]
        return spec.build, spec.input_shape, spec.preprocess, spec.shipped, "random"
    prefix, colon, rest = model.rpartition(":")
    if not colon and model.endswith(".py"):
        raise UsageError(f"model: which callable of {model!r}? Write '{model}:NAME'")
    if not colon and Path(model).is_file():
        raise UsageError(
            f"model: {model!r} is a file: name the function that builds the network, such as "
            f"net.py:build, with --weights {model} if it holds its weights"
        )
    if not colon:
        raise UsageError(f"model: there is no {model!r}; {closest(model, specs)}")
    if prefix == "torchvision":
        return _torchvision(rest), INPUT_SHAPE, "imagenet", None, "random"
    if prefix == "timm":
        builder, shape = _timm(rest)
        return builder, shape, "imagenet", None, "random"
    make = load_callable("model", model)[0]
    found = inspect.unwrap(make)
    own = found if isinstance(found, nn.Module) else None
    return (make if own is None else lambda: own), None, "none", None, "not known"


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"model: '{name}:...' needs the package {name!r} ({error}); "
            f"install it with: pip install 'acon-analysis[vision]'"
        ) from error


def _torchvision(name: str) -> Callable[[], Any]:
    models = _library("torchvision").models
    known = models.list_models()
    if name not in known:
        raise UsageError(f"model: torchvision has no {name!r}; {closest(name, known)}")
    return lambda: models.get_model(name, weights=None)


def _timm(name: str) -> tuple[Callable[[], Any], tuple[int, int, int]]:
    timm = _library("timm")
    if not timm.is_model(name):
        raise UsageError(f"model: timm has no {name!r}; {closest(name, timm.list_models())}")
    shape = tuple(timm.get_pretrained_cfg(name).input_size) if timm.get_pretrained_cfg(name) else ()
    return lambda: timm.create_model(name, pretrained=False), shape or INPUT_SHAPE
