"""Files that other programs open."""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import acon_analysis as acon
from acon_analysis.cli import main
from acon_analysis.files import csv_text


@pytest.mark.parametrize("dtype", ["str", object, "category"])
def test_csv_holds_no_formula_and_every_number(dtype: str) -> None:
    names = pd.Series(["=HYPERLINK(1)", "+1", "-1", "@a", "\ta", "a=b", "", None], dtype=dtype)
    frame = pd.DataFrame({"name": names, "value": [-1.5, 1 / 3, 1e-300, 0, 1, 2, 3, float("nan")]})
    found = pd.read_csv(StringIO(csv_text(frame)))
    assert found["value"].equals(frame["value"])
    wanted = ["'=HYPERLINK(1)", "'+1", "'-1", "'@a", "'\ta", "a=b"]
    assert found["name"].tolist()[:6] == wanted
    assert found["name"].isna().tolist()[6:] == [True, True]
    assert frame["name"][0] == "=HYPERLINK(1)"
    assert "0.33" in csv_text(frame, "%.2g")


def test_a_layer_named_like_a_formula(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential()
    model.add_module("=1+1", nn.ELU())
    run = acon.capture(model.eval(), [torch.randn(6, 3)], tmp_path / "run", progress=False)
    assert run.linearity()["layer"].tolist() == ["=1+1"]
    with pytest.raises(SystemExit, match="0"):
        main(["summary", str(run.path), "--format", "csv"])
    assert "\n'=1+1," in capsys.readouterr().out
