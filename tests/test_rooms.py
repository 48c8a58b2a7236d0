"""The rooms' import directions, and what the front door must not load."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "acon_analysis": ROOT / "acon_analysis",
    "acon_hooks": ROOT / "hooks" / "acon_hooks",
    "acon_figures": ROOT / "figures" / "acon_figures",
}
NO_TORCH = ("columns", "errors", "moments.state", "paper", "runs.run", "runs.verify",
            "statistics.beta_densities", "statistics.beta_summary", "statistics.linearity",
            "statistics.redrawn_null", "store.folder")  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, anywhere in it, type hints included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(files: list[Path], forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{file.name} imports {name}"
        for file in files
        for name in imported(file)
        if name.partition(".")[0] in forbidden
    ]


def test_the_analysis_room_knows_no_other_room() -> None:
    own = ROOMS["acon_analysis"]
    exceptions = {own / "__init__.py", *(own / "cli").glob("*.py")}
    files = [file for file in ROOMS["acon_analysis"].rglob("*.py") if file not in exceptions]
    # Methods of a run hand over to the room that computes them; those files are named here.
    assert offenders(files, ("acon_hooks", "acon_figures")) == []


def test_hooks_draw_nothing_and_know_no_figures() -> None:
    files = list(ROOMS["acon_hooks"].rglob("*.py"))
    assert offenders(files, ("acon_figures", "matplotlib", "seaborn")) == []


def test_packages_of_the_hooks_room_build_on_each_other_in_one_direction() -> None:
    room = ROOMS["acon_hooks"]
    order = ("engine", "layers", "readings", "moments", "captures", "explainers", "replacement")
    assert sorted(order) == sorted(path.parent.name for path in room.glob("*/__init__.py"))
    beside = {("explainers", "replacement"), ("replacement", "explainers")}
    upwards = {
        f"{file.parent.name}/{file.name} imports {name}"
        for file in room.glob("*/*.py")
        for name in imported(file)
        if name.count(".") > 1 and name.startswith("acon_hooks.") and name.split(".")[1] in order
        if (
            order.index(name.split(".")[1]) > order.index(file.parent.name)
            or (file.parent.name, name.split(".")[1]) in beside
        )
    }
    # `find_layers` proves what it finds if it is given images.
    allowed = "layers/scan.py imports acon_hooks.readings.recording"
    assert upwards == {allowed, f"{allowed}.resolve"}


def test_figures_touch_no_model() -> None:
    files = list(ROOMS["acon_figures"].rglob("*.py"))
    assert offenders(files, ("acon_hooks", "torch")) == []


def test_the_walk_sees_an_offender(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from torch import nn\n")
    assert offenders([file], ("torch",)) == ["bad.py imports torch", "bad.py imports torch.nn"]


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted(m.partition('.')[0] for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_front_door_is_light() -> None:
    heavy = {"torch", "matplotlib", "pandas", "seaborn", "numpy"}
    assert loaded_by("import acon_analysis") & heavy == set()
    assert loaded_by("from acon_analysis.cli import app") & heavy == set()


def test_the_check_of_the_front_door_can_fail() -> None:
    assert "pandas" in loaded_by("import acon_analysis.runs.run")


@pytest.mark.parametrize("module", NO_TORCH)
def test_tables_load_no_torch(module: str) -> None:
    assert "torch" not in loaded_by(f"import acon_analysis.{module}")


def submodules() -> list[str]:
    names = []
    for room in ROOMS:
        package = importlib.import_module(room)
        found = pkgutil.walk_packages(package.__path__, f"{room}.")
        names += [module.name for module in found]
    return names


def test_no_submodule_hides_a_public_function() -> None:
    """A lazy front door returns the submodule once it is imported, if the names are equal."""
    import acon_analysis

    for name in submodules():
        importlib.import_module(name)
    for public, (place, attribute) in acon_analysis._PUBLIC.items():
        value = getattr(acon_analysis, public)
        expected = importlib.import_module(place)
        assert value is (expected if attribute is None else getattr(expected, attribute)), public


@pytest.mark.parametrize("room", ["acon_hooks", "acon_figures"])
def test_no_submodule_hides_a_name_of_its_room(room: str) -> None:
    package = importlib.import_module(room)
    names = {name.rpartition(".")[2] for name in submodules() if name.count(".") == 1}
    assert names & set(package.__all__) == set()


def test_an_unknown_public_name_says_what_comes_close() -> None:
    import acon_analysis

    with pytest.raises(AttributeError, match="did you mean 'capture'"):
        _ = acon_analysis.captur
