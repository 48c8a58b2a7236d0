"""Fold layers that became affine into their neighbours, and prove that nothing changed.

A line a·x + b on every channel goes exactly into the convolution, linear layer or batch
normalisation before it. It goes into the one behind it only where every output sees the whole
kernel: behind zero padding, border outputs would see less of b. The slope alone could go there,
but the addition that stays would cost as much as the line does. Products are taken in float64 and
rounded once; new parameters replace the old ones, so that modules sharing a parameter keep theirs.
"""

import copy
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, fx, nn

from acon_analysis.errors import AconError
from acon_hooks.engine.outputs import Output, pick_output
from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.visiting import visiting
from acon_hooks.layers.axes import REARRANGING
from acon_hooks.layers.scan import KINDS, scan_layers
from acon_hooks.replacement.linearizing import (
    LinearizedActivation,
    ReplacedChannels,
    linearized_layers,
    put_module,
)

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

#: Operators that overwrite their first operand: +=, -=, *=, /=.
_IN_PLACE = ("iadd", "isub", "imul", "itruediv")

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


def fold_lines(
    model: nn.Module, images: Tensor, *, tolerance: float = TOLERANCE, output: Output = None
) -> Folded:
    """Fold every use of a layer that is affine on all channels into a neighbour.

    Parameters
    ----------
    model : Module
        From `linearize`, in evaluation mode; it stays as it is.
    images : Tensor
        (N, ...), for the proof.
    tolerance : float
        See `TOLERANCE`.
    output : int, str or callable, optional
        Which tensor of the output is compared; see `acon_hooks.engine.outputs.pick_output`.

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
        name = str(node.target)
        layer = modules.get(name) if node.op == "call_module" else None
        if not isinstance(layer, LinearizedActivation):
            continue
        call, turns[name] = turns[name], turns[name] + 1
        line = layer.line(call)
        if line is not None and line.whole and line.affine:
            near = _Neighbours(modules, uses, ranks[name][call])
            rows.append({"layer": name, "call": call, **_fold_use(node, line, near)})
    _drop_identities(changed)
    error = _difference(model, changed, images, output)
    if not error <= tolerance:
        raise FoldError(
            f"folding has changed the output by {error:.2g} of its largest value; "
            f"at most {tolerance:.2g} is allowed"
        )
    names = ["layer", "call", "where", "into", "reason"]
    return Folded(changed, pd.DataFrame(rows, columns=names), error)


@dataclass(frozen=True)
class _Neighbours:
    """The modules by name, how often each is used, and the number of axes of a layer's input."""

    modules: dict[str, nn.Module]
    uses: Counter[str]
    rank: int

    def module(self, node: Any, line: ReplacedChannels) -> tuple[nn.Module | None, str]:
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

    def earlier(self, node: fx.Node) -> fx.Node:
        """Return the node before, through identities that nothing else uses."""
        node = node.all_input_nodes[0]
        while self._passive(node) and len(node.users) == 1:
            node = node.all_input_nodes[0]
        return node

    def later(self, node: fx.Node) -> fx.Node | None:
        """Return the only user of a node, through identities; None if there are several."""
        while len(node.users) == 1:
            (user,) = node.users
            if not self._passive(user):
                return user
            node = user
        return None

    def read_elsewhere(self, node: fx.Node) -> bool:
        """Return whether others read the memory of a node's input, also through a view of it."""
        while node.all_input_nodes:
            node = node.all_input_nodes[0]
            if len(node.users) > 1:
                return True
            if not self._keeps_memory(node):
                break
        return False

    def _keeps_memory(self, node: fx.Node) -> bool:
        """Return whether a node may return the memory of its first input."""
        if node.op == "call_module":
            return not foldable(self.modules[str(node.target)])
        name = str(getattr(node.target, "__name__", node.target))
        in_place = name.endswith("_") or name in _IN_PLACE or bool(node.kwargs.get("inplace"))
        return in_place or name in REARRANGING or name == "getitem"

    def _passive(self, node: fx.Node) -> bool:
        """Return whether a node returns its input."""
        kinds = nn.Identity | nn.Dropout | nn.Dropout2d | nn.Dropout3d
        return node.op == "call_module" and isinstance(self.modules[str(node.target)], kinds)


def _fold_use(node: fx.Node, line: ReplacedChannels, near: _Neighbours) -> dict[str, Any]:
    """Fold one use of a layer; return where it went."""
    before = near.earlier(node)
    shared = len(before.users) > 1
    module, reason = near.module(before, line)
    if shared:
        module, reason = None, f"{_called(before)} is used {len(before.users)} times"
    if module is not None:
        fold_before(module, line.slope, line.intercept)
        line.passes = True
        return {"where": "before", "into": str(before.target), "reason": ""}
    behind, why = near.later(node), "the output is used several times"
    if line.in_place and near.read_elsewhere(node):
        behind, why = None, "the layer overwrites an input that others use"
    if behind is not None:
        module, why = near.module(behind, line)
        if module is not None and (exact_intercept(module) or not bool(line.intercept.any())):
            fold_after(module, line.slope, line.intercept)
            line.passes = True
            return {"where": "behind", "into": str(behind.target), "reason": ""}
        why = why or f"border outputs of {behind.target} see only part of its kernel"
    return {"where": "", "into": "", "reason": f"before: {reason}; behind: {why}"}


def _called(node: Any) -> str:
    """Return the name of what a node calls."""
    target = getattr(node, "target", node)
    return str(getattr(target, "__name__", target))


class _Tracer(fx.Tracer):
    """Leaves activations and whatever owns their parameters whole."""

    def __init__(self, leaves: set[nn.Module]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the graph shows a module as one node."""
        return m in self.leaves or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    """Trace a model, activations and linearised layers as one node each."""
    leaves: set[nn.Module] = set(linearized_layers(model).values())
    leaves |= {layer.module for layer in scan_layers(model, KINDS) if layer.name}
    try:
        return _Tracer(leaves).trace(model)
    except Exception as error:  # whatever a foreign forward raises under tracing
        raise FoldError(
            f"{type(model).__name__} cannot be traced by torch.fx, so its neighbours are not "
            f"known ({type(error).__name__}: {error}); use it linearised but unfolded"
        ) from error


class _Ranks(Visitor):
    """Notes the number of axes of the input of every use of every site."""

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = defaultdict(list)

    def before(self, call: SiteCall) -> None:
        """Note one input."""
        self.found[call.site.name].append(next(call.tensors()).ndim)


def _ranks(model: nn.Module, images: Tensor) -> dict[str, list[int]]:
    """Return the number of axes of the input of every use of every linearised layer."""
    ranks = _Ranks()
    sites = [Site(name, layer) for name, layer in linearized_layers(model).items()]
    with torch.no_grad(), visiting(model, sites, ranks):
        model(images.clone())
    return ranks.found


def _drop_identities(model: nn.Module) -> None:
    """Put an identity where every use of a layer was folded."""
    for layer in linearized_layers(model).values():
        lines = [layer.line(call) for call in range(layer.calls)]
        if all(line is not None and line.passes for line in lines):
            put_module(model, layer, nn.Identity())


def _difference(first: nn.Module, second: nn.Module, images: Tensor, output: Output) -> float:
    """Return max |second - first| / max |first| in float64."""
    wide = images.double() if images.is_floating_point() else images
    with torch.no_grad():
        a, b = (
            pick_output(copy.deepcopy(model).eval().double()(wide.clone()), output)
            for model in (first, second)
        )
    return float((b - a).abs().max() / a.abs().max())


def foldable(module: nn.Module) -> bool:
    """Return whether lines can go into a module: a normalisation needs statistics of its own."""
    if isinstance(module, _NORMS):
        return module.running_mean is not None and module.running_var is not None
    return isinstance(module, (*_CONVS, *_TRANSPOSED, nn.Linear))


def exact_intercept(module: nn.Module) -> bool:
    """Return whether a constant added to a module's input is a constant at its output."""
    # Not so behind zero padding: at the border part of the kernel sees zeros, not the constant; nor
    # in a transposed convolution, whose border outputs see part of the kernel. Padding that repeats
    # values of the input repeats the constant as well.
    if isinstance(module, _TRANSPOSED):
        return False
    if not isinstance(module, _CONVS) or module.padding_mode != "zeros":
        return True
    if isinstance(module.padding, str):
        return module.padding == "valid" or all(size == 1 for size in module.kernel_size)
    return not any(module.padding)


def fold_before(module: nn.Module, slope: Tensor, intercept: Tensor) -> None:
    """Make a module return slope·(what it did) + intercept, (C,) each, of its output channels."""
    a, b = slope.double(), intercept.double()
    if isinstance(module, _NORMS):
        weight, bias = _norm_parameters(module)
        _set(module, weight * a, bias * a + b)
        return
    weight = _tensor(module.weight).double()
    groups = module.groups if isinstance(module, _TRANSPOSED) else 1
    if isinstance(module, _TRANSPOSED):  # (in, out / groups, ...)
        parts = weight.reshape(groups, -1, *weight.shape[1:])
        scale = a.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        scaled = (parts * scale).reshape(weight.shape)
    else:
        scaled = weight * a.reshape(-1, *[1] * (weight.ndim - 1))
    _set(module, scaled, _bias(module, a) * a + b)


def fold_after(module: nn.Module, slope: Tensor, intercept: Tensor) -> None:
    """Change a module so that it does to x what it did to slope·x + intercept, (C,) each."""
    a, b = slope.double(), intercept.double()
    if isinstance(module, _NORMS):
        weight, bias = _norm_parameters(module)
        mean = _tensor(module.running_mean).double()
        deviation = (_tensor(module.running_var).double() + module.eps).sqrt()
        _set(module, weight * a, bias + weight * (a * mean + b - mean) / deviation)
        return
    weight = _tensor(module.weight).double()
    if isinstance(module, _TRANSPOSED):  # (in, out / groups, ...)
        _set(module, weight * a.reshape(-1, *[1] * (weight.ndim - 1)), None)
        return
    groups = int(module.groups) if isinstance(module, _CONVS) else 1
    parts = weight.reshape(
        groups, -1, *weight.shape[1:]
    )  # (groups, out / groups, in / groups, ...)
    shape = (groups, 1, -1, *[1] * (weight.ndim - 2))
    constant = (parts * b.reshape(shape)).flatten(2).sum(2).reshape(-1)
    scaled = (parts * a.reshape(shape)).reshape(weight.shape)
    if bool(b.any()):
        _set(module, scaled, _bias(module, constant) + constant)
    else:
        _set(module, scaled, None)


def _norm_parameters(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a normalisation, 1 and 0 where it has none; float64."""
    like = _tensor(module.running_mean).double()
    weight, bias = module.weight, _bias(module, like)
    scale = _tensor(weight).double() if isinstance(weight, Tensor) else torch.ones_like(like)
    return scale, bias


def _tensor(value: Tensor | nn.Module | None) -> Tensor:
    """Return the tensor of a module's attribute, detached."""
    if not isinstance(value, Tensor):
        raise TypeError(f"expected a tensor, got {type(value).__name__}")
    return value.detach()


def _bias(module: nn.Module, like: Tensor) -> Tensor:
    """Return the bias of a module in float64, zeros where it has none."""
    bias = module.bias
    return _tensor(bias).double() if isinstance(bias, Tensor) else torch.zeros_like(like)


def _set(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Give a module new parameters of its old dtype; bias None leaves the old bias."""
    old = module.weight if isinstance(module.weight, Tensor) else module.running_mean
    like = _tensor(old)
    module.weight = nn.Parameter(weight.to(like.dtype))
    if bias is not None:
        module.bias = nn.Parameter(bias.to(like.dtype))
