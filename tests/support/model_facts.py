"""What a model is: everything that no function may change in it."""

import hashlib
import re
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import _get_current_function_mode_stack


def _digest(value: Tensor) -> str:
    if value.device.type == "meta" or value.layout is not torch.strided:
        return ""
    plain = value.detach().dequantize() if value.is_quantized else value.detach()
    raw = torch.view_as_real(plain) if plain.is_complex() else plain
    raw = raw.float() if raw.dtype in (torch.bfloat16, torch.float16) else raw
    return hashlib.sha256(raw.contiguous().cpu().numpy().tobytes()).hexdigest()


def _tensor_facts(value: Tensor) -> tuple[Any, ...]:
    strided = value.layout is torch.strided and value.device.type != "meta"
    return (
        id(value),
        type(value),
        value.dtype,
        str(value.device),
        tuple(value.shape),
        tuple(value.stride()) if strided else None,
        value.requires_grad,
        id(value.grad) if value.is_leaf and value.grad is not None else None,
        _digest(value),
    )


_HOOKS = [name for name in vars(nn.Module()) if "hook" in name]


def facts_of(model: nn.Module) -> dict[str, Any]:
    """Return everything that must not change in a model, and torch's global settings."""
    facts: dict[str, Any] = {"random state": _digest(torch.get_rng_state())}
    facts["settings"] = (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled("cpu"), torch._C._len_torch_function_stack(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.conv.fp32_precision,  # type: ignore[attr-defined]
        torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision,
    )  # fmt: skip
    for name, module in model.named_modules(remove_duplicate=False):
        facts[f"{name} training"] = module.training
        facts[f"{name} class"] = type(module)
        facts[f"{name} hooks"] = [
            [(key, id(hook)) for key, hook in (getattr(module, kind, None) or {}).items()]
            if isinstance(getattr(module, kind, None), dict)
            else id(getattr(module, kind, None))
            for kind in _HOOKS
        ]
        for key, value in vars(module).items():
            if key in _HOOKS or key == "training":
                continue
            if isinstance(value, dict):
                facts[f"{name} attribute {key}"] = [(k, id(v)) for k, v in value.items()]
            elif isinstance(value, list):
                values = [v() if isinstance(v, weakref.ref) else v for v in value]
                facts[f"{name} attribute {key}"] = [id(v) for v in values]
            elif isinstance(value, int | float | str | bool | tuple | type(None)):
                facts[f"{name} attribute {key}"] = value
            else:
                facts[f"{name} attribute {key}"] = id(value)
            if isinstance(value, Tensor):
                facts[f"{name} tensor attribute {key}"] = _tensor_facts(value)
        tensors = {**module._parameters, **module._buffers}
        for key, tensor in tensors.items():
            lazy = tensor is not None and is_lazy(tensor)
            facts[f"{name} tensor {key}"] = (
                id(tensor) if tensor is None or lazy else _tensor_facts(tensor)
            )
            if tensor is not None and not lazy and tensor.layout is torch.strided:
                facts[f"{name} memory {key}"] = tensor.data_ptr()
    return facts


@contextmanager
def unchanged(model: nn.Module, but: Sequence[str] = (), what: str = "") -> Iterator[None]:
    """Assert that a model is afterwards what it was before, but for facts with parts of names."""
    before = facts_of(model)
    try:
        yield
    finally:
        after = facts_of(model)
        different = [
            name
            for name in {**before, **after}
            if before.get(name) != after.get(name) and not any(part in name for part in but)
        ]
        shown = {name: (before.get(name), after.get(name)) for name in different[:3]}
        assert not different, f"{what} changed {shown}"


@contextmanager
def warned(*patterns: str) -> Iterator[None]:
    """Assert that each pattern is found in some warning, and that there is no other warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(warning.message) for warning in caught]
    missing = [p for p in patterns if not any(re.search(p, text) for text in texts)]
    others = [text for text in texts if not any(re.search(p, text) for p in patterns)]
    assert not missing, (missing, texts)
    assert not others, others


def traces(model: nn.Module) -> list[Any]:
    """Return every hook on a model, and every active function mode."""
    modules = list(model.modules())
    hooks = [hook for m in modules for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
    modes: list[Any] = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return [*hooks, *modes]
