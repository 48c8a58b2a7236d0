"""Summaries against numpy on the run's own matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_analysis.errors import AconError, UsageError
from acon_analysis.runs.run import Run
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.statistics.beta_summary import quantiles, summarize


def test_by_layer(digits_run: Run) -> None:
    table = digits_run.beta_summary().set_index("layer")
    assert list(table.index) == list(digits_run.layers["layer"])
    row = table.loc["layer3.0.acon"]
    beta = digits_run.beta_matrix("layer3.0.acon").astype(np.float64)
    assert row["samples"] == 500
    assert row["channels"] == 128
    assert row["mean"] == pytest.approx(beta.mean(), rel=1e-12)
    assert row["std"] == pytest.approx(beta.std(), rel=1e-9)
    assert row["std_samples"] == pytest.approx(beta.mean(1).std(), rel=1e-9)
    assert row["std_channels"] == pytest.approx(beta.mean(0).std(), rel=1e-9)
    assert row["median"] == pytest.approx(np.median(beta), rel=1e-6)
    assert (row["min"], row["max"]) == pytest.approx((beta.min(), beta.max()))


@pytest.mark.parametrize(("by", "axis", "rows"), [("channel", 0, 256), ("sample", 1, 3000)])
def test_by_channel_and_sample(digits_run: Run, by: str, axis: int, rows: int) -> None:
    table = digits_run.beta_summary(by)
    assert len(table) == rows
    own = table[table["layer"] == "layer2.1.acon"]
    beta = digits_run.beta_matrix("layer2.1.acon").astype(np.float64)
    np.testing.assert_allclose(own["mean"], beta.mean(axis), rtol=1e-9)
    np.testing.assert_allclose(own["std"], beta.std(axis), rtol=1e-9)
    np.testing.assert_allclose(own["q95"], np.quantile(beta, 0.95, axis=axis), rtol=1e-6)


@given(
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    kind=st.sampled_from(["f4", "f8"]),
    digits=st.integers(0, 8),  # few make equal values
    by=st.sampled_from(["layer", "channel", "sample"]),
)
def test_quantiles_are_exactly_those_of_numpy(
    shape: tuple[int, int], kind: str, digits: int, by: str
) -> None:
    values = np.random.default_rng(shape).normal(size=shape).round(digits).astype(kind)
    table = summarize([BetaMatrix("a", 0, np.arange(shape[0]), values)], by)
    axis = {"layer": None, "channel": 0, "sample": 1}[by]
    expected = np.quantile(values, [0, 0.05, 0.5, 0.95, 1], axis=axis)
    for name, value in zip(("min", "q05", "median", "q95", "max"), expected, strict=True):
        assert table[name].tolist() == np.ravel(value).tolist()
    exact = np.quantile(values.astype(np.float64), (0.1, 0.7), axis=axis)
    np.testing.assert_array_equal(quantiles(values, (0.1, 0.7), axis, np.float64), exact)


def test_by_nothing_known(digits_run: Run) -> None:
    with pytest.raises(UsageError, match="did you mean 'layer'"):
        digits_run.beta_summary("layers")


def test_no_beta_at_all(digits_run: Run) -> None:
    run = Run(digits_run.path)
    run.__dict__["layers"] = run.layers.assign(column="", granularity="elementwise", kind="gate")
    with pytest.raises(AconError, match="no layer with a beta; its layers are of kind: gate"):
        run.beta_summary()
