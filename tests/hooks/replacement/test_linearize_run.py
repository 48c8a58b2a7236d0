"""From a captured run to a linearised model: what ``acon linearize`` does."""

import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import acon_analysis as acon
from acon_analysis.data.sources import open_data
from acon_analysis.errors import AconError, UsageError
from acon_hooks.errors import SameDataWarning
from acon_hooks.replacement.damage import first_order_damage
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.linearizing import load_linearized
from acon_hooks.replacement.replacing import fit_from_run, parse_budget, with_first_order
from acon_hooks.replacement.verifying import verify_plan
from commands import status


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    acon.capture(
        acon.build_model("digits_acon"), "digits:train", path, limit=40, moments=True,
        progress=False,
    )  # fmt: skip
    return path


def test_a_run_gives_the_lines_of_a_fit(run: Path) -> None:
    model = acon.build_model("digits_acon")
    taken = fit_from_run(model, run)
    fitted = fit_units(model, "digits:train", limit=40, kinds=["acon"])
    assert taken.layers == fitted.layers
    assert taken.run_id
    columns = ["slope", "intercept", "L", "s_c"]
    pd.testing.assert_frame_equal(taken.table[columns], fitted.table[columns], rtol=1e-3, atol=1e-5)


def test_the_command_writes_what_can_be_rebuilt(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("digits_acon", "--run", run, "--data", "digits", "--out", tmp_path, "--limit", "20")
    assert status("linearize", *common, "--layers", "layer3.0.acon", "--fold") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "128 channels become lines (whole layers: layer3.0.acon)" in said
    assert "1 of 1 whole layers folded" in said
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["fold.csv", "layers.csv", "model.safetensors", "plan.json", "samples.csv",
                     "summary.csv"]  # fmt: skip
    assert len(pd.read_csv(tmp_path / "samples.csv")) == 20
    changed = load_linearized(tmp_path)
    assert changed(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_run_of_other_weights_is_refused(run: Path) -> None:
    model = acon.build_model("digits_acon", weights=None)
    with pytest.raises(AconError, match=r"is of digits_acon with weights .* the given model has"):
        fit_from_run(model, run)


def test_budgets_are_counts_or_shares() -> None:
    assert [parse_budget(text) for text in ("200", "0.25", "25%")] == [200, 0.25, 0.25]
    with pytest.raises(UsageError, match="got 'lots'"):
        parse_budget("lots")


def test_units_are_ranked_by_the_first_order_prediction(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = acon.build_model("digits_acon")
    fit = fit_from_run(model, run)
    found = with_first_order(model, fit, images=70)
    source = open_data("digits:train")
    images = torch.stack([source[index * len(source) // 70] for index in range(70)])
    direct = first_order_damage(model, fit, images)
    pd.testing.assert_series_equal(
        found.table["first_order"], direct["first_order"], rtol=1e-4, check_index=False
    )
    assert "first_order" not in fit.table
    least = set(found.table.nsmallest(100, "first_order").index)
    plan = found.plan(budget=100, by="first_order")
    keys = found.table.set_index(["layer", "channel"]).index[sorted(least)]
    assert {(unit.layer, unit.channel) for unit in plan.units} == set(keys)
    common = ("digits_acon", "--run", run, "--data", "digits", "--out", tmp_path, "--limit", "10")
    assert status("linearize", *common, "--budget", "50%", "--by", "first_order") == 0
    assert "least first_order over all layers" in capsys.readouterr().out


def test_the_prediction_needs_the_images_of_the_run(run: Path) -> None:
    model = acon.build_model("digits_acon")
    fit = replace(fit_from_run(model, run), data="tensors")
    with pytest.raises(AconError, match=r"by first_order needs the images .* 'tensors' cannot"):
        with_first_order(model, fit)


PAIR = """
import torch
from torch import nn
class Pair(nn.Module):
    input_shape = (1, 8, 8)
    def __init__(self):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Linear(4, 10)
    def forward(self, x):
        h = self.act(self.conv(x)).mean((2, 3))
        return h, self.fc(h)
def make():
    torch.manual_seed(0)
    return Pair().eval()
def second(output):
    return output[1]
"""


def test_the_output_is_picked_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.py"
    file.write_text(PAIR)
    model = acon.build_model(f"{file}:make")
    path = tmp_path / "run"
    acon.capture(
        model, "digits:train", path, limit=40, moments=True, progress=False, kinds=["activation"]
    )
    common = [f"{file}:make", "--run", str(path), "--data", "digits", "--limit", "20",
              "--budget", "2", "--out", str(tmp_path / "out")]  # fmt: skip
    assert status("linearize", *common) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the output is tuple of 0: (20, 4) float32, 1: (20, 10) float32, without one" in said
    assert "say which one with output= (--output)" in said
    assert not (tmp_path / "out").exists()
    for wanted in ("1", f"{file}:second"):
        assert status("linearize", *common, "--output", wanted) == 0
        captured = capsys.readouterr()
        said = " ".join(captured.out.split())
        assert "2 channels become lines" in said
        assert "logits change by" in said
        assert "output (N, 10) taken for logits; loss: cross-entropy" in captured.err
    assert status("linearize", *common, "--output", "0", "--no-logits", "--by", "first_order") == 0
    captured = capsys.readouterr()
    assert "the output changes by" in captured.out
    assert "output (N, 4), not taken for logits: no loss" in captured.err


def test_the_images_of_the_fit_are_no_images_to_measure_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["digits_acon", "--run", str(run), "--limit", "50", "--budget", "3"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert status("linearize", *common, "--data", "digits:train", "--out", tmp_path / "a") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: 40 of 50 samples measured on are among those of the fit (digits:train)" in said
    assert status("linearize", *common, "--data", "digits", "--out", tmp_path / "b") == 0
    model = acon.build_model("digits_acon")
    plan = fit_units(model, "digits:train", limit=20, kinds=["acon"]).plan(budget=2)
    with pytest.warns(SameDataWarning, match="the lines were fitted on digits:train, too"):
        verify_plan(model, plan, "digits:train", limit=20)
