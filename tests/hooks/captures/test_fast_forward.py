"""Fused and compiled networks: the same outputs and β, proved before anything is captured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_hooks import Tap
from acon_hooks.captures.forward_pass import ForwardPass
from acon_hooks.captures.fusing import FusedMetaAconC, difference, fuse, same_outputs
from acon_hooks.engine.feed import Batch
from acon_hooks.errors import ProofError
from captures import images, tiny
from networks import Network

KINDS = ("meta_acon", "acon")


def settled(model: nn.Module, x: Tensor) -> tuple[Any, list[Any]]:
    with Tap(model) as tap, torch.inference_mode():
        output = model(x)
        tap.take()
        return output, tap.layers


def test_fused_is_the_same_in_float64() -> None:
    model, x = tiny().double(), images(8).tensors[0].double()
    output, layers = settled(model, x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = fuse(model, layers, x[:1])
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fused.modules()) == 0
    assert sum(isinstance(module, FusedMetaAconC) for module in fused.modules()) == 2
    found, _ = settled(fused, x)
    np.testing.assert_allclose(found, output, rtol=1e-12)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


class Shares(nn.Module):
    """What must not be folded, and what only the proof can find out."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.free = nn.BatchNorm2d(4, track_running_stats=False)
        self.acon = tiny().acon
        self.twice = twice
        nn.init.normal_(self.norm.weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.norm(y)
        if self.twice:
            z = self.norm(z)
        out: Tensor = self.acon(z + y)
        return out


def test_a_network_that_overwrites_its_input_is_fused(tmp_path: Path) -> None:
    network, x = tiny(), images(8).tensors[0]
    model = Network(lambda n, x: n.net(x.sub_(0.5).mul_(3)), net=network).eval()
    plain, fused = (
        acon.capture(model, [x.clone()], tmp_path / str(fuse), fuse=fuse, progress=False)
        for fuse in (False, True)
    )
    for layer in plain.layers["layer"]:
        np.testing.assert_allclose(fused.beta_matrix(layer), plain.beta_matrix(layer), atol=1e-5)


def test_a_norm_that_runs_twice_is_left_alone() -> None:
    model, x = Shares(twice=True), images(4).tensors[0]
    output, layers = settled(model, x)
    fused = fuse(model, layers, x)
    assert isinstance(fused.get_submodule("norm"), nn.BatchNorm2d)
    size = float(output.abs().max())
    np.testing.assert_allclose(settled(fused, x)[0], output, rtol=0, atol=1e-6 * size)


def test_a_convolution_that_is_used_elsewhere_fails_the_proof(tmp_path: Path) -> None:
    model = Shares(twice=False)
    with pytest.raises(ProofError, match=r"fused network.*differ by .*accepted are"):
        acon.capture(model, images(4), tmp_path / "r", fuse=True, progress=False)
    assert not (tmp_path / "r" / "manifest.json").exists()
    assert acon.capture(model, images(4), tmp_path / "r", progress=False).complete


@pytest.mark.parametrize("moments", [True, False])
def test_a_fused_capture_is_the_same(tmp_path: Path, moments: bool) -> None:
    plain = acon.capture(tiny(), images(20), tmp_path / "a", unit_size=8, progress=False)
    fused = acon.capture(
        tiny(), images(20), tmp_path / "b", unit_size=8, fuse=True, moments=moments, progress=False
    )
    assert fused.manifest["identity"]["fuse"] in (True, "one pass" if moments else True)
    for layer in ("acon", "acon2"):
        np.testing.assert_allclose(
            fused.beta_matrix(layer), plain.beta_matrix(layer), rtol=0, atol=1e-5
        )
    # What the layers are made of is that of the network as it was given.
    assert fused.channels.equals(plain.channels)
    assert fused.layers["reader"].tolist() == ["module bn2, sigmoid"] * 2
    if moments:
        ours, theirs = fused.linearity(columns="all"), plain.linearity(columns="all")
        np.testing.assert_allclose(ours["L"], theirs["L"], atol=1e-5)


def test_a_bad_image_in_the_first_batch_does_not_matter(tmp_path: Path) -> None:
    x = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    x[1] = torch.nan
    data = [(x[:6],), (x[6:],)]
    plain = acon.capture(tiny(), data, tmp_path / "a", progress=False).linearity(columns="all")
    fused = acon.capture(tiny(), data, tmp_path / "b", fuse=True, progress=False).linearity(
        columns="all"
    )
    np.testing.assert_allclose(fused["L"], plain["L"], atol=1e-5)
    assert fused["left_out"].tolist() == plain["left_out"].tolist() == [1] * len(plain)
    one = torch.tensor([1.0, torch.inf, torch.nan])
    assert difference(one, one + 0.5) == 0.5
    assert np.isnan(difference(one, one.flip(0)))


def test_the_authors_form_of_a_network(tmp_path: Path) -> None:
    model = acon.build_model("shufflenet_v2_x0_5_metaacon", weights=None)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    batch = Batch(0, [0, 1], x)
    with ForwardPass(model, KINDS, fused=True) as forward:
        forward.start(batch, lambda: None)
        fused = {key: value.clone() for key, value in forward(batch).items()}
    with ForwardPass(model, KINDS) as forward:
        forward.start(batch, lambda: None)
        plain = forward(batch)
        assert fused.keys() == plain.keys()
        assert len(plain) == 37
        for key, value in plain.items():  # random weights amplify float32's rounding
            np.testing.assert_allclose(fused[key], value, atol=5e-4)


def test_differences() -> None:
    one = torch.ones(3)
    assert difference([one, 2], [one, 2]) == 0
    assert difference({"a": one * 100}, {"a": one * 101}) == pytest.approx(0.01)
    assert difference(one, torch.ones(4)) == float("inf")
    assert np.isnan(difference([one, one], [one, one * torch.nan]))
    with pytest.raises(ProofError, match="outputs differ by nan"):
        same_outputs("outputs", one, one * torch.nan)
