"""Formulas of layers with their parameters, against PyTorch's modules and closed forms."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from acon_analysis.statistics.causes import straight_sides
from acon_analysis.statistics.findings import findings
from acon_analysis.statistics.formulas import formula_of, slopes_between
from acon_analysis.statistics.yardsticks import gaussian_index, own_yardsticks, yardsticks
from acon_hooks.engine.parameters import module_parameters

MODULES = (
    nn.LeakyReLU(0.2), nn.LeakyReLU(), nn.PReLU(init=0.3), nn.RReLU(0.1, 0.4), nn.ELU(0.7),
    nn.CELU(0.5), nn.GELU("tanh"), nn.GELU(), nn.Softplus(3.0), nn.Softplus(), nn.Hardtanh(-0.5, 2),
    nn.Hardtanh(0, 6), nn.ReLU(), nn.SiLU(), nn.SELU(), nn.ReLU6(), nn.Hardswish(),
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_formula_derivative_and_yardstick_are_those_of_the_module(module: nn.Module) -> None:
    one = formula_of(type(module).__name__, module_parameters(module))
    assert one is not None
    module = module.double().eval()
    z = torch.linspace(-9.0, 9.0, 180_002, dtype=torch.float64, requires_grad=True)
    y = module(z)
    (slope,) = torch.autograd.grad(y.sum(), z)
    x, expected = z.detach().numpy(), y.detach().numpy()
    np.testing.assert_allclose(one(x), expected, atol=1e-7)
    np.testing.assert_allclose(one.derivative(x, **one.parameters), slope.numpy(), atol=1e-6)
    low, high = one.derivative_bounds(**one.parameters)
    assert low - 1e-6 <= float(slope.min())
    assert float(slope.max()) <= high + 1e-6
    # L on Gaussian inputs by a midpoint rule of this test's own.
    weight = np.exp(-x * x / 2)
    line = np.polynomial.Polynomial.fit(x, expected, 1, w=np.sqrt(weight))
    mean = np.average(expected, weights=weight)
    variance = np.average((expected - mean) ** 2, weights=weight)
    share = 1 - np.average((expected - line(x)) ** 2, weights=weight) / variance
    found = gaussian_index(type(module).__name__, parameters=module_parameters(module))
    assert found == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.1, 0.2, 1.0])
def test_a_leaky_relu_has_the_value_of_its_closed_form(slope: float) -> None:
    share = ((1 + slope) / 2) ** 2 / ((1 + slope**2) / 2 - (1 - slope) ** 2 / (2 * math.pi))
    found = gaussian_index("LeakyReLU", parameters=f"negative_slope={slope}")
    assert found == pytest.approx(share, abs=1e-6)


def test_a_clamp_is_what_its_bounds_make_it() -> None:
    for name, parameters, title in (
        ("clamp", "min=0, max=inf", "ReLU"), ("clamp_min", "min=0.0", "ReLU"),
        ("hardtanh", "min_val=0.0, max_val=6.0", "ReLU6"), ("clamp", "min=-1, max=2.5", None),
        ("clamp_max", "max=1", "clamp (-inf to 1)"),
    ):  # fmt: skip
        one = formula_of(name, parameters)
        assert one is not None
        assert one.title == (title or "clamp (-1 to 2.5)")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("LeakyReLU", ""), ("PReLU", ""), ("ELU", "beta=1"), ("ELU", "alpha=much"),
        ("CELU", "alpha=0"), ("Softplus", "beta=1.0, threshold=2.0"), ("clamp", "middle=1"),
        ("clamp", ""), ("Clamp", ""),
        ("ReLU", "="), ("Swish", ""), ("Mystery", "alpha=1.0"),
    ],
)  # fmt: skip
def test_no_formula_without_all_parameters(name: str, parameters: str) -> None:
    assert formula_of(name, parameters) is None
    assert np.isnan(gaussian_index(name, parameters=parameters))


@pytest.mark.parametrize("value", ["nan", "1e308", "-1e308", "inf"])
@pytest.mark.parametrize("name", ["LeakyReLU|negative_slope", "ELU|alpha", "CELU|alpha"])
def test_odd_parameters_of_an_altered_run_warn_of_nothing(name: str, value: str) -> None:
    kind, parameter = name.split("|")
    found = gaussian_index(kind, parameters=f"{parameter}={value}")
    assert np.isnan(found) or 0 <= found <= 1 + 1e-9


def test_each_parameter_has_a_yardstick_of_its_own() -> None:
    table = pd.DataFrame({
        "layer": list("abcd"), "call": 0, "L": [0.9, 0.79, 0.9, 0.9], "L_gate": float("nan"),
        "channels": 10, "linear": 0, "dead": 0, "why": "", "kind": "activation",
        "class_name": ["LeakyReLU", "LeakyReLU", "leaky_relu", "PReLU"],
        "parameters": ["negative_slope=0.1", "negative_slope=0.1", "negative_slope=0.3", ""],
    })  # fmt: skip
    table = table.assign(L_low=table["L"] - 0.01, L_high=table["L"] + 0.01)
    own = own_yardsticks(table)
    assert list(own["name"]) == [
        "Leaky ReLU (slope 0.1)", "Leaky ReLU (slope 0.1)", "Leaky ReLU (slope 0.3)", "PReLU",
    ]  # fmt: skip
    assert own["yardstick"][0] == pytest.approx(0.55**2 / (0.505 - 0.405 / math.pi), abs=1e-6)
    assert np.isnan(own["yardstick"][3])
    said = findings(table)[0]
    assert said.answer.endswith(
        "A Leaky ReLU (slope 0.1) on Gaussian inputs is at 80 %: 1 of 2 such layers is straighter."
    )
    assert said.numbers.endswith(
        "On Gaussian inputs a Leaky ReLU (slope 0.3) is at 90 % (this layer is not clearly "
        "straighter). Not compared: PReLU (may have a slope for each channel)."
    )


def test_a_product_is_compared_with_one_of_its_gates_parameters() -> None:
    table = pd.DataFrame({
        "layer": ["g", "p"], "kind": ["activation", "product"], "class_name": ["elu", "mul"],
        "parameters": ["alpha=0.5", ""], "gate_of": ["p", ""],
    })  # fmt: skip
    name, found = own_yardsticks(table).iloc[1]
    assert name == "product with an ELU (alpha 0.5) gate"
    a, b = np.random.default_rng(0).standard_normal((2, 400_000))
    product = a * nn.ELU(0.5)(torch.from_numpy(b)).numpy()
    plane = np.stack([a, b, np.ones(len(a))], 1)
    sse = float(np.linalg.lstsq(plane, product, rcond=None)[1][0])
    assert found == pytest.approx(1 - sse / product.var() / len(a), abs=5e-3)


def test_layers_of_one_name_and_other_values_are_compared_apart() -> None:
    table = pd.DataFrame({
        "layer": list("abc"), "kind": "activation", "class_name": "Softplus",
        "parameters": ["beta=1.0, threshold=5.0", *["beta=1.0, threshold=20.0"] * 2],
    })  # fmt: skip
    known, unknown = yardsticks(table)
    assert list(known.rows["layer"]) == ["b", "c"]
    assert pytest.approx(gaussian_index("Softplus", parameters=table["parameters"][1])) == known.L
    assert list(unknown.rows["layer"]) == ["a"]
    assert np.isnan(unknown.L)


def test_a_clamp_that_is_a_relu_is_one_and_clamps_of_no_known_bounds_are_named() -> None:
    table = pd.DataFrame({
        "layer": list("abc"), "call": 0, "L": 0.8, "L_gate": float("nan"), "channels": 10,
        "linear": 0, "dead": 0, "why": "", "kind": "activation",
        "class_name": ["Hardtanh", "clamp", "GELU"],
        "parameters": ["min_val=0.0, max_val=inf", None, None],  # as text files hold no text
    })  # fmt: skip
    said = findings(table.assign(L_low=0.79, L_high=0.81))[0].numbers
    assert said.endswith("Compared with a ReLU for lack of a value of their own: clamp.")


def test_slopes_within_a_narrow_window_are_found() -> None:
    one = formula_of("clamp", "min=2, max=3")
    assert one is not None
    low, high = slopes_between(one, np.array([1.0]), np.array([10_000.0]))
    assert (low.item(), high.item()) == (0.0, 1.0)


def test_sides_of_an_activation_depend_on_its_parameters() -> None:
    assert straight_sides("LeakyReLU", "negative_slope=0.1") == (True, True)
    assert straight_sides("Hardtanh", "min_val=-1.0, max_val=1.0") == (False, False)
    assert straight_sides("hardtanh", "min_val=0.0, max_val=20.0") == (True, True)
    assert straight_sides("ELU", "alpha=2.0") == (False, True)
    assert straight_sides("Mystery") == (False, False)
