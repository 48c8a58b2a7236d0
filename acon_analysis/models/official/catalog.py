"""The 18 official networks by name; `acon_analysis.paper` has the paper's numbers about them."""

from collections.abc import Callable
from functools import partial
from typing import get_args

from torch import nn

from acon_analysis.models.official.parts import Activation
from acon_analysis.models.official.resnet import ResNet
from acon_analysis.models.official.shufflenet import WIDTHS, ShuffleNetV2
from acon_analysis.models.official.tfnet import TFNet

#: (C, H, W) that the published checkpoints were trained on.
INPUT_SHAPE = (3, 224, 224)

_RESNET_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

#: Name -> what builds the network, for ``num_classes`` (1000), with fresh weights from torch's
#: global generator, in training mode.
OFFICIAL: dict[str, Callable[..., nn.Module]] = {}
for _activation in get_args(Activation):
    for _depth, _depths in _RESNET_DEPTHS.items():
        OFFICIAL[f"resnet{_depth}_{_activation}"] = partial(ResNet, _depths, _activation)
for _activation in get_args(Activation):
    for _width in WIDTHS:
        _name = f"shufflenet_v2_x{_width}_{_activation}".replace(".", "_")
        OFFICIAL[_name] = partial(ShuffleNetV2, _width, _activation)
for _size in (0.5, 1.0, 1.5, 2.0):
    OFFICIAL[f"tfnet_x{_size}".replace(".", "_")] = partial(TFNet, _size)
