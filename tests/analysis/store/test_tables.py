"""Tables of a run that somebody else has written, with hashes that fit."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acon_analysis.errors import AconError, StoreError
from acon_analysis.runs.compare import compare_runs
from acon_analysis.runs.run import Run
from acon_analysis.store import tables
from acon_analysis.store.tables import stored_table

Change = Callable[[pa.Table], pa.Table]


def repeated(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table])


def replaced(name: str, value: object) -> Change:
    """Return what puts one value into all rows of a column."""
    return lambda table: table.set_column(
        table.column_names.index(name), name, pa.array([value] * table.num_rows)
    )


def renamed(old: str, new: str) -> Change:
    return lambda table: table.rename_columns(
        [new if name == old else name for name in table.column_names]
    )


def mislabelled(table: pa.Table) -> pa.Table:
    """Give the first layer of a table another name."""
    known = table["layer"].to_pylist()
    others = pa.array(["x" if name == known[0] else name for name in known])
    return table.set_column(table.column_names.index("layer"), "layer", others)


CASES: dict[str, tuple[str, Change, str]] = {
    "a column of lists": ("moments", replaced("n_positive", [1.0, 2.0]), "'n_positive' is of type"),
    "texts for numbers": ("moments", replaced("cyy", "=1"), "'cyy' is of type string, not float64"),
    "repeated rows": ("moments", repeated, "two rows have the same layer, call, channel, block"),
    "repeated samples": ("samples", repeated, "two rows have the same sample_id"),
    "repeated channels": ("channels", repeated, "two rows have the same layer, channel"),
    "repeated totals": ("totals", repeated, "two rows have the same sample, layer, call"),
    "repeated counts": ("histograms", repeated, "two rows have the same layer, call, channel"),
    "an unknown layer": ("moments", mislabelled, "the run has no layer 'x', call 0"),
    "totals of others": ("totals", mislabelled, "the run has no layer 'x', call 0"),
    "a gap": ("totals", replaced("n", None), "'n' is of type null, not int64"),
    "no counts above 1": (
        "histograms", renamed("above", "a"), "histograms.* it has no column 'above'"
    ),
    "no slope": ("channels", renamed("p1", "p"), "channels.* it has no column 'p1'"),
    "no key": ("moments", renamed("block", "b"), "it has no column 'block'"),
    "one name": ("channels", renamed("p1", "p2"), "two of its columns have one name"),
    "fewer rows": ("pooled", lambda table: table.slice(3), "rows for 500 samples"),
    "repeated betas": ("betas", repeated, "two rows have the same sample_id"),
    "samples of others": ("betas", replaced("sample_id", "x"), "'sample_id' is of type string"),
    "another β": ("betas", replaced("layer3_0_acon", [1.0, 2.0]), "holds no lists of float32"),
    "no β": ("betas", renamed("layer3_0_acon", "x"), "its columns are not those"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_altered_tables_are_one_sentence(case: str, digits_run: Run, tmp_path: Path) -> None:
    kind, change, said = CASES[case]
    folder = tmp_path / "run"
    shutil.copytree(digits_run.path, folder)
    whole = folder / f"{kind}.parquet"
    path = whole if whole.is_file() and kind != "histograms" else max((folder / kind).iterdir())
    pq.write_table(change(pq.read_table(path)), path)
    signed(folder, path)
    run = Run(folder)
    with pytest.raises(StoreError, match=said) as error:
        read_all(run)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    if kind == "moments":
        with pytest.raises(AconError, match=said):
            compare_runs(digits_run, run)


def read_all(run: Run) -> None:
    """Read every table of a run."""
    _ = (run.samples, run.channels, run.moments, run.totals, run.histogram_table())
    run.variance_split(draws=0)
    run.pooled_matrix(str(run.per_sample_layers["layer"].iloc[0]))


def signed(folder: Path, path: Path) -> None:
    """Write the hash of a file where the run keeps it."""
    name, digest = f"{path.relative_to(folder)}", hashlib.sha256(path.read_bytes()).hexdigest()
    for file in [folder / "manifest.json", *(folder / "done").iterdir()]:
        content = json.loads(file.read_text())
        for key in ("parts", "tables"):
            if name in content.get(key, {}):
                content[key][name] = digest
        file.write_text(json.dumps(content))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-2, 3), st.sampled_from([0, 1, 2**62])),
        max_size=6,
    )
)
def test_unique_rows_are_those_of_pandas(rows: list[tuple[str, int, int]]) -> None:
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    columns = [
        pa.chunked_array([pa.array(frame["a"].to_list(), pa.string())]),
        *(pa.chunked_array([pa.array(frame[n].to_list(), pa.int64())]) for n in ("b", "c")),
    ]
    assert tables._unique(columns) == (not frame.duplicated().any())


def test_tables_of_a_capture_fit(digits_run: Run) -> None:
    for kind in tables.TABLES:
        for path in (digits_run.path / f"{kind}.parquet", *digits_run.files(kind)):
            if path.is_file():
                assert stored_table(path, kind).equals(pq.read_table(path))
