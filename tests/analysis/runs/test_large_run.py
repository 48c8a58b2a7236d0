"""What is answered of a run that is too large for a long frame of β, and how often it is read."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from typer.testing import CliRunner

from acon_analysis.cli import app
from acon_analysis.errors import AconError
from acon_analysis.moments.frames import MergedRows
from acon_analysis.plotdata.channels import channel_facts, choose_channel, spread_channels
from acon_analysis.plotdata.depth import linearity_by_depth, shared_layers
from acon_analysis.plotdata.measure_ranks import measure_ranks
from acon_analysis.plotdata.overview import channel_overview, headline_frame, layer_overview
from acon_analysis.plotdata.sample_extremes import sample_extremes
from acon_analysis.runs import run as run_module
from acon_analysis.runs import stored_run
from acon_analysis.runs.run import Run
from acon_analysis.statistics.beta_clusters import ordered_betas
from acon_analysis.statistics.beta_densities import beta_densities
from acon_analysis.statistics.beta_matrix import BetaMatrix
from acon_analysis.statistics.redrawn_null import empirical_null
from acon_analysis.statistics.verdicts import verdict_text
from acon_analysis.store import parquet

LAST = "layer3.0.acon"


@pytest.fixture
def large_run(digits_run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of the digits, its last layer alone beyond the limit of a long frame."""
    monkeypatch.setattr(run_module, "MAX_ROWS", 500 * 128 - 1)
    run = Run(digits_run.path)
    with pytest.raises(AconError, match="would have 64,000 rows, the limit is 63,999"):
        run.betas(LAST)

    def refused(*_: Any, **__: Any) -> pd.DataFrame:
        raise AssertionError("a long frame of β was asked for")

    monkeypatch.setattr(Run, "betas", refused)
    return run


def test_tables_of_a_large_run(large_run: Run) -> None:
    for by, rows in (("layer", 6), ("channel", 256), ("sample", 3000)):
        table = large_run.summary_table(by)
        assert len(table) == rows
        assert table["mean"].notna().all()
    last = large_run.summary_table().iloc[-1]
    assert last["layer"] == LAST
    assert last["mean"] == pytest.approx(large_run.beta_matrix(LAST).mean(dtype=np.float64))
    split = large_run.variance_split(draws=20)
    assert split["layer"].tolist() == large_run.layers["layer"].tolist()
    assert verdict_text(split).startswith("the samples' means of β vary")
    assert len(large_run.null_model(LAST)) == 128
    assert len(large_run.linearity("channel")) == 256


def test_plot_data_of_a_large_run(large_run: Run) -> None:
    facts = channel_facts([large_run])
    assert len(facts) == 256
    own = facts[facts["layer"] == LAST]
    expected = np.quantile(large_run.beta_matrix(LAST).astype(np.float64), 0.95, axis=0)
    np.testing.assert_allclose(own["beta_high"], expected)
    assert choose_channel(facts)["layer"] == LAST
    assert len(spread_channels(facts)) == 6
    assert len(measure_ranks(facts).ranks) == len(own)
    assert len(shared_layers(linearity_by_depth([large_run, large_run]))) == 2 * 3 * 6
    assert headline_frame(layer_overview(large_run)).set_index("quantity")["value"]["layers"] == 6
    assert len(channel_overview(large_run)) == 256
    beta = large_run.beta(LAST)
    ends = sample_extremes(facts, beta)
    column = beta.values[:, int(ends.facts["channel"])]
    assert set(ends.samples["sample"]) == {
        int(beta.sample_ids[row]) for row in (*np.argsort(column)[:4], *np.argsort(column)[-4:])
    }
    assert beta_densities(beta, samples=3).layer == LAST
    ordered = ordered_betas(beta)
    assert sorted(ordered.sample_ids) == sorted(large_run.sample_ids)
    assert ordered.values.mean() == pytest.approx(beta.values.mean(dtype=np.float64))


def test_the_command_on_a_large_run(large_run: Run) -> None:
    for by in ("layer", "channel", "sample"):
        result = CliRunner().invoke(
            app, ["summary", str(large_run.path), "--by", by, "--draws", "20"]
        )
        assert result.exit_code == 0, result.output
        assert LAST in result.output


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers whose β is read, one entry a reading."""
    read: list[str] = []
    own = Run.beta_matrix

    def beta_matrix(run: Run, layer: str, call: int = 0) -> npt.NDArray[np.float32]:
        read.append(layer)
        return own(run, layer, call)

    monkeypatch.setattr(Run, "beta_matrix", beta_matrix)
    return read


def test_layers_are_read_one_at_a_time(large_run: Run, read: list[str]) -> None:
    betas = large_run.betas_of_layers()
    assert read == []
    first = next(betas)
    assert read == [first.layer]
    assert isinstance(first, BetaMatrix)
    assert [beta.layer for beta in betas] == large_run.layers["layer"].tolist()[1:]


def test_each_layer_is_read_from_the_disk_once(
    digits_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def matrices(path: Path, columns: list[str]) -> Any:
        if "betas" in str(path):
            read.extend(columns)
        return own(path, columns)

    own = parquet._matrices
    monkeypatch.setattr(parquet, "_matrices", matrices)
    run = Run(digits_run.path)
    run.variance_split(draws=20)
    run.beta_summary()
    channel_facts([run])
    run.null_model(LAST)
    assert read == run.layers["column"].tolist() * len(run.units)
    with pytest.raises(ValueError, match="read-only"):
        run.beta_matrix(LAST)[:] = 0


def test_no_more_than_a_limit_is_kept(digits_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: digits_run.beta_matrix(name) for name in digits_run.layers["layer"]}
    most = 2 * whole[LAST].nbytes
    monkeypatch.setattr(stored_run, "KEPT_BYTES", most)
    run = Run(digits_run.path)
    peak: list[int] = []

    def kept() -> list[tuple[int, int]]:
        return [(id(values), values.nbytes) for values in run._betas.values()]

    def read(lists: parquet.ListColumns, column: str, rows: Any) -> npt.NDArray[np.float32] | None:
        found = own(lists, column, rows)
        peak.append(sum(size for _, size in kept()) + (0 if found is None else found.nbytes))
        return found

    own = parquet.ListColumns.read
    monkeypatch.setattr(parquet.ListColumns, "read", read)
    for names in (whole, reversed(whole), whole):
        for name in names:
            np.testing.assert_array_equal(run.beta_matrix(name), whole[name])
    assert max(peak) <= most
    monkeypatch.setattr(stored_run, "KEPT_BYTES", 1)
    np.testing.assert_array_equal(run.beta_matrix(LAST), whole[LAST])
    assert kept() == []


def test_a_summary_reads_no_layer_twice(
    digits_run: Run, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_run, "KEPT_BYTES", 0)
    monkeypatch.setattr(parquet, "TOGETHER", 0)
    run = Run(digits_run.path)
    run.summary(draws=20)
    assert read == run.layers["layer"].tolist()
    pd.testing.assert_frame_equal(run.beta_summary(), Run(run.path).beta_summary())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_split_of_the_variance_does_not_depend_on_threads(
    threads: int, digits_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Run(digits_run.path).variance_split(draws=20)
    monkeypatch.setattr("os.cpu_count", lambda: threads)
    monkeypatch.setattr(parquet, "PIECE", 4 * 128 * 7)
    monkeypatch.setattr(parquet, "TOGETHER", 0)
    found = Run(digits_run.path).variance_split(draws=20)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    # each layer by itself, as the statistics compute it of whole matrices
    run, row = Run(digits_run.path), expected.iloc[-1]
    beta, pooled = run.beta_matrix(LAST), run.pooled_matrix(LAST)
    network = run.beta_network(LAST)
    assert pooled is not None
    assert network is not None
    null = empirical_null(pooled, beta, network, seed=len(expected) - 1, draws=20)
    assert row["p_value"] == null.p_value()
    assert row["null_median"] == null.draws["ratio"].median()


def test_moments_are_read_once(digits_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run, read, own = Run(digits_run.path), [], MergedRows.add

    def add(merged: MergedRows, keys: pd.DataFrame, parts: Any) -> None:
        read.append(len(keys))
        own(merged, keys, parts)

    monkeypatch.setattr(MergedRows, "add", add)
    linearity_by_depth([run])
    channel_facts([run])
    table = layer_overview(run)
    run.summary_table()
    assert len(read) == len(run.units)
    for answer in (table, run.linearity()):
        answer["L"] = 0.0
    assert (run.linearity()["L"] > 0).all()


def test_what_a_run_says_of_itself(digits_run: Run) -> None:
    run = Run(digits_run.path)
    assert run.identity == run.manifest["identity"]
    assert run.model == "digits_metaacon"
    assert run.has_beta
    assert run.has_moments
    assert run.moment_blocks == 101
    labels = run.samples.set_index("sample_id")["label"]
    assert run.labels.index.tolist() == run.sample_ids.tolist()
    assert run.labels.to_dict() == labels.to_dict()
    assert run.beta_layers["layer"].tolist() == run.layers["layer"].tolist()
    run.__dict__["layers"] = run.layers.assign(
        kind=["gate", "acon", *["meta_acon"] * 4],
        column=[*run.layers["column"][:1], "", *run.layers["column"][2:]],
        granularity=["channel", "static", *["channel"] * 4],
    )
    assert run.beta_layers["layer"].tolist() == run.layers["layer"].tolist()
    assert run.per_sample_layers["layer"].tolist() == run.layers["layer"].tolist()[2:]
