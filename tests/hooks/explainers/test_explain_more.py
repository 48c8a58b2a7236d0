"""Conductance and L, the randomisation check, the figure and the command."""

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
from acon_analysis.layers import AconC, MetaAconC
from acon_analysis.models.registry import build_model
from acon_analysis.statistics.affine_fit import linearity
from acon_figures.plots.explanation import explanation
from acon_hooks.errors import RowWarning
from acon_hooks.explainers.data import explain_data
from acon_hooks.explainers.explaining import explain
from acon_hooks.explainers.importance import conductance, correlations, layer_conductance
from acon_hooks.explainers.sanity import randomization_check, rank_correlation, shuffle
from acon_hooks.moments.recording import record
from acon_hooks.readings.found_layers import find_layers
from acon_hooks.replacement.damage import channel_measures
from commands import status
from networks import Network

COLUMNS = ["layer", "call", "kind", "channel", "outputs", "L", "nonlinearity", "dead",
           "constant_input", "conductance", "importance", "share"]  # fmt: skip


def lanes() -> Network:
    """Score k is the sum of act(x_k): each score flows through one channel alone."""
    return Network(
        lambda n, x: n.relu(n.relu(n.first(x)) - 0.3).sum((2, 3)),
        first=nn.SiLU(),
        relu=nn.ReLU(inplace=True),
    )


def digits_images(count: int) -> tuple[Tensor, Tensor]:
    from acon_analysis.data.sources import digits

    source = digits("test")
    ids = range(0, 500, 500 // count)[:count]
    targets = source.targets
    assert targets is not None
    return torch.stack([source[i] for i in ids]), torch.from_numpy(targets[list(ids)])


def test_conductance_of_lanes() -> None:
    torch.manual_seed(0)
    net = lanes().eval()
    images = torch.randn(6, 3, 4, 4)
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    table = conductance(net, images, targets, kinds=("activation",), steps=255)
    assert list(table.columns) == COLUMNS
    assert len(table) == 3 * 3  # first, and relu twice
    assert sorted(table.groupby("layer")["call"].nunique().items()) == [("first", 1), ("relu", 2)]
    own = net(images) - net(torch.zeros_like(images))
    for channel in range(3):
        hit = targets == channel
        expected = float(own[hit, channel].sum()) / 6
        part = table[table["channel"] == channel]
        np.testing.assert_allclose(part["conductance"], expected, atol=0.02)
    first = table[(table["layer"] == "first") & (table["channel"] == 1)].iloc[0]
    x = images[:, 1].flatten()
    found = linearity(x.numpy(), nn.functional.silu(x).numpy())
    assert first["L"] == pytest.approx(found.L)
    assert first["nonlinearity"] == pytest.approx(found.nonlinearity)
    np.testing.assert_allclose(table.groupby(["layer", "call"])["share"].sum(), 1)
    assert not net.relu._forward_hooks
    assert not net._forward_pre_hooks


def test_linearity_beside_conductance_is_that_of_every_value() -> None:
    torch.manual_seed(0)
    net, images = lanes().eval(), torch.randn(5, 3, 60, 50)
    images[:, :, ::2] *= 0.01  # rows that every third value would miss more often than others
    images[:, 2] = 0.25
    table = conductance(net, images, kinds=("activation",), steps=2, batch_size=2)
    first = table[table["layer"] == "first"].set_index("channel")
    x = images.double().movedim(1, 0).flatten(1).numpy()
    for channel in (0, 1):
        y = x[channel] / (1 + np.exp(-x[channel]))
        rest = y - np.polyval(np.polyfit(x[channel], y, 1), x[channel])
        want = 1 - rest @ rest / ((y - y.mean()) @ (y - y.mean()))
        assert first["L"][channel] == pytest.approx(want, abs=1e-6)
    assert first["dead"].tolist() == [False, False, True]
    assert first["L"][2] == 1


def test_a_layer_without_samples_of_channels_has_conductance_alone() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act, self.gate = nn.Linear(4, 3), nn.SiLU(), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            h: Tensor = self.act(self.fc(x))
            out: Tensor = h * self.gate(h.sum(1)).unsqueeze(1)
            return out

    with pytest.warns(UserWarning, match="'gate', call 0: its input has 1 axis"):
        table = conductance(Weighed().eval(), torch.randn(6, 4), kinds=("activation",), steps=8)
    gate = table[table["layer"] == "gate"].iloc[0]
    assert np.isnan(gate["L"])
    assert gate["importance"] > 0
    assert correlations(table).set_index("layer")["left_out"].to_dict() == {"act": 0, "gate": 1}


def test_conductance_is_complete_where_all_paths_meet(digits_metaacon: nn.Module) -> None:
    images, targets = digits_images(3)
    layer = next(
        layer
        for layer in find_layers(digits_metaacon, ("activation",), images)
        if layer.name == "layer3.0.relu"
    )
    zero = torch.zeros_like(images)
    flow = layer_conductance(digits_metaacon, layer, images, zero, targets, 1, steps=63)
    with torch.no_grad():
        change = digits_metaacon(images) - digits_metaacon(zero)
    expected = change.gather(1, targets[:, None])[:, 0].numpy()
    np.testing.assert_allclose(flow.sum(1), expected, rtol=0.01)


def test_the_images_stay_as_they_are_where_a_network_overwrites_them() -> None:
    torch.manual_seed(0)
    act, fc = AconC(3), nn.Linear(3, 2)
    net = Network(lambda n, x: n.fc(n.act(x.mul_(2)).mean((2, 3))), act=act, fc=fc).eval()
    same = Network(lambda n, x: n.fc(n.act(2 * x).mean((2, 3))), act=act, fc=fc).eval()
    images = torch.randn(4, 3, 2, 2)
    for measure in (conductance, channel_measures):
        before = images.clone()
        found, expected = measure(net, images), measure(same, images)
        assert torch.equal(images, before)
        pd.testing.assert_frame_equal(found, expected)


def test_rows_that_are_no_samples_have_no_conductance() -> None:
    parts = {"fc": nn.Linear(4, 4), "act": nn.SiLU(), "head": nn.Linear(4, 2)}
    net = Network(lambda n, x: n.head(n.act(n.fc(x.transpose(0, 1)))).mean(0), **parts).eval()
    refused = pytest.raises(UsageError, match="rows of layer 'act' belong to other samples")
    with pytest.warns(RowWarning), refused:
        conductance(net, torch.randn(6, 6, 4), kinds=("activation",))
    with pytest.raises(UsageError, match="sees 3 rows for 6 images"):
        conductance(net, torch.randn(6, 3, 4), kinds=("activation",))


def test_mistakes(digits_metaacon: nn.Module) -> None:
    images, _ = digits_images(2)
    conductance(digits_metaacon, images, layers=["layer1.0.acon"], steps=4)
    assert all(p.grad is None for p in digits_metaacon.parameters())
    with pytest.raises(UsageError, match="class 10 was asked for; the model has 10 classes"):
        conductance(digits_metaacon, images, torch.tensor([1, 10]))
    with pytest.raises(UsageError, match="one score a class"):
        conductance(nn.Sequential(nn.ReLU()).eval(), images, kinds=("activation",))


def test_correlations() -> None:
    n = 30
    frame = pd.DataFrame(
        {
            "layer": "a", "call": 0, "kind": "acon", "channel": range(n), "L": 0.5,
            "nonlinearity": np.linspace(0, 1, n), "dead": [True, *[False] * (n - 1)],
            "constant_input": False, "importance": np.linspace(0, 1, n) ** 2,
        }
    )  # fmt: skip
    noisy = frame.assign(layer="b", importance=np.random.default_rng(0).normal(size=n))
    flat = frame.assign(layer="c", importance=1.0)
    found = correlations(pd.concat([frame, noisy, flat])).set_index("layer")
    assert list(found["channels"]) == [n - 1] * 3
    assert list(found["left_out"]) == [1] * 3
    assert found.loc["a", "spearman"] == pytest.approx(1)
    low, rho, high = found[["low", "spearman", "high"]].to_numpy(dtype=np.float64)[1]
    half = 1.96 * np.sqrt((1 + rho**2 / 2) / (n - 4))
    ends = np.arctanh(rho) + half * np.array([-1, 1])
    np.testing.assert_allclose(np.arctanh([low, high]), ends, atol=1e-4)
    assert found.loc["c", ["spearman", "low", "high"]].isna().all()


def test_randomising_the_layer_changes_the_map(digits_metaacon: nn.Module) -> None:
    before = {name: value.clone() for name, value in digits_metaacon.state_dict().items()}
    images, _ = digits_images(4)
    call = {"channel": 5, "draws": 5, "method": "saliency"}
    frame = randomization_check(digits_metaacon, images, "layer3.0.acon", seed=1, **call)  # type: ignore[arg-type]
    again = randomization_check(digits_metaacon, images, "layer3.0.acon", seed=1, **call)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(frame, again)
    assert len(frame) == 4 * 5
    assert abs(frame["correlation"].mean()) < 0.3
    assert frame["beta_before"].nunique() == 4
    assert not np.allclose(frame["beta_before"], frame["beta_after"])
    for name, value in digits_metaacon.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_check_can_fail() -> None:
    """A map that does not depend on the weights is found out: it stays the same."""

    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p1 = nn.Parameter(torch.tensor([1.5, 0.7]).view(1, 2, 1, 1))
            self.p2 = nn.Parameter(torch.tensor([0.2, -0.4]).view(1, 2, 1, 1))
            self.gate = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            beta = torch.sigmoid(self.gate((x**2).mean((2, 3), keepdim=True)))
            d = (self.p1 - self.p2) * x
            return d * torch.sigmoid(beta * d) + self.p2 * x

    net = nn.Sequential(Stubborn()).eval()
    frame = randomization_check(
        net, torch.randn(2, 2, 5, 5), "0", 0, seed=0, draws=2, method="saliency"
    )
    assert frame["correlation"].min() > 0.999


def test_shuffle_and_ranks() -> None:
    net = nn.BatchNorm2d(3)
    with pytest.raises(UsageError, match="nothing in this BatchNorm2d can be shuffled"):
        shuffle(net, torch.Generator().manual_seed(0))
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([1, 8, 9, 70])) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5)))


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


def test_conductance_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("explain", "digits_metaacon", "--data", "digits", "--out", tmp_path, "--conductance")
    assert status(*common, "--layer", "layer1.0.acon,layer3.0.acon", "--limit", 4) == 0
    out = capsys.readouterr().out
    assert "(20 of 144 channels; all:" in out
    table = pd.read_csv(tmp_path / "conductance.csv")
    assert set(table["layer"]) == {"layer1.0.acon", "layer3.0.acon"}
    assert dict(table.groupby("layer")["outputs"].first()) == {
        "layer1.0.acon": 64, "layer3.0.acon": 4,
    }  # fmt: skip
    assert table.groupby("layer")["share"].sum().to_numpy() == pytest.approx([1, 1])
    layers = pd.read_csv(tmp_path / "layers.csv")
    assert list(layers["channels"]) == [16, 128]
    assert status(*common, "--channel", 3) == 2
    assert "--conductance is of all channels and many images" in capsys.readouterr().err
    assert status(*common, "--layer", "layer3.0.acn") == 2
    assert "did you mean 'layer3.0.acon'" in capsys.readouterr().err
    assert status("explain", "digits_metaacon", "--data", "digits", "--out", tmp_path) == 2
    assert "whose β? Give --layer" in capsys.readouterr().err


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
