"""Explanations as they are shown: the figure, its colours, and the command."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from acon_analysis.data.denormalize import viewable
from acon_analysis.data.preprocess import get_preprocess
from acon_analysis.data.sources import open_data
from acon_analysis.errors import UsageError
from acon_analysis.layers import MetaAconC
from acon_analysis.models.registry import build_model
from acon_figures.plots.explanation import explanation
from acon_hooks.explainers.data import explain_data
from acon_hooks.explainers.explaining import explain
from acon_hooks.moments.recording import record
from commands import status


def frame_of(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample": range(10, 10 + count),
            "layer": "layer3.0.acon",
            "channel": pd.array([5] * count, dtype="Int64"),
            "method": "integrated_gradients",
            "baseline": "zero",
            "beta": np.linspace(0.2, 0.9, count),
            "beta_baseline": 0.5,
            "delta": 1e-4,
        }
    )


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_figure_shows_the_numbers(channels: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, channels, 6, 8))
    maps = rng.normal(size=(3, 6, 8))
    frame = frame_of(3)
    blanks = 0 * images
    blanks[0, :, 0, 0] = 0.1  # baselines that differ have a column
    figure = explanation(images, blanks, maps, frame, labels={11: "four"})
    assert len(figure.axes) == 3 * 4 + 1
    assert len(explanation(images, 0 * images, maps, frame).axes) == 3 * 3 + 1
    limit = np.abs(maps).max()
    for row in range(3):
        picture, blank, heat, beta = figure.axes[4 * row : 4 * row + 4]
        shown = heat.images[0]
        np.testing.assert_array_equal(shown.get_array(), maps[row])
        assert shown.get_clim() == (-limit, limit)
        assert shown.get_cmap().name == "RdBu_r"
        points = [float(line.get_xdata()[0]) for line in beta.lines[1:]]  # type: ignore[index,arg-type]
        assert points == [0.5, frame["beta"][row]]
        highest = blank.images[0].get_array().max()  # type: ignore[union-attr]
        assert highest == pytest.approx(blanks[row].mean(0).max())
        drawn = np.asarray(picture.images[0].get_array())
        assert drawn.shape == ((6, 8, 3) if channels == 3 else (6, 8))
    assert figure.axes[4].get_ylabel() == "sample 11: four"
    assert "at most 0.0001" in figure.caption
    if channels == 3:
        swapped = explanation(images, 0 * images, maps, frame, channel_order="bgr")
        first, second = (np.asarray(f.axes[0].images[0].get_array()) for f in (figure, swapped))
        np.testing.assert_array_equal(first, second[..., ::-1])


def test_figure_refuses() -> None:
    images, maps = np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 4))
    explanation(images, images, maps, frame_of(2))  # a map of zeros is a map
    with pytest.raises(UsageError, match=r"need maps \(2, 4, 4\) and 2 rows; got \(2, 4, 3\)"):
        explanation(images, images, maps[..., :3], frame_of(2))
    with pytest.raises(UsageError, match="lacks beta"):
        explanation(images, images, maps, frame_of(2).drop(columns="beta"))
    with pytest.raises(UsageError, match="1 to 12 images; got 13"):
        explanation(np.zeros((13, 1, 4, 4)), np.zeros((13, 1, 4, 4)), np.zeros((13, 4, 4)),
                    frame_of(13))  # fmt: skip


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("explain", "digits_metaacon", "--data", "digits", "--out", tmp_path)
    assert status(*common, "--layer", "layer3.0.acon", "--channel", 5, "--sample", 103,
                "--sample", 0, "--method", "saliency", "--baseline", "sample:7",
                "--check") == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "sample 7" in out
    assert "the layer's weights shuffled 10 times" in out
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"explanation.png", "explanation.pdf", "explanation.svg", "explanation.txt",
                       "explanation.csv", "pixels.csv", "randomization.csv"}  # fmt: skip
    frame = pd.read_csv(tmp_path / "explanation.csv")
    assert list(frame["sample"]) == [103, 0]
    assert len(pd.read_csv(tmp_path / "pixels.csv")) == 2 * 64
    assert status(*common, "--layer", "layer3.0.acn") == 2
    assert "does not exist: did you mean 'layer3.0.acon'" in capsys.readouterr().err
    assert status(*common, "--layer", "layer3.0.acon", "--sample", 500) == 2
    assert "no sample 500: its images are numbered from 0 to 499" in capsys.readouterr().err
    assert status(*common, "--layer", "layer3.0.acon", "--baseline", "sample:x") == 2


def test_by_default_the_channel_is_explained_whose_beta_varies_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("explain", "digits_metaacon", "--data", "digits", "--out", tmp_path, "--layer",
              "layer2.1.acon", "--method", "saliency", "--format", "png")  # fmt: skip
    assert status(*common) == 0
    said = capsys.readouterr()
    table = pd.read_csv(tmp_path / "explanation.csv")
    model, source = build_model("digits_metaacon"), open_data("digits")
    ids = [index * 500 // 128 for index in range(128)]
    with torch.no_grad(), record(model, ["layer2.1.acon"], moments=False) as recording:
        model(torch.stack([source[sample] for sample in ids]))
    beta = recording.beta_matrix("layer2.1.acon").astype(float)
    channel = int(beta.std(0).argmax())
    assert set(table["channel"]) == {channel}
    assert f"channel {channel} of 32: its β varies most" in said.err
    assert table["beta"].iloc[[0, -1]].to_numpy() == pytest.approx(
        [beta[:, channel].min(), beta[:, channel].max()], abs=1e-5
    )
    assert "explanation.png" in said.out.splitlines()[-1]
    assert status(*common, "--channel", "mean") == 0
    assert pd.read_csv(tmp_path / "explanation.csv")["channel"].isna().all()
    assert status(*common, "--channel", "second") == 2
    assert "give a number, or mean; got 'second'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["official", "imagenet", "cifar10", "none", "digits"])
def test_pictures_have_their_own_colours(name: str) -> None:
    """A red, a green and a dark blue area come back as what they were, whatever the input is."""
    colours = np.array([[200, 30, 20], [20, 180, 40], [10, 20, 90]], dtype=np.uint8)
    pixels = np.repeat(colours, 100, axis=0)[None].repeat(300, axis=0)
    preprocess = get_preprocess(name)
    array = preprocess(Image.fromarray(pixels))
    shown = viewable(array[None], preprocess.spec)[0]
    if name == "digits":
        np.testing.assert_allclose(shown, array)
        return
    height, width = shown.shape[1:]
    found = shown[:, height // 2, [width // 12, width // 2, -width // 12]].T
    np.testing.assert_allclose(found, colours / 255, atol=2e-3)


def test_official_networks_are_explained_in_true_colours(tmp_path: Path) -> None:
    folder = tmp_path / "red"
    folder.mkdir()
    pixels = np.zeros((256, 256, 3), dtype=np.uint8) + np.array([220, 40, 10], dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "red.png")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), MetaAconC(4), nn.Flatten()).eval()
    found, _ = explain_data(
        model, folder, "1", 0, preprocess="official", method="saliency", device="cpu"
    )
    assert found.images[0, :, 0, 0] == pytest.approx([10, 40, 220])  # B, G, R
    figure = explanation(*found.pictures, found.maps, found.to_frame())
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert drawn[0, 0] == pytest.approx(np.array([220, 40, 10]) / 255)
    assert "compared with the baseline zero." in figure.caption


def test_a_network_that_needs_more_than_images_is_explained_through_forward() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.act = nn.Conv2d(3, 16, 1), MetaAconC(16)

        def forward(self, x: Tensor, *, scale: float) -> Tensor:
            out: Tensor = self.act(self.conv(scale * x))
            return out

    class Plain(Scaled):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, scale=3.0)

    images = torch.randn(2, 3, 4, 4)
    found = explain(
        Scaled().eval(), images, "act", 2, steps=8,
        forward=lambda model, batch: model(batch, scale=3.0),
    )  # fmt: skip
    want = explain(Plain().eval(), images, "act", 2, steps=8)
    np.testing.assert_array_equal(found.beta, want.beta)
    np.testing.assert_array_equal(found.attributions, want.attributions)
