"""The command as a person types it: output, exit codes, one readable line for a mistake."""

import io
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from acon_analysis import __version__
from acon_analysis.cli import main
from acon_analysis.cli.options import parse_layers
from acon_analysis.runs.run import Run
from commands import status

COMMANDS = ("models", "layers", "capture", "verify", "summary", "figures", "train",
            "import-checkpoint", "compare", "linearize", "explain", "gates", "blocks", "replace",
            "report")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(command, "--help") == 0
    assert "Usage: " in capsys.readouterr().out


def test_the_installed_command_lists_them() -> None:
    command = Path(sys.executable).with_name("acon")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert name in done.stdout


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("models", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} >= {"digits_metaacon", "tfnet_x2_0"}


def test_the_census_ends_layers_capture_and_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("layers", "digits_metaacon", "--kinds", "meta_acon") == 0
    said = capsys.readouterr().out
    counted = "measured 6 of 19 nonlinear calls (19 % of their elements); left out, of kind "
    line = f"{counted}activation: 13 relu (add --kinds meta_acon,activation)"
    assert line in said.splitlines()
    assert said.splitlines()[-1].split("  ")[0] in ("sigmoid + mul", "mul + sigmoid")
    assert status("layers", "digits_metaacon", "--kinds", "meta_acon", "--format", "csv") == 0
    found = capsys.readouterr()
    assert line in found.err.splitlines()
    assert line not in found.out
    run = str(tmp_path / "run")
    assert (
        status("capture", "digits_metaacon", "--data", "digits", "--out", run, "--limit", "8") == 0
    )
    line = f"{counted}activation: 13 relu (add --kinds meta_acon,acon,activation)"
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert status("summary", run, "--draws", "0") == 0
    assert f"M{line[1:]}." in " ".join(capsys.readouterr().out.split())


def test_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("layers", "digits_metaacon", "--format", "csv") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert "leaves out 13 of kind activation" in said.err
    assert "unless asked for with --kinds activation,meta_acon" in said.err
    assert lines[0].startswith("layer,")
    assert len(lines) == 1 + 6 + 13
    assert any(line.startswith("layer3.0.acon,0,meta_acon,128,channel,") for line in lines)


def test_capture_verify_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert status("capture", "digits_metaacon", "--data", "digits", "--out", run,
                "--limit", 50, "--unit", 20) == 0  # fmt: skip
    assert "50 images captured, 0 could not be read, 6 layers, 3 units of work; complete" in (
        capsys.readouterr().out
    )
    assert status("verify", run) == 0
    assert "50 of 50 samples captured" in capsys.readouterr().out
    assert status("summary", run, "--by", "sample", "--format", "csv") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 6 * 50
    out = tmp_path / "tables" / "summary.parquet"
    assert status("summary", run, "--format", "parquet", "--out", out) == 0
    assert len(pd.read_parquet(out)) == 6
    (run / "betas" / "unit-0000001.parquet").unlink()
    assert status("verify", run) == 1
    captured = capsys.readouterr()
    assert "betas/unit-0000001.parquet is missing" in captured.err
    assert re.search(r"3 of 3 units of work done; \d problems\n", captured.out)


def test_one_problem_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert status("capture", "digits_metaacon", "--data", "digits", "--out", run, "--no-moments",
                "--limit", 20) == 0  # fmt: skip
    (run / "channels.parquet").unlink()
    assert status("verify", run) == 1
    assert capsys.readouterr().out.endswith("1 of 1 unit of work done; 1 problem\n")


@pytest.mark.parametrize("by", ["layer", "channel", "sample"])
def test_a_summary_fits_on_the_screen_and_files_hold_all(
    by: str,
    tmp_path: Path,
    digits_run: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("summary", digits_run.path, "--by", by, "--draws", 0)
    assert status(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = next(line.split() for line in lines if line.startswith("layer  "))
    assert {"layer", "β_mean", "L", "G"} <= set(shown)
    if by == "channel":
        assert shown[-1] == "cause"  # a word, so it comes last and is not wrapped
        monkeypatch.setenv("COLUMNS", "120")
        assert status(*arguments) == 0
        assert capsys.readouterr().out.splitlines()[0].split()[-1] == "why"
        monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in lines) <= 80
    assert status(*arguments, "--all") == 0
    everything = capsys.readouterr().out.splitlines()[0].split()
    assert {name.removeprefix("β_") for name in shown} < set(everything)
    assert {"q05", "median", "q95"} <= set(everything)
    assert status(*arguments, "--format", "csv", "--out", tmp_path / "t.csv") == 0
    rows = len(pd.read_csv(tmp_path / "t.csv"))
    assert f"{tmp_path / 't.csv'}: {rows:,} rows" in capsys.readouterr().out.splitlines()
    assert "L_gate" not in everything  # no layer has one
    assert set(everything) <= set(pd.read_csv(tmp_path / "t.csv").columns)


def test_a_summary_of_one_layer(digits_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    name = "layer3.0.acon"
    for by, rows in (("channel", 128), ("sample", 500)):
        command = ("summary", digits_run.path, "--by", by, "--format", "csv", "--layer")
        assert status(*command, name) == 0
        table = pd.read_csv(io.StringIO(capsys.readouterr().out))
        assert len(table) == rows
        assert set(table["layer"]) == {name}
    assert status(*command, "layer3.0.acom") == 2
    assert "'layer3.0.acon'" in capsys.readouterr().err
    assert status("summary", digits_run.path, "--layer", name) == 2
    assert "--by channel" in capsys.readouterr().err


def test_comparing_tells_what_does_not_fit(
    tmp_path: Path, digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("compare", digits_run.path, digits_run.path) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"first: {digits_run.path}; second: {digits_run.path}\n")
    for name, model in (("few", "digits_metaacon"), ("relu", "digits_relu")):
        assert status("capture", model, "--data", "digits", "--out", tmp_path / name,
                    "--limit", 40) == 0  # fmt: skip
    capsys.readouterr()
    assert status("compare", digits_run.path, tmp_path / "few") == 0
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "warning: the runs are not of the same samples (500 and 40)" in error
    assert status("compare", tmp_path / "few", tmp_path / "relu") == 0
    assert "13 layers are only in the second run: layer1.0.relu" in capsys.readouterr().err


def test_figures_of_a_run(
    tmp_path: Path, digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("figures", "beta_distributions", "--run", digits_run.path, "--out", tmp_path,
                "--format", "svg") == 0  # fmt: skip
    names = {path.name for path in tmp_path.iterdir()}
    assert {"beta_distributions.svg", "beta_distributions_as_published.svg"} <= names


def test_figures_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("figures", "--list") == 0
    out = capsys.readouterr().out
    assert "function_and_derivatives" in out
    assert "formula" in out
    assert "measured" in out


def test_the_screen_shows_what_python_prints(
    digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("summary", digits_run.path, "--draws", 20) == 0
    printed = str(digits_run.summary(draws=20))
    assert capsys.readouterr().out == f"{printed}\n"
    assert {"G", "β_mean", "β_std"} < set(printed.splitlines()[-7].split())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("stem.2", ("stem.2",)),
        ("features.3 (Tanh), layer1:relu#0", ("features.3 (Tanh)", "layer1:relu#0")),
        (" a ,b.1 (GELU, call 1),", ("a", "b.1 (GELU, call 1)")),
    ],
)
def test_commas_separate_layers(text: str, names: tuple[str, ...]) -> None:
    assert parse_layers(text) == names
    assert parse_layers(None) is None


MISTAKES = [
    (["layers", "digits_metacon"], 2, "did you mean 'digits_metaacon'"),
    (["capture", "digits_metaacon", "--data", "digit", "--out", "{tmp}/r"], 2, "neither a data"),
    (["capture", "digits_metaacon", "--data", "digits", "--out", "{run}"], 1, "unit_size|count"),
    (["capture", "digits_acon", "--data", "digits", "--out", "{run}"], 1, "model was"),
    (["capture", "digits_acon", "--data", "digits", "--out", "{tmp}/r", "--kinds", "meta"], 2,
     "did you mean 'meta_acon'"),
    (["capture", "digits_metaacon", "--data", "digits", "--out", "{tmp}/r", "--weights",
      "/no/weights.pth"], 1, "/no/weights.pth"),
    (["capture", "digits_acon", "--data", "digits", "--out", "{tmp}/r", "--weights",
      "{weights}"], 1, "p1|missing|unexpected"),
    (["summary", "/no/run"], 2, "there is no folder"),
    (["summary", "{tmp}"], 2, "is not a captured run"),
    (["summary", "{run}", "--format", "parquet"], 2, "needs --out"),
    (["explain", "digits_metaacon", "--data", "data.py:test", "--layer", "x", "--out", "{tmp}/e"],
     2, "'data.py:test' is a callable, and this needs images by their numbers: give"),
    (["summary", "{run}", "--out", "{tmp}/t.xlsx"], 2, "a table is written to a file .csv, .json"),
    (["gates", "digits_metaacon", "--data", "digits", "--layers", "layer1.0.acon (call 1)"], 2,
     "is one call of a layer; give the layer, 'layer1.0.acon'"),
    (["figures", "beta_distribution", "--out", "{tmp}"], 2, "did you mean 'beta_distributions'"),
    (["figures", "beta_distributions", "--run", "{tmp}", "--out", "{tmp}"], 2, "not a captured"),
    (["layers", "digits_metaacon", "--input-shape", "1,x"], 2, "input shape must be"),
    (["train", "digits_metacon", "--out", "{tmp}/x"], 2, "did you mean 'digits_metaacon'"),
    (["verify", "{tmp}/nothing"], 2, "there is no folder"),
    (["train", "digits_acon", "--out", "{tmp}"], 2, "is a folder"),
    (["train", "digits_acon", "--out", "{tmp}/x", "--snapshots", "0,one"], 2, "epochs like 0,1,3"),
    (["train", "digits_acon", "--out", "{tmp}/x", "--epochs", "2", "--snapshots", "1,3"], 2,
     "there is no epoch 3 among 0 to 2"),
    (["layers", "own.py"], 2, "own.py:NAME"),
    (["layers", "digits_acon", "--input-shape", "3,8,8"], 2, r"takes images of shape \(1, 8, 8\)"),
    (["capture", "digits_acon", "--data", "digits", "--out", "{tmp}/r", "--batch-size", "0"], 2,
     "at least 1; got 0"),
    (["capture", "digits_acon", "--data", "digits", "--out", "{tmp}/r", "--preprocess", "x"], 2,
     "is for a folder of images"),
    (["capture", "digits_metaacon", "--data", "digits", "--out", "{run}", "--kinds", "gat"], 2,
     "did you mean 'gate'"),
    (["capture", "digits_metaacon", "--data", "digits", "--out", ""], 2, "--out is empty"),
    (["capture", "digits_metaacon", "--data=", "--out", "{tmp}/r"], 2, "--data is empty"),
    (["summary", " "], 2, "the argument after 'summary' is empty"),
    (["capture", "digits_acon", "--data", "digits", "--out", "{tmp}/r", "--device", "banana"], 2,
     "device 'banana' cannot be used: this machine has cpu"),
    (["capture", "digits_acon", "--data", "digits", "--out", "{tmp}/r", "--device", "meta"], 2,
     "device 'meta' cannot be used: this machine has cpu"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES)
def test_a_mistake_is_one_readable_line(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    digits_run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from acon_analysis.models.registry import registry

    places = {
        "tmp": tmp_path,
        "run": digits_run.path,
        "weights": registry()["digits_relu"].shipped,
    }
    if "unit_size" in message:
        arguments = [*arguments, "--unit", "64"]
    assert status(*[argument.format(**places) for argument in arguments]) == code
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("acon: ")
    assert "Traceback" not in error

    assert re.search(message, error), error


def test_a_choice_is_refused_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("summary", "run", "--by", "layr") == 2
    error = capsys.readouterr().err
    assert "Invalid value for '--by': 'layr' is not one of 'layer', 'channel', 'sample'" in error


def test_debug_shows_the_traceback() -> None:
    from acon_analysis.errors import UsageError

    with pytest.raises(UsageError, match="no folder"):
        main(["--debug", "summary", "/no/run"])


def test_ctrl_c_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("acon_analysis.runs.verify.verify_run", interrupted)
    assert status("verify", digits_run.path) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_bad_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (9, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
        if number > 1:
            (folder / f"{number}.png").write_bytes(b"no image")
    assert status("capture", "digits_metaacon", "--data", folder, "--out", tmp_path / "r") == 0
    captured = capsys.readouterr()
    assert "could not read '2.png': " in captured.err
    assert "1 more in" in captured.err
    assert "2 images captured, 4 could not be read" in captured.out


def test_tables_on_the_screen_leave_out_what_says_nothing(
    digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("layers", "digits_relu") == 0
    header = capsys.readouterr().out.splitlines()[0].split()
    assert "kind" in header
    assert "proof_error" not in header


def test_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("replace", "digits_swish", "--data", "digits", "--limit", 40, "--out", tmp_path)
    assert status(*command, "--with", "poly:2", "--budget", "25%") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "264 channels of" in printed
    assert "relu (baseline), BatchNorms estimated again" in printed
    table = pd.read_csv(tmp_path / "damage.csv")
    assert list(table["form"]) == ["poly:2", "relu"] * 2
    assert len(json.loads((tmp_path / "plan.json").read_text())["units"]) == 264
    assert (tmp_path / "model.safetensors").is_file()
    assert status(*command, "--with", "two-peice") == 2
    assert "did you mean 'two-piece'" in capsys.readouterr().err
    assert status(*command, "--with", "line,relu") == 2
    assert "give max_change (--max-change)" in capsys.readouterr().err
    assert status(*command, "--with", "line, relu", "--max-change", 0.1) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"layers \(\d+ (line|relu), \d+ (line|relu)\)", printed)


def test_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gates.csv"
    assert status("gates", "digits_metaacon", "--data", "digits", "--limit", 40,
                "--intervention", "mean", "--intervention", "constant", "--format", "csv",
                "--out", out) == 0  # fmt: skip
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"mean: all layers at once .*accuracy [+-]\d\.\d points", said)
    table = pd.read_csv(out)
    assert len(table) == 2 * 7
    assert set(table["intervention"]) == {"mean", "constant"}
    assert status("gates", "digits_relu", "--data", "digits") == 2
    assert "no gate that depends on the sample" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--version") == 0
    assert capsys.readouterr().out == f"acon {__version__}\n"


TEXT = """
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.wide, self.act = nn.Embedding(30, 8), nn.Linear(8, 6), nn.GELU()
        self.head = nn.Linear(6, 3)

    def forward(self, input_ids, attention_mask=None):
        return {"logits": self.head(self.act(self.wide(self.embed(input_ids))))}


def network():
    torch.manual_seed(0)
    return Tagger().eval()


class Sentences(torch.utils.data.Dataset):
    def __len__(self):
        return 9

    def __getitem__(self, index):
        mask = torch.arange(5) <= index % 5
        return {"input_ids": (torch.arange(5) * 7 + index) % 29 * mask, "attention_mask": mask}


def sentences():
    return Sentences()
"""


def test_text_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.py").write_text(TEXT)
    network, data = f"{tmp_path}/text.py:network", f"{tmp_path}/text.py:sentences"
    run = tmp_path / "run"
    options = ("--mask", "attention_mask", "--batch-size", 4, "--kinds", "activation")
    assert status("capture", network, "--data", data, "--out", run, *options) == 0
    assert Run(run).totals["n"].tolist() == [6 * (1 + index % 5) for index in range(9)]
    assert status("capture", network, "--data", data, "--out", run, *options) == 0  # continues
    capsys.readouterr()
    assert (
        status("layers", network, "--data", data, "--kinds", "activation", "--format", "csv") == 0
    )
    assert capsys.readouterr().out.splitlines()[1].startswith("act,0,activation,")
    lines = ("linearize", network, "--run", run, "--data", data, "--budget", 2)
    assert status(*lines, "--out", tmp_path / "lines") == 2
    assert "captured with mask 'attention_mask', and here it is None" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # the samples of the fit are measured on
        assert status(*lines, "--out", tmp_path / "lines", "--mask", "attention_mask") == 0
    assert "9 of 9 samples measured on are among those of the fit" in capsys.readouterr().err
    assert status("capture", network, "--data", f"{tmp_path}/text.py:none", "--out", run) == 2
    assert "has no 'none'" in capsys.readouterr().err
