"""Blocks of padded samples, and of lists of tensors."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import acon_analysis as acon
from acon_hooks.errors import BlockWarning
from networks import Network

pytestmark = pytest.mark.filterwarnings("ignore:the activations inside say little")

NUMBERS = ["nlc", "nlc_error", "r2", "r2_without_residual", "elementwise_L", "nlc_change"]


def ids(count: int, length: int, width: int) -> list[dict[str, Tensor]]:
    """Return batches of token ids of one length, padded to a width with another token."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randint(1, 50, (count, length), generator=generator)
    padded = nn.functional.pad(drawn, (0, width - length))
    mask = (torch.arange(width) < length).long().expand(count, width)
    return [
        {"input_ids": one, "attention_mask": other}
        for one, other in zip(torch.split(padded, 16), torch.split(mask, 16), strict=True)
    ]


def test_padded_samples_are_as_unpadded_ones() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, pad_token_id=0,
    )  # fmt: skip
    bert: nn.Module = BertModel(config).double()
    blocks = ["encoder.layer.0", "encoder.layer.1.attention", "encoder.layer.1.intermediate"]
    names = [*blocks, "whole network"]
    plain, padded = (
        acon.block_linearity(bert.eval(), ids(64, 6, width), names, mask="attention_mask")
        for width in (6, 10)
    )
    pd.testing.assert_frame_equal(padded[NUMBERS], plain[NUMBERS], rtol=1e-6, atol=1e-6)
    assert plain["n"].tolist() == padded["n"].tolist()
    assert plain["r2"].notna().sum() >= 3
    without = acon.block_linearity(bert.eval(), ids(64, 6, 10), names)
    assert (without["n"] > padded["n"]).any()


class Token(nn.Module):
    """A layer on each token, which a mask does not reach, and a mean over those that count."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(8, 8, bias=False), nn.ReLU()
        nn.init.orthogonal_(self.linear.weight)
        self.block = nn.Sequential(self.linear, self.act)
        self.mix = Mix()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.mix(self.block(x), mask)
        return out


class Mix(nn.Module):
    """Each token plus the mean of all that hold data: linear."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        kept = torch.where(mask[..., None], x, 0)
        return x + kept.sum(1, keepdim=True) / mask.sum(1)[:, None, None]


def test_samples_of_several_lengths_with_rubbish_at_their_ends() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(2, 9, (640,))
    mask = torch.arange(8) < lengths[:, None]
    x = torch.where(mask[..., None], torch.randn(640, 8, 8), 1e3 * torch.rand(640, 8, 8))
    data = [
        {"x": a, "mask": b} for a, b in zip(torch.split(x, 32), torch.split(mask, 32), strict=True)
    ]
    table = acon.block_linearity(Token().eval(), data, ["block", "mix"], mask="mask")
    block, mix = (row for _, row in table.iterrows())
    assert block["nlc"] == pytest.approx(1.2112, abs=4 * block["nlc_error"])
    assert block["r2"] == pytest.approx(0.7335, abs=0.02)
    assert block["n"] == mix["n"] == int(lengths.sum())
    assert block["nlc"] + block["nlc_change"] == pytest.approx(1, abs=0.02)
    assert mix["nlc"] == pytest.approx(1, abs=1e-5)
    assert mix["vectors"] == "mixes positions"


def joins(act: nn.Module) -> Network:
    """Takes a list of maps, as the layers of a DenseNet do."""
    return Network(
        lambda n, parts: n.act(n.conv(torch.cat(parts, 1))),
        conv=nn.Conv2d(5, 4, 1, bias=False),
        act=act,
    )


class Lists(nn.Module):
    """Blocks of lists: one of maps of one size, one of two sizes."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.joins, self.sizes = joins(act), Sizes()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.sizes([self.joins([x[:, :2], x[:, 2:]]), x[:, :, ::2]])
        return out


class Sizes(nn.Module):
    def forward(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.mean((2, 3)) for part in parts], 1)


def maps() -> list[Tensor]:
    x = torch.randn(320, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    return list(torch.split(x, 32))


@pytest.mark.parametrize(("act", "nlc"), [(nn.Identity(), 1.0), (nn.ReLU(), 1.2112)])
def test_a_list_of_tensors_is_one_input(act: nn.Module, nlc: float) -> None:
    torch.manual_seed(0)
    row = acon.block_linearity(Lists(act).eval(), maps(), ["joins"]).iloc[0]
    assert row["nlc"] == pytest.approx(nlc, abs=1e-5 if nlc == 1 else 4 * row["nlc_error"])
    assert (row["vectors"], row["dimension"], row["n"]) == ("positions", 5, 320 * 16)
    assert row["why"] == ""


def test_a_block_that_is_left_out_has_a_row_that_says_why() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(5, 5, 1)

        def forward(self, x: Any) -> Tensor:
            if isinstance(x, Tensor):
                return torch.relu(self.conv(x))
            return torch.cat([self.conv(one).mean(3) for one in x], 2)

    torch.manual_seed(0)
    two = Network(
        lambda n, x: n.blocks[1]([n.blocks[0](x), x[:, :, :2, :3]]),
        blocks=nn.ModuleList([Inner(), Inner()]),
    )
    with pytest.warns(BlockWarning, match=r"left out: 'blocks.1': no argument is a tensor"):
        table = acon.block_linearity(two.eval(), maps())
    assert table["block"].tolist() == ["blocks.0", "blocks.1", "whole network"]
    left = table.iloc[1]
    assert "a list of some that are alike on all axes but one" in left["why"]
    assert np.isnan(left["nlc"])
    assert left["n"] == 0
