"""Trains a network of the registry and writes what is shipped: weights, curves, model card."""

import json
import platform
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from scipy.stats import binomtest
from torch import nn

from acon_analysis.data.image_source import ImageSource
from acon_analysis.data.sources import open_data
from acon_analysis.errors import UsageError, closest
from acon_analysis.files import atomic_write, csv_text
from acon_analysis.models.bottleneck import BottleneckResNet
from acon_analysis.models.checkpoints.importing import write_safetensors
from acon_analysis.models.registry import build_model, registry
from acon_analysis.models.shufflenet import SmallShuffleNet
from acon_analysis.training.loop import Training
from acon_analysis.training.recipes import RECIPES, Recipe


def train_network(
    name: str,
    out: Path,
    *,
    data: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    snapshots: Collection[int] = (),
    progress: bool = True,
) -> pd.DataFrame:
    """Train a network of the registry from scratch and write weights, curves and card.

    Next to `out` (safetensors) come the curves (``.csv``), which are returned, the model card
    (``.md``) and, until the training is finished, the state from which the same call continues
    (``.state``). ``data`` and ``recipe`` default to the network's own; ``seed`` is that of the
    first weights, of the order and of the augmentation. After the epochs in ``snapshots`` (0:
    untrained) the weights are kept as ``out.epochNNN.safetensors``.
    """
    spec = registry().get(name)
    trainable = [key for key, value in registry().items() if value.data is not None]
    if spec is None or spec.data is None:
        raise UsageError(f"train: {name!r} has no training recipe; {closest(name, trainable)}")
    data = (data or spec.data).partition(":")[0]
    if data not in RECIPES:
        raise UsageError(f"train: there is no recipe for {data!r}; {closest(data, RECIPES)}")
    recipe = recipe or RECIPES[data]
    if epochs is not None:
        if epochs < 1:
            raise UsageError(f"train: epochs must be at least 1; got {epochs}")
        recipe = replace(recipe, epochs=epochs)
    beyond = [epoch for epoch in snapshots if not 0 <= epoch <= recipe.epochs]
    if beyond:
        raise UsageError(
            f"train: snapshots: there is no epoch {beyond[0]} among 0 to {recipe.epochs}"
        )
    out = weights_path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    model = build_model(name, weights=None, seed=seed)
    state = out.with_suffix(".state")
    training = Training(
        model, open_data(f"{data}:train"), open_data(f"{data}:test"), recipe, seed, state, name
    )
    if training.epoch in snapshots:  # of epoch 0; or a process ended between state and snapshot
        write_safetensors(_snapshot(out, training.epoch), _tensors(model), {})
    for epoch in training.run(progress):
        if epoch in snapshots:
            write_safetensors(_snapshot(out, epoch), _tensors(model), {})
    _release(name, out, training, data)
    state.unlink(missing_ok=True)
    return training.curves


def weights_path(out: Path) -> Path:
    """Return the weights file that a name means: with the ending ``.safetensors``."""
    if out.is_dir():
        raise UsageError(f"out: {str(out)!r} is a folder; name a file in it")
    return out if out.suffix == ".safetensors" else out.with_name(out.name + ".safetensors")


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (doi:10.1080/01621459.1927.10502953)."""
    interval = binomtest(right, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.contiguous() for key, value in model.state_dict().items()}


def _snapshot(out: Path, epoch: int) -> Path:
    return out.with_suffix(f".epoch{epoch:03d}.safetensors")


def _release(name: str, out: Path, training: Training, data: str) -> None:
    curves, test = training.curves, training.test
    right = round((1 - curves["test_error"].iloc[-1]) * len(test))
    low, high = wilson_interval(right, len(test))
    facts = {
        "model": name,
        "data": data,
        "seed": str(training.seed),
        "recipe": json.dumps(asdict(training.recipe), sort_keys=True),
        "test_accuracy": f"{right / len(test):.4f}",
        "test_accuracy_low": f"{low:.4f}",
        "test_accuracy_high": f"{high:.4f}",
        "test_images": str(len(test)),
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"numpy {np.__version__}, scikit-learn {sklearn.__version__}",
    }
    card = _card(facts, training.train, curves, training.model)
    atomic_write(out.with_suffix(".csv"), csv_text(curves, "%.6g").encode())
    atomic_write(out.with_suffix(".md"), card.encode())
    write_safetensors(out, _tensors(training.model), facts)


#: What the cards say of an architecture.
_WORDS: dict[type[nn.Module], str] = {
    BottleneckResNet: (
        "A bottleneck ResNet; the networks of its family differ only in the activation after the\n"
        "3x3 convolutions."
    ),
    SmallShuffleNet: "A small ShuffleNetV2 in which every activation is replaced.",
}


def _card(facts: dict[str, str], train: ImageSource, curves: pd.DataFrame, model: nn.Module) -> str:
    recipe = json.loads(facts["recipe"])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    last = curves.iloc[-1]
    settings = "\n".join(f"| {key} | {value} |" for key, value in recipe.items())
    return f"""# {facts["model"]}

{_WORDS[type(model)]} {parameters:,} parameters, trained by this project.

- Data: `{facts["data"]}`, {len(train):,} training and {int(facts["test_images"]):,} test images;
  the split is fixed, the test images were never trained on.
- Test accuracy: {float(facts["test_accuracy"]):.4f}, 95 % Wilson interval
  {float(facts["test_accuracy_low"]):.4f} to {float(facts["test_accuracy_high"]):.4f} (one seed;
  the interval is that of the finite test split, not of the seed).
- Last epoch: train loss {last.train_loss:.4f}, test loss {last.test_loss:.4f}. All epochs: the
  `.csv` of the same name.
- Seed: {facts["seed"]}. Versions: {facts["versions"]}.
- Recipe: SGD, learning rate falling linearly to 0, weight decay on convolution and linear weights
  only (p1, p2, beta, biases and normalisation are free).
- Remake: `acon train {facts["model"]} --seed {facts["seed"]} --out FILE`

| setting | value |
|---|---|
{settings}
"""
