"""Donors: a permutation without a fixed point, within classes where asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_analysis.errors import AconError
from acon_analysis.statistics.donors import draw_donors


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_everyone_gives_once_and_never_to_itself(count: int, seed: int) -> None:
    donors = draw_donors(count, np.random.default_rng(seed))
    assert sorted(donors) == list(range(count))
    assert (donors != np.arange(count)).all()


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_within_classes(names: list[str], seed: int) -> None:
    classes = np.asarray(names * 2)
    donors = draw_donors(len(classes), np.random.default_rng(seed), classes)
    assert sorted(donors) == list(range(len(classes)))
    assert (donors != np.arange(len(classes))).all()
    assert (classes[donors] == classes).all()


def test_every_cycle_is_as_likely() -> None:
    generator = np.random.default_rng(0)
    drawn = [tuple(draw_donors(4, generator)) for _ in range(3000)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 6  # (4 - 1)! cycles
    assert counts.min() > 400


def test_one_sample_has_no_donor() -> None:
    with pytest.raises(AconError, match="there is one sample"):
        draw_donors(1, np.random.default_rng(0))
