"""Sums of p variables: any split and order, any axes, numpy and torch, against direct float64."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acon_analysis.errors import AconError
from acon_analysis.moments.gram import Gram
from acon_analysis.statistics.affine_fit import linearity


def direct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and centred sums of products of (n, p), by numpy alone."""
    if len(values) < 1:
        return np.zeros(values.shape[1]), np.zeros((values.shape[1],) * 2)
    count, width = values.shape
    cov = np.cov(values, rowvar=False, bias=True).reshape(width, width)
    return values.mean(0), cov * count


def assert_equal(found: Gram, values: np.ndarray, rtol: float = 1e-12) -> None:
    """Compare one Gram without leading axes, entries of C on the scale of its diagonal."""
    mean, C = direct(values)
    assert float(found.n) == len(values)
    spread = np.sqrt(np.diag(C))
    rounding = np.sqrt((values**2).sum(0)) * 4e-15
    assert np.all(np.abs(np.asarray(found.mean) - mean) <= rtol * (np.abs(mean) + spread))
    allowed = rtol * np.outer(spread, spread) + np.outer(rounding, spread + rounding)
    assert np.all(np.abs(np.asarray(found.C) - C) <= allowed + allowed.T)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_split_and_any_order(data: st.DataObject) -> None:
    size, width = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 6))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal((size, width)) + data.draw(st.sampled_from([0.0, -3.0, 100.0]))
    constant = data.draw(st.integers(0, width))
    values[:, :constant] = 0.1
    edges = list(zip([0, *cuts], [*cuts, size], strict=True))
    parts = [values[a:b] for a, b in edges]
    rng.shuffle(parts)
    assert_equal(Gram.of(values), values)
    for kind in (np.asarray, torch.from_numpy):
        grams = [Gram.of(kind(part)) for part in parts]
        chained = grams[0]
        for gram in grams[1:]:
            chained = chained + gram
        stack = np.stack if kind is np.asarray else torch.stack
        fields = [[getattr(g, name) for g in grams] for name in ("n", "mean", "C")]
        stacked = Gram(*(stack(field) for field in fields))
        for found in (chained, stacked.merge()):
            assert isinstance(found.C, Tensor if kind is torch.from_numpy else np.ndarray)
            assert_equal(found, values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(1, 6), st.data())
def test_any_leading_axes(shape: list[int], width: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((*shape, width)) + 5
    axis = data.draw(st.integers(-len(shape) - 1, len(shape) - 1).filter(lambda a: a != -1))
    whole = Gram.of(values, axis)
    last = np.moveaxis(values, axis, -2)
    assert whole.C.shape == (*last.shape[:-2], width, width)
    for index in np.ndindex(*last.shape[:-2]):
        assert_equal(whole[index], last[index])
    along = data.draw(st.integers(0, len(shape) - 2))
    merged = whole.merge(along)
    both = Gram.of(last, (along, -2))
    for name in ("n", "mean", "C"):
        np.testing.assert_allclose(getattr(merged, name), getattr(both, name), atol=1e-11)
        turned = getattr(Gram.of(torch.from_numpy(values), axis).merge(along), name)
        assert turned.dtype == torch.float64
        np.testing.assert_allclose(turned, getattr(both, name), atol=1e-11)


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1e3, 1e6])
def test_means_of_a_million_deviations_against_exact_fractions(ratio: float) -> None:
    rng = np.random.default_rng(3)
    x = ratio + rng.standard_normal(60)
    values = np.stack([x, np.round(3 * x) + rng.standard_normal(60)], 1)
    exact = [[Fraction(float(v)) for v in column] for column in values.T]
    means = [sum(column) / 60 for column in exact]
    found = Gram.of(values)
    merged = sum((Gram.of(values[i : i + 7]) for i in range(7, 60, 7)), Gram.of(values[:7]))
    for i in range(2):
        assert float(found.mean[i]) == pytest.approx(float(means[i]), rel=1e-15, abs=1e-15)
        for j in range(2):
            pairs = zip(exact[i], exact[j], strict=True)
            C = float(sum((a - means[i]) * (b - means[j]) for a, b in pairs))
            assert float(found.C[i, j]) == pytest.approx(C, rel=1e-12, abs=0)
            # Stored means are rounded: that of a part by eps·mean, which is ratio·eps of std.
            assert float(merged.C[i, j]) == pytest.approx(C, rel=1e-12 + 4e-16 * ratio, abs=0)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([0.0, 1e3]))
def test_residual_is_that_of_least_squares(seed: int, count: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    given_ = rng.standard_normal((50, count)) + shift
    target = given_ @ rng.standard_normal(count) + rng.standard_normal(50)
    gram = Gram.of(np.column_stack([given_, target]))
    design = np.column_stack([given_ - given_.mean(0), np.ones(50)])
    fit, *_ = np.linalg.lstsq(design, target)
    lost = ((target - design @ fit) ** 2).sum()
    order = rng.permutation(count).tolist()
    assert float(gram.residual(count, order)) == pytest.approx(lost, rel=1e-9)
    turned = Gram.of(torch.from_numpy(np.column_stack([given_, target])))
    assert float(turned.residual(count, order)) == pytest.approx(lost, rel=1e-9)


def test_given_variables_that_depend_on_each_other_count_once() -> None:
    rng = np.random.default_rng(0)
    a, b, noise = rng.standard_normal((3, 200))
    values = np.column_stack([a, 2 * a + 7, b, a - b, np.full(200, 0.1), a + b + noise])
    gram = Gram.of(values)
    expected = float(gram.residual(5, [0, 2]))
    assert 0.2 < expected / gram.C[5, 5] < 0.5
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 3]):
        assert float(gram.residual(5, order)) == pytest.approx(expected, rel=1e-12)
    assert float(gram.residual(3, [0, 2])) == pytest.approx(0, abs=1e-11)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_two_variables_as_the_affine_fit_of_single_channels(kind: object) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(300) + 2
    cases = {
        "relu": (x, np.maximum(x, 0)),
        "line": (x, 3 * x - 1),
        "constant x": (np.full(300, 0.1), x),
        "constant y": (x, np.full(300, 0.1)),
        "both constant": (np.full(300, 0.1), np.full(300, 0.7)),
        "two values": (x[:2], x[:2] ** 2),
        "one value": (x[:1], x[:1]),
    }
    for name, (xs, ys) in cases.items():
        gram = Gram.of(kind(np.stack([xs, ys], 1)))  # type: ignore[operator]
        expected = linearity(xs, ys)
        assert float(gram.residual(1, [0])) == pytest.approx(expected.sse, abs=1e-10), name
        slope, intercept = gram.line()
        assert float(slope) == pytest.approx(expected.slope, abs=1e-10), name
        assert float(intercept) == pytest.approx(expected.intercept, abs=1e-10), name
        assert float(gram.sse(slope, intercept)) == pytest.approx(expected.sse, abs=1e-10), name
        rest = ys - 0.3 * xs - 0.2
        assert float(gram.sse(0.3, 0.2)) == pytest.approx((rest**2).sum(), rel=1e-12), name


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_nothing_and_what_is_not_finite(kind: object) -> None:
    nothing = Gram.of(kind(np.zeros((0, 2))))  # type: ignore[operator]
    some = Gram.of(kind(np.array([[1.0, 2.0], [3.0, 5.0]])))  # type: ignore[operator]
    for both in (nothing + some, some + nothing):
        for name in ("n", "mean", "C"):
            np.testing.assert_array_equal(getattr(both, name), getattr(some, name))
    empty = nothing + nothing
    assert (float(empty.n), float(empty.C.sum()), float(empty.mean.sum())) == (0, 0, 0)
    assert np.isnan(float(empty.line()[0]))
    for shape in ((0, 5, 2), (5, 0, 2), (0, 0, 2)):
        assert Gram.of(kind(np.zeros(shape)), 1).C.shape == (shape[0], 2, 2)  # type: ignore[operator]
        assert float(Gram.of(kind(np.zeros(shape)), 1).merge().n) == 0  # type: ignore[operator]
    bad = some + Gram.of(kind(np.array([[np.nan, 1.0], [1.0, 1.0]])))  # type: ignore[operator]
    assert float(bad.n) == 4
    assert np.isnan(np.asarray(bad.C)).tolist() == [[True, True], [True, False]]
    assert np.isnan(float(bad.residual(1, [0])))


def test_errors_say_what_was_given() -> None:
    with pytest.raises(AconError, match=r"one shape, given \(2, 2\) and \(3, 3\)"):
        Gram.of(np.ones((4, 2))) + Gram.of(np.ones((4, 3)))
    with pytest.raises(AconError, match=r"variables, the last: shape \(4, 2\), axis 1"):
        Gram.of(np.ones((4, 2)), 1)
