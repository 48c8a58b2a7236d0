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

from acon_analysis.family._activation import Activation, Limits, Line, Source
from acon_analysis.family.acon import (
    acon_a,
    acon_a_derivative,
    acon_b,
    acon_b_derivative,
    acon_c,
    acon_c_derivative,
)
from acon_analysis.family.bounds import (
    T_STAR,
    U_STAR,
    derivative_bounds,
    derivative_range,
    extremum_position,
)
from acon_analysis.family.gated import (
    gelu,
    gelu_derivative,
    gelu_tanh,
    gelu_tanh_derivative,
    hardswish,
    hardswish_derivative,
    mish,
    mish_derivative,
    silu,
    silu_derivative,
    swish,
    swish_derivative,
)
from acon_analysis.family.maxima import (
    acon_frelu,
    acon_frelu_derivative,
    frelu,
    frelu_derivative,
    maxout,
    maxout_derivative,
    smooth_maximum,
    smooth_maximum_derivative,
    smooth_maximum_derivative_bounds,
)
from acon_analysis.family.rectified import (
    SELU_ALPHA,
    SELU_SCALE,
    elu,
    elu_derivative,
    leaky_relu,
    leaky_relu_derivative,
    prelu,
    prelu_derivative,
    relu,
    relu_derivative,
    rrelu,
    rrelu_derivative,
    selu,
    selu_derivative,
    softplus,
    softplus_derivative,
)
from acon_analysis.family.registry import ACTIVATIONS, get
from acon_analysis.family.saturating import (
    hardsigmoid,
    hardsigmoid_derivative,
    hardtanh,
    hardtanh_derivative,
    relu6,
    relu6_derivative,
    sigmoid,
    sigmoid_derivative,
    tanh,
    tanh_derivative,
)

derivative = acon_c_derivative

__all__ = [
    "ACTIVATIONS",
    "SELU_ALPHA",
    "SELU_SCALE",
    "T_STAR",
    "U_STAR",
    "Activation",
    "Limits",
    "Line",
    "Source",
    "acon_a",
    "acon_a_derivative",
    "acon_b",
    "acon_b_derivative",
    "acon_c",
    "acon_c_derivative",
    "acon_frelu",
    "acon_frelu_derivative",
    "derivative",
    "derivative_bounds",
    "derivative_range",
    "elu",
    "elu_derivative",
    "extremum_position",
    "frelu",
    "frelu_derivative",
    "gelu",
    "gelu_derivative",
    "gelu_tanh",
    "gelu_tanh_derivative",
    "get",
    "hardsigmoid",
    "hardsigmoid_derivative",
    "hardswish",
    "hardswish_derivative",
    "hardtanh",
    "hardtanh_derivative",
    "leaky_relu",
    "leaky_relu_derivative",
    "maxout",
    "maxout_derivative",
    "mish",
    "mish_derivative",
    "prelu",
    "prelu_derivative",
    "relu",
    "relu6",
    "relu6_derivative",
    "relu_derivative",
    "rrelu",
    "rrelu_derivative",
    "selu",
    "selu_derivative",
    "sigmoid",
    "sigmoid_derivative",
    "silu",
    "silu_derivative",
    "smooth_maximum",
    "smooth_maximum_derivative",
    "smooth_maximum_derivative_bounds",
    "softplus",
    "softplus_derivative",
    "swish",
    "swish_derivative",
    "tanh",
    "tanh_derivative",
]
