"""Every activation that this project speaks of, once: formula, derivative, bounds, limits, source.

Each function takes numbers, numpy arrays or torch tensors and returns the same kind: a tensor if
any argument is one (differentiable, on its device), else numpy, for plain numbers a numpy float64.
Arguments and parameters broadcast. The dtype follows the promotion rules of the library, plain
numbers count as weak, integers become float64 (in torch the default dtype); half precisions are
worked in float32 and rounded once. torch is never imported here.

For every ``NAME`` there is ``NAME_derivative``, the exact derivative with respect to x; at a kink
it is the value that autograd takes for the function here. Both give the limit at x = +-inf where
there is one, never overflow on the way, warn of nothing, and give NaN for a NaN in x. (Autograd
itself is right for finite arguments only: for the slope at infinity call the derivative.)

`derivative`, `derivative_bounds`, `derivative_range` and `extremum_position` are about ACON-C.
`ACTIVATIONS` holds the facts about all of them, `get` finds one by name.
"""

from acon_analysis.family import acon, funnel, gated, maxima, rectified, saturating
from acon_analysis.family._activation import Activation, Limits, Line, Source
from acon_analysis.family.acon import *  # noqa: F403
from acon_analysis.family.bounds import (
    T_STAR,
    U_STAR,
    derivative_bounds,
    derivative_range,
    extremum_position,
)
from acon_analysis.family.funnel import *  # noqa: F403
from acon_analysis.family.gated import *  # noqa: F403
from acon_analysis.family.maxima import *  # noqa: F403
from acon_analysis.family.rectified import *  # noqa: F403
from acon_analysis.family.registry import ACTIVATIONS, get
from acon_analysis.family.saturating import *  # noqa: F403

derivative = acon.acon_c_derivative

__all__ = [
    "ACTIVATIONS", "T_STAR", "U_STAR", "Activation", "Limits", "Line", "Source", "derivative",
    "derivative_bounds", "derivative_range", "extremum_position", "get",
]  # fmt: skip
for _kind in (saturating, rectified, gated, maxima, acon, funnel):
    __all__ += _kind.__all__
