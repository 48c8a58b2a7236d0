"""Which modules look like squeeze-and-excitation; the first batch proves it: out = x·gate."""

from torch import nn

#: What torchvision and timm call the module whose output is the gate.
GATE_NAMES = ("scale_activation", "gate")
_LIGHT = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Linear, nn.Conv1d,
    nn.Identity, nn.Dropout, nn.Flatten, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.ReLU,
    nn.SiLU,
)  # fmt: skip


def looks_like_gate(module: nn.Module) -> bool:
    """Return whether a module may be squeeze-and-excitation or one of its kin.

    True for a module that weighs something (a linear layer or a convolution among its children) and
    has a child called gate or scale_activation, or consists only of pooling, 1x1 convolutions or
    linear layers, normalisation and activations ending in a sigmoid.
    """
    if is_named_gate(module):
        return True
    leaves = [m for m in module.modules() if next(m.children(), None) is None and m is not module]
    sigmoids = [m for m in leaves if isinstance(m, nn.Sigmoid | nn.Hardsigmoid)]
    if len(sigmoids) != 1 or isinstance(module, nn.Sequential):
        return False
    others = [m for m in leaves if m is not sigmoids[0]]
    return all(_light(m) for m in others) and any(
        isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d) for m in others
    )


def is_named_gate(module: nn.Module) -> bool:
    """Return whether a module weighs something and names its gate as torchvision or timm do.

    Their gate is a function; a projection called gate is a part of GLUs and of mixtures.
    """
    children = dict(module.named_children())
    weighty = nn.Linear | nn.Conv1d | nn.Conv2d
    weighs = any(isinstance(child, weighty) for child in children.values())
    gates = [children[name] for name in GATE_NAMES if name in children]
    return weighs and any(next(gate.parameters(), None) is None for gate in gates)


def _light(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1)
    return isinstance(module, _LIGHT)
