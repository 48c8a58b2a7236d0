"""Files of the user's: what they may import, whose errors are whose, and what is known of them."""

import contextlib
import importlib
import os
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import acon_analysis as acon
from acon_analysis.plotdata.overview import layer_overview
from acon_analysis.runs.run import Run
from acon_analysis.usercode import load_callable
from acon_figures.report import context
from commands import status

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.fc, self.act = nn.Flatten(), nn.Linear({width}, 6), nn.GELU()

    def forward(self, x):
        return self.act(self.fc(self.flat(x))){more}

def make():
    return Net(){eval}
"""


def net(folder: Path, *, width: int = 64, more: str = "", evaluated: str = "") -> str:
    """Write a network for the digits, and return its MODEL string."""
    file = folder / "net.py"
    file.write_text(NET.format(width=width, more=more, eval=evaluated))
    return f"{file}:make"


def test_a_file_changed_within_a_second_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file, found = tmp_path / "own.py", []
    for number in (1, 2):
        file.write_text(f"def make():\n    return {number}\n")
        os.utime(file, (1e9, 1e9))
        make, digest = load_callable("model", f"{file}:make")
        found.append((make(), digest))
    assert [value for value, _ in found] == [1, 2]
    assert found[0][1] != found[1][1]
    assert list(tmp_path.iterdir()) == [file]  # nothing is left next to it


@pytest.fixture
def neighbours(tmp_path: Path) -> list[Path]:
    """Return two folders, each with a file and neighbours of the same names."""
    folders = []
    for number in (3, 4):
        folder = tmp_path / f"project{number}"
        (folder / "shared_parts").mkdir(parents=True)
        (folder / "shared_width.py").write_text(f"WIDTH = {number}\n")
        (folder / "shared_parts" / "__init__.py").write_text(f"DEPTH = 10 * {number}\n")
        (folder / "late_width.py").write_text(f"LATE = 100 * {number}\n")
        (folder / "model.py").write_text(
            "import shared_width, shared_parts\n"
            "def make():\n"
            "    import late_width\n"
            "    return shared_width.WIDTH, shared_parts.DEPTH, late_width.LATE\n"
        )
        folders.append(folder)
    return folders


def test_a_file_may_import_what_lies_beside_it(neighbours: list[Path]) -> None:
    """At once and when it is called, and never what another file has imported by that name."""
    before = list(sys.path)
    for number, folder in zip((3, 4), neighbours, strict=True):
        make, _ = load_callable("model", f"{folder / 'model.py'}:make")
        assert sys.path == before
        assert make() == (number, 10 * number, 100 * number)
        assert sys.path == before
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("never_imported")


def test_what_a_file_returns_may_import_later_too(tmp_path: Path) -> None:
    """Generators and data sets; but code of others never sees the folder, even the working one."""
    (tmp_path / "later_words.py").write_text("WORDS = 7\n")
    (tmp_path / "later_more.py").write_text("MORE = 8\n")
    (tmp_path / "data.py").write_text(
        "def batches():\n"
        "    import later_words\n"
        "    yield later_words.WORDS\n"
        "class Items:\n"
        "    def __getitem__(self, index):\n"
        "        import later_more\n"
        "        return later_more.MORE\n"
    )
    batches, _ = load_callable("data", f"{tmp_path / 'data.py'}:batches")
    items, _ = load_callable("data", f"{tmp_path / 'data.py'}:Items")
    with contextlib.chdir(tmp_path):
        for name in ("later_words", "later_more"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
        assert list(batches()) == [7]
        assert items()[0] == 8


def test_the_path_is_left_as_it_was_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import nothing_of_this_name\n")
    before = list(sys.path)
    with pytest.raises(acon.UsageError, match="No module named 'nothing_of_this_name'"):
        load_callable("model", f"{tmp_path / 'net.py'}:make")
    (tmp_path / "net2.py").write_text("def make():\n    import nothing_of_this_name\n")
    make, _ = load_callable("model", f"{tmp_path / 'net2.py'}:make")
    with pytest.raises(ModuleNotFoundError):
        make()
    assert sys.path == before


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command; return the one line that it ends with."""
    assert status(*arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_errors_of_the_network_are_not_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def capture(model: str) -> str:
        return failed(
            capsys, "capture", model, "--data", "digits", "--limit", 4, "--out", tmp_path / "r"
        )

    expected = r"acon: the network failed, in its Linear: RuntimeError: mat1 and mat2 shapes "
    assert capture(net(tmp_path, width=63)).startswith(expected)
    found = capture(net(tmp_path, more=" + self.nothing"))
    assert found.startswith("acon: the network failed, in its Net: AttributeError: 'Net' object")
    (tmp_path / "bad.py").write_text("def make():\n    return 1 / 0\n")
    found = capture(f"{tmp_path / 'bad.py'}:make")
    assert found == f"acon: {tmp_path / 'bad.py'}, line 2: ZeroDivisionError: division by zero"


def test_what_a_model_may_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network itself, too; what needs arguments, fails, or is a checkpoint is called so."""

    def capture(model: str) -> str:
        return failed(capsys, "capture", model, "--data", "digits", "--out", tmp_path / "r")

    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n"
        "network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU())\n"
        "def needs(path):\n    return network\n"
        "def wrong():\n    network.load_state_dict({'no': None})\n    return network\n"
    )
    model = acon.build_model(f"{file}:network")
    assert acon.find_layers(model)[0].name == "2"
    with pytest.raises(acon.UsageError, match=r"needs takes \(path\), but is called with no arg"):
        acon.build_model(f"{file}:needs")
    assert re.fullmatch(r"acon: \S+own.py, line 6: RuntimeError: Error.*", capture(f"{file}:wrong"))
    (tmp_path / "weights.pt").write_bytes(b"PK")
    with pytest.raises(acon.UsageError, match=r"weights.pt' is a file: name the function that"):
        acon.build_model(str(tmp_path / "weights.pt"))
    with pytest.raises(acon.UsageError, match=r"mask: .*own.py:wrong takes \(\), but .* batch"):
        load_callable("mask", f"{file}:wrong", ["batch"])


def test_images_and_labels_are_no_two_batches(tmp_path: Path) -> None:
    images, labels = torch.randn(6, 64), torch.arange(6)
    model = nn.Sequential(nn.Linear(64, 3), nn.ReLU()).eval()
    with pytest.raises(
        acon.UsageError, match=r"a tuple of 2 tensors of .*: give \[\(images, labels\)\]"
    ):
        acon.capture(model, (images, labels), tmp_path / "r", progress=False)
    assert len(acon.capture(model, [(images, labels)], tmp_path / "r", progress=False).samples) == 6
    run = acon.capture(model, torch.split(images, 4), tmp_path / "s", progress=False)
    assert len(run.samples) == 6


def test_errors_of_ours_are_ours(
    digits_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acon_analysis.runs.verify.verify_run", lambda _: 1 / 0)
    text = "acon: ZeroDivisionError: division by zero (an error of acon itself; see --debug)"
    assert failed(capsys, "verify", digits_run.path) == text


def test_whether_a_network_of_ones_own_is_trained_is_not_known(tmp_path: Path) -> None:
    """Not in the terminal, not in the manifest, not on the page; nor in manifests of old."""
    model = acon.build_model(net(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = acon.capture(model, "digits", tmp_path / "r", limit=8, progress=False)
    assert run.manifest["origin"]["weights"] == "not known"
    old = {**run.manifest, "origin": {**run.manifest["origin"], "weights": "random", "seed": 0}}
    for manifest in (run.manifest, old):
        run.__dict__["manifest"] = manifest
        assert run.weights == "not known"
        assert context.notices(run) == []
        assert dict(context.facts(run))["Weights"] == "as the network came (no file is known)"
    assert acon.build_model("torch.nn:Identity").acon_origin.weights == "not known"  # type: ignore[union-attr]


def test_random_weights_are_still_called_random(tmp_path: Path) -> None:
    model = acon.build_model("digits_relu", weights=None)
    with pytest.warns(UserWarning, match="is untrained"):
        run = acon.capture(model, "digits", tmp_path / "r", limit=8, progress=False)
    assert run.weights == "random"
    assert ("warning", "The weights are random: this network was never trained.") in (
        context.notices(run)
    )
    assert dict(context.facts(run))["Weights"] == "random (seed 0)"


def test_sentences_are_no_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 4), nn.GELU()).eval()
    ids = torch.randint(0, 20, (12, 5))
    run = acon.capture(model, [ids], tmp_path / "r", progress=False)
    assert (run.weights, run.sample_word) == ("not known", "sample")
    layers = layer_overview(run)
    assert context.tiles(layers, run)[0] == ("12", "samples", "all could be read")
    terms = dict(context.facts(run))
    assert (terms["Samples"], terms["Samples that could not be read"]) == ("12 of 12", "0")
    assert "Images" not in terms


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"n\xffet.py")
    path.write_text("def net():\n    return 3\n")
    assert load_callable("model", f"{path}:net")[0]() == 3
