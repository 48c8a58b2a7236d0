"""What could run code that lies in a file, or start a program: in these places and nowhere else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from acon_analysis.cli.options import say

ROOT = Path(__file__).parents[1]
PACKAGES = ("acon_analysis", "hooks/acon_hooks", "figures/acon_figures")

#: Modules that load code, unpickle, call foreign libraries or start programs, or make folders that
#: others may exchange.
MODULES = frozenset({
    "importlib", "imp", "runpy", "pkgutil", "pickle", "cPickle", "_pickle", "dill", "cloudpickle",
    "joblib", "marshal", "shelve", "ctypes", "cffi", "subprocess", "multiprocessing", "pty", "code",
    "codeop", "yaml", "zipimport", "tempfile",
})  # fmt: skip

#: Functions of other modules that do.
FUNCTIONS = frozenset({
    "torch.load", "torch.compile", "torch.jit.load", "torch.hub.load", "torch.package",
    "torch.export.load",
    "torch.ops.load_library", "torch.classes.load_library", "torch.serialization.load",
    "torch.multiprocessing", "torch.utils.cpp_extension",
    "np.load", "numpy.load", "np.fromfile", "pd.read_pickle", "pd.eval", "pa.deserialize",
    "os.system", "os.popen", "os.fork", "os.startfile", "sys.path.insert", "sys.path.append",
    "sys.meta_path.insert", "sys.meta_path.append",
    *(f"os.{kind}{end}" for kind in ("exec", "spawn", "posix_spawn")
      for end in ("", "p", "l", "v", "lp", "vp", "le", "ve", "lpe", "vpe")),
})  # fmt: skip

#: Builtins that do.
BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})

#: Where each may be used, and why that runs nothing that was not asked for.
ALLOWED: dict[str, dict[str, str]] = {
    # The user names code: the one way in.
    "acon_analysis/usercode.py": {
        "importlib": "file.py:callable and package.module:callable",
        "sys.meta_path.insert": "the folder of such a file, for code of the file alone",
    },
    # Modules whose names stand in this project's own source.
    "acon_analysis/__init__.py": {"importlib": "the lazy front door: its own table of names"},
    "acon_analysis/runs/run.py": {"importlib": "acon_figures and acon_hooks, by constants"},
    "acon_analysis/models/registry.py": {"importlib": "torchvision and timm, by constants"},
    "figures/acon_figures/__init__.py": {"importlib": "the registry's own figures"},
    "figures/acon_figures/spec.py": {"importlib": "the registry's own figures"},
    # Versions and templates of installed packages.
    "acon_analysis/cli/application.py": {"importlib": "metadata of the installed package"},
    "hooks/acon_hooks/captures/identity.py": {"importlib": "metadata of installed packages"},
    "figures/acon_figures/report/rendering.py": {"importlib": "metadata; the package's templates"},
    # Files of others.
    "acon_analysis/models/checkpoints/machine.py": {
        "pickletools": "lists instructions, runs none",
        "pickle": "an unpickler with stand-ins for the few names it allows, importing nothing",
    },
    "acon_analysis/models/checkpoints/child.py": {
        "torch.load": "weights_only, after the gate, in a process with little to take",
        "sys.path": "extended by the parent's own path, in that process",
    },
    "acon_analysis/models/checkpoints/reader_process.py": {"subprocess": "starts child.py"},
    "acon_analysis/training/loop.py": {"torch.load": "weights_only, a training state"},
    "acon_analysis/data/cifar.py": {
        "pickle": "an unpickler that knows the five parts of an array and nothing else",
        "np.load": "allow_pickle=False, from a private cache",
    },
    # Temporary folders, each checked by `shared_by`.
    "acon_analysis/files.py": {"tempfile": "temporary_folder, for all others"},
    "acon_analysis/models/checkpoints/cache.py": {"tempfile": "in the private cache"},
    # The compiled kernel.
    "hooks/acon_hooks/moments/native/build.py": {
        "subprocess": "a compiler, on own source",
        "tempfile": "where it is compiled, in a folder checked by `shared_by`",
    },
    "hooks/acon_hooks/moments/native/sums.py": {"ctypes": "from a private cache or compiled now"},
    "acon_analysis/store/parquet.py": {"ctypes": "malloc_trim of the C library that runs already"},
    # No file is read.
    "acon_analysis/data/preprocess.py": {"multiprocessing": "asks whether this is a worker"},
    "hooks/acon_hooks/census/marks.py": {"torch.multiprocessing": "StorageWeakRef"},
    "hooks/acon_hooks/layers/provenance.py": {"torch.multiprocessing": "StorageWeakRef"},
}  # fmt: skip


def uses(tree: ast.AST) -> Iterator[str]:
    """Yield the dangerous modules and functions that a file names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in BUILTINS:
                yield node.func.id
            continue
        else:
            continue
        for name in names:
            root = name.partition(".")[0]
            if root in MODULES and not isinstance(node, ast.Attribute):
                yield root
            if root == "pickletools":
                yield root
            for function in FUNCTIONS:
                if name == function or name.startswith(f"{function}."):
                    yield "sys.path" if function.startswith("sys.path") else function
            if name.startswith("sys.path.") or name == "torch.utils.cpp_extension":
                yield "sys.path"


def test_code_is_loaded_and_programs_are_started_only_where_it_is_known() -> None:
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if names := set(uses(ast.parse(path.read_text("utf-8")))):
                found[str(path.relative_to(ROOT))] = names
    assert found == {path: set(names) for path, names in ALLOWED.items()}


@pytest.mark.parametrize(
    ("call", "keyword", "value"),
    [("torch.load", "weights_only", True), ("np.load", "allow_pickle", False)],
)
def test_readers_are_told_to_run_nothing(call: str, keyword: str, value: bool) -> None:
    seen = 0
    for path in (path for path, names in ALLOWED.items() if call in names):
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == call:
                given = {one.arg: ast.literal_eval(one.value) for one in node.keywords
                         if isinstance(one.value, ast.Constant)}  # fmt: skip
                assert given[keyword] is value
                seen += 1
    assert seen


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load(x)",
        "from torch import load", "from numpy import load", "import os\nos.system(x)", "eval(x)",
        "from ctypes import CDLL", "import importlib.util", "from torch.jit import load",
        "import sys\nsys.path.insert(0, x)", "import subprocess as s",
        "import sys\nsys.meta_path.insert(0, x)",
    ],
)  # fmt: skip
def test_each_way_is_noticed(source: str) -> None:
    assert list(uses(ast.parse(source)))


def test_the_page_names_every_file_that_is_read() -> None:
    page = (ROOT / "docs" / "guide" / "trust.md").read_text("utf-8").casefold()
    for word in ("file.py:callable", "package.module:callable", "checkpoint", "training state",
                 "plan", "manifest", "parquet", "cache", "compiled kernel", "image", "cifar-10",
                 "safetensors", "weights_only", "0700"):  # fmt: skip
        assert word.casefold() in page, word


def test_printed_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Commands print through `say`, which spells the control characters of names."""
    say("layer \x1b]0;title\x07 of\nrun")
    assert capsys.readouterr().out == "layer \\x1b]0;title\\x07 of\nrun\n"
    for path in (ROOT / "acon_analysis" / "cli").glob("*.py"):
        echoes = re.findall(r"typer\.(?:echo|secho)\((.*)", path.read_text("utf-8"))
        assert all("spelled(" in echo or "version" in echo for echo in echoes), path.name
