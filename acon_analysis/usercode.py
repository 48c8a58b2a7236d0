"""Callables that the user names as `file.py:callable` or `package.module:callable`."""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from acon_analysis.errors import UsageError, closest

#: Modules that files of the user's have imported from their own folders, and these folders.
_imported: dict[str, str] = {}


def load_callable(what: str, address: str) -> tuple[Callable[..., Any], str | None]:
    """Return the callable at ``file.py:callable`` or ``package.module:callable``, and a hash.

    This runs the code of the file or module. ``what``, such as ``"model"``, is the first word of
    every error message. The hash is the SHA-256 of the source file, None for a module without one.
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
    if not source.endswith(".py"):
        return target, _digest(module)

    def call(*args: Any, **kwargs: Any) -> Any:
        with _neighbours(Path(source)):
            return target(*args, **kwargs)

    return call, _digest(module)


@contextmanager
def _neighbours(path: Path) -> Iterator[None]:
    """Let a file import what lies in its folder, as a script may."""
    folder = str(path.expanduser().resolve().parent)
    for name, owner in list(_imported.items()):
        # Another file of the user's has imported a neighbour of this name from another folder.
        if owner != folder and importlib.machinery.PathFinder.find_spec(name, [folder]):
            sys.modules.pop(name, None)
            del _imported[name]
    before = set(sys.modules)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if "." not in name and file and Path(file).resolve().is_relative_to(folder):
                _imported[name] = folder


def _from_file(what: str, path: Path) -> ModuleType:
    """Run a file as a module, once per content."""
    path = path.expanduser()
    if not path.is_file():
        raise UsageError(f"{what}: there is no file {str(path)!r}")
    # The same name in every process that loads this content from this file, so that what the
    # module defines can be pickled; a changed file is another module.
    key = hashlib.sha256(os.fsencode(path.resolve()) + b"\0" + path.read_bytes())
    stem = path.stem.encode("utf-8", "replace").decode()
    name = f"_acon_user_{stem}_{key.hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{what}: {str(path)!r} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _neighbours(path):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(
            f"{what}: running {str(path)!r} failed with {type(error).__name__}: {error}"
        ) from error
    return module


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
