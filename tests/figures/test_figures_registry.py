"""The registry reads files without importing them: a figure is added by one file."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import acon_figures
from acon_figures.registry import figure_table
from acon_figures.spec import figure

NEW = '''"""One thing that only a test needs to be drawn."""

import pandas as pd

from acon_figures.spec import figure
from acon_figures.style import AconFigure, new_figure, theme


def counts(runs):
    """Count the runs."""
    return pd.DataFrame({"runs": [0, len(runs)]})


@figure(kind="measured", needs=("counts", "training"), variants={"twice": {"times": 2}})
def throwaway(counts, training, times=1, *, width="single", context="paper") -> AconFigure:
    """Draw a line."""
    with theme(context):
        drawn = new_figure(width, 2.0, context)
        drawn.add_subplot().plot(times * counts["runs"] + len(training))
    drawn.caption = "A line that ends somewhere, over nothing that matters at all."
    return drawn
'''

LIST = """
import sys
from acon_analysis.cli import app
sys.argv[1:] = ["figures", "--list"]
app(standalone_mode=False)
print("loaded", *{name.partition(".")[0] for name in sys.modules})
"""

DRAW = """
from pathlib import Path
import pandas as pd
import acon_figures
from acon_figures.drawing import draw
print(*(path.name for path in draw(["throwaway"], [], Path("out"), formats=["svg"])))
frame = pd.DataFrame({"runs": [1, 2]})
print(*acon_figures.throwaway(frame, [7], times=3).axes[0].lines[0].get_ydata())
"""


def output(code: str, folder: Path | None = None) -> str:
    """Run code in a fresh interpreter that finds the packages of a folder first."""
    path = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}" if folder else None
    variables = os.environ | ({"PYTHONPATH": path} if path else {})
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_file_adds_a_figure(tmp_path: Path) -> None:
    package = Path(acon_figures.__file__).parent
    here = tmp_path / "acon_figures"
    shutil.copytree(package, here, ignore=shutil.ignore_patterns("__pycache__"))
    (here / "plots" / "throwaway.py").write_text(NEW, encoding="utf-8")
    listed = output(LIST, tmp_path)
    assert "throwaway" in listed
    assert "One thing that only a test needs to be drawn" in listed
    files = ["throwaway.svg", "throwaway.txt", "throwaway_twice.svg", "throwaway_twice.txt"]
    assert output(DRAW, tmp_path).split("\n")[:2] == [" ".join(files), "4 7"]


def test_a_list_of_the_figures_imports_no_matplotlib() -> None:
    words = output(LIST).rpartition("loaded")[2].split()
    assert {"matplotlib", "seaborn", "scipy", "torch"} & set(words) == set()
    assert "pandas" in words  # the check itself can fail


def test_importing_the_package_draws_in_nothing_heavy() -> None:
    words = output("import sys, acon_figures; print(*sys.modules)").split()
    assert {"matplotlib", "pandas", "numpy"} & set(words) == set()
    assert [word for word in words if word.startswith("acon_figures.plots.")] == []


def test_what_is_read_is_what_the_decorator_was_given() -> None:
    for spec in acon_figures.FIGURES.values():
        file = Path(str(sys.modules[spec.function.__module__].__file__))
        module = ast.parse(file.read_text(encoding="utf-8"))
        assert (ast.get_docstring(module) or "").startswith(f"{spec.description}.")
        assert file.stem == spec.name
    table = figure_table().set_index("name")
    assert list(table.index) == list(acon_figures.FIGURES)
    assert table.loc["beta_against_null", "needs"] == "null_table, sample_means, splits"
    assert table.loc["explanation", "needs"] == "explained"
    assert table.loc["slopes", "kind"] == "measured"


def test_a_decorated_function_stays_what_it_is() -> None:
    def plot() -> acon_figures.AconFigure:
        return acon_figures.AconFigure()

    assert figure(kind="formula", order=3)(plot) is plot


def test_every_function_of_a_plots_file_is_public() -> None:
    assert {"acon_unit", "gradients_by_layer", "trial_accuracies"} < set(acon_figures.__all__)
    assert set(acon_figures.FIGURES) < set(acon_figures.__all__) <= set(dir(acon_figures))
    for name in acon_figures.__all__:
        assert getattr(acon_figures, name) is not None
    with pytest.raises(AttributeError, match="did you mean 'beta_heatmap'"):
        _ = acon_figures.beta_heatmp


@pytest.mark.parametrize("name", acon_figures.FIGURES)
def test_a_docstring_describes_width_and_context_once(name: str) -> None:
    text = acon_figures.FIGURES[name].function.__doc__ or ""
    parameters = text.partition("\nParameters\n----------\n")[2].partition("\nReturns\n")[0]
    assert parameters.count("\nwidth : ") + parameters.startswith("width : ") == 1
    assert parameters.count("\ncontext : ") == text.count("context : ") == 1
