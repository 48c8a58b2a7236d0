"""`acon blocks`: the table on the screen and in files, and errors in one line."""

from pathlib import Path

import pandas as pd
import pytest

from acon_analysis.columns import BLOCK_COLUMNS, names
from commands import status

NETWORK = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    block = lambda: nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.LeakyReLU())
    return nn.Sequential(block(), block(), nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "network.py").write_text(NETWORK)
    return f"{tmp_path / 'network.py'}:make"


def test_the_table_on_the_screen(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("blocks", model, "--data", "digits", "--limit", "100") == 0
    out, err = capsys.readouterr()
    assert out.split()[:4] == ["block", "nlc", "nlc_error", "r2"]
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["0", "1", "whole"]
    words = " ".join(out.split())
    assert "nlc is 1 for affine maps; the further it is from 1, above or below" in words
    assert "gated products not" in words
    assert "acon: 3 blocks measured with up to" in err


def test_files_hold_every_column(model: str, tmp_path: Path) -> None:
    given = ["blocks", model, "--data", "digits", "--limit", "100", "--blocks", "1", "0"]
    for name in ("table.csv", "table.parquet"):
        assert status(*given, "--out", tmp_path / name) == 0
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert list(table.columns) == names(BLOCK_COLUMNS)
    assert list(table["block"]) == ["0", "1"]
    assert len(table["inside"].iloc[0]) == 1
    written = pd.read_csv(tmp_path / "table.csv")
    assert written["nlc"].to_numpy() == pytest.approx(table["nlc"].to_numpy())


def test_an_unknown_block_is_one_line(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("blocks", model, "--data", "digits", "--blocks", "2.conv") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("acon: the network has no module '2.conv'")
