"""Generators: diffusion blocks, U-Nets, normalising flows."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_analysis.layers import MetaAconC
from model_facts import unchanged
from network_oracle import assert_measured, captured, every_function, measured, settled

KINDS = ("meta_acon", "activation")


def images(count: int = 6, channels: int = 3, side: int = 8) -> Tensor:
    """Images of different contrast."""
    return torch.randn(count, channels, side, side) * torch.rand(count, 1, 1, 1).mul(2).add(0.3)


class Residual(nn.Module):
    """GroupNorm, SiLU, convolution; FiLM by the embedded time; one SiLU for maps and vectors."""

    def __init__(self, before: int, after: int, act: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, before), nn.GroupNorm(2, after)
        self.conv1, self.conv2 = nn.Conv2d(before, after, 3, 1, 1), nn.Conv2d(after, after, 3, 1, 1)
        self.time, self.skip = nn.Linear(8, 2 * after), nn.Conv2d(before, after, 1)
        self.act = act

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.conv1(self.act(self.norm1(x)))
        scale, shift = self.time(self.act(t))[..., None, None].chunk(2, 1)
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.act(h))


class MapAttention(nn.Module):
    """Self-attention over the pixels of a map, with a feed-forward part on tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.attend = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(channels, 5), nn.GELU(), nn.Linear(5, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        return x + self.mlp(tokens).transpose(1, 2).reshape_as(x)


class Diffusion(nn.Module):
    """A U-Net of two levels with skip concatenations and attention; time from the loudness."""

    freqs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.logspace(0, 2, 4))
        self.embed = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))
        self.first, act = nn.Conv2d(3, 4, 3, 1, 1), nn.SiLU()
        self.down = nn.ModuleList([Residual(4, 4, act), Residual(4, 8, act)])
        self.middle = MapAttention(8)
        self.up = nn.ModuleList([Residual(16, 4, act), Residual(8, 4, act)])
        self.last = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(inplace=True), nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        angle = x.std((1, 2, 3))[:, None] * self.freqs
        t = self.embed(torch.cat([angle.sin(), angle.cos()], 1))
        h, skips = self.first(x), []
        for block in self.down:
            h = block(h, t)
            skips.append(h)
            h = F.avg_pool2d(h, 2)
        h = self.middle(h)
        for block in self.up:
            h = F.interpolate(h, scale_factor=2, mode="nearest")
            h = block(torch.cat([h, skips.pop()], 1), t)
        out: Tensor = self.last(h)
        return out


def test_a_diffusion_network(tmp_path: Path) -> None:
    model, x = settled(Diffusion()), [images(), images(3)]
    run = captured(model, x, tmp_path / "run")
    axes = {"embed.1": 1, "down.0.act": 1, "middle.mlp.1": 2, "last.1": 1, ":sin#0": 1}
    assert_measured(run, model, x, axes)
    assert len(run.layers) == 4 - 1 + 12 + 1
    every_function(model, x[0])


class UNet(nn.Module):
    """Transposed convolutions, PReLU shared by all levels, Meta-ACON at the bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.meta = nn.PReLU(), MetaAconC(8)
        self.down = nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.ConvTranspose2d(8, 3, 4, 2, 1)]
        )

    def forward(self, x: Tensor) -> Tensor:
        one = self.act(self.down[0](x))
        two = self.meta(self.down[1](one))
        out: Tensor = self.act(self.up[1](torch.cat([self.act(self.up[0](two)), one], 1)))
        return out


def test_a_u_net_with_one_prelu_for_all(tmp_path: Path) -> None:
    model, x = settled(UNet()), [images(), images(3)]
    measured(model, x, tmp_path, {"act": 1, "meta": 1}, kinds=KINDS)


class ActNorm(nn.Module):
    """Initialises itself on its first batch."""

    initialised: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if not self.initialised:
            with torch.no_grad():
                self.scale.copy_(1 / x.std((0, 2, 3), keepdim=True))
                self.shift.copy_(-x.mean((0, 2, 3), keepdim=True) * self.scale)
                self.initialised.fill_(True)
        return x * self.scale + self.shift


class Coupling(nn.Module):
    """One half moves the other; the scale is a sigmoid."""

    def __init__(self, channels: int, act: nn.Module) -> None:
        super().__init__()
        half = channels // 2
        self.net = nn.Sequential(nn.Conv2d(half, 6, 3, 1, 1), act, nn.Conv2d(6, channels, 1))
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, 1)
        scale, shift = self.net(a).chunk(2, 1)
        scale = self.sigmoid(scale + 2)
        return torch.cat([a, b * scale + shift], 1), scale.log().sum((1, 2, 3))


class Invertible(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[..., None, None])


class Flow(nn.Module):
    """Squeeze, then steps of ActNorm, invertible 1x1 convolution and coupling; (z, log det)."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ActNorm(12) for _ in range(2))
        self.mixes = nn.ModuleList(Invertible(12) for _ in range(2))
        acts = (MetaAconC(6), nn.ReLU())
        self.couplings = nn.ModuleList(Coupling(12, act) for act in acts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, det = F.pixel_unshuffle(x, 2), x.new_zeros(len(x))
        for norm, mix, coupling in zip(self.norms, self.mixes, self.couplings, strict=True):
            x, more = coupling(mix(norm(x)))
            det = det + more
        return x, det


def test_a_normalising_flow(tmp_path: Path) -> None:
    model, x = settled(Flow()), [images(8), images(5)]
    with torch.no_grad():
        model(x[0])
    axes = {"couplings.0.net.1": 1, "couplings.0.sigmoid": 1}
    measured(
        model, x, tmp_path, axes | {"couplings.1.net.1": 1, "couplings.1.sigmoid": 1}, kinds=KINDS
    )


def test_a_flow_that_has_not_run_yet_initialises_itself_on_its_first_batch_only(
    tmp_path: Path,
) -> None:
    import acon_analysis as acon

    model, x = settled(Flow()), [images(8), images(5)]
    with unchanged(model):
        acon.find_layers(model, KINDS)
    run = captured(
        model, x, tmp_path / "run", kinds=("activation",),
        but=("memory", "scale", "shift", "initialised"),
    )  # fmt: skip
    assert run.manifest["rows"]["status"] == "skipped"
    assert "changed" in run.manifest["rows"]["text"]


def test_parameters_stay_where_they_are_in_memory(tmp_path: Path) -> None:
    captured(settled(UNet()), [images()], tmp_path / "run", but=())
