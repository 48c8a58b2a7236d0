"""Which module imports which, read from the source of a tree of packages."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import anywhere in a module: at its top, in a function or for type hints only.

    ``target`` is a module of the tree if there is one, otherwise the dotted name as written;
    ``name`` is what is taken from it, empty for a whole module.
    """

    module: str
    target: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.module} -> {self.target}"


def modules(*packages: Path) -> dict[str, Path]:
    """Return every module of some packages by its dotted name; a package is its __init__."""
    found = {}
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            parts = (package.name, *path.relative_to(package).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(tree: Mapping[str, Path]) -> list[Import]:
    """Return every import in the modules of a tree."""
    return [
        Import(module, *_resolved(name, taken, tree))
        for module, path in tree.items()
        for name, taken in _written(module, path)
    ]


def _written(module: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name taken from it) for every import statement of a file."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - max(node.level - 1, 0)]
            start = [".".join(parts)] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((base, alias.name) for alias in node.names)


def _resolved(base: str, name: str, tree: Mapping[str, Path]) -> tuple[str, str]:
    """Return (module of the tree, name): a submodule that is taken by name is the target."""
    if f"{base}.{name}" in tree:
        return f"{base}.{name}", ""
    return base, name


def circle(found: list[Import]) -> list[str]:
    """Return the modules of one circle of imports, or nothing."""
    graph: dict[str, set[str]] = {}
    for one in found:
        graph.setdefault(one.module, set()).add(one.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
