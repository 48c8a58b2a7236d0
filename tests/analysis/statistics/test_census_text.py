"""The sentence and the table that sum a census up."""

from collections.abc import Sequence

import pandas as pd

from acon_analysis.columns import CENSUS_COLUMNS, NONLINEARITY_COLUMNS, dtypes, names
from acon_analysis.statistics.census import census_table, census_text

ROWS = [
    ("stem", "convolution", 1, 100, "linear", False, "", ""),
    ("act", "relu_", 3, 60, "nonlinear", True, "act", "activation"),
    ("a", "_softmax", 20, 30, "nonlinear", False, "", "softmax"),
    ("b", "_softmax", 4, 6, "nonlinear", False, "", "softmax"),
    ("c", "softmax_", 0, 0, "nonlinear", False, "", "softmax"),
    ("pool", "max_pool2d_with_indices", 4, 4, "nonlinear", False, "", "maximum"),
    ("", "my.bend", 1, 0, "unknown", False, "", "not in the table of operators"),
]


def frame(rows: Sequence[tuple[object, ...]]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=names(NONLINEARITY_COLUMNS))
    return made.astype(dtypes(NONLINEARITY_COLUMNS))


def test_the_sentence_counts_calls_and_elements() -> None:
    assert census_text(frame(ROWS)) == (
        "measured 3 of 31 nonlinear calls (60 % of their elements); "
        "not measured: 24 softmax, 4 max_pool2d; unknown: 1 my.bend"
    )


def test_the_sentence_says_what_the_kinds_leave_out() -> None:
    rows = [*ROWS, ("head", "relu", 2, 5, "nonlinear", False, "", "activation")]
    assert census_text(frame(rows), ("meta_acon", "acon")).endswith(
        "not measured: 24 softmax, 4 max_pool2d; left out, of kind activation: 2 relu (add "
        "--kinds meta_acon,acon,activation); unknown: 1 my.bend"
    )
    assert "4 max_pool2d, 2 relu; unknown" in census_text(frame(rows), ("activation", "product"))


def test_the_sentence_of_a_linear_network_and_of_an_incomplete_census() -> None:
    assert census_text(frame(ROWS[:1])) == "no call is nonlinear in the input"
    unseen = ("", "", 0, 5, "unknown", False, "", "census incomplete: numpy")
    assert census_text(frame([*ROWS[:2], unseen])).endswith("; census incomplete: numpy")
    many = [("m", f"op{i}", 10 - i, 1, "nonlinear", False, "", "function") for i in range(9)]
    assert census_text(frame(many)).endswith("5 op5, 9 of 3 more operators")


def test_the_table_has_a_row_an_operator_those_not_measured_first() -> None:
    table = census_table(frame(ROWS))
    assert {name: str(kind) for name, kind in table.dtypes.items()} == dtypes(CENSUS_COLUMNS)
    assert table["operator"].tolist() == ["softmax", "max_pool2d", "my.bend", "relu"]
    assert table["calls"].tolist() == [24, 4, 1, 3]
    assert table["share"].tolist() == [0.36, 0.04, 0.0, 0.6]
    assert table["modules"].tolist() == ["a, b, c", "pool", "the network itself", "act"]
    assert census_table(frame(ROWS), 1)["modules"][0] == "a and 2 more"
    assert census_table(frame(ROWS[:1])).empty
