"""Differences between two runs."""

import numpy as np
import pytest

from acon_analysis.columns import DIFFERENCE_COLUMNS, names
from acon_analysis.errors import AconError
from acon_analysis.statistics.differences import compare_layers
from acon_analysis.statistics.linearity import layer_table
from synthetic_layers import random_layer


def test_differences_between_runs() -> None:
    a, b = random_layer(0, samples=100), random_layer(0, samples=100)
    same = compare_layers(a.moments, b.moments, a.channels, b.channels, paired=True)
    assert list(same.columns) == names(DIFFERENCE_COLUMNS)
    assert same["quantity"].tolist() == ["L", "L_own", "beta_gain", "G"]
    np.testing.assert_allclose(same["difference"], 0, atol=1e-14)
    np.testing.assert_allclose(same["error"], 0, atol=1e-14)
    loose = compare_layers(a.moments, b.moments, paired=False)
    single = layer_table(a.moments)["L_error"][0]
    assert loose["error"][0] == pytest.approx(single * np.sqrt(2))
    other = random_layer(1, samples=100)
    independent = compare_layers(a.moments, other.moments, paired=False)
    assert independent["low"][0] < 0 < independent["high"][0]
    assert independent["difference"].isna().tolist() == [False, False, True, False]


def test_differences_refuse_what_does_not_fit() -> None:
    a, b = random_layer(0), random_layer(0, name="other")
    with pytest.raises(AconError, match=r"share no layer: the first has layer4.2.acon; the second"):
        compare_layers(a.moments, b.moments, paired=True)
    few = a.moments[a.moments["block"] < 4]
    with pytest.raises(AconError, match=r"the first has 10 \(0 to 9\), the second 4 \(0 to 3\)"):
        compare_layers(a.moments, few, paired=True)
