"""A user's Python makes errors of warnings: commands print them, pictures need none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Layers whose names are longer than a page is wide, some of them different in the middle only.
NETWORK = """
import multiprocessing, warnings
from torch import nn
from acon_analysis.layers import MetaAconC

def net():
    warnings.warn("of another library")
    process = multiprocessing.get_context("spawn").Process(
        target=warnings.warn, args=("of a worker",)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    model = nn.Sequential(nn.Conv2d(1, 4, 1))
    model.input_shape = (1, 8, 8)
    for number in range(4):
        name = f"{'n' * 100}{number}{'W' * (20 if number % 2 else 120)}"
        model.add_module(name, MetaAconC(4) if number else nn.GELU())
    return model.append(nn.Flatten()).append(nn.Linear(256, 10)).eval()
"""

#: What notebooks call with a run, and then commands, by one process: its imports take longer.
CALLS = """
import sys, torch
import acon_analysis as acon, acon_figures
from acon_analysis.cli import main
run = acon.open_run(sys.argv[1])
run.summary()
for name in ("linearity_by_depth", "channel_spread", "channel_states", "reached_slopes", "slopes",
             "beta_against_null"):
    figure = getattr(acon_figures, name)(run, context="talk", width="single")
    assert figure._repr_png_()
    assert min(axes.get_window_extent().height for axes in figure.axes) > 9
run.plot("linearity_by_depth")
model = acon.build_model("digits_metaacon")
with acon.record(model) as recording:
    model(torch.zeros(2, *model.input_shape))
assert len(recording.betas())
assert len(acon.find_layers(model)) and len(acon_figures.function_and_derivatives().axes)
sys.stderr.write("commands\\n")
for command in ("summary run", "figures slopes linearity_by_depth --run run --format svg",
                "report run"):
    try:
        main(command.split())
    except SystemExit as ended:
        assert not ended.code, command
"""


def python(folder: Path, *arguments: str) -> str:
    """Run Python where warnings are errors; return what it says on its error stream."""
    path = os.pathsep.join([*filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "layout not applied" not in done.stderr
    return done.stderr


@pytest.mark.slow
def test_commands_and_calls_where_warnings_are_errors(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    capture = "capture net.py:net --data digits --limit 24 --out run --threads 1"
    said = python(tmp_path, "-m", "acon_analysis", *capture.split())
    assert "acon: warning: of another library\n" in said
    assert "UserWarning: of a worker" in said
    assert python(tmp_path, "-c", CALLS, "run").startswith("commands\n")
