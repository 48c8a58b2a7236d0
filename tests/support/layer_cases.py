"""Every layer in float64 with no parameter at its default, and input for it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from acon_analysis.layers import (
    AconA,
    AconB,
    AconC,
    AconFReLU,
    FReLU,
    Maxout,
    MetaAconC,
    SqueezeExcitation,
)

CHANNELS = 6
SHAPES = [(5, 6), (5, 6, 7), (5, 6, 3, 4), (5, 6, 2, 3, 2)]
MAPS = [(2, 6, 5, 7), (3, 6, 4, 4), (2, 6, 1, 1)]

ANY_RANK: dict[str, Callable[[], nn.Module]] = {
    "acon_a": lambda: AconA(CHANNELS),
    "acon_b": lambda: AconB(CHANNELS),
    "acon_c": lambda: AconC(CHANNELS),
    "meta_channel": lambda: MetaAconC(CHANNELS, r=4),
    "meta_no_norm": lambda: MetaAconC(CHANNELS, r=4, batch_norm=False),
    "meta_layer": lambda: MetaAconC(CHANNELS, "layer"),
    "meta_pixel": lambda: MetaAconC(CHANNELS, "pixel"),
    "maxout": lambda: Maxout(CHANNELS, 3),
    "squeeze": lambda: SqueezeExcitation(CHANNELS, r=2),
}
TWO_DIMENSIONAL: dict[str, Callable[[], nn.Module]] = {
    "frelu": lambda: FReLU(CHANNELS),
    "acon_frelu": lambda: AconFReLU(CHANNELS),
    "acon_frelu_2": lambda: AconFReLU(CHANNELS, 2),
}
ALL = ANY_RANK | TWO_DIMENSIONAL


def make(name: str, seed: int = 0) -> nn.Module:
    """Return the layer in float64 and eval mode with no parameter or statistic at its default."""
    torch.manual_seed(seed)
    layer: nn.Module = ALL[name]().double().eval()
    with torch.no_grad():
        for key, tensor in layer.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.add_(0.3 * torch.randn_like(tensor))
    return layer


def data(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """Return standard normal float64 input."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
