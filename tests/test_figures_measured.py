from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import figureframes
from acon_analysis.depth import linearity_by_depth as depth_of_runs
from acon_analysis.depth import shared_layers
from acon_analysis.errors import AconError
from acon_analysis.run import Run
from acon_analysis.training_logs import curve_bands, training_logs
from acon_figures import linearity_by_depth, training_curves
from acon_figures.inputs import frames_of


def test_the_shipped_logs_are_read_in_the_papers_order(tmp_path: Path) -> None:
    logs = training_logs()
    assert list(logs["activation"].unique()) == ["ReLU", "ACON-A (Swish)", "ACON-C", "Meta-ACON"]
    assert (logs.groupby("network")["epoch"].count() == 30).all()
    own = logs[logs["network"] == "digits_relu"].drop(columns=["network", "activation", "seed"])
    own.assign(test_error=0.5).to_csv(tmp_path / "digits_relu.csv", index=False)
    own.assign(test_error=0.7).to_csv(tmp_path / "digits_relu_seed3.csv", index=False)
    both = training_logs(folder=tmp_path)
    assert sorted(both["seed"].unique()) == [0, 3]
    bands = curve_bands(both, ["test_error"])
    np.testing.assert_allclose(bands[["mean", "low", "high"]], [[0.6, 0.5, 0.7]] * 30)
    assert (bands["seeds"] == 2).all()
    with pytest.raises(AconError, match=r"no log cifar_\*\.csv"):
        training_logs("cifar", tmp_path)


@pytest.mark.parametrize("seeds", [1, 3])
def test_training_curves_are_the_logs(seeds: int) -> None:
    logs = figureframes.training(seeds)
    axes = training_curves(logs).axes[0]
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


def test_depth_of_a_run_agrees_with_its_table_by_layer(digits_run: Run) -> None:
    table = depth_of_runs([digits_run])
    by_layer = digits_run.linearity(by="layer")
    wide = table.pivot(index="place", columns="measure", values="value")
    for name in ("L", "L_own", "G"):
        np.testing.assert_allclose(wide[name], by_layer[name], rtol=1e-12)
    ends = table[table["measure"] == "L"]
    np.testing.assert_allclose(ends["low"], by_layer["L_low"], rtol=1e-9)
    np.testing.assert_allclose(ends["high"], by_layer["L_high"], rtol=1e-9)
    assert list(ends["layer"]) == list(digits_run.layers["layer"])
    assert depth_of_runs([]).empty


def test_linearity_by_depth_draws_the_shared_layers() -> None:
    depth = figureframes.depth()
    table = shared_layers(depth)
    assert set(table["layer"]) == set(figureframes.LAYERS)
    figure = linearity_by_depth(depth, labels={"relu": "ReLU"})
    assert [len(axes.containers) for axes in figure.axes] == [2, 2, 1]
    for axes, measure in zip(figure.axes, ("L", "L_own", "G"), strict=True):
        for line, network in zip(axes.lines[::3], ("acon", "relu"), strict=False):
            own = table[(table["measure"] == measure) & (table["network"] == network)]
            np.testing.assert_array_equal(line.get_xdata(), own["place"])
            np.testing.assert_array_equal(line.get_ydata(), own["value"])
    with pytest.raises(AconError, match="share no layer"):
        shared_layers(pd.concat([depth.query("network == 'acon'"), _renamed(depth)]))


def _renamed(depth: pd.DataFrame) -> pd.DataFrame:
    own = depth[depth["network"] == "relu"]
    return own.assign(layer="other." + own["layer"])


def test_a_run_gives_the_frames_that_figures_name(digits_run: Run) -> None:
    found = frames_of([digits_run])
    frame, null, labels = (found[name] for name in ("frame", "null", "labels"))
    assert isinstance(frame, pd.DataFrame)
    layer = frame["layer"].iloc[0]
    assert (null.loc[null["layer"] == layer, "channel"].to_numpy() == np.arange(128)).all()
    assert labels.loc[frame["sample"].iloc[0]] in {str(digit) for digit in range(10)}
    assert "static" not in found
    assert list(frames_of([digits_run], ["labels"])) == ["labels"]
    assert set(frames_of([], ["training", "depth", "frame"])) == {"training"}
