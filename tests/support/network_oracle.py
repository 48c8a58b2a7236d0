"""What the activations of a network do, by own hooks and numpy in float64; and what a model is.

Nothing of the project computes a number here.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import acon_analysis as acon
import acon_hooks
from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from acon_analysis.runs.run import Run
from acon_hooks.explainers.importance import conductance
from model_facts import unchanged, warned

Array = npt.NDArray[np.float64]
Key = tuple[str, int]
Model = TypeVar("Model", bound=nn.Module)
#: Runs a network on one batch.
Forward = Callable[[nn.Module, Any], Any]

#: Cuts a tensor of one batch, given with the batch's number, into single samples, (1, ...) each.
Parts = Callable[[int, Tensor], Sequence[Tensor]]

#: Agreement of a capture with the oracle: relative to 1 for L, which lies in [0, 1].
TOLERANCE = 1e-6


def seen(
    model: nn.Module, batches: Sequence[Any], layers: Sequence[str], forward: Forward
) -> dict[Key, list[tuple[Tensor, Tensor]]]:
    """Return input and output of every call of some layers, batch by batch, by plain hooks.

    Functions are named as in `block:relu#1`.
    """
    functions = [name for name in layers if "#" in name]
    layers = [name for name in layers if "#" not in name]
    found: dict[Key, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    modules = dict(model.named_modules(remove_duplicate=False))
    count: dict[str, int] = defaultdict(int)
    given: dict[str, list[Tensor]] = defaultdict(list)

    def before(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            given[name].append((args[0] if args else next(iter(kwargs.values()))).detach().clone())

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            found[name, count[name]].append((given[name].pop(), output.detach().clone()))
            count[name] += 1

        return hook

    handles = [modules[n].register_forward_pre_hook(before(n), with_kwargs=True) for n in layers]
    # First of all: what the hooks of others make of the output is no longer the layer's.
    handles += [modules[n].register_forward_hook(after(n), prepend=True) for n in layers]
    try:
        with torch.no_grad():
            for batch in batches:
                count.clear()
                forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return found | seen_functions(model, batches, functions, forward)


_SPELLINGS = {
    "expit": "sigmoid", "special_expit": "sigmoid", "clip": "clamp", "_threshold": "threshold",
}  # fmt: skip


class Functions(TorchFunctionMode):
    """Writes down input and output of functions, by a stack of modules that hooks keep."""

    def __init__(self, model: nn.Module, wanted: Sequence[str]) -> None:
        super().__init__()
        self.wanted = set(wanted)
        self.found: dict[Key, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self.calls: dict[str, int] = defaultdict(int)
        self.stack: list[tuple[str, dict[str, int]]] = []
        self.handles: list[Any] = []
        for name, module in model.named_modules():
            enter = partial(self.enter, name)
            self.handles.append(module.register_forward_pre_hook(enter, prepend=True))
            self.handles.append(module.register_forward_hook(self.leave, always_call=True))

    def enter(self, name: str, *_: Any) -> None:
        self.stack.append((name, defaultdict(int)))

    def leave(self, *_: Any) -> None:
        self.stack.pop()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", "")).rstrip("_").replace("log_s", "logs")
        name = _SPELLINGS.get(name, name)
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        x = max(given, key=torch.numel, default=torch.zeros(0)).detach().clone()
        out = func(*args, **kwargs)
        if self.stack:
            owner, counts = self.stack[-1]
            site = f"{owner}:{name}#{counts[name]}"
            counts[name] += 1
            if site in self.wanted:
                self.found[site, self.calls[site]].append((x, out.detach().clone()))
                self.calls[site] += 1
        return out


def seen_functions(
    model: nn.Module, batches: Sequence[Any], names: Sequence[str], forward: Forward
) -> dict[Key, list[tuple[Tensor, Tensor]]]:
    """Do what `seen` does, for functions."""
    functions = Functions(model, names)
    try:
        with torch.no_grad(), functions:
            for batch in batches if names else []:
                functions.calls.clear()
                forward(model, batch)
    finally:
        for handle in functions.handles:
            handle.remove()
    return functions.found


def folded(value: Tensor, axis: int) -> Array:
    """Return (N, C, P) of a tensor, in float64."""
    array = value.double().cpu().numpy()
    array = array[:, None] if array.ndim == 1 else np.moveaxis(array, axis, 1)
    return array.reshape(*array.shape[:2], math.prod(array.shape[2:]))


def residuals(x: Array, y: Array) -> tuple[Array, Array]:
    """Return SSE of the least-squares line and Cyy, over the last axis."""
    dx, dy = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    cxx, cxy, cyy = (dx * dx).sum(-1), (dx * dy).sum(-1), (dy * dy).sum(-1)
    slope = np.divide(cxy, cxx, out=np.zeros_like(cxy), where=cxx > 0)
    rest = dy - slope[..., None] * dx
    return (rest * rest).sum(-1), cyy


def share(sse: Array, cyy: Array) -> Array:
    """Return L = 1 - SSE/Cyy, 1 where the output does not vary."""
    return np.asarray(1 - np.divide(sse, cyy, out=np.zeros_like(sse), where=cyy > 0))


@dataclass
class Linearity:
    """L of one call of a layer: of the layer, (C,) of its channels, (N,) of the samples.

    A line is exact for at most two values: L of a sample is NaN there.
    """

    layer: float
    channel: Array
    sample: Array


def linearity(pairs: Sequence[tuple[Tensor, Tensor]], axis: int) -> Linearity:
    """Return L of one call of a layer from its inputs and outputs, batch by batch."""
    both = [(folded(x, axis), folded(y, axis)) for x, y in pairs]
    x, y = (
        np.concatenate([np.moveaxis(p[i], 1, 0).reshape(p[i].shape[1], -1) for p in both], 1)
        for i in (0, 1)
    )
    sse, cyy = residuals(x, y)
    parts = [residuals(*pair) for pair in both]
    samples = np.concatenate([share(s.sum(1), c.sum(1)) for s, c in parts])
    samples[np.repeat([p[0].shape[2] <= 2 for p in both], [len(p[0]) for p in both])] = np.nan
    return Linearity(float(share(sse.sum(), cyy.sum())), share(sse, cyy), samples)


def meta_beta(layer: MetaAconC, x: Tensor, axis: int = 1) -> Array:
    """Return β of a Meta-ACON layer, (N, C), from its own weights in float64."""
    own = copy.deepcopy(layer).double()
    pooled = x.double().movedim(axis, 1).reshape(x.shape[0], x.shape[axis], -1).mean(2)

    def linear(conv: Any, z: Tensor) -> Tensor:
        made: Tensor = z @ conv.weight.flatten(1).T + conv.bias
        return made

    def norm(bn: Any, z: Tensor) -> Tensor:
        made: Tensor = (z - bn.running_mean) / (bn.running_var + bn.eps).sqrt()
        return made * bn.weight + bn.bias

    with torch.no_grad():
        z = norm(own.bn2, linear(own.fc2, norm(own.bn1, linear(own.fc1, pooled))))
        return (1 / (1 + (-z).exp())).numpy()


def settled(model: Model) -> Model:
    """Give every normalisation weights and statistics as training leaves them; evaluation mode."""
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            size = module.num_features
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(0.3 * torch.randn(size, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(size, generator=generator))
    return model.eval()


def captured(
    model: nn.Module,
    batches: Sequence[Any],
    folder: Path,
    *,
    but: Sequence[str] = (" memory ",),
    **options: Any,
) -> Run:
    """Capture a network as a user would; the model stays what it was, but for `memory`."""
    with unchanged(model, but):
        return acon.capture(model, batches, folder, progress=False, **options)


def assert_measured(
    run: Run,
    model: nn.Module,
    batches: Sequence[Any],
    axes: Mapping[str, int | Sequence[int]],
    *,
    forward: Forward = lambda model, batch: model(batch),
    tolerance: float = TOLERANCE,
    rowless: Collection[str] = (),
    parts: Parts | None = None,
) -> None:
    """Compare every number of a run with the oracle: β, and L by layer, channel and sample.

    `axes` has the channel axis of each layer, or of each of its calls; rows of `rowless` layers are
    no samples; `parts` cuts an input or output of a batch into samples without padding.
    """
    found = seen(model, batches, list(axes), forward)
    layers = run.linearity(columns="all").set_index(["layer", "call"])
    channels, samples = (
        run.linearity(by="channel", columns="all"),
        linearity_by_sample(run, rowless),
    )
    assert set(layers.index) == set(found)
    assert set(samples["layer"]) == set(axes) - set(rowless)
    for key, pairs in found.items():
        axis = axes[key[0]]
        axis = axis if isinstance(axis, int) else axis[key[1]]
        if parts is not None:
            pairs = [
                pair
                for number, (x, y) in enumerate(pairs)
                for pair in zip(parts(number, x), parts(number, y), strict=True)
            ]
        want = linearity(pairs, axis)
        row = channels[(channels["layer"] == key[0]) & (channels["call"] == key[1])]
        assert len(row) == len(want.channel), f"{key}: {len(row)} channels, not {len(want.channel)}"
        got = row.sort_values("channel")["L"].to_numpy()
        np.testing.assert_allclose(got, want.channel, atol=tolerance, rtol=0, err_msg=str(key))
        np.testing.assert_allclose(
            float(layers["L"][key]), want.layer, atol=tolerance, rtol=0, err_msg=str(key)
        )
        if key[0] not in rowless:
            rows = samples[(samples["layer"] == key[0]) & (samples["call"] == key[1])]
            got = rows.sort_values("sample")["L"].to_numpy()
            np.testing.assert_allclose(got, want.sample, atol=tolerance, rtol=0, err_msg=str(key))
        assert_betas(run, model, key, pairs, axis, tolerance)


def measured(
    model: nn.Module, batches: Sequence[Any], folder: Path, axes: Mapping[str, Any], **options: Any
) -> Run:
    """Capture a network, compare every number with the oracle, and call every public function."""
    but = options.get("but", ())
    compared = {name: options.pop(name) for name in ("rowless", "tolerance") if name in options}
    run = captured(model, batches, folder / "run", **options)
    assert_measured(run, model, batches, axes, **compared)
    every_function(model, batches[0], but)
    return run


def linearity_by_sample(run: Run, rowless: Collection[str]) -> pd.DataFrame:
    """Return L by sample; layers whose rows are no samples have to be left out by name."""
    if not rowless:
        return run.linearity(by="sample", columns="all")
    assert set(run.manifest["rows"]["layers"]) == set(rowless)
    if set(rowless) == set(run.layers["layer"]):
        with pytest.raises(AconError, match="by sample: rows of layer"):
            run.linearity(by="sample", columns="all")
        return pd.DataFrame({"layer": []})
    with warned("left out: rows of layer"):
        return run.linearity(by="sample", columns="all")


def assert_betas(
    run: Run,
    model: nn.Module,
    key: Key,
    pairs: Sequence[tuple[Tensor, Tensor]],
    axis: int,
    tolerance: float,
) -> None:
    """Compare β of a Meta-ACON layer with what its own weights give."""
    layer = dict(model.named_modules(remove_duplicate=False)).get(key[0])
    if isinstance(layer, MetaAconC):
        want = np.concatenate([meta_beta(layer, x, axis) for x, _ in pairs])
        np.testing.assert_allclose(run.beta_matrix(*key), want, atol=tolerance, rtol=0)


def every_function(
    model: nn.Module, example: Any, but: Sequence[str] = (), skip: Sequence[str] = ()
) -> dict[str, str]:
    """Call every public function; each succeeds, or refuses in the sentence that is returned."""
    kinds = ("meta_acon", "acon", "activation")
    given = example if isinstance(example, tuple) else (example,)
    batch = given[0]

    def recorded() -> None:
        with torch.no_grad(), acon.record(model, kinds=kinds):
            model(*(value.detach().clone() for value in given))

    def replaced() -> None:
        plan = acon_hooks.fit_units(model, [batch]).plan(budget=0.5)
        acon_hooks.linearize(model, plan)
        acon_hooks.verify_plan(model, plan, [batch])

    functions: dict[str, Callable[[], Any]] = {
        "find_layers": lambda: acon.find_layers(model, kinds),
        "find_layers, example": lambda: acon.find_layers(model, kinds, example),
        "record": recorded,
        "prove": lambda: acon_hooks.prove(model, example, kinds=kinds),
        "replacement": replaced,
        "explain": lambda: acon.explain(model, batch, _first(model), steps=4, tolerance=9.0),
        "conductance": lambda: conductance(model, batch, kinds=kinds, steps=2),
    }
    refused = {}
    for name in [name for name in functions if name not in skip]:
        function = functions[name]
        with unchanged(model, but, name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                function()
            except AconError as error:
                refused[name] = str(error)
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    return refused


def _first(model: nn.Module) -> str:
    """Return the name of the first Meta-ACON layer, or of the first activation."""
    found = acon.find_layers(model) or acon.find_layers(model, ("activation",))
    return found[0].name if found else "none"
