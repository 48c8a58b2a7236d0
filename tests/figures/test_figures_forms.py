"""The figure of replaced activations: its points and intervals are the table."""

import numpy as np
import pytest

import acon_figures
import figureframes
from acon_analysis.errors import AconError


def test_points_and_intervals_are_the_table() -> None:
    frame = figureframes.forms()
    figure = acon_figures.replacement_forms(frame)
    drawn = frame[(frame["form"] != "two-piece") | ~frame["recalibrated"]]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "all channels",
        "all channels",
        "50 % of the channels",
        "50 % of the channels",
    ]
    for index, axes in enumerate(figure.axes):
        rows = drawn[drawn["budget"] == (1.0 if index < 2 else 0.5)]
        found = [bars.lines[0].get_xdata()[0] for bars in axes.containers]
        if index % 2:
            assert found == pytest.approx(np.minimum(rows["output_change"], 1.2))
            continue
        assert found == pytest.approx(100 * rows["accuracy_change"].to_numpy())
        ends = [np.asarray(bars.lines[2][0].get_segments()[0])[:, 0] for bars in axes.containers]
        assert np.asarray(ends) == pytest.approx(
            100 * rows[["accuracy_low", "accuracy_high"]].to_numpy()
        )
    heights = {round(float(bars.lines[0].get_ydata()[0])) for bars in figure.axes[0].containers}
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert heights == set(range(len(labels)))
    assert labels[-1] == "two pieces"
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["ACON-C", "Swish", "digits", "CIFAR-10"]
    assert "3 networks" in figure.caption


def test_one_budget_and_mistakes() -> None:
    frame = figureframes.forms()
    figure = acon_figures.replacement_forms(frame[frame["budget"] == 1], width="single")
    assert len(figure.axes) == 2
    assert "Below" not in figure.caption
    with pytest.raises(AconError, match="lacks the column data"):
        acon_figures.replacement_forms(frame.drop(columns="data"))
    with pytest.raises(AconError, match="no form"):
        acon_figures.replacement_forms(frame[frame["form"] == "sine"])
