"""The few globals a state dict and the training checkpoint around it need, and what they mean.

Nothing here imports or calls what a file names: each allowed global has a stand-in that checks its
arguments and returns a description. Everything else is refused by name.
"""

from collections.abc import Callable
from math import prod

from acon_analysis.models.checkpoints.dtypes import BY_NAME, BY_STORAGE, DType
from acon_analysis.models.checkpoints.errors import Refusal, show
from acon_analysis.models.checkpoints.records import Inert, Ordered, Storage, TensorRecord

Arguments = tuple[object, ...]

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


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _sizes(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > _MAX_DIMENSIONS:
        raise Refusal(f"a tensor's {what} is not a short tuple")
    sizes = tuple(size for size in value if isinstance(size, int) and _is_size(size))
    if len(sizes) != len(value):
        raise Refusal(f"a tensor's {what} is not made of sizes")
    return sizes


def _tensor(arguments: Arguments) -> TensorRecord:
    storage, offset, size, stride = arguments
    if not isinstance(storage, Storage):
        raise Refusal("a tensor is built on something that is no storage")
    if not isinstance(offset, int) or not _is_size(offset):
        raise Refusal(f"a tensor's offset {show(offset)} is not a size")
    shape, strides = _sizes(size, "shape"), _sizes(stride, "stride")
    if len(shape) != len(strides):
        raise Refusal(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    record = TensorRecord(storage, offset, shape, strides)
    if record.count:
        # Stride 0, or any other overlap, makes terabytes out of a few bytes: no state dict has it.
        reach = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if record.count > storage.count - offset or reach > storage.count - offset:
            raise Refusal(
                f"a tensor of shape {shape} with strides {strides} declares {prod(shape):,} "
                f"elements, but its storage has {max(storage.count - offset, 0):,} for it"
            )
    return record


def _tensor_v2(arguments: Arguments) -> TensorRecord:
    if len(arguments) not in (6, 7):
        raise Refusal(f"a tensor has {len(arguments)} arguments, expected 6 or 7")
    requires_grad, hooks, *metadata = arguments[4:]
    _require_plain(requires_grad, hooks)
    if any(metadata):
        raise Refusal("a tensor carries metadata (conjugate or negative bit); resolve it first")
    return _tensor(arguments[:4])


def _tensor_v1(arguments: Arguments) -> TensorRecord:
    if len(arguments) != 4:
        raise Refusal(f"a tensor has {len(arguments)} arguments, expected 4")
    return _tensor(arguments)


def _parameter(arguments: Arguments) -> TensorRecord:
    if len(arguments) != 3 or not isinstance(arguments[0], TensorRecord):
        raise Refusal("a parameter is built on something that is no tensor")
    _require_plain(*arguments[1:])
    return arguments[0]


def _require_plain(requires_grad: object, hooks: object) -> None:
    if not isinstance(requires_grad, bool):
        raise Refusal(f"a tensor's requires_grad is {show(requires_grad)}, expected a bool")
    if not (hooks is None or (isinstance(hooks, dict) and not hooks)):
        raise Refusal("a tensor carries backward hooks, which a state dict never does")


def _ordered(arguments: Arguments) -> Ordered:
    # Python 2 wrote OrderedDict([[key, value], ...]); Python 3 fills an empty one.
    pairs = arguments[0] if len(arguments) == 1 else []
    if len(arguments) > 1 or not isinstance(pairs, list):
        raise Refusal("an OrderedDict is made from something that is no list of pairs")
    result = Ordered()
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Refusal("an OrderedDict is made from something that is no list of pairs")
        put(result, pair[0], pair[1])
    return result


def put(target: dict[object, object], key: object, value: object) -> None:
    """Store under a key that is hashed fast and occurs once, as real checkpoints have it."""
    if not (key is None or isinstance(key, (str, int))):
        raise Refusal(f"a dictionary has a key of type {type(key).__name__}, expected a name")
    if key in target:
        raise Refusal(f"the key {show(key)} occurs twice in one dictionary")
    target[key] = value


def _counter(arguments: Arguments) -> Inert:
    if len(arguments) != 1 or not isinstance(arguments[0], dict):
        raise Refusal("a Counter is made from something that is no dictionary")
    return Inert("Counter")


def _torch_size(arguments: Arguments) -> tuple[int, ...]:
    if len(arguments) != 1:
        raise Refusal("a torch.Size has not one argument")
    return _sizes(arguments[0], "size")


def _encode(arguments: Arguments) -> bytes:
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            return text.encode("latin-1")
    raise Refusal("text is encoded as something else than latin-1, which no state dict needs")


def _numpy_dtype(arguments: Arguments) -> Inert:
    match arguments:
        case (str() as code, False | 0, True | 1) if code in _NUMPY_ITEMS:
            return Inert("NumPy type", code)
    raise Refusal("a NumPy number has a type that is neither a float nor an integer")


def _numpy_scalar(arguments: Arguments) -> Inert:
    match arguments:
        case (Inert(kind="NumPy type", detail=code), bytes() as raw) if _NUMPY_ITEMS.get(
            code
        ) == len(raw):
            return Inert("NumPy number")
    raise Refusal("a NumPy number has not the bytes of its type")


#: What a file may call, as pickletools names it.
CALLABLE: dict[str, Callable[[Arguments], object]] = {
    "collections OrderedDict": _ordered,
    "collections Counter": _counter,
    "torch Size": _torch_size,
    "torch._utils _rebuild_tensor": _tensor_v1,
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
STORAGES: dict[str, DType] = {
    f"{module} {name}": dtype
    for module in ("torch", "torch.cuda")
    for name, dtype in BY_STORAGE.items()
}
#: Element types by themselves, as saved options hold them.
_DTYPES = frozenset(f"torch {name}" for name in BY_NAME)


def is_allowed(name: str) -> bool:
    """Whether a file may name this global at all."""
    return name in CALLABLE or name in STORAGES or name in _DTYPES or name == NAMESPACE
