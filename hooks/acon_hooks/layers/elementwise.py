"""Which modules are elementwise activations: torch.nn's by list, foreign ones by behaviour."""

import torch
from torch import Tensor, nn

_NN_ACTIVATIONS = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.RReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)


def is_activation(module: nn.Module) -> bool:
    """Tell whether a module is an elementwise, nonlinear activation.

    A module of torch.nn is looked up. A foreign one without children is tried on a small
    tensor, without its hooks: it is an activation if every output element depends on the input
    element at its place alone, by the same rule within a channel, and not by a straight line.

    Parameters
    ----------
    module : Module
        Any module.

    Returns
    -------
    bool
    """
    if isinstance(module, _NN_ACTIVATIONS):
        return True
    home = type(module).__module__
    if home.startswith("torch.") or next(module.children(), None) is not None:
        return False
    return _behaves_elementwise(module)


def _behaves_elementwise(module: nn.Module) -> bool:
    if next(module.buffers(recurse=False), None) is not None:
        return False  # statistics, which running it could change
    own = list(module.parameters(recurse=False))
    channels = max((t.numel() for t in own), default=3)
    if channels > 1 << 14 or any(not t.is_floating_point() for t in own):
        return False
    like = next(iter(own), torch.empty(0))
    training, module.training = module.training, False
    try:
        with torch.random.fork_rng([like.device] if like.is_cuda else []), torch.no_grad():
            channels = max(channels, 2)
            return any(_passes(module, size, like) for size in ((2, channels, 3, 4), (2, channels)))
    finally:
        module.training = training


def _passes(module: nn.Module, size: tuple[int, ...], like: Tensor) -> bool:
    try:
        return _probe(module, size, like)
    except Exception:  # whatever a foreign forward raises, it is no activation of this shape
        return False


def _probe(module: nn.Module, size: tuple[int, ...], like: Tensor) -> bool:
    """Try the three properties on one shape, on values from -4 to 4."""
    generator = torch.Generator().manual_seed(0)
    x = (8 * torch.rand(size, generator=generator) - 4).to(like.device, like.dtype)
    y = module.forward(x.clone())
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return False
    moved = x.roll((1, 1), (0, -1)) if x.ndim > 2 else x.roll(1, 0)
    back = module.forward(moved.clone())
    back = back.roll((-1, -1), (0, -1)) if x.ndim > 2 else back.roll(-1, 0)
    changed = x.clone()
    changed.view(-1)[0] += 1
    elsewhere = module.forward(changed).reshape(-1)[1:]
    origin = module.forward(torch.zeros_like(x))
    # Both are 0 for a straight line; the first alone also for ReLU, the second for tanh.
    doubled = module.forward(2 * x) - 2 * y + origin
    mirrored = module.forward(-x) + y - 2 * origin
    bent = any(bool((gap.abs() > 1e-3 * (1 + y.abs())).any()) for gap in (doubled, mirrored))
    return bool((back == y).all()) and bool((elsewhere == y.reshape(-1)[1:]).all()) and bent
