"""Which modules are the blocks of a network: those named, or the repeated ones."""

from collections.abc import Iterable

from torch import nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.selection import layer_path
from acon_hooks.layers.scan import KINDS, scan_layers

#: What the whole network is called among its blocks; no module path has a space.
WHOLE = "whole network"

#: Modules that only hold others.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

#: Share of a stage's parameters that its blocks have at least.
_MOST = 0.85


def choose_blocks(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Module]:
    """Return the modules to measure by module path; of None the repeated blocks and `WHOLE`."""
    if names is None:
        return {**repeated_blocks(model), WHOLE: model}
    modules = dict(model.named_modules(remove_duplicate=False)) | {WHOLE: model}
    chosen = {}
    for given in [names] if isinstance(names, str) else names:
        name = layer_path(given, modules)
        if name not in modules:
            raise UsageError(f"the network has no module {name!r}; {closest(name, modules)}")
        if isinstance(modules[name], nn.ModuleList | nn.ModuleDict):
            inside = [f"{name}.{child}" for child, _ in modules[name].named_children()]
            raise UsageError(
                f"module {name!r} only holds others and is never called: give those "
                f"({', '.join(inside[:3])}, ...)"
            )
        chosen[name or WHOLE] = modules[name]
    if not chosen:
        raise UsageError("no blocks given: leave blocks out to take the repeated ones")
    return chosen


def repeated_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks that a network is made of, by their module paths.

    They are the parts of a module that holds several of one class, as far as they have parts
    themselves: the outermost ones, but not stages, nearly all of whose parameters are in repeated
    modules in one container. Where nothing is repeated, they are the largest parts of the network
    that have parts.
    """
    layers = {layer.module for layer in scan_layers(model, KINDS) if layer.kind != "gate"}
    found: dict[str, nn.Module] = {}

    def walk(path: str, parent: nn.Module) -> None:
        repeated = _siblings(parent, layers)
        for name, child in parent.named_children():
            if child in repeated and not _is_stage(child, layers):
                found[path + name] = child
            elif child not in layers:
                walk(f"{path}{name}.", child)

    walk("", model)
    return found or _largest_parts(model, layers)


def _siblings(parent: nn.Module, layers: set[nn.Module]) -> list[nn.Module]:
    """Return the children that have parts, where several of them are of one class."""
    children = [
        child
        for child in parent.children()
        if not isinstance(child, _CONTAINERS) and child not in layers
        if any(map(_size, child.children()))
    ]
    return children if len({type(child) for child in children}) < len(children) else []


def _is_stage(module: nn.Module, layers: set[nn.Module]) -> bool:
    """Return whether repeated modules in one container have nearly all parameters."""
    holders = (part for part in module.modules() if isinstance(part, _CONTAINERS))
    inside = max((sum(map(_size, _siblings(part, layers))) for part in holders), default=0)
    return inside > _MOST * _size(module)


def _size(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


def _largest_parts(model: nn.Module, layers: set[nn.Module]) -> dict[str, nn.Module]:
    """Return the children that have parts; of an only child, its own."""
    path, children = "", list(model.named_children())
    while len(children) == 1:
        path, children = f"{path}{children[0][0]}.", list(children[0][1].named_children())
    return {
        f"{path}{name}": child
        for name, child in children
        if any(child.children())
        and child not in layers
        and not isinstance(child, nn.ModuleList | nn.ModuleDict)
    }
