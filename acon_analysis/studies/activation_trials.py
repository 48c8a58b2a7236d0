"""Small networks that differ in the activation alone, trained on the digits side by side.

All networks of a call (learning rates x seeds) are trained at once, as one batch of networks: a few
hundred of them cost seconds on a CPU.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from acon_analysis.data.sources import digits
from acon_analysis.errors import UsageError, closest
from acon_analysis.layers import AconC


class _Centred(nn.Sigmoid):
    """The logistic function minus 1/2: the same slopes, an output with mean 0."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - 0.5


#: Name -> builds the activation for a number of channels.
TRIED: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda _: nn.Identity(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "sigmoid - 1/2": lambda _: _Centred(),
    "tanh": lambda _: nn.Tanh(),
    "ReLU": lambda _: nn.ReLU(),
    "Leaky ReLU": lambda _: nn.LeakyReLU(0.1),
    "ELU": lambda _: nn.ELU(),
    "SELU": lambda _: nn.SELU(),
    "Swish": lambda _: nn.SiLU(),
    "ACON-C": AconC,
}

#: What a layer's first weights are drawn for.
STARTS = ("torch", "kept")

#: Training images that choose the learning rate; the others train.
VALIDATION = 297

#: Images a step of training.
BATCH = 32

#: An output that varies by less than this (standard deviation over the images) is dead.
DEAD = 1e-6


@lru_cache(maxsize=1)
def digits_tensors() -> dict[str, tuple[Tensor, Tensor]]:
    """Return the digits as (images, labels): "train" (1,000), "validation" (297), "test" (500).

    Grey values standardised over the training split, float32 (N, 1, 8, 8); labels int64 (N,).
    """
    parts = {}
    for split in ("train", "test"):
        source = digits(split)
        images = torch.stack([source[index] for index in range(len(source))])
        parts[split] = images, torch.as_tensor(np.asarray(source.targets))
    images, labels = parts["train"]
    mean, std = images.mean(), images.std()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    cuts = {"validation": order[:VALIDATION], "train": order[VALIDATION:]}
    found = {name: ((images[own] - mean) / std, labels[own]) for name, own in cuts.items()}
    found["test"] = (parts["test"][0] - mean) / std, parts["test"][1]
    return found


def small_network(
    activation: str,
    *,
    network: str = "dense",
    depth: int = 2,
    width: int = 24,
    start: str = "kept",
    like: str | None = None,
    seed: int = 0,
) -> nn.Sequential:
    """Build a small network for the digits.

    Parameters
    ----------
    activation : str
        A key of `TRIED`.
    network : {"dense", "conv"}
        `depth` fully connected hidden layers; or as many 3x3 convolutions, then the mean over
        2x2 pixels. A linear layer gives the ten scores.
    depth, width : int
        Hidden layers, and units (channels) of each.
    start : {"torch", "kept"}
        First weights: as torch draws them; or Gaussian with the variance 1/(n·E[f(z)²]), n the
        number of inputs and z standard normal, so that the size of the signal is kept whatever
        the activation f is (for ReLU this is He's rule), biases 0.
    like : str, optional
        Draw the first weights for this activation instead, so that two can be compared at the same
        weights.
    seed : int
        Of the weights.

    References
    ----------
    K. He, X. Zhang, S. Ren, J. Sun (2015), Delving Deep into Rectifiers, ICCV,
    DOI 10.1109/ICCV.2015.123.
    """
    for name in (activation, like or activation):
        if name not in TRIED:
            raise UsageError(f"there is no activation {name!r}; {closest(name, TRIED)}")
    if network not in ("dense", "conv") or start not in STARTS or min(depth, width) < 1:
        raise UsageError(
            "network is 'dense' or 'conv', start 'torch' or 'kept', depth and width at least 1; "
            f"got {network!r}, {start!r}, {depth} and {width}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [] if network == "conv" else [nn.Flatten()]
        inputs = 1 if network == "conv" else 64
        for _ in range(depth):
            dense = network == "dense"
            own = nn.Linear(inputs, width) if dense else nn.Conv2d(inputs, width, 3, padding=1)
            layers += [own, TRIED[activation](width)]
            inputs = width
        if network == "conv":
            layers += [nn.AvgPool2d(2), nn.Flatten()]
            inputs = width * 16
        model = nn.Sequential(*layers, nn.Linear(inputs, 10))
        if start == "kept":
            _keep_the_signal(model, _power(like or activation))
    return model


@lru_cache(maxsize=32)
def _power(activation: str) -> float:
    """Return E[f(z)²] for standard normal z; over many channels, as ACON-C's slopes are drawn."""
    z = torch.linspace(-6.0, 6.0, 1201, dtype=torch.float64)
    weight = torch.exp(-z * z / 2)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = TRIED[activation](512).double()(z[:, None].expand(-1, 512).clone())
        return float((weight * y.square().mean(1)).sum() / weight.sum())


def _keep_the_signal(model: nn.Module, power: float) -> None:
    with torch.no_grad():
        first = True
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                inputs = module.weight[0].numel()
                # The images are standardised: the first layer needs no correction.
                module.weight.normal_(0.0, (inputs * (1.0 if first else power)) ** -0.5)
                if module.bias is not None:
                    module.bias.zero_()
                first = False


def start_signals(
    activations: Sequence[str], seeds: Sequence[int] = range(5), **network: Any
) -> pd.DataFrame:
    """Measure what goes forward and backward through untrained networks.

    Activations are keys of `TRIED`; a network each has each seed, and ``network`` are other
    arguments of `small_network`. Returns a row an activation, seed and hidden layer (from 1):
    ``mean`` and ``std`` of the activation's output over units and training images, ``offset``
    (|mean| / std), and ``gradient``, the root mean square of the derivative of the images' losses
    by the layer's output before the activation.
    """
    images, labels = digits_tensors()["train"]
    rows = []
    for activation in activations:
        for seed in seeds:
            model = small_network(activation, seed=seed, **network)
            x, before, after = images, [], []
            for module in model:
                x = module(x)
                if isinstance(module, nn.Linear | nn.Conv2d):
                    before.append(x)
                elif type(module) is type(TRIED[activation](1)):
                    after.append(x.detach())
            loss = nn.functional.cross_entropy(x, labels, reduction="sum")
            slopes = torch.autograd.grad(loss, before[:-1])
            for layer, (slope, output) in enumerate(zip(slopes, after, strict=True), start=1):
                mean, std = float(output.mean()), float(output.std())
                rows.append(
                    {
                        "activation": activation,
                        "seed": seed,
                        "layer": layer,
                        "mean": mean,
                        "std": std,
                        "offset": abs(mean) / std if std > 0 else np.nan,
                        "gradient": float(slope.square().mean().sqrt()),
                    }
                )
    return pd.DataFrame(rows)


def train_trials(
    activations: Sequence[str],
    *,
    rates: Sequence[float] = (0.01, 0.03, 0.1, 0.3),
    seeds: Sequence[int] = range(5),
    steps: int = 120,
    **network: Any,
) -> pd.DataFrame:
    """Train networks that differ in activation, learning rate and seed.

    SGD with momentum 0.9, the learning rate falling linearly to 0; cross-entropy. Networks of one
    seed see the same images in the same order, `BATCH` a step, whatever their activation.

    Activations are keys of `TRIED`; ``rates`` are the first learning rates, ``seeds`` those of
    weights and order of the images, ``network`` other arguments of `small_network`. Returns a row a
    network: ``activation``, ``rate``, ``seed``, ``validation`` and ``test`` (accuracy; 0.1 where a
    network has diverged), ``diverged``, ``dead`` (share of its hidden units whose output is the
    same for all training images; NaN where it has diverged).
    """
    if not activations or not rates or not len(seeds) or steps < 1:
        raise UsageError("at least one activation, rate, seed and step are needed")
    pairs = [(rate, seed) for rate in rates for seed in seeds]
    frames = []
    for activation in activations:
        models = [small_network(activation, seed=seed, **network) for _, seed in pairs]
        with _one_thread():
            trained = _train(models, pairs, steps)
        frames.append(
            pd.DataFrame(
                {
                    "activation": activation,
                    "rate": [rate for rate, _ in pairs],
                    "seed": [seed for _, seed in pairs],
                    **_judged(models[0], trained),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread inside: in products this small, threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    models: list[nn.Sequential], pairs: list[tuple[float, int]], steps: int
) -> dict[str, Tensor]:
    """Return the trained parameters of all networks, stacked."""
    images, labels = digits_tensors()["train"]
    base = copy.deepcopy(models[0]).to("meta")
    stacked, _ = stack_module_state(models)
    weights = {name: value.detach() for name, value in stacked.items()}
    speed = {name: torch.zeros_like(value) for name, value in weights.items()}
    rates = torch.tensor([rate for rate, _ in pairs])
    orders = {seed: torch.Generator().manual_seed(seed) for _, seed in pairs}

    run = vmap(lambda own, x: functional_call(base, own, (x,)))
    total = nn.CrossEntropyLoss(reduction="sum")
    for step in range(steps):
        drawn = {
            seed: torch.randint(len(images), (BATCH,), generator=order)
            for seed, order in orders.items()
        }
        index = torch.stack([drawn[seed] for _, seed in pairs])
        # The networks share no weight: the gradient of the summed loss is each network's own.
        names = list(weights)
        open_ = [weights[name].requires_grad_() for name in names]
        loss = total(run(weights, images[index]).flatten(0, 1), labels[index].flatten())
        slopes = torch.autograd.grad(loss / BATCH, open_)
        factor = rates * (1 - step / steps)
        with torch.no_grad():
            for name, value in zip(names, slopes, strict=True):
                speed[name] = 0.9 * speed[name] + value
                move = factor.view(-1, *[1] * (value.ndim - 1)) * speed[name]
                weights[name] = weights[name].detach() - move
    return weights


def _judged(model: nn.Sequential, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return accuracies and dead units of all networks."""
    data = digits_tensors()
    columns: dict[str, Any] = {}
    finite = torch.stack([value.flatten(1).isfinite().all(1) for value in weights.values()]).all(0)
    for split in ("validation", "test"):
        images, labels = data[split]
        scores = vmap(lambda own, x: functional_call(model, own, (x,)), (0, None))(weights, images)
        right = (scores.argmax(-1) == labels).double().mean(1)
        columns[split] = torch.where(finite, right, 0.1).numpy()
    columns["diverged"] = (~finite).numpy()
    x = data["train"][0].expand(len(finite), *data["train"][0].shape)
    dead, units, bent = torch.zeros(len(finite)), 0, False
    with torch.no_grad():
        for name, module in model.named_children():
            own = {
                k.partition(".")[2]: v for k, v in weights.items() if k.partition(".")[0] == name
            }
            x = vmap(lambda p, v, m=module: functional_call(m, p, (v,)))(own, x)
            if bent:
                varies = x.movedim(2, 1).flatten(2).std(2)
                dead += (varies < DEAD).sum(1)
                units += varies.shape[1]
            bent = isinstance(module, nn.Linear | nn.Conv2d)
    columns["dead"] = torch.where(finite, dead / units, torch.nan).double().numpy()
    return columns
