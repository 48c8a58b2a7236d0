"""Samples of different sizes: every value counts once, whatever the size of its sample."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import acon_analysis as acon
import acon_hooks
from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from acon_hooks.errors import HookError
from acon_hooks.moments.options import MomentOptions
from network_oracle import assert_measured, folded, linearity, meta_beta, seen
from networks import Network

SIZES = [(9, 7), (3, 12), (1, 1), (9, 7), (20, 2), (5, 5), (2, 3)]


class Pictures(Dataset[Tensor]):
    """Pictures of the sizes above, each with a mean and a spread of its own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.items = [
            torch.randn(3, *size, generator=generator) * (1 + k) + k for k, size in enumerate(SIZES)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor:
        return self.items[index]


class Net(nn.Module):
    """A plain activation, and one whose β comes from the pooled input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.act = nn.Conv2d(3, 5, 1), nn.GELU()
        self.acon = MetaAconC(5)
        for value in self.acon.parameters():
            nn.init.normal_(value, std=0.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.acon(self.act(self.conv(x)))
        return out.mean((2, 3))


@pytest.mark.parametrize("kernel", ["eager", "auto"])
@pytest.mark.parametrize("blocks", [2, 101])
@pytest.mark.parametrize("layer", ["act", "acon"])
def test_every_value_counts_once(layer: str, blocks: int, kernel: str, tmp_path: Path) -> None:
    data, model = Pictures(), Net()
    run = acon.capture(
        model, data, tmp_path / "r", batch_size=1, unit_size=4, progress=False,
        kinds=("activation",) if layer == "act" else None,
        moments=MomentOptions(kernel=kernel, blocks=blocks, full=True),
    )  # fmt: skip
    alone = [item[None] for item in data.items]
    pairs = seen(model, alone, [layer], lambda model, x: model(x))[layer, 0]
    want = linearity(pairs, 1)
    x = np.concatenate([folded(given, 1)[0] for given, _ in pairs], 1)
    channels = run.linearity("channel", columns="all")
    np.testing.assert_array_equal(channels["n"], sum(h * w for h, w in SIZES))
    np.testing.assert_allclose(channels["L"], want.channel, rtol=0, atol=1e-6)
    np.testing.assert_allclose(run.linearity()["L"], want.layer, rtol=0, atol=1e-6)
    np.testing.assert_allclose(run.linearity("sample")["L"], want.sample, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(run.totals["n"], [5 * h * w for h, w in SIZES])
    moments = run.moments
    weights = moments["n"] / moments.groupby("channel")["n"].transform("sum")
    means = (moments["mean_x"] * weights).groupby(moments["channel"]).sum()
    np.testing.assert_allclose(means, x.mean(1), rtol=1e-6, atol=1e-7)
    states = run.part_frame("states")
    np.testing.assert_array_equal(states.query("channel == 0")["n"], [h * w for h, w in SIZES])
    if layer == "acon":
        beta = np.concatenate([meta_beta(model.acon, given) for given, _ in pairs])
        np.testing.assert_allclose(run.beta_matrix("acon"), beta, atol=2e-6)
        held = moments.query("channel == 3").sort_values("block")
        parts = [beta[block::blocks, 3] for block in held["block"]]
        np.testing.assert_allclose(held["mean_beta"], [p.mean() for p in parts], atol=1e-6)
        np.testing.assert_allclose(held["cbb"], [p.var() * len(p) for p in parts], atol=1e-6)


def test_samples_of_different_sizes_in_one_batch(tmp_path: Path) -> None:
    with pytest.raises(
        AconError, match=r"\(3, 9, 7\) and \(3, 3, 12\); .* --batch-size 1 "
    ) as error:
        acon.capture(Net(), Pictures(), tmp_path / "r", batch_size=3, progress=False)
    assert "\n" not in str(error.value)


def test_batches_of_different_sizes(tmp_path: Path) -> None:
    model = Net()
    stream = [torch.randn(4, 3, 5, 6), torch.randn(4, 3, 8, 2), torch.randn(1, 3, 5, 6)]
    run = acon.capture(model, stream, tmp_path / "r", kinds=("activation",), progress=False)
    found = run.totals
    assert found["n"].tolist() == [5 * 30] * 4 + [5 * 16] * 4 + [5 * 30]
    assert_measured(run, model, stream, {"act": 1})


def test_other_channels_are_refused() -> None:
    # Takes as many channels as the picture is wide.
    model = Network(
        lambda n, x: n.act(n.conv(x)[:, : x.shape[3]]), act=nn.ReLU(), conv=nn.Conv2d(3, 8, 1)
    ).eval()
    with torch.no_grad(), acon_hooks.Tap(model, kinds=("activation",)) as tap:
        model(torch.randn(2, 3, 4, 5))
        tap.take()
        model(torch.randn(2, 3, 7, 5))
        tap.take()
        with pytest.raises(HookError, match=r"is \(2, 6, 4, 6\).* was \(N, 5, 4, 5\)"):
            model(torch.randn(2, 3, 4, 6))


def test_maps_need_one_size() -> None:
    class Pixelwise(nn.Module):
        """ACON whose β differs between pixels."""

        def __init__(self) -> None:
            super().__init__()
            self.p1, self.p2 = (nn.Parameter(torch.randn(1, 4, 1, 1)) for _ in range(2))
            self.fc2 = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            d = (self.p1 - self.p2) * x
            return d * torch.sigmoid(torch.sigmoid(self.fc2(x)) * d) + self.p2 * x

    model = nn.Sequential(Pixelwise()).eval()
    with torch.no_grad(), acon_hooks.record(model) as recording:
        model(torch.randn(3, 4, 5, 5))
        model(torch.randn(2, 4, 3, 8))
    assert recording.beta_matrix("0").shape == (5, 4)
    with torch.no_grad(), acon_hooks.record(model, full=True) as recording:
        model(torch.randn(3, 4, 5, 5))
        with pytest.raises(HookError, match=r"is \(2, 4, 3, 8\).* was \(N, 4, 5, 5\)"):
            model(torch.randn(2, 4, 3, 8))
