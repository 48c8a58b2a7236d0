"""Counts of β: gathered while capturing, equal to counting the values themselves."""

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import acon_analysis as acon
from acon_analysis.columns import HISTOGRAM_BINS, HISTOGRAM_COLUMNS, names
from acon_analysis.errors import UsageError
from acon_analysis.runs.run import Run
from acon_analysis.store.histograms import bin_edges, count_betas, histogram_table, merged
from captures import images, tiny


def test_counts_are_numpys(digits_run: Run) -> None:
    frame = digits_run.histograms()
    assert list(frame.columns) == names(HISTOGRAM_COLUMNS)
    assert frame["layer"].tolist() == digits_run.layers["layer"].tolist()
    assert (frame["channel"] == -1).all()
    for row in frame.itertuples():
        values = digits_run.beta_matrix(str(row.layer)).astype(np.float64)
        expected, _ = np.histogram(values, bins=bin_edges())
        np.testing.assert_array_equal(row.count, expected)
        assert (row.below, row.above, row.invalid) == (0, 0, 0)


def test_counts_by_channel(digits_run: Run) -> None:
    frame = digits_run.histograms("layer3.0.acon", by="channel")
    assert frame["channel"].tolist() == list(range(128))
    values = digits_run.beta_matrix("layer3.0.acon").astype(np.float64)
    for column, counts in zip(values.T, frame["count"], strict=True):
        expected, _ = np.histogram(column, bins=bin_edges())
        np.testing.assert_array_equal(counts, expected)


def test_every_value_is_somewhere() -> None:
    column = [-1.0, -1e-9, 0.0, 1e-30, 0.5, 1.0, np.nextafter(np.float32(1), 2), np.nan, np.inf]
    values = np.array([column, column], dtype=np.float32).T
    counts = count_betas(values)
    assert counts.shape == (2, HISTOGRAM_BINS + 3)
    assert (counts.sum(axis=1) == len(column)).all()
    below, above, invalid = counts[1, 0], counts[1, -2], counts[1, -1]
    assert (below, above, invalid) == (2, 2, 1)
    inner = counts[1, 1:-2]
    assert (inner[0], inner[128], inner[255]) == (2, 1, 1)


def test_no_samples() -> None:
    assert count_betas(np.zeros((0, 3), dtype=np.float32)).sum() == 0


def test_units_add_up(tmp_path: Path) -> None:
    runs = [
        acon.capture(tiny(), images(30), tmp_path / str(size), unit_size=size, batch_size=10,
                     progress=False)
        for size in (10, 30)
    ]  # fmt: skip
    first, second = (run.histograms(by="channel") for run in runs)
    assert [list(row) for row in first["count"]] == [list(row) for row in second["count"]]
    assert first["channel"].tolist() == [*range(4), *range(6)]


def test_one_part_is_held_at_a_time() -> None:
    held: set[int] = set()

    def parts() -> Iterator[tuple[Path, pa.Table]]:
        for number in range(5):
            values = np.full((3, 2), number / 8, dtype=np.float32)
            part = histogram_table([("acon", 0, count_betas(values))])
            held.add(number)
            weakref.finalize(part, held.discard, number)
            yield Path(f"{number}.parquet"), part
            del part
            assert len(held) <= 2  # the one before may live until the next one is there

    total = merged(parts())
    assert total is not None
    assert np.sum([row.as_py() for row in total["count"]]) == 5 * 3 * 2
    assert not held
    assert merged([]) is None


def test_what_has_no_counts(tmp_path: Path, digits_run: Run) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'layer3\.0\.acon'"):
        digits_run.histograms("layer3.0.akon")
    with pytest.raises(UsageError, match=r"by: .*given: 'sample'"):
        digits_run.histograms(by="sample")
    static = acon.capture("digits_acon", "digits", tmp_path / "r", limit=4, progress=False)
    assert static.histograms().empty
    with pytest.raises(UsageError, match="same beta for all samples"):
        static.histograms("layer3.0.acon")
