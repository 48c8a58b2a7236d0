"""The element types a checkpoint may hold, under the names of torch, of pickles and safetensors."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DType:
    """One element type.

    Parameters
    ----------
    name : str
        torch's name, such as ``float32``.
    code : str
        safetensors' name, such as ``F32``.
    storage : str
        Name of torch's storage class, such as ``FloatStorage``.
    itemsize : int
        Bytes of one element.
    exponent : int
        Bit mask of the exponent, all ones for NaN and infinity; 0 where every value is finite.
    largest : float
        Largest finite value of a floating type, otherwise 0.
    """

    name: str
    code: str
    storage: str
    itemsize: int
    exponent: int = 0
    largest: float = 0.0

    @property
    def floating(self) -> bool:
        """Whether NaN and infinity exist."""
        return self.exponent != 0


_ALL = (
    DType("float64", "F64", "DoubleStorage", 8, 0x7FF << 52, float(np.finfo(np.float64).max)),
    DType("float32", "F32", "FloatStorage", 4, 0xFF << 23, float(np.finfo(np.float32).max)),
    DType("float16", "F16", "HalfStorage", 2, 0x1F << 10, 65504.0),
    DType("bfloat16", "BF16", "BFloat16Storage", 2, 0xFF << 7, 3.3895313892515355e38),
    DType("int64", "I64", "LongStorage", 8),
    DType("int32", "I32", "IntStorage", 4),
    DType("int16", "I16", "ShortStorage", 2),
    DType("int8", "I8", "CharStorage", 1),
    DType("uint8", "U8", "ByteStorage", 1),
    DType("bool", "BOOL", "BoolStorage", 1),
)
BY_NAME = {dtype.name: dtype for dtype in _ALL}
BY_CODE = {dtype.code: dtype for dtype in _ALL}
BY_STORAGE = {dtype.storage: dtype for dtype in _ALL}
