"""Everything that would make hooks silent or wrong, refused before it can."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from operator import itemgetter
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.nn.parameter import is_lazy

from acon_analysis.errors import UsageError
from acon_analysis.screen import listed
from acon_hooks.errors import HookError, SlowerModelWarning

_locks: WeakKeyDictionary[nn.Module, threading.Lock] = WeakKeyDictionary()
_owners: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_lock_of_locks = threading.Lock()


def unwrap(model: Any) -> nn.Module:
    """Return the module inside torch.compile, DataParallel, DDP, FSDP and averaging wrappers.

    A HookError refuses what is no module, and what runs as TorchScript, as an exported program or
    as a CUDA graph, whatever layers it holds; and a name in it that is no text.
    """
    if form := _recorded_form(model):
        raise HookError(
            f"cannot watch {form}: it runs what was recorded of a network, where hooks never "
            "fire; give the Python module that it was made from"
        )
    if not isinstance(model, nn.Module):
        raise HookError(
            f"cannot watch an object of type {type(model).__name__}: give a torch.nn.Module"
        )
    outer: nn.Module = model
    while (inner := _inner(outer)) is not None:
        outer = inner
    for name, _ in outer.named_modules():
        if any("\ud800" <= sign <= "\udfff" for sign in name):
            raise HookError(
                f"cannot watch the module {name!r}: its name holds half of a character, which no "
                "table can; give it another one"
            )
    return outer


def _recorded_form(model: Any) -> str:
    """Return what a model is that runs a recording of a network; empty if it is a plain module."""
    if isinstance(model, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        return f"a TorchScript module ({getattr(model, 'original_name', type(model).__name__)})"
    names = {cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith("torch.")}
    if names & {"ExportedProgram", "_StatefulGraphModule", "UnflattenedModule"}:
        return f"an exported program ({type(model).__name__}, from torch.export)"
    call = vars(model).get("forward") if isinstance(model, nn.Module) else model
    if isinstance(model, torch.cuda.CUDAGraph) or (
        getattr(call, "__module__", "") == "torch.cuda.graphs"
    ):
        return "a CUDA graph (torch.cuda.make_graphed_callables)"
    return ""


def _inner(model: nn.Module) -> nn.Module | None:
    if is_compiled(model):
        found = model._orig_mod
        return found if isinstance(found, nn.Module) else None
    names = {cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith("torch.")}
    wrappers = {"DataParallel", "DistributedDataParallel", "FullyShardedDataParallel"}
    if names & (wrappers | {"AveragedModel"}):
        found = model.module
        return found if isinstance(found, nn.Module) else None
    return None


def is_compiled(module: nn.Module) -> bool:
    """Return whether the module is the wrapper that torch.compile makes."""
    return type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules


def refuse_unwatchable(model: nn.Module, names: Sequence[str]) -> None:
    """Raise a HookError for a model in which hooks would not run once, or on the wrong numbers."""
    inner = unwrap(model)
    refuse_lazy(inner)
    if isinstance(model, nn.DataParallel):
        raise HookError(
            "DataParallel runs every hook once per device, so readings would mix: "
            "give the module inside, model.module"
        )
    for outer, module in inner.named_modules():
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
            _refuse_traced(outer, module, names)
    refuse_training(inner)


def _refuse_traced(
    outer: str, module: torch.jit.ScriptModule | torch.fx.GraphModule, names: Sequence[str]
) -> None:
    """Raise if one of the modules lies inside a traced module that will not call it."""
    called: set[str] = set()
    kind = "TorchScript module"
    if isinstance(module, torch.fx.GraphModule):
        kind = "traced graph (torch.fx or torch.export)"
        called = {str(node.target) for node in module.graph.nodes if node.op == "call_module"}
    prefix = f"{outer}." if outer else ""
    for name in names:
        inside = name != outer and name.startswith(prefix)
        path = name.removeprefix(prefix).split(".")
        if inside and not any(".".join(path[: i + 1]) in called for i in range(len(path))):
            where = repr(outer) if outer else "that is the model"
            raise HookError(
                f"layer {name!r} lies inside the {kind} {where}: hooks there never fire; "
                "use the Python module that it was made from"
            )


#: Modules that do the same in training and in evaluation, so that their flag does not matter.
_INDIFFERENT = {
    nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Flatten, nn.Linear, nn.Conv1d,
    nn.Conv2d, nn.ReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.AdaptiveAvgPool2d, nn.AvgPool2d,
    nn.MaxPool2d, nn.LayerNorm, nn.GroupNorm,
}  # fmt: skip


def training_flags(model: nn.Module) -> Callable[[], bool]:
    """Return what says quickly whether some module that could mind is in training mode."""
    modules = [module for module in model.modules() if type(module) not in _INDIFFERENT]
    own = [vars(module) for module in modules if "training" in vars(module)]
    others = [module for module in modules if "training" not in vars(module)]  # TorchScript's
    flag = itemgetter("training")
    return lambda: any(map(flag, own)) or any(module.training for module in others)


def refuse_training(model: nn.Module) -> None:
    """Raise a HookError if a module is in training mode and is affected by it, naming them."""
    training = [
        name or "the model itself"
        for name, m in model.named_modules()
        if m.training and type(m) not in _INDIFFERENT
    ]
    if training:
        are = "1 module is" if len(training) == 1 else f"{len(training)} modules are"
        raise HookError(
            f"the model must be in evaluation mode, but {are} in training mode "
            f"({listed(training, 5, repr)}): its outputs would depend on the batch or on chance; "
            "call model.eval() first"
        )


def refuse_lazy(model: nn.Module) -> None:
    """Raise for a model with lazy modules: a forward pass would initialise them."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            raise HookError(
                f"{name!r} belongs to a lazy module that has not run yet and has no values: run "
                "the model once on a batch of its data first"
            )


def refuse_without_values(model: nn.Module) -> None:
    """Raise for a model whose parameters or buffers have no values yet."""
    refuse_lazy(model)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_meta:
            raise HookError(
                f"{name!r} is on the meta device and has no values: move the model to a real "
                "device (model.to_empty) and load its weights first"
            )


def refuse_other_images(model: nn.Module, images: torch.Tensor) -> None:
    """Raise a UsageError for images without the channels that the network says, or a batch axis."""
    expected = getattr(model, "input_shape", None)
    if not isinstance(expected, tuple | list):
        return
    if len(expected) == images.ndim:
        raise UsageError(
            f"the network takes batches of images of shape {tuple(expected)} (C, H, W), and a "
            f"batch has the shape {tuple(images.shape)}: the batch axis is missing; give "
            "(N, C, H, W), a single image as image.unsqueeze(0)"
        )
    if len(expected) == images.ndim - 1 and expected[0] != images.shape[1]:
        raise UsageError(
            f"the network takes images of shape {tuple(expected)} (C, H, W); these are "
            f"{tuple(images.shape[1:])}: choose other images, or a preprocessing that fits"
        )


@contextmanager
def exclusive(model: nn.Module) -> Iterator[None]:
    """Hold a model for one thread; others wait, the same thread is refused."""
    with _lock_of_locks:
        lock = _locks.setdefault(model, threading.Lock())
    if _owners.get(model) == threading.get_ident():
        raise HookError("this model is being watched already: leave that context first")
    with lock:
        _owners[model] = threading.get_ident()
        try:
            yield
        finally:
            _owners.pop(model, None)  # gone already where the interpreter is shutting down


class SharedSetting:
    """A process-wide setting that stays changed while a user in any thread needs it."""

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        # Changes the setting and returns what changes it back.
        self.change = change
        self.lock = threading.Lock()
        self.users = 0
        self.back: Callable[[], None] = _nothing

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the setting changed inside the context."""
        with self.lock:
            if self.users == 0:
                self.back = self.change()
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if self.users == 0:
                    self.back()


_said: set[str] = set()


def say_once(text: str) -> None:
    """Warn of a slower path, once in a process."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, SlowerModelWarning, stacklevel=3)


def _nothing() -> None:
    """Change nothing back."""


def _force_eager() -> Callable[[], None]:
    stance: Any = torch.compiler.set_stance("force_eager")
    return lambda: stance.__exit__(None, None, None)


def _without_fast_path() -> Callable[[], None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return lambda: torch.backends.mha.set_fastpath_enabled(before)


def _without_tf32() -> Callable[[], None]:
    backends: Any = torch.backends
    owners = (
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.cuda.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.matmul,
    )
    before = [owner.fp32_precision for owner in owners]
    for owner in owners:
        owner.fp32_precision = "ieee"

    def back() -> None:
        for owner, value in zip(owners, before, strict=True):
            owner.fp32_precision = value

    return back


_eager = SharedSetting(_force_eager)
_slow_path = SharedSetting(_without_fast_path)
_full_precision = SharedSetting(_without_tf32)


def full_precision() -> AbstractContextManager[None]:
    """Compute float32 as float32: no TF32, which some devices use for convolutions by default."""
    return _full_precision.hold()


@contextmanager
def eager() -> Iterator[None]:
    """Run compiled code eagerly inside this context, so that hooks fire in it."""
    # Without the compiler in memory nothing can be compiled. A compiled wrapper elsewhere can hold
    # the very model that is watched, so it does not matter whether the model shows signs of being
    # compiled.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _eager.hold():
        yield


#: Modules with a fused path of their own in evaluation mode.
_FAST = (nn.TransformerEncoderLayer, nn.TransformerEncoder, nn.MultiheadAttention)


@contextmanager
def slow_path(model: nn.Module) -> Iterator[None]:
    """Run transformer encoders module by module inside this context, so that hooks fire in them.

    In evaluation mode `torch.nn.TransformerEncoderLayer` otherwise calls one fused function for a
    whole layer, on nested tensors where there is a padding mask. Values at real positions move by
    rounding (6e-7); those at padded ones, which the fused function sets to 0, are computed.
    """
    kinds = {type(module) for module in model.modules()}
    if not any(issubclass(kind, _FAST) for kind in kinds):
        yield
        return
    if nn.TransformerEncoderLayer in kinds and torch.backends.mha.get_fastpath_enabled():
        say_once(
            "transformer encoder layers run module by module while the model is watched, so that "
            "their activations are seen: real positions move by rounding, padded ones are computed"
        )
    with _slow_path.hold():
        yield


def refuse_compiling() -> None:
    """Raise inside code that torch.compile runs or traces: it would compile the hooks as well."""
    if torch.compiler.is_compiling() or get_eval_frame_callback() not in (None, False):
        raise HookError(
            "the model was compiled while it was being watched, and its hooks with it: compile "
            "it before (compiled models run eagerly while they are watched) or afterwards"
        )


def autocast_dtype(kind: str) -> torch.dtype | None:
    """Return the dtype that autocast would use on a kind of device now; None where it is off."""
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def refuse_autocast(dtype: torch.dtype | None, *, allowed: bool) -> None:
    """Raise if autocast is on, with the dtype given, and was not allowed."""
    if dtype is not None and not allowed:
        raise HookError(
            f"the model runs under autocast ({dtype}), which rounds β (errors of 2e-3 in "
            "bfloat16): leave autocast, or pass allow_autocast=True"
        )
