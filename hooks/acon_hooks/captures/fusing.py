"""The same network with fewer passes over memory: BatchNorm folded, Meta-ACON's β network small.

`fuse` returns a copy; whoever uses it compares it with the original on a batch (`same_outputs`),
because what a forward pass showed once need not be all that the network can do.

The accepted difference is `TOLERANCE`, except for networks that amplify rounding. Folding changes
the last bits of weights, and layer upon layer can make more of that: with random weights
ShuffleNetV2 0.5x lies 2e-5 to 6e-5 from its own float64, so that no float32 copy of it could
agree to 1e-5. `forward_pass.Proof` then measures what rounding does to the network as given
(against float64, and with weights off by half a last place), accepts four times that, and requires
that the exchange itself holds to `TOLERANCE` in float64.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.trees import leaves
from acon_hooks.engine.visiting import visiting
from acon_hooks.errors import ProofError
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.kernels import Gate
from acon_hooks.readings.sources import InnerModule

#: Largest difference of outputs and β that counts as the same, relative to 1 or the largest.
TOLERANCE = 1e-5

_Linear = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


class FusedMetaAconC(nn.Module):
    """Channel-wise Meta-ACON whose β network is two small matrices.

    Between the mean and the sigmoid the authors' code has no nonlinearity, so that both batch
    normalisations fold into the matrices. The elementwise part is x·(d·σ(x·βd) + p2).
    """

    # Given the constants, x and β (N, C, 1), returns the output, or None where it cannot; see
    # `Accumulator.activated`. Without it torch's operators do the elementwise part.
    activate: Callable[[Gate, Tensor, Tensor], Tensor | None] | None = None

    def __init__(self, p1: Tensor, p2: Tensor, fc1: Any, fc2: Any) -> None:
        super().__init__()
        self.p1 = nn.Parameter(p1.detach().clone())
        self.p2 = nn.Parameter(p2.detach().clone())
        self.fc1 = _as_matrix(fc1)
        self.fc2 = _as_matrix(fc2)
        a, b = (p.detach().double().reshape(-1) for p in (p1, p2))
        self.gate = Gate((a - b) / 2, (a + b) / 2, torch.zeros_like(a))  # whatever the reference β
        self.register_buffer("d", self.p1.detach() - self.p2.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of x, (N, C, H, W)."""
        beta = torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3)))))
        d: Tensor = self.d  # type: ignore[assignment]
        if self.activate is not None and not torch.is_grad_enabled():
            with torch._C.DisableTorchFunction():  # what a kernel calls is no source of β
                y = self.activate(self.gate, x, beta.unsqueeze(2))
            if y is not None:
                return y
        u = x * (beta[:, :, None, None] * d)
        if torch.is_grad_enabled():  # a network may differentiate in its forward pass
            return (u.sigmoid() * d + self.p2) * x
        return u.sigmoid_().mul_(d).add_(self.p2).mul_(x)


def _as_matrix(conv: Any) -> nn.Linear:
    weight, bias = conv.weight, conv.bias
    make: Any = nn.utils.skip_init  # draws no random numbers
    matrix: nn.Linear = make(
        nn.Linear, weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype
    )
    with torch.no_grad():
        matrix.weight.copy_(weight.reshape(weight.shape[:2]))
        matrix.bias.copy_(torch.zeros_like(matrix.bias) if bias is None else bias)
    return matrix


def fuse(model: nn.Module, layers: Iterable[Layer], example: Tensor) -> nn.Module:
    """Return a copy of a network with fewer passes over memory.

    Every BatchNorm that in a forward pass received the very output of a convolution or linear layer
    is folded into it, and proved Meta-ACON layers of the authors' form are exchanged.
    """
    fused = copy.deepcopy(model)
    pairs = _pairs(fused, example)
    for before, norm in pairs:
        _fold(before, norm)
    exchange(fused, {norm: nn.Identity() for _, norm in pairs})
    swaps: dict[nn.Module, nn.Module] = {}
    for layer in (layer for layer in layers if layer.function is None):
        module: Any = fused.get_submodule(layer.name)
        if _is_authors_form(layer, module):
            swaps[module] = FusedMetaAconC(module.p1, module.p2, module.fc1, module.fc2)
    exchange(fused, swaps)
    return fused.eval()


class _Pairs(Visitor):
    """Which module's output each BatchNorm received; outputs are not kept alive."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[ReferenceType[Tensor], nn.Module]] = {}
        self.pairs: list[tuple[nn.Module, nn.Module]] = []
        self.calls: Counter[nn.Module] = Counter()

    def after(self, call: SiteCall, output: Any) -> None:
        """Count a call; remember what a convolution made, and what a BatchNorm received."""
        module, args = call.site.module, call.args
        self.calls[module] += 1
        if not isinstance(module, _BatchNorm):
            self.made[id(output)] = (ref(output), module)
            return
        made_by = self.made.get(id(args[0])) if args else None
        if made_by is not None and made_by[0]() is args[0]:
            self.pairs.append((made_by[1], module))


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Run one forward pass; return (convolution, BatchNorm) of every pair that can be folded."""
    sites = [
        Site(name, module, inner=True)
        for name, module in model.named_modules()
        if _is_plain(module)
        and (
            isinstance(module, _Linear)
            or (isinstance(module, _BatchNorm) and module.track_running_stats)
        )
    ]
    found = _Pairs()
    with visiting(model, sites, found), torch.no_grad():
        model(example.clone())
    return [pair for pair in found.pairs if all(found.calls[module] == 1 for module in pair)]


def _is_plain(module: nn.Module) -> bool:
    """Return whether a module does what its class says: nothing hooked on or parametrised."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return not hooked and not hasattr(module, "parametrizations")


def _fold(before: Any, norm: Any) -> None:
    """Give the layer before a BatchNorm weights that do the work of both, made in float64."""
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = torch.zeros_like(mean) if before.bias is None else before.bias.double()
    shifted = (bias - mean) * scale
    if norm.bias is not None:
        shifted = shifted + norm.bias.double()
    shape = (-1, *[1] * (before.weight.ndim - 1))
    with torch.no_grad():
        before.weight.copy_(before.weight.double() * scale.reshape(shape))
        before.bias = nn.Parameter(shifted.to(before.weight.dtype))


def exchange(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Exchange modules for others, wherever they are referred to."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in new:
                parent._modules[name] = new[child].train(child.training)


def _is_authors_form(layer: Layer, module: Any) -> bool:
    """Return whether a layer is σ(fc2(fc1(mean))) over pixels, normalisations folded already."""
    reading = layer.reading
    if reading is None or layer.kind != "meta_acon" or layer.granularity != "channel":
        return False
    if (
        not isinstance(reading.source, InnerModule)
        or reading.transform != "sigmoid"
        or reading.identity != "acon"
    ):
        return False
    inner = [name for name, child in module.named_children() if not isinstance(child, nn.Identity)]
    if inner != ["fc1", "fc2"] or not all(_is_pointwise(module.get_submodule(n)) for n in inner):
        return False
    return bool(module.p1.ndim == 4 and layer.axis == 1)


def _is_pointwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and (
        module.kernel_size == (1, 1) and module.groups == 1 and module.stride == (1, 1)
        and module.padding == (0, 0)
    )  # fmt: skip


def same_outputs(what: str, expected: Any, found: Any, allowed: float = TOLERANCE) -> None:
    """Raise a ProofError unless two outputs agree within `allowed` of 1 or of the largest value."""
    error = difference(expected, found)
    if not error <= allowed:  # NaN too
        raise ProofError(
            f"{what} differ by {error:.1e} of their scale on the first batch; accepted are "
            f"{allowed:.1e}. Capture without this option"
        )


def difference(expected: Any, found: Any) -> float:
    """Return the largest |found - expected| of two outputs, relative to 1 or the largest value."""
    errors = [0.0]
    for (_, old), (_, new) in zip(leaves(expected), leaves(found), strict=True):
        if old.shape != new.shape:
            return float("inf")
        finite = old.isfinite()
        if not torch.equal(finite, new.isfinite()):
            return float("nan")
        if old.is_floating_point() and bool(finite.any()):
            scale = max(1.0, float(old[finite].abs().max()))
            gap = (old.double() - new.double())[finite].abs().max()
            errors.append(float(gap) / scale)
    return max(errors, key=lambda error: (error != error, error))
