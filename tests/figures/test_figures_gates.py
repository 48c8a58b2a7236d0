"""Figures of gates and of replaced activations: points and intervals are the table."""

import numpy as np
import pytest

import acon_figures
import figureframes
from acon_analysis.errors import AconError, UsageError


def test_points_and_intervals_of_gates_are_the_table() -> None:
    frame = figureframes.gates()
    figure = acon_figures.gate_changes(frame, "cifar10_metaacon")
    own = frame[frame["network"] == "cifar10_metaacon"]
    assert [axes.get_title() for axes in figure.axes] == [
        "held at its channel's mean", "held at 0.5", "another sample's"
    ]  # fmt: skip
    for axes, name in zip(figure.axes, ("mean", "constant", "resample"), strict=True):
        rows = own[own["intervention"] == name]
        drawn = [bars.lines[0].get_xdata()[0] for bars in axes.containers]
        assert drawn == pytest.approx(rows["loss_change"].to_numpy())
        ends = [np.asarray(bars.lines[2][0].get_segments()[0])[:, 0] for bars in axes.containers]
        assert np.asarray(ends) == pytest.approx(rows[["low", "high"]].to_numpy())
        low, high = axes.get_xlim()
        assert low < rows["low"].min()
        assert high > rows["high"].max()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["layer1.0.acon", "layer1.1.acon", "all layers"]
    assert "cifar10_metaacon" in figure.caption


def test_a_table_without_networks_or_labels() -> None:
    frame = figureframes.gates().query("network == 'digits_metaacon' and not recalibrated")
    frame = frame.drop(columns="network").assign(accuracy_change=np.nan)
    figure = acon_figures.gate_changes(frame, interventions=["resample"])
    assert len(figure.axes) == 1
    assert not figure.axes[0].texts
    assert "Squares" not in figure.caption


def test_mistakes_are_explained() -> None:
    frame = figureframes.gates()
    with pytest.raises(UsageError, match="no network 'digits_metacon'; did you mean"):
        acon_figures.gate_changes(frame, "digits_metacon")
    with pytest.raises(UsageError, match="no intervention 'men'; did you mean"):
        acon_figures.gate_changes(frame, interventions=["men"])
    with pytest.raises(AconError, match="lacks the column verdict"):
        acon_figures.gate_changes(frame.drop(columns="verdict"))
    with pytest.raises(AconError, match="no intervention"):
        acon_figures.gate_changes(frame.iloc[:0])


def test_points_and_intervals_of_forms_are_the_table() -> None:
    frame = figureframes.forms()
    figure = acon_figures.replacement_forms(frame)
    drawn = frame[(frame["form"] != "two-piece") | ~frame["recalibrated"]]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["all channels"] * 2 + ["50 % of the channels"] * 2
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


def test_one_budget_and_mistakes_of_forms() -> None:
    frame = figureframes.forms()
    figure = acon_figures.replacement_forms(frame[frame["budget"] == 1], width="single")
    assert len(figure.axes) == 2
    assert "Below" not in figure.caption
    with pytest.raises(AconError, match="lacks the column data"):
        acon_figures.replacement_forms(frame.drop(columns="data"))
    with pytest.raises(AconError, match="no form"):
        acon_figures.replacement_forms(frame[frame["form"] == "sine"])
