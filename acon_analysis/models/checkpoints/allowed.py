"""The few globals a state dict and the training checkpoint around it need, and what they mean.

Nothing here imports or calls what a file names: each allowed global has a stand-in that checks its
arguments and returns a description. Everything else is refused by name.
"""

from collections.abc import Callable
from typing import TypeGuard

import torch

from acon_analysis.models.checkpoints.dtypes import BY_NAME, BY_STORAGE
from acon_analysis.models.checkpoints.errors import Refusal, show
from acon_analysis.models.checkpoints.records import Inert, Ordered, Storage, TensorRecord

_NUMPY_ITEMS = {"b1": 1, "i1": 1, "u1": 1, "i2": 2, "u2": 2, "i4": 4, "u4": 4, "i8": 8, "u8": 8}
_NUMPY_ITEMS |= {"f2": 2, "f4": 4, "f8": 8}
_MAX_DIMENSIONS = 16

#: Classes and prefixes of modules that reveal what kind of foreign file this is.
_SPECIAL = (
    ("torch._utils _rebuild_sparse", "a sparse tensor; save `tensor.to_dense()` instead"),
    ("torch.sparse", "a sparse tensor; save `tensor.to_dense()` instead"),
    ("torch._utils _rebuild_qtensor", "a quantised tensor; only plain floating weights are read"),
    ("torch._utils _rebuild_meta", "a meta tensor, which has a shape but no values"),
    ("torch._utils _rebuild_nested", "a nested tensor; only plain tensors are read"),
    ("torch._utils _rebuild_wrapper", "a tensor subclass; only plain tensors are read"),
    ("torch._tensor _rebuild_from_type", "a tensor subclass; only plain tensors are read"),
    ("torch._utils _rebuild_parameter_with_state", "a parameter with extra attributes"),
    ("torch._utils _rebuild_tensor_v3", "a tensor of an element type that no model here has"),
    ("torch ", "a torch object that is no plain tensor"),
    ("torch.nn", "a whole pickled model; save `model.state_dict()` where you trust the file"),
    ("torchvision.", "a whole pickled model; save `model.state_dict()` where you trust the file"),
    ("timm.", "a whole pickled model; save `model.state_dict()` where you trust the file"),
    ("models.", "a whole pickled model; save `model.state_dict()` where you trust the file"),
    ("__main__ ", "an object of the script that saved it; save `model.state_dict()` alone"),
    ("numpy", "a NumPy object; save tensors and plain numbers only"),
)
# fmt: off
_CODE = frozenset((
    "os", "posix", "nt", "sys", "subprocess", "builtins", "__builtin__", "__builtins__",
    "commands", "shutil", "socket", "runpy", "importlib", "pty", "ctypes", "webbrowser",
    "operator", "functools", "types", "code", "codeop", "pickle", "_pickle", "copyreg",
    "copy_reg", "marshal", "platform", "pip", "pdb", "timeit", "asyncio", "multiprocessing",
    "threading", "tempfile", "urllib", "http", "requests", "pathlib", "io",
))
# fmt: on


def refuse_global(name: str) -> Refusal:
    """Return the refusal of a global, ``"module attribute"`` with one space between."""
    dotted = show(name.replace(" ", ".", 1))
    if name.split(" ")[0].split(".")[0] in _CODE:
        return Refusal(
            f"it asks for {dotted}, which no state dict needs and which can run code; "
            "do not load this file with anything"
        )
    what = next((text for start, text in _SPECIAL if name.startswith(start)), None)
    if what is None:
        what = "no part of a state dict; save `model.state_dict()` where you trust the file"
    return Refusal(f"it asks for {dotted}: {what}")


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**48


def _sizes(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > _MAX_DIMENSIONS:
        raise Refusal(f"a tensor's {what} is not a short tuple")
    sizes = tuple(size for size in value if _is_size(size))
    if len(sizes) != len(value):
        raise Refusal(f"a tensor's {what} is not made of sizes")
    return sizes


def _tensor(storage: object, offset: object, size: object, stride: object) -> TensorRecord:
    if not isinstance(storage, Storage):
        raise Refusal("a tensor is built on something that is no storage")
    if not _is_size(offset):
        raise Refusal(f"a tensor's offset {show(offset)} is not a size")
    shape, strides = _sizes(size, "shape"), _sizes(stride, "stride")
    if len(shape) != len(strides):
        raise Refusal(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    record = TensorRecord(storage, offset, shape, strides)
    # Stride 0, or any other overlap, makes terabytes out of a few bytes: no state dict has it.
    reach = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if record.count and max(record.count, reach) > storage.count - offset:
        raise Refusal(
            f"a tensor of shape {shape} with strides {strides} declares {record.count:,} "
            f"elements, but its storage has {max(storage.count - offset, 0):,} for it"
        )
    return record


def _tensor_v2(
    storage: object, offset: object, size: object, stride: object, *rest: object
) -> TensorRecord:
    requires_grad, hooks, metadata = rest if len(rest) == 3 else (*rest, None)
    _require_plain(requires_grad, hooks)
    if metadata:
        raise Refusal("a tensor carries metadata (conjugate or negative bit); resolve it first")
    return _tensor(storage, offset, size, stride)


def _parameter(tensor: object, requires_grad: object, hooks: object) -> TensorRecord:
    if not isinstance(tensor, TensorRecord):
        raise Refusal("a parameter is built on something that is no tensor")
    _require_plain(requires_grad, hooks)
    return tensor


def _require_plain(requires_grad: object, hooks: object) -> None:
    if not isinstance(requires_grad, bool):
        raise Refusal(f"a tensor's requires_grad is {show(requires_grad)}, expected a bool")
    if not (hooks is None or (isinstance(hooks, dict) and not hooks)):
        raise Refusal("a tensor carries backward hooks, which a state dict never does")


def _ordered(*arguments: object) -> Ordered:
    # Python 2 wrote OrderedDict([[key, value], ...]); Python 3 fills an empty one.
    (pairs,) = arguments or ([],)
    if not isinstance(pairs, list) or not all(
        type(p) in (list, tuple) and len(p) == 2 for p in pairs
    ):
        raise Refusal("an OrderedDict is made from something that is no list of pairs")
    result = Ordered()
    for key, value in pairs:
        result[key] = value
    return result


def _counter(counts: object) -> Inert:
    if not isinstance(counts, dict):
        raise Refusal("a Counter is made from something that is no dictionary")
    return Inert("Counter")


def _torch_size(sizes: object) -> tuple[int, ...]:
    return _sizes(sizes, "size")


def _encode(text: object, codec: object) -> bytes:
    if isinstance(text, str) and codec in ("latin1", "latin-1"):
        return text.encode("latin-1")
    raise Refusal("text is encoded as something else than latin-1, which no state dict needs")


def _numpy_dtype(code: object, align: object, copy: object) -> Inert:
    match code, align, copy:
        case str(), False | 0, True | 1 if code in _NUMPY_ITEMS:
            return Inert("NumPy type", code)
    raise Refusal("a NumPy number has a type that is neither a float nor an integer")


def _numpy_scalar(kind: object, raw: object) -> Inert:
    match kind, raw:
        case Inert(kind="NumPy type", detail=code), bytes() if _NUMPY_ITEMS.get(code) == len(raw):
            return Inert("NumPy number")
    raise Refusal("a NumPy number has not the bytes of its type")


#: What a file may call, as pickletools names it.
CALLABLE: dict[str, Callable[..., object]] = {
    "collections OrderedDict": _ordered,
    "collections Counter": _counter,
    "torch Size": _torch_size,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor_v2,
    "torch._utils _rebuild_parameter": _parameter,
    "_codecs encode": _encode,
    "numpy dtype": _numpy_dtype,
    "numpy.core.multiarray scalar": _numpy_scalar,
    "numpy._core.multiarray scalar": _numpy_scalar,
}
#: The class whose instances training scripts save with the weights (their options).
NAMESPACE = "argparse Namespace"
#: Storage classes, on the CPU or (saved from there) on a GPU.
STORAGES: dict[str, torch.dtype] = {
    f"{module} {name}": dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in BY_STORAGE.items()
}
#: Element types by themselves, as saved options hold them.
_DTYPES = frozenset(f"torch {name}" for name in BY_NAME)


def is_allowed(name: str) -> bool:
    """Whether a file may name this global at all."""
    return name in CALLABLE or name in STORAGES or name in _DTYPES or name == NAMESPACE
