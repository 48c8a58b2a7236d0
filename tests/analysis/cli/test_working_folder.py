"""A command that is run in a folder of others takes neither code nor settings from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acon_analysis.cli import main
from acon_analysis.runs.examples import EXAMPLES

#: Names that Python, a library or a worker process may import.
PLANTED = (
    "torch", "numpy", "pandas", "matplotlib", "seaborn", "captum", "typer", "multiprocessing",
    "random", "sitecustomize", "usercustomize", "conftest", "planted", "acon_figures",
)  # fmt: skip

#: Starts a worker process as data loaders do where processes are not forked.
WORKER = """
import multiprocessing
from torch import nn

def net():
    process = multiprocessing.get_context("spawn").Process(target=print, args=("worker ran",))
    process.start()
    process.join()
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with modules that leave a mark when they are imported."""
    made = tmp_path / "received"
    made.mkdir()
    for name in PLANTED:
        (made / f"{name}.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'a').write('{name}')")
    (made / "planted.pth").write_text(f"import os; open({str(tmp_path / 'canary')!r}, 'a')")
    return made


def acon(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the console script in a folder."""
    script = folder.with_name("acon")
    text = "from acon_analysis.__main__ import main\nif __name__ == '__main__':\n    main()\n"
    script.write_text(text)
    unset = {"PYTHONSAFEPATH", "MPLBACKEND", "MATPLOTLIBRC"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["module", "not text", "pipe"])
def test_matplotlib_reads_no_settings_there(settings: str, folder: Path, tmp_path: Path) -> None:
    file = folder / "matplotlibrc"
    if settings == "pipe":
        os.mkfifo(file)
    elif settings == "module":
        file.write_text("backend: module://planted\ntext.usetex: True\naxes.prop_cycle: x()\n")
    else:
        file.write_bytes(b"\xff\xfe\x00")
    run = str(EXAMPLES / "cifar10_acon")
    done = acon(
        folder, "figures", "improvements", "--run", run, "--out", str(tmp_path), "--format", "png"
    )
    assert (done.returncode, done.stderr) == (0, "1 of 1: improvements\n")
    assert (tmp_path / "improvements.png").stat().st_size > 1000
    assert not (tmp_path / "canary").exists()


def test_workers_import_nothing_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(WORKER)
    done = acon(folder, "layers", f"{tmp_path / 'net.py'}:net", "--input-shape", "3")
    assert done.returncode == 0, done.stderr
    assert "worker ran" in done.stdout
    assert not (tmp_path / "canary").exists()


def test_a_command_leaves_the_environment_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    with pytest.raises(SystemExit):
        main(["models"])
    assert dict(os.environ) == before
    assert capsys.readouterr().out
