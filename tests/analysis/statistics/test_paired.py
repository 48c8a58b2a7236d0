"""Paired comparisons of losses, against scipy's t test and Holm's procedure by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from acon_analysis.errors import UsageError
from acon_analysis.statistics.paired import holm, paired, verdict


def frame(**losses: list[float]) -> pd.DataFrame:
    """Return a frame of plans; that of the unchanged network is named `unchanged`."""
    parts = [
        pd.DataFrame({"plan": name, "sample": np.arange(len(own)) + 5, "loss": own})
        for name, own in losses.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_change_interval_and_p_are_those_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    before = rng.gamma(2, size=40)
    after = {name: before + rng.normal(shift, 0.4, 40) for name, shift in (("a", 0.3), ("b", 0.0))}
    given = frame(unchanged=list(before), **{name: list(own) for name, own in after.items()})
    shuffled = given.sample(frac=1, random_state=0)
    found = paired(shuffled, confidence=0.9).set_index("plan").loc[["a", "b"]]
    for name, own in after.items():
        expected = stats.ttest_rel(own, before)
        low, high = expected.confidence_interval(0.9)
        row = found.loc[name, ["n", "change", "low", "high", "p"]].to_numpy(np.float64)
        numbers = np.array([40, np.mean(own - before), low, high, expected.pvalue])
        np.testing.assert_allclose(row, numbers, rtol=1e-9)
    p = found["p"].to_numpy()
    assert p[0] < 0.01 < p[1]
    np.testing.assert_allclose(found["p_holm"], [2 * p[0], p[1]], rtol=1e-12)


def test_one_sample_no_sample_and_equal_changes() -> None:
    unchanged = [1.0, 2.0, np.nan]
    table = paired(
        frame(unchanged=unchanged, same=unchanged, up=[1.5, 2.5, 9.0], one=[1.25, np.nan, 1.0],
              none=[np.nan, np.nan, 4.0], far=[np.inf, 2.0, 3.0])
    ).set_index("plan")  # fmt: skip
    expected = {
        "same": [2, 0, 0, 0, 1, 1],
        "up": [2, 0.5, 0.5, 0.5, 0, 0],
        "one": [1, 0.25, *[np.nan] * 4],
        "none": [0, *[np.nan] * 5],
        "far": [1, 0, *[np.nan] * 4],
    }
    assert list(table.index) == list(expected)
    np.testing.assert_array_equal(table.to_numpy(), list(expected.values()))


def test_more_than_a_margin_is_a_one_sided_test() -> None:
    change = np.random.default_rng(1).gamma(2, 0.02, 30)
    given = frame(unchanged=[0.0] * 30, a=list(change), same=[0.05] * 30, less=[0.01] * 30)
    found = paired(given, more_than=0.03).set_index("plan")["p"]
    expected = stats.ttest_1samp(change, 0.03, alternative="greater").pvalue
    assert found["a"] == pytest.approx(expected, rel=1e-9)
    assert (found["same"], found["less"]) == (0, 1)


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.2, 0.4, 1e-9, "used"),
        (-0.4, -0.2, 1e-9, "used"),
        (0.001, 0.004, 1e-9, "not used"),  # significant, and too little to matter
        (-0.009, 0.009, 0.9, "not used"),
        (-0.2, 0.3, 0.7, "undecided"),  # not significant is not "not used"
        (0.001, 0.3, 0.01, "used"),
        (0.001, 0.3, 0.02, "undecided"),
        (np.nan, np.nan, np.nan, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, p: float, expected: str) -> None:
    assert verdict(low, high, p, margin=0.01, level=0.01) == expected


def test_the_unchanged_network_alone_has_no_comparison() -> None:
    table = paired(frame(unchanged=[1.0, 2.0]))
    assert list(table.columns) == ["plan", "n", "change", "low", "high", "p", "p_holm"]
    assert table.empty


def test_holm_by_hand() -> None:
    found = holm(np.array([0.04, np.nan, 0.01, 0.03, 0.9]))
    # 0.01·4, then 0.03·3, then max(0.09, 0.04·2), then 0.9.
    np.testing.assert_allclose(found, [0.09, np.nan, 0.04, 0.09, 0.9])
    np.testing.assert_array_equal(holm(np.array([0.6, 0.7])), [1, 1])
    assert holm(np.array([])).shape == (0,)


def test_mistakes() -> None:
    with pytest.raises(UsageError, match="no plan 'unchanged' to compare with; the frame has a"):
        paired(frame(a=[1.0]))
    with pytest.raises(UsageError, match="each plan must have each sample once"):
        paired(pd.concat([frame(unchanged=[1.0])] * 2))
    with pytest.raises(UsageError, match="the confidence lies between 0 and 1; got 95"):
        paired(frame(unchanged=[1.0]), confidence=95)
    with pytest.raises(Exception, match="lacks the column loss"):
        paired(frame(unchanged=[1.0]).drop(columns="loss"))
