"""Networks that hear: gated convolutions, spectra, vocoders, complex numbers."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from network_oracle import captured, every_function, measured, settled
from networks import Network

KINDS = ("meta_acon", "activation")


def signals(channels: int = 1, length: int = 48) -> list[Tensor]:
    """Three batches of signals of different loudness."""
    return [
        torch.randn(n, channels, length) * torch.rand(n, 1, 1).add(0.2) * scale
        for n, scale in ((5, 1.0), (4, 2.0), (3, 0.5))
    ]


class WaveBlock(nn.Module):
    """tanh(filter)·sigmoid(gate), one convolution for both, with residual and skip."""

    def __init__(self, width: int, dilation: int, act: nn.Module) -> None:
        super().__init__()
        self.both = nn.Conv1d(width, 2 * width, 2, dilation=dilation, padding=dilation)
        self.out, self.tanh, self.gate, self.act = (
            nn.Conv1d(width, width, 1),
            nn.Tanh(),
            nn.Sigmoid(),
            act,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.both(x)[..., : x.shape[-1]].chunk(2, 1)
        z = self.out(self.tanh(a) * self.gate(b))
        return x + z, self.act(z)


class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 6, 1))
        self.blocks = nn.ModuleList(WaveBlock(6, 2**i, nn.ELU()) for i in range(2))
        self.head = nn.Sequential(nn.LeakyReLU(0.3), nn.Conv1d(6, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.first(x), []
        for block in self.blocks:
            x, skip = block(x)
            skips.append(skip)
        out: Tensor = self.head(torch.stack(skips).sum(0)).mean(-1)
        return out


def test_gated_convolutions(tmp_path: Path) -> None:
    model, x = settled(WaveNet()), signals()
    names = ("tanh", "gate", "act")
    axes = {f"blocks.{i}.{name}": 1 for i in range(2) for name in names} | {"head.0": 1}
    measured(model, x, tmp_path, axes, kinds=("activation",))


class Spectral(nn.Module):
    """A spectrogram, a logarithm, convolutions over time and frequency, tokens of time."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), MetaAconC(4))
        self.tokens = nn.Sequential(nn.Linear(36, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x[:, 0], 16, 8, window=self.window, return_complex=True)
        maps = self.conv(spectrum.abs().add(1e-3).log().unsqueeze(1))
        out: Tensor = self.tokens(maps.flatten(1, 2).transpose(1, 2)).mean(1)
        return out


def test_a_spectrogram_before_the_network(tmp_path: Path) -> None:
    model, x = settled(Spectral()), signals()
    measured(model, x, tmp_path, {"conv.2": 1, "tokens.1": 2}, kinds=KINDS)


class Snake(nn.Module):
    """x + sin²(αx)/α, with α of every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.rand(1, channels, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha * x).sin().square() / self.alpha


class Vocoder(nn.Module):
    """Upsampling by transposed convolutions with Snake, residual units with dilation."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.pre = norm(nn.Conv1d(3, 8, 5, padding=2))
        self.ups = nn.ModuleList(
            nn.Sequential(Snake(c), norm(nn.ConvTranspose1d(c, c // 2, 4, 2, 1))) for c in (8, 4)
        )
        self.units = nn.ModuleList(
            nn.Sequential(
                Snake(c), nn.Conv1d(c, c, 3, dilation=3, padding=3), Snake(c), nn.Conv1d(c, c, 1)
            )
            for c in (4, 2)
        )
        self.post = nn.Sequential(Snake(2), nn.Conv1d(2, 1, 7, padding=3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        for up, unit in zip(self.ups, self.units, strict=True):
            x = up(x)
            x = x + unit(x)
        out: Tensor = self.post(x)
        return out


def test_a_vocoder_with_snakes(tmp_path: Path) -> None:
    model, x = settled(Vocoder()), signals(3, 12)
    names = ["ups.0.0", "ups.1.0", "units.0.0", "units.0.2", "units.1.0", "units.1.2"]
    axes = dict.fromkeys([*names, "post.0", "post.2"], 1)
    measured(model, x, tmp_path, axes)


class ModReLU(nn.Module):
    """ReLU of the modulus of complex numbers, the phase kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(-0.3 * torch.rand(1, channels, 1))
        self.relu = nn.ReLU()

    def forward(self, z: Tensor) -> Tensor:
        return self.relu(z.abs() + self.bias) * torch.exp(1j * z.angle())


def complex_net() -> Network:
    """A convolution of complex numbers, by its spectrum; the activation inside is of real ones."""
    return Network(
        lambda n, x: n.head(n.act(n.conv(torch.fft.fft(x, norm="ortho"))).abs().mean(-1)),
        conv=nn.Conv1d(1, 4, 3, dtype=torch.cfloat),
        act=ModReLU(4),
        head=nn.Sequential(nn.Linear(4, 5), nn.SiLU()),
    )


def test_complex_numbers_between_real_activations(tmp_path: Path) -> None:
    model, x = settled(complex_net()), signals()
    measured(model, x, tmp_path, {"act.relu": 1, "head.1": 1})


def complex_input() -> Network:
    """An activation of torch's that is applied to real and imaginary part by itself."""
    return Network(
        lambda n, x: n.act(n.fc(torch.fft.rfft(x[:, 0])[:, :6])).abs(),
        fc=nn.Linear(6, 4, dtype=torch.cfloat),
        act=nn.Tanh(),
    )


def test_an_activation_of_complex_numbers_is_refused_in_a_sentence(tmp_path: Path) -> None:
    model, x = settled(complex_input()), signals()
    with pytest.raises(AconError, match=r"'act' \(its input is torch\.complex64, and only"):
        captured(model, x, tmp_path / "run")
    every_function(model, x[0])
