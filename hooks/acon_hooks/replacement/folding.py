"""Fold layers that became affine into their neighbours, and prove that nothing changed.

A line a·x + b on every channel goes exactly into the convolution, linear layer or batch
normalisation before it. It goes into the one behind it only where every output sees the whole
kernel: behind zero padding, border outputs would see less of b. The slope alone could go there,
but the addition that stays would cost as much as the line does.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, fx, nn

from acon_analysis.errors import AconError
from acon_hooks.layers.scan import KINDS, scan_layers
from acon_hooks.replacement.affine_layer import AffineChannels, LinearizedActivation
from acon_hooks.replacement.fold_rules import exact_intercept, fold_after, fold_before, foldable
from acon_hooks.replacement.linearizing import linearized_layers, put_module

#: Largest difference of the outputs, relative to their largest value, that a fold may make.
TOLERANCE = 1e-5


class FoldError(AconError):
    """A model cannot be folded, or folding has changed its output."""


@dataclass(frozen=True)
class Folded:
    """A folded model, what went where, and the proof.

    Parameters
    ----------
    model : Module
        The copy.
    table : DataFrame
        One row a use of a layer that is affine on every channel: layer, call, where ("before",
        "behind", or "" where it stays), into (name of the module), reason (why it stays).
    error : float
        Largest |folded - unfolded| over the largest |output|, both computed in float64.
    """

    model: nn.Module
    table: pd.DataFrame
    error: float


def fold_lines(model: nn.Module, images: Tensor, *, tolerance: float = TOLERANCE) -> Folded:
    """Fold every use of a layer that is affine on all channels into a neighbour.

    Parameters
    ----------
    model : Module
        From `linearize`, in evaluation mode; it stays as it is.
    images : Tensor
        (N, ...), for the proof.
    tolerance : float
        See `TOLERANCE`.

    Returns
    -------
    Folded
        A layer that was folded completely is an identity. The copy is not meant to be saved by
        `acon_hooks.replacement.linearizing.save_linearized`: save the linearised model, load it,
        fold it again.

    Raises
    ------
    FoldError
        If the model cannot be traced by torch.fx, or the outputs differ by more than the tolerance.
    """
    changed = copy.deepcopy(model).eval()
    ranks = _ranks(changed, images)
    graph = _trace(changed)
    modules = dict(changed.named_modules())
    uses = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    turns: Counter[str] = Counter()
    rows = []
    for node in graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, LinearizedActivation):
            continue
        name, call = str(node.target), turns[str(node.target)]
        turns[name] += 1
        line = dict(layer.lines.items()).get(str(call))
        if isinstance(line, AffineChannels) and line.whole:
            place = _Place(modules, uses, ranks[name][call])
            rows.append({"layer": name, "call": call, **_fold_use(node, line, place)})
    _drop_identities(changed)
    error = _difference(model, changed, images)
    if not error <= tolerance:
        raise FoldError(
            f"folding has changed the output by {error:.2g} of its largest value; "
            f"at most {tolerance:.2g} is allowed"
        )
    names = ["layer", "call", "where", "into", "reason"]
    return Folded(changed, pd.DataFrame(rows, columns=names), error)


def forward_times(
    models: dict[str, nn.Module], images: Tensor, *, repeats: int = 20
) -> dict[str, float]:
    """Time forward passes of several models in turns, so that a busy machine disturbs all alike.

    Parameters
    ----------
    models : dict of str to Module
        On one device, in evaluation mode.
    images : Tensor
        (N, ...).
    repeats : int
        Passes of each, after one that is not counted.

    Returns
    -------
    dict of str to float
        Median seconds of one pass; on the CPU seconds of this process' own processor time.
    """
    clock = time.perf_counter if images.is_cuda else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for name, model in models.items():
                start = clock()
                model(images)
                if images.is_cuda:
                    torch.cuda.synchronize(images.device)
                if repeat:
                    seconds[name].append(clock() - start)
    return {name: float(pd.Series(values).median()) for name, values in seconds.items()}


@dataclass(frozen=True)
class _Place:
    """What folding must know beside the graph: modules by name, their uses, the input's rank."""

    modules: dict[str, nn.Module]
    uses: Counter[str]
    rank: int

    def neighbour(self, node: Any, line: AffineChannels) -> tuple[nn.Module | None, str]:
        """Return the module of a node if lines can go there, or None and the reason."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None, f"{_called(node)} is no convolution, linear layer or normalisation"
        name = str(node.target)
        module = self.modules[name]
        if not foldable(module):
            return None, f"{name} ({type(module).__name__}) cannot take it"
        if self.uses[name] > 1:
            return None, f"{name} is used {self.uses[name]} times"
        axis = self.rank - 1 if isinstance(module, nn.Linear) else 1
        if line.axis != axis:
            return None, f"{name} has its channels on axis {axis}, the layer on axis {line.axis}"
        return module, ""


def _fold_use(node: fx.Node, line: AffineChannels, place: _Place) -> dict[str, Any]:
    """Fold one use of a layer; return where it went."""
    before = _earlier(node.all_input_nodes[0], place)
    if len(before.users) == 1:
        module, reason = place.neighbour(before, line)
    else:
        module, reason = None, f"{_called(before)} is used {len(before.users)} times"
    if module is not None:
        fold_before(module, line.slope, line.intercept)
        line.passes = True
        return {"where": "before", "into": str(before.target), "reason": ""}
    behind, why = _later(node, place), "the output is used several times"
    if behind is not None:
        module, why = place.neighbour(behind, line)
        if module is not None and (exact_intercept(module) or not bool(line.intercept.any())):
            fold_after(module, line.slope, line.intercept)
            line.passes = True
            return {"where": "behind", "into": str(behind.target), "reason": ""}
        why = why or f"border outputs of {behind.target} see only part of its kernel"
    return {"where": "", "into": "", "reason": f"before: {reason}; behind: {why}"}


def _passive(node: fx.Node, place: _Place) -> bool:
    kinds = nn.Identity | nn.Dropout | nn.Dropout2d | nn.Dropout3d
    return node.op == "call_module" and isinstance(place.modules[str(node.target)], kinds)


def _earlier(node: fx.Node, place: _Place) -> fx.Node:
    """Return the node before, through identities that nothing else uses."""
    while _passive(node, place) and len(node.users) == 1:
        node = node.all_input_nodes[0]
    return node


def _later(node: fx.Node, place: _Place) -> fx.Node | None:
    """Return the only user of a node, through identities; None if there are several."""
    while len(node.users) == 1:
        (user,) = node.users
        if not _passive(user, place):
            return user
        node = user
    return None


def _called(node: Any) -> str:
    target = getattr(node, "target", node)
    return str(getattr(target, "__name__", target))


class _Tracer(fx.Tracer):
    """Leaves activations and whatever owns their parameters whole."""

    def __init__(self, leaves: set[nn.Module]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether the graph shows a module as one node."""
        return m in self.leaves or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    leaves: set[nn.Module] = set(linearized_layers(model).values())
    leaves |= {layer.module for layer in scan_layers(model, KINDS) if layer.name}
    try:
        return _Tracer(leaves).trace(model)
    except Exception as error:  # whatever a foreign forward raises under tracing
        raise FoldError(
            f"{type(model).__name__} cannot be traced by torch.fx, so its neighbours are not "
            f"known ({type(error).__name__}: {error}); use it linearised but unfolded"
        ) from error


def _ranks(model: nn.Module, images: Tensor) -> dict[str, list[int]]:
    """Return the number of axes of the input of every use of every linearised layer."""
    ranks: dict[str, list[int]] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            ranks[name].append(args[0].ndim)

        return note

    handles = []
    try:
        for name, layer in linearized_layers(model).items():
            ranks[name] = []
            handles.append(layer.register_forward_pre_hook(noting(name)))
        with torch.inference_mode():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return ranks


def _drop_identities(model: nn.Module) -> None:
    for layer in linearized_layers(model).values():
        lines = list(_affine(layer))
        if layer.calls == len(lines) and all(line.passes for line in lines):
            put_module(model, layer, nn.Identity())


def _affine(layer: LinearizedActivation) -> Iterator[AffineChannels]:
    for line in layer.lines.values():
        if isinstance(line, AffineChannels):
            yield line


def _difference(first: nn.Module, second: nn.Module, images: Tensor) -> float:
    """Return max |second - first| / max |first| in float64."""
    wide = images.double()
    with torch.inference_mode():
        a, b = (copy.deepcopy(model).eval().double()(wide) for model in (first, second))
    return float((b - a).abs().max() / a.abs().max())
