"""Networks that mix axes: tokens and channels, windows, pairs, capsules, spectra, iterations."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from model_facts import warned
from network_oracle import assert_measured, captured, every_function, settled
from networks import Network

KINDS = ("meta_acon", "activation")


def images(count: int = 6, width: int = 8) -> Tensor:
    return torch.randn(count, 3, 8, width) * torch.rand(count, 1, 1, 1).mul(2).add(0.3)


def vectors(*shape: int) -> list[Tensor]:
    return [torch.randn(n, *shape) * torch.rand(n, *(1 for _ in shape)).add(0.3) for n in (6, 3)]


class Counted(nn.Module):
    """An activation with a scale, and a counter of integers as those of BatchNorm."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("scale", torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) * self.scale


class Feature(nn.Module):
    """A slope for every feature, on the last axis."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.rand(features) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.a * x)


class Mixer(nn.Module):
    """Mixes tokens, then channels."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Sequential(nn.Linear(7, 6), nn.GELU(), nn.Linear(6, 7))
        self.channels = nn.Sequential(nn.Linear(5, 6), Feature(6), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return x + self.channels(x)


def maxout() -> Network:
    return Network(
        lambda n, x: n.best(n.pieces(n.fc(x).unflatten(-1, (3, 2))).amax(-1)),
        fc=nn.Linear(4, 6),
        pieces=nn.ELU(),
        best=nn.Hardtanh(-0.5, 0.5),
    )


class Siamese(nn.Module):
    """Both halves of an image through one encoder, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(3, 4, 3), MetaAconC(4), nn.Conv2d(4, 4, 3), nn.ReLU())
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        one, two = (self.encode(half) for half in x.chunk(2, 3))
        return self.act((one - two).mean((2, 3)))


def capsules() -> Network:
    return Network(
        lambda n, x: n.act(n.conv(x).view(len(x), 2, 4, -1)).square().sum(2).sqrt(),
        conv=nn.Conv2d(3, 8, 3),
        act=nn.ReLU(),
    )


class Shuffles(nn.Module):
    """Pixels from channels, channels in another order and on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.prelu, self.mish = nn.Conv2d(3, 8, 3, 1, 1), nn.PReLU(2), nn.Mish()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        last = self.mish(F.channel_shuffle(h, 2).permute(0, 2, 3, 1))
        return self.prelu(F.pixel_shuffle(h, 2)).mean((2, 3)) + last.mean((1, 2))[:, :2]


class FourierOperator(nn.Module):
    """Some frequencies are mixed, the rest passes a convolution; one activation for all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pointwise = nn.Conv1d(1, 4, 1), nn.Conv1d(4, 4, 1)
        self.weight, self.act = nn.Parameter(torch.randn(4, 4, 3, dtype=torch.cfloat)), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(2):
            low = torch.einsum("bcm,cdm->bdm", torch.fft.rfft(x)[..., :3], self.weight)
            x = self.act(torch.fft.irfft(F.pad(low, (0, 6)), x.shape[-1]) + self.pointwise(x))
        return x


class Integrated(nn.Module):
    """An ordinary differential equation by Heun's method: six calls."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            k = self.f(x)
            x = x + 0.05 * (k + self.f(x + 0.1 * k))
        return x


VIDEO = nn.Sequential(nn.Conv3d(2, 3, 2), nn.SiLU(), MetaAconC(3), Counted())
CASES: dict[str, tuple[nn.Module, Sequence[Tensor], Mapping[str, int]]] = {
    "mixer": (Mixer(), vectors(7, 5), {"tokens.1": 2, "channels.1": 2}),
    "maxout": (maxout(), vectors(9, 4), {"pieces": 3, "best": 2}),
    "siamese": (
        Siamese(), [images(6, 16), images(3, 16)], {"encode.1": 1, "encode.3": 1, "act": 1}
    ),
    "capsules": (capsules(), [images(), images(3)], {"act": 2, ":square#0": 2}),
    "shuffles": (Shuffles(), [images(), images(3)], {"prelu": 1, "mish": 3}),
    "fourier operator": (FourierOperator(), vectors(1, 16), {"act": 1}),
    "integrated": (Integrated(), vectors(4), {"f.1": 1}),
    "video": (VIDEO, vectors(2, 4, 5, 6), {"1": 1, "2": 1, "3": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_channels_are_followed(name: str, tmp_path: Path) -> None:
    model, x, axes = CASES[name]
    run = captured(settled(model), x, tmp_path / "run", kinds=KINDS)
    assert run.manifest["rows"]["status"] == "proved"
    assert_measured(run, model, x, axes)
    every_function(model, x[0])


class Stacked(Siamese):
    """Both halves of all images in one batch of twice the size."""

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.encode(torch.cat(x.chunk(2, 3))).chunk(2)
        return self.act((one - two).mean((2, 3)))


class Windows(nn.Module):
    """Windows of an image as rows, as in Swin transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 3))
        self.last = nn.Softplus()

    def forward(self, x: Tensor) -> Tensor:
        parts = x.unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 3, 5, 1)
        return self.last(self.mlp(parts.reshape(-1, 16, 3)).view(len(x), -1, 3))


@pytest.mark.parametrize(
    ("model", "name", "axes"),
    [
        (Stacked(), "encode.3", {"act": 1, "encode.3": 1}),
        (Windows(), "mlp.2", {"last": 2, "mlp.2": 2}),
    ],
)
def test_more_rows_than_samples(
    model: nn.Module, name: str, axes: Mapping[str, int], tmp_path: Path
) -> None:
    x = [images(6, 16), images(3, 16)] if isinstance(model, Stacked) else [images(), images(3)]
    with warned(f"no values by sample of layer '{name}'", f"rows of layer '{name}' belong"):
        run = captured(settled(model), x, tmp_path / "run", kinds=["activation"])
    assert_measured(run, model, x, axes, rowless=[name])
    every_function(model, x[0])


def test_beta_of_stacked_halves_is_refused(tmp_path: Path) -> None:
    model = settled(Stacked())
    with pytest.raises(AconError, match=r"β cannot be assigned to samples.*'encode\.1'"):
        captured(model, [images(6, 16)], tmp_path / "run")


class Pairs(nn.Module):
    """Similarities of every sample with every other one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.own, self.pairs = nn.Linear(4, 5), nn.GELU(), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        z = self.own(self.fc(x))
        return self.pairs(z @ z.T)


def test_similarities_of_all_samples_depend_on_the_batch(tmp_path: Path) -> None:
    model, x = settled(Pairs()), vectors(4)[:1]
    with warned("values of layer 'pairs' depend on the other samples of the batch"):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"own": 1, "pairs": 1})
    every_function(model, x[0])


class Equilibrium(nn.Module):
    """Iterates until nothing changes: as often as the data ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.given, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        z, change = torch.zeros_like(x), 1.0
        while change > 1e-3:
            new = self.act(0.5 * self.again(z) + self.given(x))
            change, z = float((new - z).abs().max()), new
        return z


def test_iterations_that_depend_on_the_data_are_refused(tmp_path: Path) -> None:
    model, x = settled(Equilibrium()), [torch.randn(6, 4), 1e-3 * torch.randn(3, 4)]
    with pytest.raises(AconError, match=r"layer 'act'.*(branches on its input|more often)"):
        captured(model, x, tmp_path / "run")
    every_function(model, x[0])
