"""From what a user names to layers of a model."""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from acon_analysis.errors import UsageError, closest
from acon_analysis.selection import layer_path
from acon_hooks.engine.sites import split_name
from acon_hooks.layers.functions import function_layer
from acon_hooks.layers.scan import KINDS, PLAIN_KINDS, Layer, scan_layers


class NoLayerError(UsageError):
    """A model has no layer of the kinds asked for."""


def choose_layers(
    model: nn.Module, layers: Sequence[Layer | str] | None, kinds: tuple[str, ...]
) -> list[Layer]:
    """Return the layers meant by objects, by names as tables have them, or by kinds alone."""
    found = {layer.name: layer for layer in scan_layers(model, kinds)}
    if layers is None:
        if not found and not set(PLAIN_KINDS) & set(kinds):
            raise NoLayerError(none_of(model, kinds))
        return list(found.values())
    modules = dict(model.named_modules(remove_duplicate=False))
    chosen = []
    for given in layers:
        layer = layer_path(given, modules) if isinstance(given, str) else given
        if isinstance(layer, str):
            if split_name(layer)[1] is not None and set(PLAIN_KINDS) & set(kinds):
                found[layer] = function_layer(model, layer, kinds, kind=_kind_of(layer, kinds))
            if layer not in found:
                raise UsageError(_not_of(model, layer, kinds, found))
            chosen.append(found[layer])
        elif modules.get(split_name(layer.name)[0]) is not layer.module:
            raise UsageError(
                f"layer {layer.name!r} belongs to another model: call scan_layers on this one"
            )
        else:
            chosen.append(layer)
    if not chosen:
        raise UsageError("no layers given: leave layers out to take all of the kinds")
    return chosen


def _not_of(model: nn.Module, name: str, kinds: tuple[str, ...], found: dict[str, Layer]) -> str:
    """Say that a name is no layer of some kinds, and of which kind it is or what comes close."""
    words = " or ".join(map(repr, kinds))
    others = {layer.name: layer.kind for layer in scan_layers(model, KINDS)}
    if name in others:
        return f"layer {name!r} is of kind {others[name]!r}, not {words}"
    return f"no layer {name!r} of kind {words}: {closest(name, found)}"


def _kind_of(name: str, kinds: tuple[str, ...]) -> str:
    """Return of which kind a function is meant to be; a product may also end an activation."""
    called = split_name(name)[1]
    own = [kind for kind in PLAIN_KINDS if kind in kinds]
    if called is not None and called[0] == "mul" and len(own) > 1:
        raise UsageError(
            f"layer {name!r} may be a product or the last step of an activation: ask for one kind, "
            f"{' or '.join(map(repr, own))}"
        )
    return own[0] if called is not None and called[0] == "mul" else "activation"


def none_of(model: nn.Module, kinds: tuple[str, ...]) -> str:
    """Say that a model has no layer of some kinds, and which others it has."""
    there = Counter(layer.kind for layer in scan_layers(model, KINDS))
    have = ", ".join(f"{count} of kind {kind!r}" for kind, count in there.items())
    return (
        f"{type(model).__name__} has no layer of kind {' or '.join(map(repr, kinds))}; "
        f"it has {have or 'no layer of any other kind either'}"
    )
