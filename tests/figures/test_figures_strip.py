"""A network as a strip: bars, dots, marks and names are those of the table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import figureframes
from acon_analysis.errors import AconError
from acon_figures import network_strip


def heights(axes: Axes) -> list[float]:
    """Return where the bars end that stand on 1."""
    found = [bar for bar in axes.patches if bar.get_y() == 1.0]  # type: ignore[attr-defined]
    return [1.0 + bar.get_height() for bar in found]  # type: ignore[attr-defined]


def points(axes: Axes, label: str) -> tuple[list[float], list[float]]:
    """Return the x and y of what the legend calls so."""
    line = next(line for line in axes.lines if line.get_label() == label)
    return list(np.asarray(line.get_xdata())), list(np.asarray(line.get_ydata()))


def test_every_block_has_a_bar_and_its_activations() -> None:
    table = figureframes.blocks()
    figure = network_strip(table)
    above, below = figure.axes
    assert heights(above) == pytest.approx(list(table["nlc"]))
    x, y = points(below, "$L$ of an activation")
    assert y == [0.7, 0.9, 0.75, 0.7, 0.9, 0.75]
    assert np.round(x).tolist() == [0, 0, 2, 3, 4, 4]  # the whole network stands apart, at 3.6
    assert points(below, "$R^2$ of the block")[1] == [0.6, 1.0]
    assert points(below, "$R^2$ of the block, at least") == ([2.0], [0.4])
    assert [text.get_text() for text in below.get_xticklabels()] == [*table["block"].head(3), "all"]
    assert "the whole network stands apart" in figure.caption


def test_network_and_data_stand_above_where_the_table_names_them(tmp_path: Path) -> None:
    table = figureframes.blocks()
    assert network_strip(table).get_suptitle() == ""
    table = table.assign(network="timm:vit", data="cost $5", samples=1200)
    table.to_csv(tmp_path / "blocks.csv", index=False)
    for one in (table, pd.read_csv(tmp_path / "blocks.csv")):  # lists are text there
        figure = network_strip(one)
        assert figure.get_suptitle() == r"timm:vit on cost \$5, 1,200 samples"
        assert points(figure.axes[1], "$L$ of an activation")[1] == [0.7, 0.9, 0.75, 0.7, 0.9, 0.75]


def test_the_start_of_all_names_is_named_once() -> None:
    table = figureframes.blocks()
    table["block"] = [
        "model.layers.0.mlp",
        "model.layers.1.mlp",
        "model.layers.11.mlp",
        "whole network",
    ]
    below = network_strip(table).axes[1]
    assert below.get_xlabel() == "block in model.layers"
    assert [t.get_text() for t in below.get_xticklabels()] == ["0.mlp", "1.mlp", "11.mlp", "all"]
    alone = network_strip(table.head(1))
    assert alone.axes[1].get_xlabel() == "block"
    assert "whole network" not in alone.caption


def test_what_is_not_measured_is_marked_and_bounds_that_say_nothing_are_not() -> None:
    table = figureframes.blocks()
    table.loc[2, ["nlc", "nlc_error", "r2"]] = [np.nan, np.nan, -0.3]
    figure = network_strip(table)
    above, below = figure.axes
    assert points(above, "not measured") == ([2.0], [1.0])
    assert "$R^2$ of the block, at least" not in [line.get_label() for line in below.lines]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [
        "not measured", "$L$ of ReLU", "$L$ of an activation", "$R^2$ of the block",
    ]  # fmt: skip


def test_of_many_blocks_some_are_named() -> None:
    table = pd.concat([figureframes.blocks().head(1)] * 60, ignore_index=True)
    table["block"] = [f"blocks.{number}" for number in range(60)]
    below = network_strip(table).axes[1]
    assert [t.get_text() for t in below.get_xticklabels()][:3] == ["0", "3", "6"]


def test_bad_tables_are_refused() -> None:
    with pytest.raises(AconError, match="holds no blocks"):
        network_strip(figureframes.blocks().head(0))
    with pytest.raises(AconError, match="table of blocks lacks the column inside"):
        network_strip(figureframes.blocks().drop(columns="inside"))
