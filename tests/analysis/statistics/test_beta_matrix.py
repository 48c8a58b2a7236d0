"""β as a matrix against the long frame that it is made of."""

import numpy as np
import pandas as pd
import pytest

from acon_analysis.errors import AconError, UsageError
from acon_analysis.runs.run import Run
from acon_analysis.statistics.beta_matrix import BetaMatrix, as_matrix

RNG = np.random.default_rng(3)


def long_frame() -> pd.DataFrame:
    """Two layers, the second used twice; five samples that are not in order."""
    rows = [
        (sample, layer, call, channel, RNG.uniform())
        for layer, call, width in (("a", 0, 3), ("b", 0, 2), ("b", 1, 2))
        for sample in (7, 3, 11, 5, 2)
        for channel in range(width)
    ]
    columns = ["sample", "layer", "call", "channel", "beta"]
    return pd.DataFrame(rows, columns=columns)


def test_a_matrix_is_the_frame_pivoted() -> None:
    frame = long_frame()
    shuffled = BetaMatrix.from_frame(frame.sample(frac=1, random_state=0), "b")
    beta = BetaMatrix.from_frame(frame)
    np.testing.assert_array_equal(shuffled.values, beta.values)
    assert (beta.layer, beta.call) == ("b", 1)
    own = frame[(frame["layer"] == "b") & (frame["call"] == 1)]
    wide = own.pivot(index="sample", columns="channel", values="beta")
    np.testing.assert_array_equal(beta.values, wide.to_numpy())
    assert beta.sample_ids.tolist() == [2, 3, 5, 7, 11]
    assert beta.channels.tolist() == [0, 1]
    first = BetaMatrix.from_frame(frame, "a", samples=[11, 3])
    assert first.sample_ids.tolist() == [11, 3]
    chosen = frame[(frame["layer"] == "a") & (frame["sample"] == 11)]
    np.testing.assert_array_equal(first.values[0], chosen["beta"])


def test_a_frame_of_some_channels_keeps_their_numbers() -> None:
    frame = long_frame()
    beta = BetaMatrix.from_frame(frame[frame["channel"] != 1], "a")
    assert beta.channels.tolist() == [0, 2]
    assert beta.rows([3]).channels.tolist() == [0, 2]


def test_run_and_frame_give_the_same_matrix(digits_run: Run) -> None:
    layer = "layer3.0.acon"
    stored = digits_run.beta(layer)
    read = BetaMatrix.from_frame(digits_run.betas(layer))
    np.testing.assert_array_equal(stored.values, read.values)
    np.testing.assert_array_equal(stored.sample_ids, read.sample_ids)
    np.testing.assert_array_equal(stored.channels, read.channels)
    assert stored.values.dtype == read.values.dtype == np.float32
    one, two = (as_matrix(beta, samples=9, seed=4) for beta in (stored, digits_run.betas(layer)))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.sample_ids, two.sample_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.iloc[1:], "not every sample has a β for every channel"),
        (lambda frame: pd.concat([frame, frame]), "a sample has several β for one channel"),
        (lambda frame: frame.iloc[:0], "no rows"),
        (lambda frame: frame.drop(columns="beta"), "lacks the column beta"),
        (lambda frame: frame.assign(beta=np.inf), "NaN or infinite in 15 of 15 rows"),
    ],
)
def test_frames_that_are_no_matrix(change: object, message: str) -> None:
    frame = long_frame()
    with pytest.raises(AconError, match=message):
        BetaMatrix.from_frame(change(frame[frame["layer"] == "a"]))  # type: ignore[operator]


def test_a_matrix_is_checked_like_a_frame() -> None:
    ids, values = np.array([4, 9]), np.array([[0.5, 0.25], [0.75, np.nan]], dtype=np.float32)
    beta = BetaMatrix("a", 0, ids, values)
    with pytest.raises(AconError, match=r"in 1 of 4 values .* at sample 9, channel 1"):
        as_matrix(beta)
    assert as_matrix(beta, samples=[4]).values.tolist() == [[0.5, 0.25]]
    with pytest.raises(UsageError, match=r"sample 5 is not in the frame.*the nearest is 4"):
        as_matrix(beta, samples=[5])
    with pytest.raises(UsageError, match="of layer 'a', call 0; asked for was 'b', call 0"):
        as_matrix(beta, "b")
    with pytest.raises(AconError, match="no β of layer 'a'"):
        as_matrix(BetaMatrix("a", 0, ids[:0], values[:0]))
