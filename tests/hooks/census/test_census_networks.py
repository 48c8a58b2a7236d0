"""The census of networks of torchvision, timm and torch itself, judged by value."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from census_judge import judge


class Recurrent(nn.Module):
    """A recurrent layer, a cell that is called step by step, and a readout."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.layer = kind(6, 8, batch_first=True)
        self.cell = nn.GRUCell(8, 8)
        self.readout = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, state = self.layer(x)[0], torch.zeros(len(x), 8)
        for step in steps.unbind(1):
            state = self.cell(step, state)
        return self.readout(state)  # type: ignore[no-any-return]


class Tokens(nn.Module):
    """An encoder of padded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.encoder(self.embedding(tokens), src_key_padding_mask=tokens == 0)
        return hidden.mean(1)  # type: ignore[no-any-return]


def image(size: int, seed: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("library", "name", "size"),
    [
        ("torchvision", "resnet18", 64),
        ("torchvision", "googlenet", 64),
        ("torchvision", "shufflenet_v2_x0_5", 64),
        ("timm", "efficientnet_b0", 64),
        ("timm", "convnext_atto", 64),
        ("timm", "vit_tiny_patch16_224", 224),
        ("timm", "mixer_s32_224", 224),
    ],
)
def test_networks_for_images(library: str, name: str, size: int) -> None:
    torch.manual_seed(0)
    if library == "timm":
        model = timm.create_model(name)
    else:
        settings = {"init_weights": True} if name == "googlenet" else {}
        model = getattr(torchvision.models, name)(weights=None, **settings)
    found = judge(model.eval(), (image(size, 1),), (image(size, 2),))
    assert found["unknown"] == 0
    assert found["linear"] > 0.5 * found["changed"]
    assert found["confirmed"] > 0.3 * found["nonlinear"] > 0


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks(kind: Any) -> None:
    torch.manual_seed(0)
    found = judge(Recurrent(kind).eval(), (torch.randn(2, 5, 6),), (torch.randn(2, 5, 6),))
    assert found["unknown"] == 0
    assert found["confirmed"] >= 5


def test_an_encoder_of_tokens() -> None:
    torch.manual_seed(0)
    first, second = (torch.randint(1, 20, (2, 7)) for _ in range(2))
    first[:, 5:] = 0
    second[:, 6:] = 0
    found = judge(Tokens().eval(), (first,), (second,))
    assert found["unknown"] == 0
    assert found["nonlinear"] > found["confirmed"] > 4
