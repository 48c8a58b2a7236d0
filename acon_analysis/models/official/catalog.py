"""The 18 official networks by name, each with the paper's numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.models.official.parts import Activation
from acon_analysis.models.official.resnet import ResNet
from acon_analysis.models.official.shufflenet import ShuffleNetV2
from acon_analysis.models.official.tfnet import TFNet

#: (C, H, W) that the published checkpoints were trained on.
INPUT_SHAPE = (3, 224, 224)


@dataclass(frozen=True)
class OfficialNetwork:
    """One official network: how to build it, and what the paper prints about it.

    Parameters
    ----------
    name : str
        Name in the registry.
    family : str
        ``"ResNet"``, ``"ShuffleNetV2"`` or ``"TFNet"``.
    title : str
        Name as printed in the paper's tables.
    activation : str
        ``"ACON-C"``, ``"meta-ACON"`` or ``"ACON-FReLU"``.
    maker : callable
        ``maker(num_classes=...)`` gives the network with fresh weights.
    checkpoint : str or None
        Name of the file in the official release, where it is known.
    paper_flops : str or None
        FLOPs column (multiply-adds); None where the paper has no such row.
    paper_params : str or None
        Parameters column.
    paper_error : float or None
        ImageNet top-1 error in percent, 224x224.
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
        """Return the network with fresh weights from torch's global generator.

        Parameters
        ----------
        num_classes : int
            Width of the output; the published checkpoints have 1000.

        Returns
        -------
        Module
            In training mode; its `input_shape` is (3, 224, 224).
        """
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


def _entry(
    name: str, family: str, title: str, activation: str, maker: Callable[..., nn.Module], row: _Row
) -> OfficialNetwork:
    return OfficialNetwork(name, family, title, activation, maker, _CHECKPOINTS.get(name), *row)


def _catalog() -> dict[str, OfficialNetwork]:
    entries = [
        _entry(
            f"resnet{depth}_{activation}",
            "ResNet",
            f"ResNet {depth}",
            _PRINTED[activation],
            partial(ResNet, _RESNET_DEPTHS[depth], activation),
            row,
        )
        for (depth, activation), row in _RESNET_ROWS.items()
    ]
    entries += [
        _entry(
            f"shufflenet_v2_x{width.replace('.', '_')}_{activation}",
            "ShuffleNetV2",
            f"ShuffleNetV2 {width}x",
            _PRINTED[activation],
            partial(ShuffleNetV2, width, activation),
            row,
        )
        for (width, activation), row in _SHUFFLENET_ROWS.items()
    ]
    entries += [
        _entry(
            f"tfnet_x{str(size).replace('.', '_')}",
            "TFNet",
            f"TFNet {size}",
            "ACON-FReLU",
            partial(TFNet, size),
            row,
        )
        for size, row in _TFNET_ROWS.items()
    ]
    return {entry.name: entry for entry in entries}


#: Name -> network, all 18.
OFFICIAL = _catalog()


def build(name: str, num_classes: int = 1000) -> nn.Module:
    """Build one official network with fresh weights from torch's global generator.

    Parameters
    ----------
    name : str
        A key of `OFFICIAL`.
    num_classes : int
        Width of the output; the published checkpoints have 1000.

    Returns
    -------
    Module
        In training mode; its `input_shape` is (3, 224, 224).

    Raises
    ------
    UsageError
        If there is no network of that name; the message names the near ones.
    """
    if name not in OFFICIAL:
        raise UsageError(f"no official network {name!r}: {closest(name, OFFICIAL)}")
    return OFFICIAL[name].build(num_classes)
