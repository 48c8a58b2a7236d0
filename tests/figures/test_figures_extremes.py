"""One channel at its extreme samples, with pictures; and where runs' images are found again."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

import figureframes
from acon_analysis import family
from acon_analysis.cli import runs as commands
from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, UsageError
from acon_analysis.plotdata.sample_extremes import sample_extremes as find
from acon_analysis.plotdata.sample_extremes import switching_channel
from acon_analysis.runs.images import RunImages, images_of
from acon_analysis.runs.run import Run
from acon_figures import sample_extremes
from acon_figures.inputs import Inputs
from acon_hooks import figure_inputs
from acon_hooks.blocks import triples
from acon_hooks.figure_inputs import (
    blocks,
    explained,
    figure_sources,
    input_histograms,
    other_measures,
)

FACTS, FRAME = figureframes.own_channels(), figureframes.betas()


def test_the_extreme_samples_are_those_of_least_and_greatest_beta() -> None:
    found = find(FACTS, FRAME, channel=5, count=2)
    own = FRAME[(FRAME["layer"] == figureframes.LAYERS[-1]) & (FRAME["channel"] == 5)]
    order = list(own.sort_values("beta")["sample"])
    assert list(found.samples["sample"]) == [*order[:2], *order[:-3:-1]]
    assert list(found.samples["side"]) == ["straight"] * 2 + ["bent"] * 2
    row = found.facts
    for one in found.samples.to_dict("records"):
        curve = found.curves[found.curves["sample"] == one["sample"]]
        expected = family.acon_c(curve["x"].to_numpy(), row["p1"], row["p2"], one["beta"])
        np.testing.assert_array_equal(curve["y"], expected)
        assert (curve["x"].min(), curve["x"].max()) == (-2.9, 3.1)
    assert len(find(FACTS, FRAME, channel=5, count=90).samples) == 8  # nine samples: four a side


def test_by_default_the_channel_is_the_one_that_beta_changes_most() -> None:
    last = FACTS[FACTS["layer"] == figureframes.LAYERS[-1]]
    still = last.assign(beta_low=0.5, beta_high=0.5)
    still.loc[still["channel"] == 7, ["p1", "p2", "beta_low", "beta_high"]] = [1.0, -1.0, 0.0, 1.0]
    assert switching_channel(still) == 7
    assert find(pd.concat([FACTS.query("layer == @figureframes.LAYERS[0]"), still]), FRAME).facts[
        "channel"
    ] == 7  # fmt: skip
    with pytest.raises(AconError, match="no channel of the layer has p1, p2"):
        switching_channel(last.assign(p1=np.nan))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be at least 1"),
        ({"layer": "layer9"}, "no layer 'layer9'"),
        ({"channel": 99}, "no channel 99"),
        ({"frame": FRAME[FRAME["sample"] == 100]}, "two samples at least"),
        ({"frame": FRAME.assign(beta=np.nan)}, "NaN or infinite"),
        ({"own_channels": FACTS.drop(columns="p1")}, "lacks the column p1"),
        ({"images": dict.fromkeys(range(100, 109), np.zeros(5))}, r"has the shape \(5,\)"),
    ],
)
def test_what_cannot_be_drawn_is_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(AconError, match=message):
        sample_extremes(**{"own_channels": FACTS, "frame": FRAME, **arguments})


def test_curves_and_pictures_are_drawn_side_by_side() -> None:
    images = figureframes.images()
    figure = sample_extremes(
        FACTS, FRAME, channel=5, images=images, labels={100: "a dachshund dog"}
    )
    found = find(FACTS, FRAME, channel=5)
    main, *pictures = figure.axes
    assert len(main.lines) == len(pictures) == 8
    for line, axes, one in zip(main.lines, pictures, found.samples.to_dict("records"), strict=True):
        own = found.curves[found.curves["sample"] == one["sample"]]
        np.testing.assert_array_equal(line.get_ydata(), own["y"])
        edge = axes.spines["left"].get_edgecolor()
        assert to_rgba(line.get_color()) == edge
        assert line.is_dashed() == (one["side"] == "straight")
        name = "a dachshun…" if one["sample"] == 100 else f"sample {one['sample']}"
        assert axes.get_title() == f"{name}\nβ = {one['beta']:.2f}"
        if one["sample"] in images:
            shown = np.asarray(axes.images[0].get_array(), dtype=np.float64)
            assert (shown.min(), shown.max()) == (0.0, 1.0)
        else:
            assert not axes.images
    assert "Each picture over its own range" in figure.caption
    assert "untrained β networks sort classes, too" in figure.caption
    without = sample_extremes(FACTS, FRAME, channel=5)
    assert len(without.axes) == 1
    assert "picture" not in without.caption


def test_images_that_were_captured_are_found_again(digits_run: Run) -> None:
    images = images_of(digits_run)
    assert images is not None
    assert sorted(images) == sorted(digits_run.samples["sample_id"])
    source = open_data("digits")
    expected = source[3].numpy()[0]
    np.testing.assert_allclose(images[3], expected / expected.max())
    drawn = Inputs([digits_run], {"images": images_of})
    figure = sample_extremes(
        drawn.get("own_channels"), drawn.get("frame"), images=drawn.get("images")
    )
    assert all(axes.images for axes in figure.axes[1:])


def _run(data: str, samples: pd.DataFrame, **spec: str) -> Any:
    return SimpleNamespace(identity={"data": data, "preprocess": spec}, samples=samples)


def test_images_of_a_folder_are_those_of_the_hash(tmp_path: Path) -> None:
    pixels = np.zeros((6, 5, 3), dtype=np.uint8)
    pixels[..., 0] = 200  # red
    for name in ("one.png", "two.png", "gone.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    samples = open_data(tmp_path).samples
    (tmp_path / "gone.png").unlink()
    Image.fromarray(pixels[::-1] + 1).save(tmp_path / "two.png")
    images = images_of(_run(str(tmp_path), samples, name="none"))
    assert images is not None
    by_name = samples.set_index("path")["sample_id"].to_dict()
    np.testing.assert_array_equal(images[by_name["one.png"]], pixels / 200)
    for name in ("two.png", "gone.png"):
        with pytest.raises(KeyError):
            images[by_name[name]]
    shutil.rmtree(tmp_path)
    assert images_of(_run(str(tmp_path), samples)) is None
    assert images_of(_run("", samples)) is None
    assert images_of(_run("digits", samples)) is None  # none of these is a digit
    assert images_of(_run("digits", samples[["sample_id"]])) is None


def test_colours_are_shown_red_first() -> None:
    image = np.stack([np.zeros((2, 2)), np.full((2, 2), 0.5), np.ones((2, 2))])
    np.testing.assert_array_equal(
        RunImages({0: 0}, lambda _: image, bgr=True)[0][0, 0], [1, 0.5, 0]
    )
    np.testing.assert_array_equal(RunImages({0: 0}, lambda _: image)[0][0, 0], [0, 0.5, 1])


def test_what_is_measured_again_is_what_was_captured(digits_run: Run) -> None:
    assert figure_sources().keys() == commands._sources().keys()
    counts = input_histograms(digits_run)
    assert counts is not None
    table = digits_run.linearity(by="channel", columns="all")
    last = table[table["layer"] == table["layer"].iloc[-1]].set_index("channel")
    for channel in (0, 17):
        own = counts[counts["channel"] == channel]
        middle = (own["left"] + own["right"]) / 2
        assert own["count"].sum() == last.loc[channel, "n"]
        width = float(own["right"].iloc[0] - own["left"].iloc[0])
        mean = float((middle * own["count"]).sum() / own["count"].sum())
        assert mean == pytest.approx(last.loc[channel, "mean_x"], abs=width)
    measures = other_measures(digits_run)
    assert measures is not None
    assert list(measures["channel"]) == list(range(128))
    assert measures["affinity"].between(0, 1).all()
    parts = explained(digits_run)
    assert parts is not None
    frame = parts["frame"]
    channel = int(frame["channel"].iloc[0])
    beta = digits_run.beta_matrix("layer3.0.acon")[:, channel]
    assert set(frame["sample"].iloc[[0, 2]]) == {int(beta.argmin()), int(beta.argmax())}
    np.testing.assert_allclose(frame["beta"], beta[frame["sample"]], atol=1e-5)


def test_blocks_are_those_of_the_network(digits_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_inputs, "BLOCK_IMAGES", 40)
    monkeypatch.setattr(triples, "MOST_ROUNDS", 1)
    table = blocks(digits_run)
    assert table is not None
    assert set(table["block"]) >= {"layer1.0", "whole network"}
    assert table["nlc"].between(0.3, 3).all()


def test_nothing_is_measured_again_of_other_weights_or_images(digits_run: Run) -> None:
    identity = digits_run.manifest["identity"]
    shipped = {"weights": "shipped"}
    for changed, origin in (
        ({}, {"weights": "random"}),
        ({"weights_sha256": "0"}, shipped),
        ({"model": "evil.py:run"}, shipped),
        ({"model": "no_such_network"}, shipped),
        ({"data": "no such folder"}, shipped),
        ({"data": "digits:train"}, shipped),
    ):
        run = Run(digits_run.path)
        run.manifest |= {"identity": {**identity, **changed}, "origin": origin}
        assert other_measures(run) is None
        assert explained(run) is None
        assert blocks(run) is None


def test_counts_out_of_range_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="count must be at least 1; it is -1"):
        find(FACTS, FRAME, count=-1)
