"""Moments: exact merging in any order and cut, float64 oracles, cancellation, edge cases."""

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acon_analysis.columns import dtypes, names
from acon_analysis.errors import AconError
from acon_analysis.moments import frames
from acon_analysis.moments.fields import FIELDS, MOMENT_COLUMNS, PRODUCT_COLUMNS
from acon_analysis.moments.frames import (
    disk_space,
    from_frame,
    line_variance,
    merge_rows,
    moment_frame,
    to_frame,
)
from acon_analysis.moments.state import (
    FloatArray,
    Moments,
    empty,
    group,
    merge,
    merge_all,
    residual,
)
from moment_oracle import acon_parts, as_samples, by_block, from_samples

P1, P2 = 1.2, -0.8


def acon_state(x: FloatArray, beta: FloatArray | float, *, axis: int = -1) -> Moments:
    parts = acon_parts(x, P1, P2, beta, 0.5)
    return from_samples(x, parts.output, axis=axis, parts=parts)


def assert_close(a: Moments, b: Moments, rtol: float = 1e-12) -> None:
    """Compare field by field, moments on the scale that their neighbours set."""
    assert list(a.arrays) == list(b.arrays)
    scale_x = np.sqrt(b["cxx"] + b["n"] * b["mean_x"] ** 2) + 1e-300
    scale_y = np.sqrt(b["cyy"] + b["n"] * b["mean_y"] ** 2) + 1e-300
    scale = {"x": scale_x, "y": scale_y, "x²": scale_x**2, "x·y": scale_x * scale_y}
    scale |= {"y²": scale_y**2, "1": np.maximum(b["n"], 1.0)}
    for field in FIELDS:
        if field.name in a and field.rule not in {"min", "max"}:
            gap = np.abs(a[field.name] - b[field.name])
            assert np.all(gap <= rtol * scale[field.unit]), field.name
        elif field.name in a:
            np.testing.assert_array_equal(a[field.name], b[field.name])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_order_and_partition_do_not_matter(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    size = data.draw(st.integers(0, 60))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))
    shift = data.draw(st.sampled_from([0.0, 1.0, -100.0]))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, size)) + shift
    beta = rng.uniform(0, 2, (3, size))
    whole = acon_state(x, beta)
    edges = list(zip([0, *cuts], [*cuts, size], strict=True))
    parts = [acon_state(x[:, a:b], beta[:, a:b]) for a, b in edges]
    order = rng.permutation(len(parts))
    chained = empty((3,), whole.groups)
    for i in order:
        chained = merge(chained, parts[i])
    assert_close(chained, whole)
    stacked = Moments({k: np.stack([parts[i][k] for i in order]) for k in whole.arrays})
    assert_close(merge_all(stacked), whole)
    halves = group(stacked, np.arange(len(parts)) % 2, 2)
    assert_close(merge_all(halves), whole)


def test_against_two_pass_oracle() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((4, 6, 50)) * 3 + 1).astype(np.float32)
    parts = acon_parts(x, P1, P2, 0.7, 0.5)
    state = from_samples(x, parts.output, axis=(0, 2), parts=parts)
    assert state.shape == (6,)
    flat = x.astype(np.float64).transpose(1, 0, 2).reshape(6, -1)
    y = flat * (P1 + P2) / 2 + flat * np.tanh(0.7 * flat)
    for c in range(6):
        cov = np.cov(flat[c], y[c], bias=True) * flat.shape[1]
        expected = {"n": 200, "mean_x": flat[c].mean(), "cxx": cov[0, 0], "cxy": cov[0, 1]}
        expected |= {"cyy": cov[1, 1], "min_x": flat[c].min(), "max_x": flat[c].max()}
        expected |= {"n_positive": (flat[c] > 0).sum(), "max_u": 1.4 * flat[c].max()}
        expected |= {"cgg": 200 * np.var(1 / (1 + np.exp(-1.4 * flat[c])))}
        for name, value in expected.items():
            assert state[name][c] == pytest.approx(value, rel=1e-12, abs=0), name


@pytest.mark.parametrize("cut", [1, 7, 50])
def test_mean_of_a_hundred_standard_deviations_against_exact_fractions(cut: int) -> None:
    rng = np.random.default_rng(cut)
    x = 100 + rng.standard_normal(100)
    y = x * 3 + rng.standard_normal(100)
    exact_x, exact_y = [Fraction(v) for v in x], [Fraction(v) for v in y]
    mx, my = sum(exact_x) / 100, sum(exact_y) / 100
    cxx = sum((v - mx) ** 2 for v in exact_x)
    cxy = sum((v - mx) * (w - my) for v, w in zip(exact_x, exact_y, strict=True))
    cyy = sum((w - my) ** 2 for w in exact_y)
    state = empty(())
    for start in range(0, 100, cut):
        piece = slice(start, start + cut)
        state = merge(state, from_samples(x[piece], y[piece]))
    for name, exact in {"cxx": cxx, "cxy": cxy, "cyy": cyy, "mean_x": mx}.items():
        assert float(state[name]) == pytest.approx(float(exact), rel=2e-13, abs=0), name
    r2 = cxy * cxy / (cxx * cyy)
    assert float(1 - residual(state) / state["cyy"]) == pytest.approx(float(r2), abs=1e-13)


def test_even_part_resolves_what_y_loses() -> None:
    """β = 1e-9: 1 - L is about 1e-19, below the rounding of y; the even part keeps its digits."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(400)
    p1, p2, beta = 1.0, 0.25, 1e-9
    parts = acon_parts(x, p1, p2, beta)
    state = from_samples(x, parts.output, parts=parts)
    with mpmath.workdps(60):
        xs = [mpmath.mpf(float(v)) for v in x]
        d, m = mpmath.mpf(p1) - p2, (mpmath.mpf(p1) + p2) / 2
        ys = [m * v + d * v / 2 * mpmath.tanh(beta * d * v / 2) for v in xs]
        mx, my = mpmath.fsum(xs) / 400, mpmath.fsum(ys) / 400
        cxx = mpmath.fsum((v - mx) ** 2 for v in xs)
        cyy = mpmath.fsum((v - my) ** 2 for v in ys)
        cxy = mpmath.fsum((v - mx) * (w - my) for v, w in zip(xs, ys, strict=True))
        exact = float((cyy - cxy**2 / cxx) / cyy)
    measured = float(residual(state, "even") / state["cyy"])
    assert 1e-20 < exact < 1e-17
    assert measured == pytest.approx(exact, rel=1e-9, abs=0)
    lost = float(residual(state) / state["cyy"])
    assert abs(lost - exact) > exact / 2


def test_residual_of_y_is_the_residual_of_the_even_part() -> None:
    x = np.random.default_rng(4).standard_normal((5, 300))
    state = acon_state(x, np.linspace(0.1, 3, 5)[:, None])
    np.testing.assert_allclose(residual(state), residual(state, "even"), rtol=1e-9)
    slope = state["cxy"] / state["cxx"]
    np.testing.assert_allclose(slope, (P1 + P2) / 2 + state["cxe"] / state["cxx"], rtol=1e-12)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_empty_one_and_two_values(size: int) -> None:
    x = np.arange(float(size)) + 5
    state = acon_state(x, 1.0)
    assert float(state["n"]) == size
    assert float(residual(state)) == pytest.approx(0, abs=1e-12)
    if size == 0:
        assert float(state["min_x"]) == np.inf
        assert float(state["mean_x"]) == 0
        assert_close(
            merge(state, acon_state(np.array([1.0, 3.0]), 1.0)),
            acon_state(np.array([1.0, 3.0]), 1.0),
        )
    if size == 1:
        assert float(state["cxx"]) == 0


def test_constant_input_has_no_spread() -> None:
    state = acon_state(np.full((2, 1000), 0.1), np.array([[1.0], [2.0]]))
    np.testing.assert_allclose(state["cxx"], 0, atol=1e-28)
    assert np.all(residual(state) <= state["cyy"])


def test_non_finite_values_are_not_dropped() -> None:
    state = from_samples([1.0, np.nan, 3.0], [1.0, 2.0, np.inf])
    assert float(state["n"]) == 3
    assert np.isnan(float(state["cxx"]))
    assert np.isnan(float(state["cyy"]))
    with np.errstate(all="raise"):
        merged = merge(state, from_samples([1.0, 2.0], [1.0, 2.0]))
    assert np.isnan(float(merged["cxy"]))


def test_within_sums_merge_into_blocks_and_the_global_state() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((30, 3, 16)) + rng.standard_normal((30, 1, 1))
    beta = rng.uniform(0, 1, (30, 3))
    states = as_samples(acon_state(x, beta[..., None]), beta)
    samples = np.arange(100, 130)
    blocks = by_block(states, samples, 7)
    total = merge_all(blocks)
    direct = acon_state(x.transpose(1, 0, 2).reshape(3, -1), np.repeat(beta.T, 16, axis=1))
    for name in direct.arrays:
        np.testing.assert_allclose(total[name], direct[name], rtol=1e-11)
    np.testing.assert_array_equal(total["n_samples"], 30)
    np.testing.assert_allclose(total["mean_beta"], beta.mean(0), rtol=1e-13)
    np.testing.assert_allclose(total["cbb"], 30 * beta.var(0), rtol=1e-12)
    np.testing.assert_allclose(total["sse_within"], residual(states, "even").sum(0), rtol=1e-12)
    assert np.all(total["sse_within"] <= residual(total, "even"))
    y0 = (P1 + P2) / 2 * x + x * np.tanh(0.5 * x)
    np.testing.assert_allclose(
        line_variance(total, (P1 + P2) / 2), y0.var(axis=(0, 2)) * 480, rtol=1e-12
    )


def test_frames_keep_everything_and_merge_by_key() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((8, 3, 10))
    beta = rng.uniform(0, 1, (8, 3))
    states = as_samples(acon_state(x, beta[..., None]), beta)
    block = by_block(states, np.arange(8), 5)
    keys: dict[str, Any] = {
        "layer": "a.b",
        "call": 0,
        "channel": np.arange(3),
        "block": np.arange(5)[:, None],
    }
    acon = to_frame(block, **keys)
    assert list(acon.columns) == names(MOMENT_COLUMNS)
    assert {n: str(t) for n, t in acon.dtypes.items()} == dtypes(MOMENT_COLUMNS)
    relu = to_frame(
        by_block(as_samples(from_samples(x, np.maximum(x, 0))), np.arange(8), 5),
        **{**keys, "layer": "relu"},
    )
    assert list(relu.columns) == list(acon.columns)
    assert relu["mean_g"].isna().all()
    both = pd.concat([acon, relu], ignore_index=True)
    merged = merge_rows(both)
    assert merged["layer"].tolist() == ["a.b"] * 3 + ["relu"] * 3
    assert merged["n"].tolist() == [80] * 6
    assert merged["cee"].isna().tolist() == [False] * 3 + [True] * 3
    back = from_frame(merged.iloc[:3])
    total = merge_all(block)
    for name in total.arrays:
        np.testing.assert_allclose(back[name], total[name], rtol=1e-12)
    assert "cee" not in from_frame(merged.iloc[3:])


def columns(frame: pd.DataFrame) -> dict[str, FloatArray]:
    """Return the columns of a part of a table that are no keys."""
    return {str(name): frame[name].to_numpy() for name in frame.columns[4:]}


@pytest.mark.parametrize("size", [2, 20_000])
@pytest.mark.parametrize("others", [slice(None), slice(1, None), slice(None, None, -1), slice(0)])
@pytest.mark.parametrize("lacking", [[], ["n_left_out"]])
def test_rows_of_units_merge_as_one_table(size: int, others: slice, lacking: list[str]) -> None:
    rng = np.random.default_rng(8)
    merged = frames.MergedRows()
    units = []
    for number in range(3):
        x = rng.standard_normal((6, 4, 5))
        states = by_block(as_samples(from_samples(x, np.maximum(x, 0))), np.arange(6), 3)
        keys = {"channel": np.arange(4), "block": np.arange(3)[:, None]}
        frame = to_frame(states, layer="relu", call=0, **keys)
        units.append(frame.iloc[others if number == 1 else slice(None)].reset_index(drop=True))
    units[0] = units[0].iloc[2:].reset_index(drop=True)  # rows that only later units have
    for unit in units:
        stored = unit.drop(columns=lacking)
        starts = range(0, len(unit), size)
        merged.add(stored, [columns(stored.iloc[at : at + size]) for at in starts])
    expected = merge_rows(
        pd.concat(units, ignore_index=True), ("layer", "call", "channel", "block")
    )
    expected = expected.drop(columns=lacking)
    pd.testing.assert_frame_equal(merged.frame(), expected, check_exact=True)


def test_fields_that_only_some_units_have_are_merged() -> None:
    base = moment_frame(np.eye(4), np.eye(4))
    base.insert(3, "block", 0)
    more = base.assign(layer="product", **dict.fromkeys(names(PRODUCT_COLUMNS), 1.0))
    merged = frames.MergedRows()
    for unit in (base, pd.concat([base, more], ignore_index=True)):
        merged.add(unit, [columns(unit)])
    found = merged.frame()
    assert found["n"].tolist() == [8] * 4 + [4] * 4
    for name in names(PRODUCT_COLUMNS):
        assert found[name].isna().tolist() == [True] * 4 + [False] * 4
        assert found[name].tolist()[4:] == [1.0] * 4


def test_disk_space_of_resnet50() -> None:
    full, usual = (
        disk_space(
            channels=3776, layers=16, samples=50_000, units=13, full=full, blocks=101,
            products=False,
        )
        for full in (True, False)
    )  # fmt: skip
    assert 18e9 < full - usual < 35e9
    assert 0.5e9 < usual < 2e9


def test_errors_say_what_was_given() -> None:
    with pytest.raises(AconError, match=r"x is \(3,\), y is \(2,\)"):
        from_samples([1, 2, 3], [1, 2])
    with pytest.raises(AconError, match="only one has cee, cgg"):
        merge(from_samples([1.0], [1.0]), acon_state(np.ones(2), 1.0))
    with pytest.raises(AconError, match="no such moments: cxz"):
        Moments({"cxz": np.zeros(1)})
    with pytest.raises(AconError, match="incomplete moments: mean_x"):
        Moments({"n": np.zeros(1)})
    with pytest.raises(AconError, match="this state has no 'cee'"):
        from_samples([1.0], [1.0])["cee"]
    with pytest.raises(AconError, match=r"codes must lie in \[0, 2\), given 0 to 2"):
        group(empty(3), [0, 1, 2], 2)
    with pytest.raises(AconError, match="lacks the columns n, mean_x"):
        from_frame(pd.DataFrame({"layer": ["a"]}))
    with pytest.raises(AconError, match="no such group: gates"):
        empty(1, ["gates"])


def test_moments_of_given_inputs_and_outputs() -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal((9, 3, 4, 5)) + 2
    y = np.maximum(x, 0)
    frame = moment_frame(x, y, "relu")
    flat = (v.reshape(9, 3, 20) for v in (x, y))
    expected = to_frame(merge_all(as_samples(from_samples(*flat))), layer="relu", call=0,
                        channel=np.arange(3))  # fmt: skip
    pd.testing.assert_frame_equal(frame, expected, rtol=1e-12)
    assert moment_frame(x[..., 0, 0], y[..., 0, 0])["n"].tolist() == [9, 9, 9]
    assert not len(moment_frame(np.zeros((0, 2)), np.zeros((0, 2))))
    with pytest.raises(AconError, match=r"x is \(3,\), y is \(3,\)"):
        moment_frame(np.ones(3), np.ones(3))
