"""What people read for layers, and counts of things."""

import pandas as pd
import pytest

from acon_analysis.screen import counted
from acon_analysis.statistics.sentences import block_names, layer_names, named, row_names


def table(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"layer": ["a.relu", "a.relu", "3", "0.1", "0.1"], "call": [0, 1, 0, 0, 1]}
                        | columns)  # fmt: skip


def test_calls_are_named_where_there_are_several_and_classes_where_paths_are_numbers() -> None:
    names = layer_names(table(class_name=["ReLU", "ReLU", "Tanh", "GELU", "GELU"]))
    assert names == {
        ("a.relu", 0): "a.relu (call 0)",
        ("a.relu", 1): "a.relu (call 1)",
        ("3", 0): "3 (Tanh)",
        ("0.1", 0): "0.1 (GELU, call 0)",
        ("0.1", 1): "0.1 (GELU, call 1)",
    }
    assert len(set(names.values())) == len(names)


def test_paths_that_end_in_a_number_have_their_class_and_pieces_what_they_compute() -> None:
    layers = {
        "features.3": "ReLU", "blocks.0:mul#3": "GELU", "blocks.0:mul#9": "GELU", ":mul#1": "SiLU",
        "blocks.0:mul#10": "x*sigmoid(x)", "mlp:mul#0": "mul", "mlp:relu#1": "relu", "act1": "ReLU",
    }  # fmt: skip
    table = pd.DataFrame({"layer": list(layers), "activation": list(layers.values())})
    assert row_names(table) == [
        "features.3 (ReLU)", "blocks.0:GELU#0", "blocks.0:GELU#1", ":SiLU#0",
        "blocks.0:x*sigmoid(x)#0", "mlp:mul#0", "mlp:relu#1", "act1",
    ]  # fmt: skip
    blocks = {
        "block": ["3", "1.0 (call 1)", "layer1.0", "whole network"],
        "class_name": list("ABCD"),
    }
    shown = ["3 (A)", "1.0 (call 1) (B)", "layer1.0", "whole network"]
    assert block_names(pd.DataFrame(blocks)) == shown
    assert block_names(pd.DataFrame({"block": ["3"]})) == ["3"]


def test_a_network_that_is_an_activation_itself_has_a_name() -> None:
    assert layer_names(pd.DataFrame({"layer": [""], "class_name": ["ReLU"]})) == {("", 0): "(ReLU)"}


def test_some_rows_of_a_run_are_named_as_all_of_them() -> None:
    whole = table(class_name=["ReLU", "ReLU", "Tanh", "GELU", "GELU"])
    part = table().iloc[[2, 1, 1]]
    assert row_names(part, layer_names(whole)) == ["3 (Tanh)", "a.relu (call 1)", "a.relu (call 1)"]
    shown = named(part.assign(L=0.5), layer_names(whole))
    assert list(shown) == ["layer", "L"]
    assert shown["layer"].tolist() == ["3 (Tanh)", "a.relu (call 1)", "a.relu (call 1)"]


@pytest.mark.parametrize(
    ("count", "word", "text"),
    [
        (1, "layer", "1 layer"), (0, "channel", "0 channels"), (4000, "channel", "4,000 channels"),
        (1, "batch", "1 batch"), (2, "batch", "2 batches"), (2, "class", "2 classes"),
    ],
)  # fmt: skip
def test_counts_agree_with_their_words(count: int, word: str, text: str) -> None:
    assert counted(count, word) == text
