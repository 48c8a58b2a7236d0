"""Parameters of activations in the table of layers, and the yardstick that they give."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acon_analysis as acon


class Mixed(nn.Module):
    """Activations with parameters as modules, functions and methods; one of two slopes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2))
        self.one, self.each = nn.PReLU(init=0.3), nn.PReLU(8)
        self.slope = nn.Parameter(torch.tensor([0.5]))
        self.twice = Twice()

    def forward(self, x: Tensor) -> Tensor:
        x = self.each(self.one(self.first(x)))
        x = F.elu(x, 0.5) + F.elu(x, alpha=2.0) + F.prelu(x, self.slope)
        x = x.clamp(-1, 4) + torch.clamp(x, min=0.0) + F.hardtanh(x) + F.relu(x)
        x = F.leaky_relu(input=x, negative_slope=0.05, inplace=True)
        made: Tensor = self.twice(self.twice(x, 0.1), 0.4)
        return made


class Twice(nn.Module):
    """A function whose parameter is another one in each call."""

    def forward(self, x: Tensor, slope: float) -> Tensor:
        return F.leaky_relu(x, slope)


EXPECTED = {
    ("first.1", 0): "negative_slope=0.2",
    ("one", 0): "weight=0.3",
    ("each", 0): "",
    (":elu#0", 0): "alpha=0.5",
    (":elu#1", 0): "alpha=2.0",
    (":prelu#0", 0): "weight=0.5",
    (":clamp#0", 0): "min=-1, max=4",
    (":clamp#1", 0): "min=0.0, max=inf",
    (":hardtanh#0", 0): "min_val=-1.0, max_val=1.0",
    (":relu#0", 0): "",
    (":leaky_relu#0", 0): "negative_slope=0.05",
    ("twice:leaky_relu#0", 0): "negative_slope=0.1",
    ("twice:leaky_relu#0", 1): "negative_slope=0.4",
}


@pytest.fixture
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(40, 6, generator=generator) for _ in range(3)]


def test_a_run_holds_the_parameters_of_every_call(tmp_path: Path, batches: list[Tensor]) -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    run = acon.capture(model, batches, out=tmp_path / "run")
    found = run.layers.set_index(["layer", "call"])["parameters"]
    assert found.to_dict() == EXPECTED
    layers = acon.find_layers(model, example=batches[0])
    assert {layer.name: layer.parameters for layer in layers} == {
        name: parameters for (name, call), parameters in EXPECTED.items() if call == 0
    }


class Tensors(nn.Module):
    """Parameters that are tensors: one that is a weight, one of each sample under vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.25]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.prelu(x, self.slope)
        made: Tensor = torch.vmap(lambda row, low: row.clamp(min=low))(x, x.mean(1))
        return made


def test_reading_parameters_runs_nothing_that_counts(batches: list[Tensor]) -> None:
    model = Tensors().eval()
    with acon.record(model) as recording:
        model(batches[0])
    assert ":prelu#0" in {layer.name for layer in recording.layers}
    operators = set(acon.nonlinearities(model, batches[0])["operator"])
    assert not [name for name in operators if "scalar" in name]
    assert "prelu" in " ".join(operators)


def test_the_summary_compares_with_the_activations_own_value(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.LeakyReLU(0.2)).eval()
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(500, 3, generator=generator) for _ in range(4)]
    run = acon.capture(model, data, out=tmp_path / "run")
    share = (1.2 / 2) ** 2 / ((1 + 0.2**2) / 2 - 0.8**2 / (2 * math.pi))
    assert run.linearity()["L"].item() == pytest.approx(share, abs=0.02)
    text = str(run.summary())
    assert f"A Leaky ReLU (slope 0.2) on Gaussian inputs is at {100 * share:.0f} %" in text
    facts = run.plot("reached_slopes")
    assert "unknown" not in facts.caption
    page = run.report(tmp_path / "report.html").read_text("utf-8")
    assert "<dd>LeakyReLU (negative_slope=0.2), elementwise</dd>" in page
    assert f"<dt>L on Gaussian inputs</dt><dd>{share:.3f}, Leaky ReLU (slope 0.2)</dd>" in page
    x = np.concatenate([batch.numpy() for batch in data]).astype(np.float64)
    assert run.linearity(by="channel", columns="all")["slope"].to_numpy() == pytest.approx(
        [np.polyfit(c, np.where(c > 0, c, 0.2 * c), 1)[0] for c in x.T], abs=1e-5
    )
