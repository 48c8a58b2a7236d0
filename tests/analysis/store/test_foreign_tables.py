"""Tables and manifests that someone else has written."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import acon_analysis as acon
from acon_analysis.cli.options import read_table
from acon_analysis.errors import StoreError, UsageError
from acon_analysis.store.manifest import parse_manifest
from acon_analysis.store.parquet import read_frame

PERIODS = pa.Table.from_pandas(pd.DataFrame({"p": pd.period_range("2020", periods=2, freq="D")}))
UNKNOWN = pa.table(
    [pa.array(["x"])],
    schema=pa.schema(
        [pa.field("u", pa.string(), metadata={b"ARROW:extension:name": b"of.nobody"})]
    ),
)
TABLES = {
    "known": PERIODS,
    "unknown": UNKNOWN,
    "in a list": pa.table({"l": pa.array([["x"]], pa.list_(UNKNOWN.schema.field(0)))}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_extension_types_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLES[kind], path)
    with pytest.raises(StoreError, match="is of an extension type"):
        read_frame(path, 9)
    with pytest.raises(UsageError, match="is of an extension type"):
        read_table(path)


def test_metadata_of_pandas_are_not_read(tmp_path: Path) -> None:
    table = pa.table({"a": [1.0]}).replace_schema_metadata({"pandas": "no JSON", "b": "kept"})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_frame(tmp_path / "a.parquet", 9).to_dict("list") == {"a": [1.0]}


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_table_of_blocks_has_a_bound(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    for width in (200, 201):
        row = {f"c{number}": "a,b" for number in range(width)}
        frame = pd.DataFrame([row])
        if ending == "parquet":
            frame.to_parquet(path)
        else:
            path.write_text(frame.to_csv(index=False) if ending == "csv" else json.dumps([row]))
        if width == 200:
            assert read_table(path).equals(frame)
    with pytest.raises(UsageError, match="it has more than 200 columns"):
        read_table(path)
    with path.open("wb") as file:
        file.truncate(64_000_001)
    with pytest.raises(UsageError, match="has more than 64,000,000 bytes"):
        read_table(path)


@pytest.mark.parametrize("text", ["a\n" + "1," * 1000, '[{"a": 1}, 2]', "[" * 100_000])
def test_what_is_no_table_of_blocks_is_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.json" if text[0] == "[" else "a.csv")
    path.write_text(text)
    with pytest.raises(UsageError, match="holds no table that can be read"):
        read_table(path)


def test_half_a_character_is_no_name() -> None:
    text = (acon.example_run("cifar10_metaacon").path / "manifest.json").read_text()
    content = json.loads(text)
    content["layers"][0]["layer"] = "a\ud800"
    with pytest.raises(ValueError, match=r"has 'layer' 'a\\ud800', no text"):
        parse_manifest(json.dumps(content).encode())
