"""The element types a checkpoint may hold, by the names of torch, of safetensors and of pickles."""

import torch

#: torch's name, safetensors' code, torch's storage class.
_ALL = (
    ("float64", "F64", "DoubleStorage"),
    ("float32", "F32", "FloatStorage"),
    ("float16", "F16", "HalfStorage"),
    ("bfloat16", "BF16", "BFloat16Storage"),
    ("int64", "I64", "LongStorage"),
    ("int32", "I32", "IntStorage"),
    ("int16", "I16", "ShortStorage"),
    ("int8", "I8", "CharStorage"),
    ("uint8", "U8", "ByteStorage"),
    ("bool", "BOOL", "BoolStorage"),
)
BY_NAME: dict[str, torch.dtype] = {name: getattr(torch, name) for name, _, _ in _ALL}
BY_CODE = {code: BY_NAME[name] for name, code, _ in _ALL}
BY_STORAGE = {storage: BY_NAME[name] for name, _, storage in _ALL}
CODES = {dtype: code for code, dtype in BY_CODE.items()}


def name_of(dtype: torch.dtype) -> str:
    """Return torch's name of an element type, such as ``float32``."""
    return str(dtype).removeprefix("torch.")
