"""Figures of trainings and of trials of activations: what they draw, write instead, and refuse."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import acon_figures
import figureframes
from acon_analysis.errors import AconError, UsageError
from acon_analysis.training.logs import curve_bands, logged_data, training_logs
from acon_figures import training_curves
from acon_figures.palette import activation_color
from figurechecks import problems

SHAPES = [("double", "paper"), ("single", "paper"), ("double", "talk")]


def signals() -> pd.DataFrame:
    rows = [
        (name, seed, layer, base ** (4 - layer) * (seed + 1))
        for name, base in (("sigmoid", 0.1), ("ReLU", 1.0))
        for seed in (0, 3)
        for layer in (1, 2, 3, 4)
    ]
    return pd.DataFrame(rows, columns=["activation", "seed", "layer", "gradient"])


def trials() -> pd.DataFrame:
    rows = [
        (name, 0.1, seed, mean + 0.01 * seed, mean + 0.01 * seed, False, 0.0)
        for name, mean in (("SELU", 0.95), ("sigmoid", 0.1))
        for seed in range(3)
    ]
    names = ["activation", "rate", "seed", "validation", "test", "diverged", "dead"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize(("width", "context"), SHAPES)
def test_nothing_is_cut_off(width: str, context: str) -> None:
    look = {"width": width, "context": context}
    tables = {"kept": signals(), "torch": signals()}
    assert problems(acon_figures.gradients_by_layer(tables, **look)) == []
    panels = {"two layers": trials(), "six layers": trials()}
    assert problems(acon_figures.trial_accuracies(panels, **look)) == []


def test_gradients_are_geometric_means() -> None:
    axes = acon_figures.gradients_by_layer({"one": signals()}).axes[0]
    drawn = np.asarray(axes.lines[0].get_ydata())
    assert drawn == pytest.approx([0.002, 0.02, 0.2, 2.0])  # sqrt(1·4) = 2
    assert axes.get_yscale() == "log"


def test_what_lies_far_below_is_written() -> None:
    axes = acon_figures.trial_accuracies({"one": trials()}).axes[0]
    assert len(axes.containers) == 1
    assert [text.get_text() for text in axes.texts] == [" ← 0.11"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SELU", "sigmoid"]
    with pytest.raises(UsageError, match="no table to draw"):
        acon_figures.trial_accuracies({})


def test_the_shipped_logs_are_read_in_the_papers_order(tmp_path: Path) -> None:
    logs = training_logs()
    assert list(logs["activation"].unique()) == ["ReLU", "ACON-A (Swish)", "ACON-C", "Meta-ACON"]
    assert (logs.groupby(["network", "seed"])["epoch"].count() == 30).all()
    assert sorted(logs["seed"].unique()) == [0, 1, 2]
    first = (logs["network"] == "digits_relu") & (logs["seed"] == 0)
    own = logs[first].drop(columns=["network", "activation", "seed"])
    own.assign(test_error=0.5).to_csv(tmp_path / "digits_relu.csv", index=False)
    own.assign(test_error=0.7).to_csv(tmp_path / "digits_relu_seed3.csv", index=False)
    own.assign(test_error=0.9).to_csv(tmp_path / "digits_relu-seed12.csv", index=False)
    own.to_csv(tmp_path / "digits_relux.csv", index=False)
    both = training_logs(folder=tmp_path)
    assert list(both["seed"].unique()) == [0, 3, 12]
    bands = curve_bands(both, ["test_error"])
    np.testing.assert_allclose(bands[["mean", "low", "high"]], [[0.7, 0.5, 0.9]] * 30)
    assert (bands["seeds"] == 3).all()
    assert logged_data(tmp_path) == ("digits",)
    assert {"cifar10", "digits"} <= set(logged_data())
    with pytest.raises(AconError, match=r"no log cifar_\*\.csv"):
        training_logs("cifar", tmp_path)
    own.to_csv(tmp_path / "digits_relu-seed3.csv", index=False)
    with pytest.raises(AconError, match=r"digits_relu_seed3\.csv and .*-seed3\.csv are both of"):
        training_logs(folder=tmp_path)


def test_training_curves_keep_an_activations_colour_and_say_how_many_seeds() -> None:
    logs = figureframes.training(3)
    both = training_curves(logs)
    alone = training_curves(logs[logs["activation"] == "Meta-ACON"])
    colors = {str(line.get_label()): line.get_color() for line in both.axes[0].lines}
    assert alone.axes[0].lines[0].get_color() == colors["Meta-ACON"]
    assert colors["Meta-ACON"] == activation_color("Meta-ACON")
    assert len(alone.axes) == 1  # nothing to compare with
    assert "Mean of 3 seeds" in both.caption
    fewer = logs[(logs["activation"] == "ReLU") | (logs["seed"] == 0)]
    assert "several seeds (ReLU: 3, Meta-ACON: 1)" in training_curves(fewer).caption
    shorter = logs[(logs["seed"] < 2) | (logs["iteration"] < 60)]
    assert "a seed's log is shorter" in training_curves(shorter).caption
    close = logs.assign(train_error=0.2, test_error=0.3)
    assert training_curves(close).axes[0].get_yscale() == "linear"
    assert both.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("seeds", [1, 3])
def test_training_curves_as_published_are_the_logs(seeds: int) -> None:
    logs = figureframes.training(seeds)
    axes = training_curves(logs, as_published=True).axes[0]
    table = curve_bands(logs)
    assert len(axes.lines) == 4
    assert len(axes.collections) == (4 if seeds > 1 else 0)
    for line in axes.lines:
        activation, split = str(line.get_label()).rsplit(" ", 1)
        name = f"{split}_error"
        own = table[(table["activation"] == activation) & (table["quantity"] == name)]
        np.testing.assert_array_equal(line.get_xdata(), own["iteration"])
        np.testing.assert_array_equal(line.get_ydata(), own["mean"])
        assert line.is_dashed() == (split == "train")


def test_the_test_error_is_compared_with_relus_step_by_step() -> None:
    logs = figureframes.training(3).assign(network="digits_relu")
    figure = training_curves(logs)
    error, difference = figure.axes
    means = logs.pivot_table(index="iteration", columns="activation", values="test_error")
    for line in error.lines:
        np.testing.assert_allclose(line.get_ydata(), means[str(line.get_label())])
    (line,) = [line for line in difference.lines if len(np.asarray(line.get_xdata())) > 2]
    np.testing.assert_allclose(line.get_ydata(), 100 * (means["Meta-ACON"] - means["ReLU"]))
    own = logs[logs["activation"] == "Meta-ACON"].copy()
    own["points"] = 100 * (own["test_error"] - own["iteration"].map(means["ReLU"]))
    (band,) = difference.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(own["points"].max())
    assert corners[:, 1].min() == pytest.approx(own["points"].min())
    assert figure.subject == "networks trained on digits, held-out images"
