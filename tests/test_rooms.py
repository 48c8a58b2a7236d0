"""Imports run downwards only, hooks are set in one place, and the front door is light."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from import_graph import Import, circle, imports, modules

ROOT = Path(__file__).parents[1]
PACKAGES = (
    ROOT / "acon_analysis",
    ROOT / "hooks" / "acon_hooks",
    ROOT / "figures" / "acon_figures",
)
TREE = modules(*PACKAGES)
IMPORTS = imports(TREE)

#: The rooms of each package from the lowest to the highest. Two single modules of one level may
#: import each other, two folders may not. Above all of them is the package's own __init__.
ORDER = {
    package: [set(level.split()) for level in levels.split("<")]
    for package, levels in {
        "acon_analysis": "errors folders usercode columns files screen selection < family < layers "
        "< paper < data < models < moments < store < statistics < runs < plotdata < training "
        "< studies < cli",
        "acon_hooks": "errors guards < engine < layers < readings < census < moments < captures "
        "< explainers replacement < blocks < figure_inputs",
        "acon_figures": "names palette spec style saving labels tabular diagrams < plots "
        "< registry inputs sliders < drawing gallery report",
    }.items()
}

#: Rooms that never load torch.
NO_TORCH = (
    "acon_analysis.columns", "acon_analysis.errors", "acon_analysis.files",
    "acon_analysis.folders", "acon_analysis.moments",
    "acon_analysis.paper", "acon_analysis.plotdata", "acon_analysis.runs", "acon_analysis.screen",
    "acon_analysis.statistics", "acon_analysis.store", "acon_figures",
)  # fmt: skip

#: Modules outside acon_hooks/engine that set hooks or modes today. Whoever moves one to the
#: engine takes it off this list.
KNOWN_HOOKS = {"acon_hooks.replacement.linearizing"}


def level(module: str) -> int:
    """Return how high a module's room is in its package; the front door is above all rooms."""
    package, _, rest = module.partition(".")
    room, order = rest.partition(".")[0], ORDER[package]
    if room in ("", "__main__"):
        return len(order)
    found = [index for index, rooms in enumerate(order) if room in rooms]
    assert found, f"{module} is in no room: give {room!r} its place in ORDER"
    return found[0]


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def downwards(one: Import, tree: Iterable[str]) -> bool:
    """Say whether an import goes to its own room, to a lower one or to one that it may know."""
    source, target = one.module.split(".")[0], one.target.split(".")[0]
    if source == target:
        if level(one.module) != level(one.target) or room(one.module) == room(one.target):
            return level(one.module) >= level(one.target)
        folders = {name.rpartition(".")[0] for name in tree}
        return not {room(one.module), room(one.target)} <= folders
    if target == "acon_analysis":
        return level(one.target) < level("acon_analysis.cli")
    return source == "acon_analysis" and level(one.module) >= level("acon_analysis.cli")


def own_package(one: Import) -> bool:
    """Say whether a module imports from the __init__ of a package that it is in."""
    return one.module.startswith(f"{one.target}.")


def offences(tree: dict[str, Path], found: list[Import]) -> list[str]:
    """Return every import of the tree that goes upwards or into the importer's own package."""
    inner = [one for one in found if one.target in tree]
    return [str(one) for one in inner if own_package(one) or not downwards(one, tree)]


def made(root: Path, files: dict[str, str]) -> dict[str, Path]:
    """Write a tree of modules for a check that must fail on it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return modules(*(path for path in root.iterdir() if path.is_dir()))


def test_imports_run_downwards() -> None:
    assert offences(TREE, IMPORTS) == []


def test_files_import_each_other_in_no_circle() -> None:
    assert circle(IMPORTS) == []


def test_known_offenders_are_still_there() -> None:
    """A module that sets no hooks any more is taken off the list, which so only shrinks."""
    assert sorted(KNOWN_HOOKS - set(hook_setters())) == []


@pytest.mark.parametrize(
    ("text", "offence"),
    [
        ("import acon_analysis.runs.run", "acon_analysis.runs.run"),
        ("def f():\n    from acon_analysis.runs import run", "acon_analysis.runs.run"),
        ("def f():\n    from ..runs.run import Run", "acon_analysis.runs.run"),
        ("if TYPE_CHECKING:\n    from acon_analysis.runs.run import Run", "acon_analysis.runs.run"),
        ("from acon_analysis import capture", "acon_analysis"),
        ("from . import value", "acon_analysis.store"),
        ("from acon_analysis.store import value", "acon_analysis.store"),
        ("from acon_hooks import errors", "acon_hooks.errors"),
        ("from acon_analysis.errors import AconError", ""),
        ("from . import folder", ""),
        ("from .folder import RunFolder", ""),
        ("import numpy, acon_other.runs", ""),
    ],
)
def test_the_check_of_directions_sees_every_form(tmp_path: Path, text: str, offence: str) -> None:
    names = ("__init__", "errors", "store/__init__", "store/folder", "runs/__init__", "runs/run")
    files = {f"acon_analysis/{name}.py": "" for name in names}
    files |= {"acon_hooks/__init__.py": "", "acon_hooks/errors.py": ""}
    tree = made(tmp_path, {**files, "acon_analysis/store/bad.py": text})
    expected = [f"acon_analysis.store.bad -> {offence}"] if offence else []
    assert offences(tree, imports(tree)) == expected


def test_the_check_of_directions_keeps_folders_of_one_level_apart(tmp_path: Path) -> None:
    names = ("guards", "errors", "explainers/__init__", "explainers/data", "replacement/__init__")
    files = {f"acon_hooks/{name}.py": "" for name in names}
    files["acon_hooks/guards.py"] = "from acon_hooks.errors import HookError"
    files["acon_hooks/replacement/plan.py"] = "from acon_hooks.explainers.data import X"
    tree = made(tmp_path, files)
    expected = ["acon_hooks.replacement.plan -> acon_hooks.explainers.data"]
    assert offences(tree, imports(tree)) == expected


def test_the_check_of_circles_can_fail(tmp_path: Path) -> None:
    files = {
        "acon_analysis/a.py": "from acon_analysis import b",
        "acon_analysis/b.py": "def f():\n    import acon_analysis.c",
        "acon_analysis/c.py": "if TYPE_CHECKING:\n    from .a import A",
    }
    found = circle(imports(made(tmp_path, files)))
    assert set(found) == {"acon_analysis.a", "acon_analysis.b", "acon_analysis.c"}
    files["acon_analysis/c.py"] = "from os import path"
    assert circle(imports(made(tmp_path, files))) == []


def test_a_room_that_has_no_place_in_the_order_is_refused() -> None:
    with pytest.raises(AssertionError, match="give 'attic' its place"):
        level("acon_analysis.attic.box")


def test_the_root_stays_small() -> None:
    assert len(list(PACKAGES[0].glob("*.py"))) <= 20


#: Names that set hooks or modes, wherever they stand.
_SETS_HOOKS = re.compile(
    r"register_(module_)?(forward|full_backward)_(pre_)?hook|Torch(Function|Dispatch)Mode"
)


def sets_hooks(text: str) -> bool:
    """Say whether a file sets hooks, enters a mode or replaces a module's forward."""
    return any(map(_sets_hooks, ast.walk(ast.parse(text))))


def _sets_hooks(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="forward", ctx=ast.Store() | ast.Del()):
            return True
        case ast.Call(ast.Name("setattr" | "delattr"), [_, ast.Constant("forward"), *_]):
            return True
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name):
            return bool(_SETS_HOOKS.fullmatch(name))
    return False


def hook_setters() -> list[str]:
    return [
        name
        for name, path in TREE.items()
        if name.startswith("acon_hooks.") and not name.startswith("acon_hooks.engine.")
        if sets_hooks(path.read_text("utf-8"))
    ]


def test_hooks_and_modes_are_set_in_the_engine_alone() -> None:
    assert sorted(set(hook_setters()) - KNOWN_HOOKS) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("module.register_forward_hook(f)", True),
        ("add = module.register_full_backward_hook", True),
        ("from torch.overrides import TorchFunctionMode as Mode", True),
        ("class Watch(python.TorchDispatchMode): ...", True),
        ("module.forward = replaced", True),
        ("setattr(module, 'forward', replaced)", True),
        ("del module.forward", True),
        ("y = module.forward(x)", False),
        ("forward = 1", False),
        ("tensor.register_hook(f)", False),
    ],
)
def test_the_check_of_hooks_can_fail(text: str, expected: bool) -> None:
    assert sets_hooks(text) is expected


def taken(rooms: tuple[str, ...], library: str, found: list[Import]) -> list[str]:
    """Return the imports of a library, lazy ones too, in some rooms."""
    inside = tuple(f"{name}." for name in rooms)
    return [
        str(one)
        for one in found
        if f"{one.module}.".startswith(inside) and one.target.partition(".")[0] == library
    ]


def test_tables_and_figures_import_no_torch() -> None:
    assert taken(NO_TORCH, "torch", IMPORTS) == []


def test_hooks_draw_nothing() -> None:
    assert taken(("acon_hooks",), "matplotlib", IMPORTS) == []
    assert taken(("acon_hooks",), "seaborn", IMPORTS) == []


def test_the_check_of_libraries_can_fail() -> None:
    found = [Import("acon_hooks.readings.tap", "torch.nn"), Import("acon_hooksmith", "torch")]
    assert taken(("acon_hooks",), "torch", found) == ["acon_hooks.readings.tap -> torch.nn"]
    assert taken(("acon_hooks.readings.tap",), "torch", found) != []


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_front_door_is_light() -> None:
    heavy = {"torch", "matplotlib", "pandas", "seaborn", "numpy"}
    assert loaded_by("import acon_analysis") & heavy == set()
    assert loaded_by("from acon_analysis.cli import app") & heavy == set()


def test_the_check_of_the_front_door_can_fail() -> None:
    assert "pandas" in loaded_by("import acon_analysis.runs.run")


def test_what_few_functions_need_is_loaded_by_them() -> None:
    loaded = loaded_by("import acon_hooks")
    assert loaded & {"scipy.stats", "scipy.optimize", "captum", "sklearn"} == set()
    assert "scipy.special" in loaded


def test_tables_and_figures_load_no_torch() -> None:
    rooms = tuple(f"{name}." for name in NO_TORCH)
    inside = [module for module in TREE if f"{module}.".startswith(rooms)]
    assert len(inside) > 60
    assert "torch" not in loaded_by(f"import {', '.join(inside)}")


def test_no_submodule_hides_a_public_function() -> None:
    """A lazy front door returns the submodule once it is imported, if the names are equal."""
    import acon_analysis

    for name in TREE:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    for public, (module, attribute) in acon_analysis._PUBLIC.items():
        value = getattr(acon_analysis, public)
        expected = importlib.import_module(module)
        assert value is (expected if attribute is None else getattr(expected, attribute)), public


@pytest.mark.parametrize("package", ["acon_hooks", "acon_figures"])
def test_no_submodule_hides_a_name_of_its_package(package: str) -> None:
    inside = {name.split(".")[1] for name in TREE if name.startswith(f"{package}.")}
    assert inside & set(importlib.import_module(package).__all__) == set()


def test_an_unknown_public_name_says_what_comes_close() -> None:
    import acon_analysis

    with pytest.raises(AttributeError, match="did you mean 'capture'"):
        _ = acon_analysis.captur
