"""The figure of interventions on gates: its points and intervals are the table."""

import numpy as np
import pytest

import acon_figures
import figureframes
from acon_analysis.errors import AconError, UsageError


def test_points_and_intervals_are_the_table() -> None:
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
