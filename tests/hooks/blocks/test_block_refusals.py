"""What has no numbers: blocks without a derivative, constant ones, rows that are no samples."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_hooks.errors import BlockWarning, HookError
from networks import Network

pytestmark = pytest.mark.filterwarnings("ignore:the activations inside say little")


class Square(torch.autograd.Function):
    """A function with a backward of its own, and no forward derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        slope: Tensor = 2 * ctx.saved_tensors[0] * grads[0]
        return slope


class StraightThrough(torch.autograd.Function):
    """Rounds, and says that it does not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def custom(function: Any) -> pd.Series:
    torch.manual_seed(0)
    data = list(torch.split(torch.randn(640, 6), 64))
    block = Network(lambda n, x: function(n.linear(x)), linear=nn.Linear(6, 6))
    return acon.block_linearity(nn.Sequential(block, nn.Tanh()).eval(), data, ["0"]).iloc[0]


def test_custom_functions_are_differentiated_backwards_twice() -> None:
    found, plain = custom(Square.apply), custom(torch.square)
    assert found["nlc"] == pytest.approx(plain["nlc"], rel=1e-5)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (StraightThrough.apply, "differs from a difference quotient"),
        (lambda x: torch.from_numpy(np.tanh(x.detach().numpy())), "differs from a difference"),
        (lambda x: x.detach() * x, "differs from a difference quotient"),
        (lambda x: torch.tensor(np.square(x.numpy())), "differs from|cannot be differentiated"),
    ],
)
def test_what_has_no_derivative_has_no_coefficient(function: Any, words: str) -> None:
    with pytest.warns(BlockWarning, match=f"block '0' has no nlc: .*({words})"):
        row = custom(function)
    assert np.isnan(row["nlc"])
    assert row["r2"] > -1  # the rest of the row is there


class Counts(nn.Module):
    """Adds how often it has run."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.runs = nn.Linear(6, 6), 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        out: Tensor = self.linear(x) * self.runs
        return out


def test_a_block_that_keeps_something_from_call_to_call_has_no_coefficient() -> None:
    data = list(torch.split(torch.randn(64, 6), 16))
    with pytest.warns(BlockWarning, match="run by itself it returns other values"):
        acon.block_linearity(nn.Sequential(Counts(), nn.Tanh()).eval(), data, ["0"])


@pytest.mark.parametrize("shift", [-1e3, float("nan")])
def test_a_dead_block_has_no_numbers(shift: float) -> None:
    with pytest.warns(BlockWarning, match="block '0' has no nlc: its output does not vary, or"):
        row = custom(lambda x: torch.relu(x + shift))
    assert row[["nlc", "nlc_error", "r2", "r2_low"]].isna().all()


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["blok"], UsageError, "no module 'blok'; did you mean 'block'"),
        (["items"], UsageError, "only holds others and is never called: give those .items.0"),
        (["block", "unused"], HookError, "'unused': it did not run"),
        ([], UsageError, "no blocks given"),
    ],
)
def test_errors_name_what_is_wrong(names: list[str], error: type[Exception], words: str) -> None:
    network = Network(
        lambda n, x: n.block(x.transpose(0, 1)).transpose(0, 1)[:, 0], block=nn.Linear(5, 5)
    )
    network.items, network.unused = nn.ModuleList([nn.Linear(2, 2)]), nn.Linear(2, 2)
    with pytest.raises(error, match=words):
        acon.block_linearity(network.eval(), list(torch.split(torch.randn(40, 3, 5), 8)), names)


@pytest.mark.parametrize("tokens", [3, 8, 20])
def test_a_block_whose_rows_are_no_samples_is_refused(tokens: int) -> None:
    network = Network(
        lambda n, x: n.block(x.transpose(0, 1)).mean(0), block=nn.Sequential(nn.Linear(5, 5))
    ).eval()
    data = list(torch.split(torch.randn(64, tokens, 5), 8))
    rows = rf"its input \({tokens}, \d, 5\) has {tokens} rows for \d samples"
    with pytest.raises(HookError, match=f"blocks that cannot be measured: 'block': {rows}"):
        acon.block_linearity(network, data, ["block"])


def test_data_that_can_be_read_once_are_refused() -> None:
    with pytest.raises(UsageError, match="the data are read twice, and a generator"):
        acon.block_linearity(nn.Sequential(nn.Tanh()).eval(), (x for x in [torch.randn(4, 5)]))


def test_few_samples_give_few_numbers() -> None:
    with pytest.warns(BlockWarning, match="it has 2 batches of samples of one size"):
        acon.block_linearity(nn.Sequential(nn.Linear(5, 5), nn.Tanh()).eval(), [torch.randn(5, 5)])
