"""The records of the maxima, hard and smooth, and of the ACON family made of them."""

from acon_analysis.family import _facts, _sources, acon, bounds, maxima
from acon_analysis.family._activation import Activation

MAXIMA = (
    Activation(
        name="maxout",
        title="Maxout",
        function=maxima.maxout,
        derivative=maxima.maxout_derivative,
        parameters={"slopes": (-0.5, 0.25, 1.0), "intercepts": (-1.0, 0.0, -0.5)},
        formula="max(a * x + b for a, b in zip(slopes, intercepts))",
        derivative_formula="max((a * x + b, a) for a, b in zip(slopes, intercepts))[1]",
        latex=r"\max_k\,(a_k x + b_k)",
        derivative_latex=r"a_{k(x)},\ k(x) = \mathrm{arg\,max}_k\,(a_k x + b_k)",
        source=_sources.MAXOUT,
        limits=_facts.maxout_limits,
        derivative_bounds=_facts.maxout_bounds,
    ),
    Activation(
        name="smooth_maximum",
        title="Smooth maximum",
        function=maxima.smooth_maximum,
        derivative=maxima.smooth_maximum_derivative,
        arguments=("values",),
        parameters={"beta": 1.0},
        formula="sum(v * exp(beta * v) for v in values) / sum(exp(beta * v) for v in values)",
        derivative_formula=(
            "[exp(beta * v) / sum(exp(beta * u) for u in values)"
            " * (1 + beta * (v - smooth_maximum(values, beta))) for v in values]"
        ),
        latex=r"S_\beta(x_1, \ldots, x_n) = \frac{\sum_i x_i\,e^{\beta x_i}}"
        r"{\sum_i e^{\beta x_i}}",
        derivative_latex=r"\frac{e^{\beta x_i}}{\sum_j e^{\beta x_j}}"
        r"\,(1 + \beta\,(x_i - S_\beta))",
        source=_sources.ACON,
        derivative_bounds=maxima.smooth_maximum_derivative_bounds,
    ),
    Activation(
        name="acon_a",
        title="ACON-A",
        function=acon.acon_a,
        derivative=acon.acon_a_derivative,
        parameters={"beta": 1.0},
        formula="x * sigmoid(beta * x)",
        derivative_formula="sigmoid(beta * x) * (1 + beta * x * sigmoid(-beta * x))",
        latex=r"x\,\sigma(\beta x)",
        derivative_latex=r"\sigma(\beta x)\,(1 + \beta x\,\sigma(-\beta x))",
        source=_sources.ACON,
        limits=_facts.swish_limits,
        derivative_bounds=_facts.swish_bounds,
    ),
    Activation(
        name="acon_b",
        title="ACON-B",
        function=acon.acon_b,
        derivative=acon.acon_b_derivative,
        parameters={"p": 0.25, "beta": 1.0},
        formula="(1 - p) * x * sigmoid(beta * (1 - p) * x) + p * x",
        derivative_formula=(
            "(1 - p) * sigmoid(beta * (1 - p) * x)"
            " * (1 + beta * (1 - p) * x * sigmoid(-beta * (1 - p) * x)) + p"
        ),
        latex=r"(1 - p)\,x\,\sigma(\beta (1 - p) x) + p\,x",
        derivative_latex=r"p + (1 - p)\,\sigma(u)\,(1 + u\,\sigma(-u)),\ u = \beta (1 - p) x",
        source=_sources.ACON,
        limits=_facts.acon_b_limits,
        derivative_bounds=_facts.acon_b_bounds,
    ),
    Activation(
        name="acon_c",
        title="ACON-C",
        function=acon.acon_c,
        derivative=acon.acon_c_derivative,
        parameters={"p1": 1.2, "p2": -0.8, "beta": 1.0},
        formula="(p1 - p2) * x * sigmoid(beta * (p1 - p2) * x) + p2 * x",
        derivative_formula=(
            "(p1 - p2) * sigmoid(beta * (p1 - p2) * x)"
            " * (1 + beta * (p1 - p2) * x * sigmoid(-beta * (p1 - p2) * x)) + p2"
        ),
        latex=r"(p_1 - p_2)\,x\,\sigma(\beta (p_1 - p_2) x) + p_2\,x",
        derivative_latex=r"p_2 + (p_1 - p_2)\,\sigma(u)\,(1 + u\,\sigma(-u)),"
        r"\ u = \beta (p_1 - p_2) x",
        source=_sources.ACON,
        limits=_facts.acon_c_limits,
        derivative_bounds=bounds.derivative_bounds,
    ),
    Activation(
        name="frelu",
        title="FReLU",
        function=maxima.frelu,
        derivative=maxima.frelu_derivative,
        arguments=("x", "t"),
        formula="max(x, t)",
        derivative_formula="(1, 0) if x > t else (0, 1) if x < t else (1/2, 1/2)",
        latex=r"\max(x, T(x))",
        derivative_latex=r"(1, 0)\ \mathrm{if}\ x > T(x),\ \mathrm{else}\ (0, 1)",
        source=_sources.FRELU,
        derivative_bounds=_facts.fixed_bounds(0.0, 1.0),
    ),
    Activation(
        name="acon_frelu",
        title="ACON-FReLU",
        function=maxima.acon_frelu,
        derivative=maxima.acon_frelu_derivative,
        arguments=("x1", "x2"),
        parameters={"beta": 1.0},
        formula="(x1 - x2) * sigmoid(beta * (x1 - x2)) + x2",
        derivative_formula=(
            "(sigmoid(beta * (x1 - x2)) * (1 + beta * (x1 - x2) * sigmoid(beta * (x2 - x1))),"
            " sigmoid(beta * (x2 - x1)) * (1 + beta * (x2 - x1) * sigmoid(beta * (x1 - x2))))"
        ),
        latex=r"(x_1 - x_2)\,\sigma(\beta (x_1 - x_2)) + x_2",
        derivative_latex=r"(h(u), h(-u)),\ h(u) = \sigma(u)\,(1 + u\,\sigma(-u)),"
        r"\ u = \beta (x_1 - x_2)",
        source=_sources.ACON,
        derivative_bounds=_facts.swish_bounds,
    ),
)
