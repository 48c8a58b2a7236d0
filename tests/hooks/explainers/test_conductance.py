"""Conductance of channels, next to their L."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from acon_analysis.data.sources import digits
from acon_analysis.errors import UsageError
from acon_analysis.layers import AconC
from acon_analysis.statistics.affine_fit import linearity
from acon_hooks.errors import RowWarning
from acon_hooks.explainers.importance import conductance, correlations, layer_conductance
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
