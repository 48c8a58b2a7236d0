"""Docstrings as they are written here: bars are absolute values, single backticks name objects.

A name in backticks that is documented becomes a link. One that exists but has no entry of its own
(a private module's table, a parameter of torch) stays code. One that does not exist is left to
Sphinx, which warns; so a docstring cannot name what was renamed.
"""

import builtins
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

ROOMS = ("acon_analysis", "acon_hooks", "acon_figures")
_CODE = re.compile(r"``.+?``|`[^`]+`")
_SINGLE = re.compile(r"(?<!`)`([A-Za-z_]\w*)`(?!`)")
_PYTHON = re.compile(r"[A-Za-z_][\w.]*")


def _homes(env: Any) -> dict[str, str]:
    """Return documented object -> module that its docstring was written in.

    Kept in Sphinx's environment: a second build reads only what has changed.
    """
    if not hasattr(env, "acon_homes"):
        env.acon_homes = {}
    homes: dict[str, str] = env.acon_homes
    return homes


def _escaped(line: str) -> str:
    """Escape bars outside code: |x| is no substitution here."""
    parts, end = [], 0
    for found in _CODE.finditer(line):
        parts += [line[end : found.start()].replace("|", r"\|"), found.group()]
        end = found.end()
    return "".join([*parts, line[end:].replace("|", r"\|")])


def _names(env: Any) -> dict[str, str]:
    """Return where something was written -> the name that it is documented under."""
    if not hasattr(env, "acon_names"):
        env.acon_names = {}
    names: dict[str, str] = env.acon_names
    return names


def _module(value: Any) -> str:
    """Return where something was written; of a property, where its function was."""
    inner = getattr(value, "fget", None) or getattr(value, "func", None) or value
    return getattr(inner, "__module__", None) or ""


def _parameters(value: Any) -> set[str]:
    """Return the names of a function's parameters or of a class's."""
    try:
        return set(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return set()


def _process(app: Sphinx, _what: str, name: str, value: Any, _options: Any, lines: list[str]
             ) -> None:  # fmt: skip
    own = _parameters(value)
    lines[:] = [
        _SINGLE.sub(lambda m: f"``{m[1]}``" if m[1] in own else m[0], _escaped(line))
        for line in lines
    ]
    home = _module(value)
    _homes(app.env)[name] = home or name.rpartition(".")[0]
    if home and hasattr(value, "__qualname__"):
        _names(app.env)[f"{home}.{value.__qualname__}"] = name


def _skip(_app: Sphinx, _what: str, name: str, value: Any, _skip: bool, _options: Any
          ) -> bool | None:  # fmt: skip
    """Leave out members that are not this project's: written by NamedTuple, or for torch."""
    text = getattr(value, "__doc__", None) or ""
    foreign = (_module(value) or ROOMS[0]).partition(".")[0] not in ROOMS
    return True if foreign or name == "extra_repr" or text.startswith("Alias for field") else None


def _found(path: str) -> Any:
    """Import what a dotted path names; LookupError if there is no such thing."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        try:
            for part in parts[cut:]:
                fields = getattr(value, "__dataclass_fields__", {})
                value = fields[part] if part in fields else getattr(value, part)
        except AttributeError:
            continue
        return value
    raise LookupError(path)


@cache
def _packages() -> tuple[str, ...]:
    """Return the three packages and every package inside them."""
    names = list(ROOMS)
    for room in ROOMS:
        path = importlib.import_module(room).__path__
        names += [one.name for one in pkgutil.walk_packages(path, f"{room}.") if one.ispkg]
    return tuple(names)


def _places(target: str, node: pending_xref, written: dict[str, str]) -> Iterator[str]:
    """Yield the paths that a name in a docstring may stand for, the nearest first."""
    module, klass = node.get("py:module") or "", node.get("py:class") or ""
    homes = [written.get(f"{module}.{klass}", ""), module]
    homes += sorted({home for name, home in written.items() if name.startswith(f"{module}.")})
    for home in filter(None, homes):
        if klass:
            yield f"{home}.{klass}.{target}"
        yield f"{home}.{target}"
    yield target
    for package in _packages():
        yield f"{package}.{target}"


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
             ) -> nodes.Element | None:  # fmt: skip
    """Link or leave as code what Sphinx did not find."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py":
        return None
    if "(" in target or hasattr(builtins, target):  # a call, written as code
        return content
    if not _PYTHON.fullmatch(target):
        return None
    for path in _places(target, node, _homes(env)):
        try:
            value = _found(path)
        except LookupError:
            continue
        entries = env.domains.python_domain.objects
        own = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
        for name in (path, own, _names(env).get(own, "")):
            if name in entries:
                entry = entries[name]
                here = str(node.get("refdoc"))
                place = entry.docname, entry.node_id
                return make_refnode(app.builder, here, *place, content, name)
        return content
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to autodoc and to unresolved references."""
    # numpydoc listens at 500; it must see the lines first.
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
