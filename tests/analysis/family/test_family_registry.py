"""The registry: complete, true to its numbers, readable when asked for what it lacks."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

from acon_analysis import family
from acon_analysis.errors import UsageError
from acon_analysis.family import ACTIVATIONS, Activation
from family_oracle import evaluate, one_argument

ALL = list(ACTIVATIONS.values())


def test_names_functions_and_derivatives_belong_together() -> None:
    for name, activation in ACTIVATIONS.items():
        assert activation.name == name
        assert getattr(family, name) is activation.function
        assert getattr(family, f"{name}_derivative") is activation.derivative
        given = list(inspect.signature(activation.function).parameters.values())
        assert tuple(p.name for p in given[: len(activation.arguments)]) == activation.arguments
        rest = [p for p in given[len(activation.arguments) :] if p.kind is not p.KEYWORD_ONLY]
        assert [p.name for p in rest] == list(activation.parameters)
        for parameter in rest:
            if parameter.default is not parameter.empty and activation.name != "maxout":
                assert parameter.default == activation.parameters[parameter.name]


def test_every_public_name_is_there_and_described() -> None:
    assert len(set(family.__all__)) == len(family.__all__)
    for name in [n for n in family.__all__ if not n.isupper()]:
        assert inspect.getdoc(getattr(family, name)), name
    assert {"silu", "derivative", "derivative_bounds", *ACTIVATIONS} <= set(family.__all__)
    expected = """sigmoid tanh hardsigmoid hardtanh relu6 relu leaky_relu prelu rrelu elu selu
        softplus swish gelu gelu_tanh mish hardswish maxout smooth_maximum acon_a acon_b acon_c
        frelu acon_frelu"""
    assert list(ACTIVATIONS) == expected.split()
    assert family.derivative is family.acon_c_derivative


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
def test_formulas_can_be_typeset(activation: Activation) -> None:
    assert "$" not in activation.latex
    assert MathTextParser("path").parse(f"${activation.latex}$").width > 0


@pytest.mark.parametrize("activation", ALL, ids=lambda a: a.name)
def test_sources_can_be_found(activation: Activation) -> None:
    source = activation.source
    assert source.doi or source.arxiv or source.url
    assert source.text in str(source)
    for part in (source.doi, source.arxiv, source.url):
        assert part in str(source)


@pytest.mark.parametrize("name", ["smooth_maximum", "frelu", "acon_frelu"])
def test_printed_formulas_of_several_values(name: str) -> None:
    activation = ACTIVATIONS[name]
    rng = np.random.default_rng(6)
    for row in rng.standard_normal((20, 2 if activation.arguments != ("values",) else 4)) * 3:
        if activation.arguments == ("values",):
            arguments = {"values": row}
        else:
            arguments = dict(zip(activation.arguments, row, strict=True))
        value = evaluate(activation.formula, **arguments, **activation.parameters)
        assert activation(**arguments) == pytest.approx(float(value), abs=1e-14)
        partials = evaluate(activation.derivative_formula, **arguments, **activation.parameters)
        result = activation.derivative(**arguments, **activation.parameters)
        assert list(result) == pytest.approx([float(p) for p in partials], abs=1e-14)


@pytest.mark.parametrize("activation", one_argument(), ids=lambda a: a.name)
def test_bounds_of_the_slope_hold_and_are_approached(activation: Activation) -> None:
    low, high = activation.derivative_bounds(**activation.parameters)
    grid = np.concatenate([np.linspace(-12, 12, 24001), [-40.0, 40.0, -1e4, 1e4]])
    slopes = activation.derivative(grid, **activation.parameters)
    assert slopes.min() >= low - 1e-15
    assert slopes.max() <= high + 1e-15
    # Hardswish takes its extreme slopes next to the kinks, the grid is 0.001 away from them.
    near = 4e-4 if activation.name == "hardswish" else 1e-7
    assert slopes.min() == pytest.approx(low, abs=near)
    assert slopes.max() == pytest.approx(high, abs=near)


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("leaky_relu", {"slope": 2.0}, (1.0, 2.0)),
        ("leaky_relu", {"slope": -1.0}, (-1.0, 1.0)),
        ("elu", {"alpha": 2.0}, (0.0, 2.0)),
        ("elu", {"alpha": -0.5}, (-0.5, 1.0)),
        ("rrelu", {"lower": 0.0, "upper": 3.0}, (1.0, 1.5)),
        ("swish", {"beta": 0.0}, (0.5, 0.5)),
        ("swish", {"beta": -7.0}, (-0.09983932012886692, 1.0998393201288669)),
        ("acon_b", {"p": 1.0, "beta": 3.0}, (1.0, 1.0)),
        ("acon_b", {"p": 3.0, "beta": 3.0}, (0.8003213597422662, 3.1996786402577338)),
        ("maxout", {"slopes": (0.3, -2.0)}, (-2.0, 0.3)),
    ],
)
def test_bounds_follow_the_parameters(
    name: str, parameters: dict[str, float], expected: tuple[float, float]
) -> None:
    assert ACTIVATIONS[name].derivative_bounds(**parameters) == pytest.approx(expected, abs=1e-15)


def test_bounds_without_a_closed_form() -> None:
    import mpmath

    with mpmath.workdps(30):
        for name, start in [("mish", 1.49), ("mish", -2.26), ("gelu_tanh", 1.4), ("gelu", 1.4)]:
            text = ACTIVATIONS[name].derivative_formula

            def slope(x: mpmath.mpf, text: str = text) -> mpmath.mpf:
                from family_oracle import NAMES

                return eval(text, {"__builtins__": {}, **NAMES, "x": x})

            at = mpmath.findroot(lambda x, f=slope: mpmath.diff(f, x), start)
            side = 1 if start > 0 else 0
            bound = ACTIVATIONS[name].derivative_bounds()[side]
            assert bound == pytest.approx(float(slope(at)), rel=1e-14), name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("acon_c", "acon_c"), ("ACON-C", "acon_c"), ("LeakyReLU", "leaky_relu"), ("SiLU", "swish"),
        ("Hardswish", "hardswish"), ("hard sigmoid", "hardsigmoid"), ("ReLU6", "relu6"),
        ("GELU (tanh)", "gelu_tanh"), ("ACON-FReLU", "acon_frelu"),
    ],
)  # fmt: skip
def test_get_takes_names_as_people_write_them(given: str, name: str) -> None:
    assert family.get(given) is ACTIVATIONS[name]


def test_get_names_what_comes_near() -> None:
    with pytest.raises(UsageError, match=r"unknown activation 'swich'; did you mean 'swish'"):
        family.get("swich")
    with pytest.raises(UsageError, match=r"unknown activation 'zzz'; choose one of 'sigmoid'"):
        family.get("zzz")


def test_records_are_read_only() -> None:
    record = family.get("acon_c")
    with pytest.raises(AttributeError):
        record.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        record.parameters["p1"] = 3.0  # type: ignore[index]
    with pytest.raises(TypeError):
        ACTIVATIONS["new"] = record  # type: ignore[index]


def test_a_call_of_a_record_fills_in_the_defaults() -> None:
    record = family.get("acon_c")
    assert record(2.0) == family.acon_c(2.0, 1.2, -0.8, 1.0)
    assert record(2.0, beta=0.1) == family.acon_c(2.0, 1.2, -0.8, 0.1)


LIGHT = """
import sys
import numpy as np
from acon_analysis import family
x = np.linspace(-3, 3, 7)
for a in family.ACTIVATIONS.values():
    data = (x,) * len(a.arguments)
    a(*data), a.derivative(*data, **a.parameters), a.derivative_bounds(**a.parameters)
family.derivative_range(1.2, -0.8, 1.0, -1.0, 1.0)
{extra}
print(sorted({{"torch", "pandas", "matplotlib"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("extra", "expected"), [("", "[]"), ("sys.modules['torch'] = type(sys)('torch')", "['torch']")]
)
def test_torch_is_not_imported_until_a_tensor_comes(extra: str, expected: str) -> None:
    # The second case proves that the first one can fail.
    code = LIGHT.format(extra=extra)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
