"""The 18 networks of the official ACON code, written anew; its checkpoints fit them."""

from acon_analysis.models.official.catalog import INPUT_SHAPE, OFFICIAL
from acon_analysis.models.official.resnet import ResNet
from acon_analysis.models.official.shufflenet import ShuffleNetV2
from acon_analysis.models.official.tfnet import TFNet

__all__ = ["INPUT_SHAPE", "OFFICIAL", "ResNet", "ShuffleNetV2", "TFNet"]
