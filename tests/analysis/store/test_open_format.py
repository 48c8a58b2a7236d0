"""A run is read by other tools from its folder alone, and they see what `open_run` sees."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from acon_analysis.runs.run import Run

LAYER = "layer3.0.acon"


@pytest.fixture(scope="module")
def column(digits_run: Run) -> str:
    """The column of a layer, by the manifest alone."""
    manifest = json.loads((digits_run.path / "manifest.json").read_text())
    found = {row["layer"]: row["column"] for row in manifest["layers"]}
    return str(found[LAYER])


def ask(query: str) -> duckdb.DuckDBPyRelation:
    found = duckdb.sql(query)
    assert found is not None
    return found


def same(digits_run: Run, ids: object, values: object) -> None:
    np.testing.assert_array_equal(np.asarray(ids), digits_run.sample_ids)
    np.testing.assert_array_equal(np.asarray(values), digits_run.beta_matrix(LAYER))
    assert np.asarray(values).dtype == np.float32


def test_pandas(digits_run: Run, column: str) -> None:
    frame = pd.read_parquet(digits_run.path / "betas")
    same(digits_run, frame["sample_id"], np.stack(frame[column].to_list()))
    samples = pd.read_parquet(digits_run.path / "samples.parquet")
    pd.testing.assert_frame_equal(samples, digits_run.samples)


def test_polars(digits_run: Run, column: str) -> None:
    frame = pl.read_parquet(digits_run.path / "betas")
    assert frame.schema[column] == pl.Array(pl.Float32, 128)
    same(digits_run, frame["sample_id"], frame[column].to_numpy())
    means = frame.select(pl.col(column).arr.mean()).to_series()
    np.testing.assert_allclose(means, digits_run.beta_matrix(LAYER).mean(1), rtol=1e-6)


def test_duckdb(digits_run: Run, column: str) -> None:
    parts = digits_run.path / "betas" / "*.parquet"
    query = f"select sample_id, {column} from '{parts}' order by sample_id"
    found = ask(query).fetchnumpy()
    same(digits_run, found["sample_id"], np.array(found[column].tolist(), dtype=np.float32))
    joined = ask(
        f"select label, avg({column}[1]) as beta from '{parts}' "
        f"join '{digits_run.path / 'samples.parquet'}' using (sample_id) group by label "
        "order by label"
    ).df()
    labels = digits_run.samples.set_index("sample_id").loc[digits_run.sample_ids, "label"]
    expected = pd.Series(digits_run.beta_matrix(LAYER)[:, 0]).groupby(labels.to_numpy()).mean()
    np.testing.assert_allclose(joined["beta"], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["betas", "histograms", "moments", "pooled", "totals"])
def test_every_folder_of_parts_is_one_table(digits_run: Run, kind: str) -> None:
    folder = digits_run.path / kind
    rows = len(pd.read_parquet(folder))
    assert rows == len(pl.read_parquet(folder)) > 0
    assert ask(f"select count(*) from '{folder}/*.parquet'").fetchall() == [(rows,)]


def test_names_need_no_quoting(digits_run: Run) -> None:
    for path in Path(digits_run.path / "betas").iterdir():
        assert all(name.isidentifier() for name in pl.read_parquet_schema(path))
