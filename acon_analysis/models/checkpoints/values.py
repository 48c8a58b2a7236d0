"""Looks at the weights themselves, a few megabytes at a time, before a process loads them."""

import numpy as np
from numpy.typing import NDArray

from acon_analysis.models.checkpoints.dtypes import DType
from acon_analysis.models.checkpoints.errors import Refusal, listing, plural
from acon_analysis.models.checkpoints.matching import Plan
from acon_analysis.models.checkpoints.records import Contents, TensorRecord
from acon_analysis.models.checkpoints.source import Source


def require_finite(source: Source, contents: Contents, plan: Plan) -> None:
    """Check every value that will be read.

    Raises
    ------
    Refusal
        NaN or infinity, a value beyond the range of the model's type, or a byte that is no bool.
    """
    bad: dict[str, list[str]] = {}
    for item in plan.taken:
        if item.record is not None:
            found = _problem(source, contents, item.record, item.dtype)
            if found:
                bad.setdefault(found, []).append(item.key)
    if bad:
        parts = [
            f"{what} in {plural(len(keys), 'tensor')}: {listing(keys)}"
            for what, keys in bad.items()
        ]
        raise Refusal("; ".join(parts) + "; such weights compute nothing")


def _problem(source: Source, contents: Contents, record: TensorRecord, target: DType) -> str | None:
    dtype = record.storage.dtype
    offset, size = contents.byte_range(record)
    narrower = dtype.floating and target.largest < dtype.largest
    for chunk in source.chunks(offset, size):
        if dtype.name == "bool":
            if np.frombuffer(chunk, np.uint8).max() > 1:
                return "bytes that are neither true nor false"
        elif dtype.floating:
            bits = np.frombuffer(chunk, np.dtype(f"<u{dtype.itemsize}"))
            exponent = np.array(dtype.exponent, bits.dtype)
            special = bits[(bits & exponent) == exponent]
            if special.size:
                mantissa = special & np.array(_mantissa(dtype), bits.dtype)
                return "NaN" if mantissa.any() else "infinity"
            if narrower and float(np.abs(_decoded(bits, dtype)).max()) > target.largest:
                return f"values beyond the range of {target.name}"
    return None


def _mantissa(dtype: DType) -> int:
    return (dtype.exponent & -dtype.exponent) - 1


def _decoded(bits: NDArray[np.unsignedinteger], dtype: DType) -> NDArray[np.floating]:
    if dtype.name == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(np.dtype(f"<f{dtype.itemsize}"))
