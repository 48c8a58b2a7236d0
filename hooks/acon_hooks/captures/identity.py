"""What makes two captures the same: the network, its weights, the images, the settings."""

import hashlib
import json
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

#: Where an object lies in memory, which it may print.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

#: Packages whose modules may print themselves differently in another version.
_PRINTING = ("acon-analysis", "torch")


def state_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of a model's state dict: names, types, shapes, values."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        for name, leaf in _leaves(key, value):
            if not isinstance(leaf, Tensor):
                digest.update(f"{name}\0{_ADDRESS.sub('', repr(leaf))}\0".encode())
                continue
            tensor = leaf.detach().cpu()
            tensor = tensor.dequantize() if tensor.is_quantized else tensor
            tensor = tensor if tensor.layout is torch.strided else tensor.to_dense()
            tensor = tensor.resolve_conj().resolve_neg().contiguous()
            digest.update(f"{name}\0{leaf.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors and plain values in a value of a state dict, with their names."""
    if isinstance(value, torch.ScriptObject):  # packed weights of a quantised layer
        value = value.__getstate__()
    elif isinstance(value, Tensor) and hasattr(value, "__tensor_flatten__"):  # made of several
        names, context = value.__tensor_flatten__()
        value = {"": context} | {inner: getattr(value, inner) for inner in names}
    if isinstance(value, tuple | list):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, value


def modules_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of the modules as they print themselves: classes, order, settings.

    Settings are what a state dict does not hold: strides, the eps of BatchNorm. Changes of settings
    that a module does not print, or of its ``forward``, go unnoticed.
    """
    return hashlib.sha256(_ADDRESS.sub("", repr(model)).encode()).hexdigest()


def settings_identity(model: nn.Module, begun: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what a run's identity says of its modules' settings; `begun`: its manifest if any."""
    # A manifest of an earlier version of this project says nothing of them; what another version of
    # a library prints is not compared.
    if begun is None:
        return {"modules_sha256": modules_sha256(model)}
    recorded = begun["identity"].get("modules_sha256")
    if recorded is None:
        return {}
    before, now = begun.get("versions", {}), versions()
    if any(before.get(name) != now[name] for name in _PRINTING):
        return {"modules_sha256": recorded}
    return {"modules_sha256": modules_sha256(model)}


def model_name(model: nn.Module) -> str:
    """Return the MODEL string a network was built from, or else its class."""
    origin = getattr(model, "acon_origin", None)
    if origin is not None:
        return str(origin.model)
    return f"{type(model).__module__}.{type(model).__qualname__}"


def identity_sha256(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON-able identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def run_id(identity: Mapping[str, Any]) -> str:
    """Return the short name of a run, which its manifest and the marks of its units hold."""
    return identity_sha256(identity)[:16]


def origin_facts(model: nn.Module) -> dict[str, Any]:
    """Return what a network built by name knows of its weights; empty for others."""
    origin = getattr(model, "acon_origin", None)
    return {} if origin is None else asdict(origin)


def versions() -> dict[str, str]:
    """Return the versions of what computed a run."""
    packages = ("acon-analysis", "torch", "numpy", "pandas", "pyarrow")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield one phrase for every key in which two nested mappings differ."""
    for key in sorted(set(old) | set(new)):
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from differences(was, now, f"{prefix}{key}.")
        elif was != now:
            yield f"{prefix}{key} was {_short(was)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:28] + "..." + text[-28:]
