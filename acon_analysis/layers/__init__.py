"""The activation layers as torch modules; `acon_analysis.family` holds the formulas themselves.

Parameters keep the names and the shape (1, C, 1, 1) of the public ACON checkpoints. The same
parameters serve inputs of any rank from (N, C) up: the channel axis is always the second.
"""

from acon_analysis.layers.acon import AconA, AconB, AconC
from acon_analysis.layers.checks import ShapeError
from acon_analysis.layers.funnel import AconFReLU, FReLU
from acon_analysis.layers.maxout import Maxout
from acon_analysis.layers.meta import MetaAconC
from acon_analysis.layers.squeeze import SqueezeExcitation

__all__ = [
    "AconA", "AconB", "AconC", "AconFReLU", "FReLU", "Maxout", "MetaAconC", "ShapeError",
    "SqueezeExcitation",
]  # fmt: skip
