"""Recurrent networks: cells in a loop, both directions, packed sequences."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from acon_analysis.errors import AconError
from acon_analysis.layers import MetaAconC
from model_facts import warned
from network_oracle import assert_measured, captured, every_function, measured, settled
from networks import Network

KINDS = ("meta_acon", "activation")


def sequences(count: int = 8, steps: int = 5) -> Tensor:
    """Sequences (N, T, 3) of different sizes of their values."""
    return torch.randn(count, steps, 3) * torch.rand(count, 1, 1).mul(3).add(0.2)


class Steps(nn.Module):
    """A cell step by step; one activation for every step, on the state of the step."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.cell, self.act, self.head = nn.LSTMCell(3, 4), act, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state, summed = None, x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            state = self.cell(step, state)
            summed = summed + self.act(state[0])
        out: Tensor = self.head(summed)
        return out


@pytest.mark.parametrize("act", [nn.SiLU(), MetaAconC(4)])
def test_a_cell_in_a_loop_has_a_call_a_step(act: nn.Module, tmp_path: Path) -> None:
    model, x = settled(Steps(act)), [sequences(), sequences(5)]
    run = captured(model, x, tmp_path / "run", kinds=KINDS)
    assert_measured(run, model, x, {"act": 1})
    assert list(run.layers["call"]) == [0, 1, 2, 3, 4]
    every_function(model, x[0])


def test_another_number_of_steps_is_refused(tmp_path: Path) -> None:
    model, x = settled(Steps(nn.SiLU())), [sequences(), sequences(5, 6)]
    with pytest.raises(AconError, match="it ran more often than on the first batch"):
        captured(model, x, tmp_path / "more")
    with pytest.raises(AconError, match=r"ran 5 times .* but 6 times in the first one"):
        captured(model, x[::-1], tmp_path / "fewer")


class OwnCell(nn.Module):
    """A GRU in modules: sigmoid for two gates at once, tanh for the candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.candidate = nn.Linear(7, 8), nn.Linear(7, 4)
        self.sigmoid, self.tanh = nn.Sigmoid(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            z, r = self.sigmoid(self.gates(torch.cat([step, h], 1))).chunk(2, 1)
            h = (1 - z) * h + z * self.tanh(self.candidate(torch.cat([step, r * h], 1)))
        return h


def test_the_gates_of_a_cell_of_modules(tmp_path: Path) -> None:
    model, x = settled(OwnCell()), [sequences(), sequences(3)]
    measured(model, x, tmp_path, {"sigmoid": 1, "tanh": 1}, kinds=("activation",))


class BothDirections(nn.Module):
    """Two layers in both directions, activations between them and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(3, 4, batch_first=True, bidirectional=True)
        self.between, self.second = nn.ReLU(inplace=True), nn.GRU(8, 3, batch_first=True)
        self.end, self.pooled = nn.GELU(), nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(self.first(x)[0])
        y, last = self.second(h)
        return self.pooled(last[-1]) + self.end(y).mean(1)


def test_activations_between_recurrent_layers(tmp_path: Path) -> None:
    model, x = settled(BothDirections()), [sequences(), sequences(3)]
    measured(model, x, tmp_path, {"between": 2, "end": 2, "pooled": 1})


def time_first(act: nn.Module) -> Network:
    """nn.GRU's default order, (T, N, C), inside; samples first outside."""
    return Network(
        lambda n, x: n.act(n.rnn(x.transpose(0, 1))[0]).mean(0), rnn=nn.GRU(3, 4), act=act
    )


def test_as_many_steps_as_samples_are_no_samples(tmp_path: Path) -> None:
    model, x = settled(time_first(nn.GELU())), [sequences(8, 8)]
    with warned("rows of layer 'act' belong to other samples, or are no samples"):
        run = captured(model, x, tmp_path / "run")
    assert_measured(run, model, x, {"act": 2}, rowless=["act"])
    every_function(model, x[0])


@pytest.mark.filterwarnings("ignore")
def test_time_first_inside_is_measured_by_layer_and_channel(tmp_path: Path) -> None:
    model, x = settled(time_first(nn.GELU())), [sequences(8, 5)]
    assert_measured(captured(model, x, tmp_path / "run"), model, x, {"act": 2}, rowless=["act"])


class Packed(nn.Module):
    """Sequences of lengths that their zeros tell, packed, an activation on the packed data."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.act, self.head = nn.LSTM(3, 4, batch_first=True), nn.SELU(), nn.Mish()

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x != 0).any(2).sum(1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, (last, _) = self.rnn(packed)
        out = out._replace(data=self.act(out.data))
        padded, _ = pad_packed_sequence(out, batch_first=True)
        return self.head(last[-1]) + padded.mean(1)


def test_packed_sequences_have_rows_that_are_no_samples(tmp_path: Path) -> None:
    x = sequences(6, 5)
    for row, length in enumerate((5, 3, 4, 1, 2, 5)):
        x[row, length:] = 0
    model = settled(Packed())
    with warned("'act'.*20 rows for a batch of 6", "rows of layer 'act' belong to other samples"):
        run = captured(model, [x], tmp_path / "run")
    assert_measured(run, model, [x], {"head": 1, "act": 1}, rowless=["act"])
    every_function(model, x)
