"""Callables that the user names as `file.py:callable` or `package.module:callable`."""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from acon_analysis.errors import UsageError, closest
from acon_analysis.folders import expanded

#: Folders of the user's files that have run, and what was imported from them: name -> folder.
_folders: set[str] = set()
_imported: dict[str, str] = {}


def load_callable(
    what: str, address: str, given: Sequence[str] = ()
) -> tuple[Callable[..., Any], str | None]:
    """Return the callable at ``file.py:callable`` or ``package.module:callable``, and a hash.

    This runs the code of the file or module. ``what``, such as ``"model"``, is the first word of
    every error message; ``given`` names the arguments that the callable will get. The hash is the
    SHA-256 of the source file, None for a module without one.
    """
    source, colon, name = address.rpartition(":")
    if not colon or not source or not name:
        raise UsageError(f"{what}: {address!r} is not of the form 'file.py:callable'")
    module = _from_file(what, Path(source)) if source.endswith(".py") else _module(what, source)
    target = getattr(module, name, None)
    if target is None:
        options = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise UsageError(f"{what}: {source!r} has no {name!r}; {closest(name, options)}")
    if not callable(target):
        raise UsageError(f"{what}: {address} is not callable but a {type(target).__name__!r}")
    _require_parameters(what, address, target, given)
    if not source.endswith(".py"):
        return target, _digest(module)

    @functools.wraps(target, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        _open_folder(Path(source))
        return target(*args, **kwargs)

    return call, _digest(module)


def _require_parameters(
    what: str, address: str, target: Callable[..., Any], given: Sequence[str]
) -> None:
    """Raise a UsageError if a callable cannot be called with the arguments that it will get."""
    if hasattr(target, "forward") and not isinstance(target, type):  # a network, not called here
        return
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of a builtin
        return
    try:
        signature.bind(*given)
    except TypeError:
        names = ", ".join(given) or "no arguments"
        raise UsageError(
            f"{what}: {address} takes {signature}, but is called with {names}"
        ) from None


class _Neighbours(MetaPathFinder):
    """Lets code of a user's file import what lies in its folder, as a script may, also later."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Look in the folder of the innermost user's code that runs in this thread."""
        if path is not None:  # a part of a package
            return None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _folder_of(frame.f_code.co_filename) not in _folders:
            frame = frame.f_back
        if frame is None:
            return None
        folder = _folder_of(frame.f_code.co_filename)
        found = PathFinder.find_spec(name, [folder])
        if found is not None:
            _imported[name] = folder
        return found


@functools.lru_cache(maxsize=4096)
def _folder_of(file: str) -> str:
    """Return the folder that a file lies in; nothing for code that comes from no file."""
    path = Path(file)
    return str(path.resolve().parent) if path.is_absolute() else ""


def _open_folder(path: Path) -> None:
    """Let the code of a file import from its folder, and forget what others have imported."""
    if not any(isinstance(finder, _Neighbours) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Neighbours())
    folder = str(expanded(path).resolve().parent)
    _folders.add(folder)
    importlib.invalidate_caches()
    for name, owner in list(_imported.items()):
        if owner != folder and PathFinder.find_spec(name, [folder]):
            sys.modules.pop(name, None)
            del _imported[name]


class _Content(SourceFileLoader):
    """Runs what was read of a file, never bytecode, which says less exactly of what it is.

    It looks current for a file of the same length that was changed within the same second.
    """

    def __init__(self, name: str, path: Path, content: bytes) -> None:
        super().__init__(name, str(path.absolute()))
        self.content = content

    def path_stats(self, path: str) -> Any:
        """Know of no time that bytecode could be of."""
        raise OSError

    def get_data(self, path: str) -> bytes:
        """Return the content."""
        return self.content


def _from_file(what: str, path: Path) -> ModuleType:
    """Run a file as a module, once per content."""
    path = expanded(path)
    if not path.is_file():
        raise UsageError(f"{what}: there is no file {str(path)!r}")
    # The same name in every process that loads this content from this file, so that what the
    # module defines can be pickled; a changed file is another module.
    content = path.read_bytes()
    key = hashlib.sha256(os.fsencode(path.resolve()) + b"\0" + content)
    stem = path.stem.encode("utf-8", "replace").decode()
    name = f"_acon_user_{stem}_{key.hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Content(name, path, content)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise UsageError(f"{what}: {str(path)!r} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _open_folder(path)
    try:
        loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(
            f"{what}: running {str(path)!r} failed with {type(error).__name__}: {error}"
        ) from error
    return module


def module_label(name: str) -> str:
    """Return what a module is called for people: the file that a user named, or its own name."""
    return re.sub(r"^_acon_user_(.*)_[0-9a-f]{12}$", r"\1.py", name)


def _module(what: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UsageError(
            f"{what}: {name!r} cannot be imported ({type(error).__name__}: {error})"
        ) from error


def _digest(module: ModuleType) -> str | None:
    source = getattr(module, "__file__", None)
    if source is None or not Path(source).is_file():
        return None
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()
