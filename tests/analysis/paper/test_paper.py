from typing import Any

import numpy as np
import pandas as pd
import pytest

from acon_analysis import paper
from acon_analysis.errors import UsageError


def by(name: str, column: str) -> Any:
    return paper.table(name).set_index(column)


def test_every_table_is_graded_sourced_and_rectangular() -> None:
    assert set(paper.TABLES) == {
        "table3", "table4", "table9", "table10", "meta_acon", "tfnet", "improvements", "counts",
    }  # fmt: skip
    for name, one in paper.TABLES.items():
        frame = paper.table(name)
        assert frame.shape == (len(one.rows), len(one.columns))
        assert {len(row) for row in one.rows} == {len(one.columns)}
        assert frame.attrs["grade"] == one.grade in ("A", "B")
        assert frame.attrs["source"] == one.source
        assert not frame.duplicated().any()
    assert paper.overview()["rows"].tolist() == [len(t.rows) for t in paper.TABLES.values()]


def test_some_printed_numbers() -> None:
    table3 = by("table3", "model")
    assert table3.loc["ShuffleNetV2 0.5x", ["relu", "acon_c"]].tolist() == [39.4, 37.0]
    assert table3.loc["ResNet 152", "flops_m"] == 11300.0
    assert by("table4", "activation").loc["Mish", "error"] == 39.5
    table9 = by("table9", "activation")
    assert table9.loc["meta-ACON"].tolist() == [36.5, 55.9, 38.9, 19.9, 40.7, 50.6]
    assert paper.table("table10")["mean_iu"].tolist() == [77.2, 77.5, 78.3]
    assert by("tfnet", "model").loc["TFNet 2.0", "error"] == 24.3
    bars = by("improvements", "network")
    assert bars.loc["ResNet101"].tolist() == [0.1, 0.9, 1.7]


def test_printed_gains_are_the_differences_of_printed_errors() -> None:
    table3, meta = paper.table("table3"), paper.table("meta_acon")
    np.testing.assert_allclose(table3["relu"] - table3["acon_c"], table3["gain"], atol=1e-9)
    both = meta.merge(table3, on="model", suffixes=("", "_3"))
    assert len(both) == 5
    np.testing.assert_allclose(both["relu"] - both["error"], both["gain"], atol=1e-9)


def test_bars_agree_with_the_tables_but_for_the_listed_contradictions() -> None:
    bars = by("improvements", "network")
    table3 = by("table3", "model")
    meta = by("meta_acon", "model")
    models = {
        "ShuffleNetV2": "ShuffleNetV2 1.5x",
        "ResNet50": "ResNet 50",
        "ResNet101": "ResNet 101",
        "ResNet152": "ResNet 152",
    }
    apart = []
    for network, model in models.items():
        swish = table3.loc[model, "relu"] - table3.loc[model, "acon_a"]
        for bar, other in (("swish", swish), ("meta_acon", meta.loc[model, "gain"])):
            if abs(bars.loc[network, bar] - other) > 0.01:
                apart.append((network, bar))
    assert apart == [("ShuffleNetV2", "swish"), ("ResNet101", "meta_acon")]
    topics = paper.contradictions()["topic"]
    assert topics.str.contains("ResNet 101").any()
    assert topics.str.contains("Swish over ReLU, ShuffleNetV2").any()


def test_contradictions_have_two_values_and_two_sources() -> None:
    frame = paper.contradictions()
    assert list(frame.columns) == ["topic", "value", "source", "other_value", "other_source"]
    assert frame.notna().all(axis=None)
    assert (frame["value"] != frame["other_value"]).all()


def test_bold_marks_the_best() -> None:
    assert paper.best_mask("table3").sum(axis=1).tolist() == [1] * 6
    assert paper.best_mask("table3")[:, 6].all()
    assert paper.best_mask("table4")[:, 1].tolist() == [False] * 6 + [True]
    assert paper.best_mask("table9")[2].tolist() == [False] + [True] * 6
    assert paper.best_mask("tfnet")[:, 4].tolist() == [False, False, True] * 4
    assert not paper.best_mask("meta_acon").any()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(41.0, "41M"), (299.0, "299M"), (1800.0, "1.8G"), (11300.0, "11.3G"), (1.4, "1.4M")],
)
def test_numbers_are_shown_as_printed(value: float, shown: str) -> None:
    assert paper.describe("table3").columns[1].show(value) == shown


def test_missing_numbers_are_dashes_and_missing() -> None:
    frame = by("counts", "network")
    assert pd.isna(frame.loc["shufflenet_v2_x1_0_acon", "params_m"])
    shown: Any = paper.printed("counts").set_index("Network")
    assert shown.loc["shufflenet_v2_x1_0_acon", "Params, printed"] == "–"


def test_frames_are_copies() -> None:
    frame = paper.table("table4")
    frame["error"] = 0.0
    assert paper.table("table4")["error"].min() == 34.8


def test_an_unknown_table_is_explained() -> None:
    with pytest.raises(UsageError, match="no 'table33'; did you mean 'table3'"):
        paper.table("table33")


def test_counted_numbers_are_those_of_the_networks() -> None:
    import torch

    from acon_analysis.models.official import INPUT_SHAPE, OFFICIAL
    from network_cost import count_macs, count_parameters

    counts = by("counts", "network")
    assert set(counts.index) == set(OFFICIAL)
    for name in ("resnet50_acon", "resnet50_metaacon", "shufflenet_v2_x0_5_metaacon", "tfnet_x2_0"):
        with torch.device("meta"):
            model = OFFICIAL[name]()
        row = counts.loc[name]
        assert count_parameters(model) == round(row["params_counted_m"] * 1e6), name
        assert count_macs(model, INPUT_SHAPE) == round(row["macs_counted_m"] * 1e6), name
    printed = counts.dropna()
    apart = printed["params_counted_m"] / printed["params_m"] - 1.0
    assert apart.abs().max() < 0.04
    assert (printed["macs_counted_m"] / printed["flops_m"] - 1.0).abs().max() < 0.02
