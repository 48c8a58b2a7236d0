"""Where the channels of activations lie, in networks that move axes about."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from acon_hooks import Tap
from networks import Network


def net(run: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> Network:
    return Network(run, **({"act": nn.GELU()} | parts))


class Dense(nn.Module):
    """A linear layer of somebody else: x·W + b, as in GPT-2."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(size, out)), nn.Parameter(torch.rand(out))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], -1)


class OwnNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(size, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True) * self.scale


NETS: dict[str, tuple[Callable[[], Network], tuple[int, ...], list[tuple[int, int]]]] = {
    "recurrent": (
        lambda: net(lambda s, x: s.act(s.rnn(x)[0]), rnn=nn.LSTM(4, 6, batch_first=True)),
        (5, 10, 4), [(2, 6)],
    ),
    "gated recurrent": (
        lambda: net(lambda s, x: s.act(s.rnn(x)[0]), rnn=nn.GRU(4, 6, batch_first=True)),
        (5, 6, 4), [(2, 6)],
    ),
    "maps, then tokens": (
        lambda: net(
            lambda s, x: s.act(s.fc(s.act(s.conv(x)).flatten(2).transpose(1, 2))),
            conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 12),
        ),
        (2, 3, 7, 7), [(1, 8), (2, 12)],
    ),
    "maps, then vectors": (
        lambda: net(
            lambda s, x: s.act(s.fc(s.act(s.conv(x)).mean((2, 3)))),
            conv=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 5),
        ),
        (2, 3, 7, 7), [(1, 8), (1, 5)],
    ),
    "as many patches as channels": (
        lambda: net(lambda s, x: s.act(s.conv(x).flatten(2).transpose(1, 2)),
                    conv=nn.Conv2d(3, 16, 2, 2)),
        (2, 3, 8, 8), [(2, 16)],
    ),
    "channels last, copied": (
        lambda: net(lambda s, x: s.act(s.conv(x).permute(0, 2, 3, 1).contiguous() + 1),
                    conv=nn.Conv2d(3, 5, 1)),
        (2, 3, 5, 5), [(3, 5)],
    ),
    "channels last, by a formula": (
        lambda: net(lambda s, x: s.act(torch.einsum("nchw->nhwc", s.conv(x))),
                    conv=nn.Conv2d(3, 5, 1)),
        (2, 3, 6, 6), [(3, 5)],
    ),
    "own linear layer": (
        lambda: net(lambda s, x: s.act(s.fc(x)), fc=Dense(4, 7)), (2, 7, 4), [(2, 7)],
    ),
    "own normalisation": (
        lambda: net(lambda s, x: s.act(s.norm(s.conv(x))), conv=nn.Conv2d(3, 6, 1),
                    norm=OwnNorm(6)),
        (2, 3, 6, 6), [(1, 6)],
    ),
    "joined": (
        lambda: net(lambda s, x: s.act(torch.cat([s.a(x), s.b(x)], 1)),
                    a=nn.Conv1d(3, 4, 1), b=nn.Conv1d(3, 5, 1)),
        (2, 3, 9), [(1, 9)],
    ),
    "halved": (
        lambda: net(lambda s, x: s.act(s.fc(x).chunk(2, dim=-1)[0]), fc=nn.Linear(3, 8)),
        (2, 4, 3), [(2, 4)],
    ),
    "attention": (
        lambda: net(lambda s, x: s.act(s.att(x, x, x)[0]),
                    att=nn.MultiheadAttention(8, 2, batch_first=True)),
        (2, 8, 8), [(2, 8)],
    ),
    "shortcut": (
        lambda: net(lambda s, x: s.act(x + s.fc(x)), fc=nn.Linear(6, 6)), (2, 6, 6), [(2, 6)],
    ),
}  # fmt: skip


def found(model: nn.Module, *size: int) -> list[tuple[int, int]]:
    with torch.no_grad(), Tap(model.eval(), kinds=("activation",)) as tap:
        model(torch.randn(size))
        return [(layer.axis, layer.channels or 0) for layer in tap.calls.values()]


@pytest.mark.parametrize("name", NETS)
def test_channels_are_followed_through_the_forward_pass(name: str) -> None:
    make, size, expected = NETS[name]
    assert found(make(), *size) == expected


def test_parameters_of_the_activation_decide_first() -> None:
    assert found(net(lambda s, x: s.act(x), act=nn.PReLU(5)), 2, 5, 5) == [(1, 5)]


@pytest.mark.parametrize(
    ("before", "size", "expected"),
    [
        (nn.Conv1d(5, 6, 1), (2, 5, 6), (1, 6)), (nn.Linear(6, 5), (2, 5, 6), (2, 5)),
        (nn.Linear(5, 7), (2, 3, 4, 5), (3, 7)), (nn.LayerNorm(5), (2, 3, 5), (2, 5)),
        (nn.Identity(), (2, 3, 5), (1, 3)), (nn.Linear(5, 7), (2, 5), (1, 7)),
        (nn.Conv2d(4, 4, 1), (2, 4, 4, 4), (1, 4)), (nn.Linear(4, 4), (2, 4, 4, 4), (3, 4)),
    ],
    ids=str,
)  # fmt: skip
def test_channels_lie_where_the_layer_before_puts_them(
    before: nn.Module, size: tuple[int, ...], expected: tuple[int, int]
) -> None:
    assert found(nn.Sequential(before, nn.GELU()), *size) == [expected]


def test_without_evidence_the_layer_says_that_the_axis_is_assumed() -> None:
    model = net(lambda s, x: s.act(torch.einsum("nct,cd->ntd", x, torch.ones(3, 4)))).eval()
    with torch.no_grad(), Tap(model, kinds=("activation",)) as tap:
        model(torch.randn(2, 3, 5))
    (layer,) = tap.calls.values()
    assert (layer.axis, layer.reader) == (1, "channels assumed on axis 1")
