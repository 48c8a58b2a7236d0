"""One ACON-C unit over Gaussian inputs: known values of L, the bounds, the figure."""

import numpy as np
import pytest

import acon_analysis as acon
import acon_figures
from acon_analysis.errors import UsageError
from acon_analysis.plotdata.unit_curves import unit_curves, unit_facts
from figurechecks import problems


@pytest.mark.parametrize(
    ("arguments", "L"),
    [
        ((1.2, -0.8, 1e6), 0.0992),
        ((1, 0, 1), 0.7985),
        ((1, -1, 1), 0.0),
        ((1, 0, 0), 1.0),
        ((0.7, 0.7, 5), 1.0),
        ((0, 1, 1), 0.7985),
        ((1, 0, 0.5, 0, 2), 0.7985),  # only the gain β·std counts
    ],
)
def test_known_values_of_the_index(arguments: tuple[float, ...], L: float) -> None:
    assert unit_facts(*arguments)["L"] == pytest.approx(L, abs=1e-4)


def test_against_drawn_inputs() -> None:
    facts = unit_facts(1.5, -0.3, 0.8, mean=0.4, std=1.7)
    x = np.random.default_rng(0).normal(0.4, 1.7, 400_000)
    found = acon.linearity(x, acon.family.acon_c(x, 1.5, -0.3, 0.8))
    assert facts["L"] == pytest.approx(found.L, abs=3e-3)
    assert facts["slope"] == pytest.approx(found.slope, abs=5e-3)
    assert facts["intercept"] == pytest.approx(found.intercept, abs=5e-3)
    gate = acon.family.sigmoid(0.8 * 1.8 * x)
    assert facts["gate"] == pytest.approx(4 * gate.var(), abs=3e-3)
    assert facts["low"] < facts["low_seen"] + 1e-12
    curves = unit_curves(1.5, -0.3, 0.8, 0.4, 1.7)
    area = np.trapezoid(curves["density"], curves["x"])
    assert area == pytest.approx(1, abs=1e-3)
    slopes = np.gradient(curves["y"], curves["x"])[1:-1]
    assert np.abs(slopes - curves["slope"].to_numpy()[1:-1]).max() < 1e-2


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="must be positive; got 0"):
        unit_facts(1, 0, 1, std=0)


@pytest.mark.parametrize(
    ("width", "context"), [("double", "paper"), ("single", "paper"), ("double", "talk")]
)
def test_the_figure_shows_the_numbers(width: str, context: str) -> None:
    figure = acon_figures.acon_unit(1.2, -0.8, 1.0, width=width, context=context)
    assert problems(figure) == []
    function, derivative = figure.axes
    line = function.lines[0].get_xydata()
    assert isinstance(line, np.ndarray)
    assert line[:, 1] == pytest.approx(acon.family.acon_c(line[:, 0], 1.2, -0.8, 1.0))
    assert [float(one.get_ydata()[0]) for one in derivative.lines[1:3]] == pytest.approx(
        acon.family.derivative_bounds(1.2, -0.8)
    )
    assert "L = 0.093" in figure.caption
