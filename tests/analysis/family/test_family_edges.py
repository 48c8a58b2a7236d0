"""What must not happen: NaN for a limit that exists, a lost NaN, a warning, a lost dtype."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from acon_analysis import family
from acon_analysis.errors import UsageError
from acon_analysis.family import ACTIVATIONS, Activation, Limits
from family_oracle import one_argument

ELEMENTWISE = one_argument()
BETAS = [0.0, 1e-300, 1.0, 1e300, np.inf]


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_infinities_give_the_limits(activation: Activation) -> None:
    assert activation.limits is not None
    limits = activation.limits(**activation.parameters)
    for x, line in [(-np.inf, limits.left), (np.inf, limits.right)]:
        value = line.intercept if line.slope == 0 else line.slope * x
        for given in (x, np.array([x]), np.float32(x), torch.tensor([x], dtype=torch.float64)):
            rough = 1e-7 if getattr(given, "dtype", None) == np.float32 else 1e-15
            result = activation(given)
            assert float(np.asarray(result).item()) == pytest.approx(float(value), rel=rough)
            slope = activation.derivative(given, **activation.parameters)
            assert float(np.asarray(slope).item()) == pytest.approx(float(line.slope), rel=rough)


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_the_asymptotes_are_approached(activation: Activation) -> None:
    assert activation.limits is not None
    limits = activation.limits(**activation.parameters)
    for x, line in [(-60.0, limits.left), (60.0, limits.right)]:
        assert activation(x) == pytest.approx(float(line.slope * x + line.intercept), abs=1e-12)


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_huge_arguments_neither_warn_nor_turn_into_nan(activation: Activation, dtype: type) -> None:
    top = float(np.finfo(dtype).max)
    x: np.ndarray = np.array([-top, -top / 8, -1e4, 0.0, 1e4, top / 8, top]).astype(dtype)
    for result in (activation(x), activation.derivative(x, **activation.parameters)):
        assert result.dtype == dtype
        assert not np.isnan(result).any()
    tensor = torch.from_numpy(x)
    for result in (activation(tensor), activation.derivative(tensor, **activation.parameters)):
        assert result.dtype == tensor.dtype
        assert not result.isnan().any()


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=lambda a: a.name)
def test_nan_stays_nan(activation: Activation) -> None:
    several = len(activation.arguments)
    rows = np.array([[np.nan, 1.0], [1.0, np.nan], [np.nan, np.nan]])
    for make in (np.asarray, torch.as_tensor):
        if several == 2:
            arguments = [make(rows[:, 0]), make(rows[:, 1])]
        elif activation.name == "smooth_maximum":
            arguments = [make(rows)]
        else:
            arguments = [make(np.array([np.nan]))]
        assert np.isnan(np.asarray(activation(*arguments))).all()
        slopes = activation.derivative(*arguments, **activation.parameters)
        for slope in slopes if isinstance(slopes, tuple) else (slopes,):
            assert np.isnan(np.asarray(slope)).all()


@pytest.mark.parametrize("name", ["p1", "p2", "beta"])
def test_nan_parameters_of_acon_give_nan(name: str) -> None:
    parameters = {"p1": 1.2, "p2": -0.8, "beta": 1.0, name: np.nan}
    assert np.isnan(family.acon_c(2.0, **parameters))
    assert np.isnan(family.derivative(2.0, **parameters))
    assert np.isnan(family.derivative_bounds(**parameters)).all()
    assert np.isnan(family.derivative_range(**parameters, x_min=-1.0, x_max=1.0)).all()
    assert np.isnan(family.extremum_position(**parameters)).all()


@pytest.mark.parametrize(
    ("p1", "p2"), [(1.0, 0.0), (0.0, 1.0), (1.2, -0.8), (1.0, -1.0), (2.0, 2.0)]
)
def test_acon_has_its_limit_at_every_extreme(p1: float, p2: float) -> None:
    ends = [-np.inf, -1e300, -1.0, 0.0, 1e-300, 1e300, np.inf]
    for x, beta in itertools.product(ends, [*BETAS, *(-b for b in BETAS)]):
        value, slope = family.acon_c(x, p1, p2, beta), family.derivative(x, p1, p2, beta)
        side = np.sign(beta) * np.sign(p1 - p2) * np.sign(x)
        largest = max(abs(beta), abs(x))
        # 1e300 times 1e-300 is no extreme; any other product here is 0, or beyond every bend.
        saturated = largest > 1e200 and min(abs(beta), abs(x)) > (0 if np.isinf(largest) else 0.5)
        if side and saturated:
            line = p1 if side > 0 else p2
            assert slope == line, (x, beta)
            assert value == (0.0 if line == 0 else line * x), (x, beta)
        else:
            assert np.isfinite(slope), (x, beta)
            assert not np.isnan(value), (x, beta)


def test_a_line_stays_exact_at_infinity() -> None:
    assert family.acon_c(np.inf, 1.0, -0.5, 0.0) == np.inf
    assert family.acon_c(np.inf, 1.0, -1.0, 0.0) == 0.0
    assert family.acon_c(-np.inf, 2.0, 2.0, 3.0) == -np.inf
    assert family.derivative(np.inf, 1.0, -0.5, 0.0) == 0.25


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda a: a.name)
def test_what_comes_in_comes_out(activation: Activation) -> None:
    for function in (activation.function, activation.derivative):
        for number in (1, 1.5, True):
            assert type(function(number, **activation.parameters)) is np.float64
        assert type(function([1, 2], **activation.parameters)) is np.ndarray
        assert function(np.arange(3), **activation.parameters).dtype == np.float64
        assert function(np.zeros((2, 0)), **activation.parameters).shape == (2, 0)
        assert type(function(np.zeros(()), **activation.parameters)) is np.float64


def test_parameters_broadcast() -> None:
    x = np.linspace(-3.0, 3.0, 24).reshape(2, 3, 4)
    p1, p2 = np.array([1.0, 1.2, 0.8]).reshape(3, 1), np.array([0.0, -0.1, 0.1]).reshape(3, 1)
    beta = np.array([0.5, 2.0]).reshape(2, 1, 1)
    for function in (family.acon_c, family.derivative):
        whole = function(x, p1, p2, beta)
        assert whole.shape == (2, 3, 4)
        for i in range(2):
            for j in range(3):
                alone = function(x[i, j], p1[j, 0], p2[j, 0], beta[i, 0, 0])
                np.testing.assert_array_equal(whole[i, j], alone)
    assert family.leaky_relu_derivative(-1.0, slope=np.array([0.1, 0.2])).tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: family.relu("text"), r"relu: x has dtype <U4; expected real numbers"),
        (lambda: family.relu(None), r"relu: x has dtype object; expected real numbers"),
        (lambda: family.acon_c(1.0, 1j, 0.0), r"acon_c: p1 has dtype complex128"),
        (lambda: family.relu(torch.tensor(1j)), r"relu: x has dtype torch.complex64"),
        (
            lambda: family.acon_c(np.ones(3), np.ones(2), 0.0),
            r"acon_c: these shapes do not broadcast: x \(3,\), p1 \(2,\), p2 \(\), beta \(\)",
        ),
        (
            lambda: family.acon_c(torch.ones(3), torch.ones(2), 0.0),
            r"acon_c: these shapes do not broadcast: x \(3,\), p1 \(2,\)",
        ),
        (
            lambda: family.relu([torch.ones(2), torch.ones(2)]),
            r"relu: x is a list of tensors; expected one tensor \(torch.stack",
        ),
        (
            lambda: family.gelu(1.0, approximate="tan"),
            r"gelu: approximate='tan' is not known; did you mean 'tanh'\?",
        ),
    ],
)
def test_wrong_arguments_get_a_readable_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_limits_of_acon_follow_the_sign_of_beta() -> None:
    limits = ACTIVATIONS["acon_c"].limits
    assert limits is not None
    parameters = {"p1": np.array([1.2, -0.8, 1.2, 1.2]), "p2": np.array([-0.8, 1.2, -0.8, -0.8])}
    result = limits(**parameters, beta=np.array([1.0, 1.0, -1.0, 0.0]))
    assert isinstance(result, Limits)
    np.testing.assert_allclose(result.left.slope, [-0.8, -0.8, 1.2, 0.2])
    np.testing.assert_allclose(result.right.slope, [1.2, 1.2, -0.8, 0.2])
