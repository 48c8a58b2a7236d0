"""A network and data of one's own, from the command line: names, the same data twice, losses."""

import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

import acon_analysis as acon
from acon_figures.report.rendering import render
from commands import status

OWN = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 1))

def ready():
    return make().eval()

class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(10, 10), nn.GELU()) for _ in range(2))
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x.square().mean()

def batches(seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(8):
        x = torch.randn(16, 10, generator=generator)
        yield x, (x[:, 0] > 0).long()

def others():
    return batches(2)

def partly():
    yield from list(batches())[:2]
    yield from list(batches(2))[:6]
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def acon_(*arguments: object) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return status(*arguments)


def test_data_keep_the_name_that_they_were_given(own: str, tmp_path: Path) -> None:
    assert acon_("capture", f"{own}:make", "--data", f"{own}:batches", "--out", tmp_path / "r") == 0
    run = acon.open_run(tmp_path / "r")
    assert run.data_name == "own.py:batches"
    assert run.data_words == "128 samples of own.py:batches"
    page = render(run)
    assert "own.py:make on own.py:batches" in page
    assert str(tmp_path) not in page
    assert "1 (ReLU)" in page
    assert "3 (Tanh)" in page
    assert acon_("capture", f"{own}:make", "--data", f"{own}:batches", "--out", tmp_path / "r") == 0


def test_objects_are_named_by_class_and_length(own: str, tmp_path: Path) -> None:
    model = acon.build_model(f"{own}:make")
    data = torch.utils.data.TensorDataset(torch.randn(24, 10))
    for number, (given, name) in enumerate(
        [
            (data, "TensorDataset"),
            (torch.utils.data.DataLoader(data), "DataLoader of TensorDataset"),
        ]
    ):
        run = acon.capture(model, given, tmp_path / str(number), progress=False)
        assert run.data_name == name
        assert f"{name}, 24 samples" in render(run)


@pytest.mark.parametrize(("data", "count"), [("batches", 128), ("partly", 32), ("others", 0)])
def test_samples_of_the_fit_are_noticed(
    own: str, data: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = f"{own}:make"
    acon_("capture", model, "--data", f"{own}:batches", "--out", tmp_path / "run")
    for command in (
        ("linearize", model, "--run", tmp_path / "run", "--budget", "50%"),
        ("replace", model, "--fit", f"{own}:batches", "--with", "two-piece"),
    ):
        capsys.readouterr()
        assert acon_(*command, "--data", f"{own}:{data}", "--out", tmp_path / command[0]) == 0
        err = capsys.readouterr().err
        assert (f"{count} of 128 samples measured on are among those of the fit" in err) == (
            count > 0
        )
        assert ("among those of the fit" in err) == (count > 0)


def test_blocks_of_a_network_that_returns_a_loss(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "blocks.csv"
    assert acon_("blocks", f"{own}:Loss", "--data", f"{own}:batches", "--out", table) == 0
    assert "it returns one number for all samples of a batch, such as their loss" in (
        capsys.readouterr().err
    )
    found = pd.read_csv(table).set_index("block")
    assert found.loc[["blocks.0", "blocks.1"], "nlc"].gt(1).all()
    assert found.loc[["whole network"], "nlc"].isna().all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("make", ["returns the network in training mode"]),
        ("Loss", ["returns the network in training mode", "is a class: unless it loads weights"]),
        ("ready", []),
    ],
)
def test_doubts_about_a_network_of_ones_own_are_said(own: str, name: str, words: list[str]) -> None:
    said: list[str] = []
    model = acon.build_model(f"{own}:{name}", announce=said.append)
    assert not model.training
    assert len(said) == len(words)
    assert all(part in text for part, text in zip(words, said, strict=True))


def test_long_summaries_show_their_ends(
    own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acon.capture("digits_relu", "digits", tmp_path / "run", limit=4, progress=False)
    whole = acon.open_run(tmp_path / "run").linearity(by="channel")["L"]
    acon_("summary", tmp_path / "run", "--by", "channel")
    out = capsys.readouterr().out
    assert f"(10 rows of least and 10 of greatest L, of {len(whole):,}: all with --all" in out
    rows = out.splitlines()[1:21]
    assert f"{whole.min():.3f}" in rows[0]
    assert len([row for row in rows if row.strip()]) == 20
    acon_("summary", tmp_path / "run", "--by", "channel", "--all")
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(whole)
    acon_("summary", tmp_path / "run", "--by", "channel", "--format", "csv")
    assert capsys.readouterr().out.splitlines()[0].startswith("layer,call,channel")
    head = (torch.nn.Flatten(), torch.nn.Linear(144, 5), torch.nn.ReLU())  # one value a sample
    both = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), *head).eval()
    acon.capture(both, [torch.randn(30, 1, 8, 8)], tmp_path / "both", progress=False)
    capsys.readouterr()
    acon_("summary", tmp_path / "both", "--by", "sample")
    out = " ".join(capsys.readouterr().out.split())
    assert "of 60, 30 of which have no L: all" in out
    assert "neither L of the layer (one line for all samples) nor its L_own" in out
    acon.capture(f"{own}:make", f"{own}:batches", tmp_path / "flat", progress=False)
    capsys.readouterr()
    acon_("summary", tmp_path / "flat", "--by", "sample")
    out = capsys.readouterr().out
    assert "L of a sample needs several positions a sample" in out
    assert "nor its L_own" not in out
