"""The table of activation layers: proofs, failures, and functions."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.plotdata.overview import layer_overview
from acon_hooks.readings.proving import proved_layers


class Functional(nn.Module):
    """Activations as functions, twice ReLU, and perhaps one as a module."""

    def __init__(self, *, module: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.act: nn.Module = nn.SiLU() if module else nn.Identity()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(F.relu(self.act(self.conv(x))))


def test_every_layer_of_a_known_network_is_proved() -> None:
    table = proved_layers(acon.build_model("digits_metaacon"), data="digits")
    own = table[table["kind"] == "meta_acon"]
    assert own["status"].tolist() == ["proved"] * 6
    assert (own["proof_error"] < 3e-6).all()
    assert set(table["kind"]) == {"meta_acon", "activation"}


def test_functions_are_layers() -> None:
    table = proved_layers(Functional(module=True), input_shape=(1, 8, 8))
    assert table[["layer", "class_name"]].to_numpy().tolist() == [
        ["act", "SiLU"], [":relu#0", "relu"], [":relu#1", "relu"],
    ]  # fmt: skip
    assert (table[["kind", "channels", "status"]] == ["activation", 2, ""]).all(axis=None)


def test_a_network_with_functions_only() -> None:
    table = proved_layers(Functional(module=False), input_shape=(1, 8, 8))
    assert table["layer"].tolist() == [":relu#0", ":relu#1"]


def test_a_network_without_any_activation() -> None:
    with pytest.raises(UsageError, match="has no layer of kind"):
        proved_layers(nn.Conv2d(1, 2, 3).eval(), input_shape=(1, 8, 8))


def test_no_image_size() -> None:
    with pytest.raises(UsageError, match="give --data, or --input-shape C,H,W"):
        proved_layers(Functional(module=True))


def test_a_reading_that_fails_is_a_row_with_its_reason() -> None:
    class Broken(nn.Module):
        """Owns p1 and p2, but computes something else."""

        def __init__(self) -> None:
            super().__init__()
            self.p1 = nn.Parameter(torch.ones(1, 1, 1, 1))
            self.p2 = nn.Parameter(torch.zeros(1, 1, 1, 1))
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return x * self.p1 + torch.sin(3 * x) + self.p2

    table = proved_layers(nn.Sequential(Broken()).eval(), input_shape=(1, 8, 8))
    assert table["status"].tolist() == ["failed"]
    assert table["reason"].str.len().gt(20).all()


class Widths(nn.Module):
    """One ReLU after convolutions of 3 and of 5 channels and a linear layer of 7 features."""

    input_shape = (2, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 5, 3)
        self.head, self.relu = nn.Linear(5, 7), nn.ReLU()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.wide(self.relu(self.narrow(x))))
        out: Tensor = self.relu(self.head(x.mean((2, 3))))
        return out


def test_an_activation_used_at_several_widths_has_those_of_each_call(tmp_path: Path) -> None:
    table = proved_layers(Widths(), kinds=("activation",))
    assert table[["layer", "call", "channels"]].to_numpy().tolist() == [
        ["relu", 0, 3], ["relu", 1, 5], ["relu", 2, 7],
    ]  # fmt: skip
    run = acon.capture(
        Widths(), [torch.randn(6, 2, 8, 8)], tmp_path, kinds=("activation",), progress=False
    )
    assert run.layers["channels"].tolist() == [3, 5, 7]
    assert run.linearity()["channels"].tolist() == [3, 5, 7]
    assert layer_overview(run)["channels"].tolist() == [3, 5, 7]
