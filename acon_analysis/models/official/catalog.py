"""The 18 official networks by name, each with the paper's numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from acon_analysis.models.official.parts import Activation
from acon_analysis.models.official.resnet import ResNet
from acon_analysis.models.official.shufflenet import ShuffleNetV2
from acon_analysis.models.official.tfnet import TFNet

#: (C, H, W) that the published checkpoints were trained on.
INPUT_SHAPE = (3, 224, 224)


@dataclass(frozen=True)
class OfficialNetwork:
    """One official network: how to build it, and what the paper prints about it.

    ``family`` is "ResNet", "ShuffleNetV2" or "TFNet", ``activation`` "ACON-C", "meta-ACON" or
    "ACON-FReLU"; ``checkpoint`` is the file in the official release, where it is known.
    ``paper_flops`` are multiply-adds, ``paper_error`` ImageNet top-1 in percent at 224x224; None
    where the paper has no such row.
    """

    name: str
    family: str
    title: str
    activation: str
    maker: Callable[..., nn.Module] = field(repr=False)
    checkpoint: str | None = None
    paper_flops: str | None = None
    paper_params: str | None = None
    paper_error: float | None = None

    @property
    def description(self) -> str:
        """One line for a listing."""
        return f"{self.title} with {self.activation}, the official code's architecture"

    def build(self, num_classes: int = 1000) -> nn.Module:
        """Return the network with fresh weights from torch's global generator, in training mode."""
        return self.maker(num_classes=num_classes)


_Row = tuple[str | None, str | None, float | None]

_RESNET_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

# Columns of the paper's tables: FLOPs, parameters, top-1 error. Table 3 and the official README.
_RESNET_ROWS: dict[tuple[int, Activation], _Row] = {
    (50, "acon"): ("3.9G", "25.5M", 23.2),
    (101, "acon"): ("7.6G", "44.4M", 21.8),
    (152, "acon"): ("11.3G", "60.0M", 21.2),
    (50, "metaacon"): ("3.9G", "25.7M", 22.0),
    (101, "metaacon"): ("7.6G", "44.8M", 21.0),
    (152, "metaacon"): ("11.3G", "60.5M", 20.5),
}
_NO_ROW: _Row = (None, None, None)
_SHUFFLENET_ROWS: dict[tuple[str, Activation], _Row] = {
    ("0.5", "acon"): ("41M", "1.4M", 37.0),
    ("1.0", "acon"): _NO_ROW,
    ("1.5", "acon"): ("299M", "3.5M", 26.5),
    ("2.0", "acon"): _NO_ROW,
    ("0.5", "metaacon"): ("41M", "1.7M", 34.8),
    ("1.0", "metaacon"): _NO_ROW,
    ("1.5", "metaacon"): ("299M", "3.9M", 24.7),
    ("2.0", "metaacon"): _NO_ROW,
}
_TFNET_ROWS: dict[float, _Row] = {
    0.5: ("43M", "1.3M", 36.6),
    1.0: ("135M", "1.9M", 29.7),
    1.5: ("279M", "2.7M", 26.0),
    2.0: ("474M", "3.8M", 24.3),
}
# Checkpoint names that the public scripts are known to use.
_CHECKPOINTS = {
    "resnet50_acon": "res50.acon.pth",
    "resnet50_metaacon": "res50.metaacon.pth",
    "shufflenet_v2_x0_5_acon": "shufflenetv2.0.5.acon.pth",
    "shufflenet_v2_x0_5_metaacon": "shufflenetv2.0.5.metaacon.pth",
    "tfnet_x0_5": "tfnet.0.5.pth",
}
_PRINTED = {"acon": "ACON-C", "metaacon": "meta-ACON"}


def _catalog() -> Iterator[OfficialNetwork]:
    maker: Callable[..., nn.Module]
    for (depth, activation), row in _RESNET_ROWS.items():
        name, printed = f"resnet{depth}_{activation}", _PRINTED[activation]
        title, maker = f"ResNet {depth}", partial(ResNet, _RESNET_DEPTHS[depth], activation)
        yield OfficialNetwork(name, "ResNet", title, printed, maker, _CHECKPOINTS.get(name), *row)
    for (width, activation), row in _SHUFFLENET_ROWS.items():
        name = f"shufflenet_v2_x{width}_{activation}".replace(".", "_")
        title, printed = f"ShuffleNetV2 {width}x", _PRINTED[activation]
        maker = partial(ShuffleNetV2, width, activation)
        file = _CHECKPOINTS.get(name)
        yield OfficialNetwork(name, "ShuffleNetV2", title, printed, maker, file, *row)
    for size, row in _TFNET_ROWS.items():
        name, title = f"tfnet_x{size}".replace(".", "_"), f"TFNet {size}"
        maker, file = partial(TFNet, size), _CHECKPOINTS.get(name)
        yield OfficialNetwork(name, "TFNet", title, "ACON-FReLU", maker, file, *row)


#: Name -> network, all 18.
OFFICIAL = {network.name: network for network in _catalog()}
