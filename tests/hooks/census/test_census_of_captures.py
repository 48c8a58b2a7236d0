"""The census of a capture: stored with the run, of its first batch, without effect on numbers."""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import acon_analysis as acon
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers import MetaAconC
from acon_analysis.runs.verify import verify_run
from acon_hooks.census.census import Census


class Counting(nn.Module):
    """Counts its calls, and adds the count."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        made: Tensor = self.act(x).softmax(-1) + self.count
        return made


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*.parquet") if path.stem != "nonlinearities"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(8, 1, 8, 8, generator=generator) for _ in range(3)]


def test_a_run_holds_the_census_of_its_first_batch(tmp_path: Path, images: list[Tensor]) -> None:
    model = acon.build_model("digits_metaacon")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run = acon.capture(model, images, tmp_path / "run", progress=False)
    expected = acon.nonlinearities(model, images[0], kinds=["meta_acon", "acon"])
    first, second = (
        frame[frame["class"] != "linear"].reset_index(drop=True)
        for frame in (run.nonlinearities, expected)
    )
    pd.testing.assert_frame_equal(first, second)
    assert set(run.nonlinearities["layer"]) - {""} == set(run.layers["layer"])
    assert verify_run(run.path).sound
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_census_changes_no_number(
    tmp_path: Path, images: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    acon.capture("digits_metaacon", images, tmp_path / "with", progress=False)

    def nothing(self: Census, *args: Any) -> None:
        pass

    monkeypatch.setattr(Census, "of", nothing)
    acon.capture("digits_metaacon", images, tmp_path / "without", progress=False)
    assert contents(tmp_path / "with") == contents(tmp_path / "without")


def test_a_network_that_changes_itself_is_not_run_again(tmp_path: Path) -> None:
    model = Counting()
    data = [torch.randn(4, 3), torch.randn(4, 3)]
    run = acon.capture(model, data, tmp_path / "run", kinds=["activation"], progress=False)
    assert model.get_buffer("count") == 2
    (reason,) = run.nonlinearities["reason"]
    assert reason.startswith("census incomplete: the first forward pass changed tensor 'count'")


def test_a_run_of_an_earlier_version_says_that_it_has_no_census(
    tmp_path: Path, images: list[Tensor]
) -> None:
    run = acon.capture("digits_metaacon", images, tmp_path / "run", progress=False)
    shutil.copytree(run.path, tmp_path / "old")
    (tmp_path / "old" / "nonlinearities.parquet").unlink()
    old = acon.open_run(tmp_path / "old")
    assert not old.has_census
    with pytest.raises(AconError, match="holds no census"):
        _ = old.nonlinearities


class Headed(nn.Module):
    """A Meta-ACON network with activations of other kinds in its head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 3), MetaAconC(16))
        self.head = nn.Sequential(nn.Linear(16, 8), nn.GELU())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.relu(self.head(self.body(x).mean((2, 3)))).softmax(-1)
        return made


def test_what_the_default_kinds_leave_out_is_said_and_can_be_added(
    tmp_path: Path, images: list[Tensor]
) -> None:
    model = Headed()
    run = acon.capture(model, images, tmp_path / "default", progress=False)
    said = str(run.findings(draws=0)[-1])
    assert "not measured: 1 softmax; left out, of kind activation: 1 gelu, 1 relu" in said
    found = re.search(r"--kinds ([\w,]+)", said)
    assert found is not None
    kinds = found[1].split(",")
    both = acon.capture(model, images, tmp_path / "both", kinds=kinds, progress=False)
    assert both.layers["layer"].tolist() == ["body.1", "head.1", ":relu#0"]
    assert "left out" not in str(both.findings(draws=0)[-1])


def test_a_network_without_layers_says_what_it_calls(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1), nn.LayerNorm(4)).eval()
    with pytest.raises(UsageError, match=r"calls .*softmax 1 time.* layer_norm 1 time"):
        acon.capture(model, [torch.randn(8, 4)], tmp_path / "run", progress=False)
