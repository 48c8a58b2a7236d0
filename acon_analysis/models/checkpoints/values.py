"""Looks at the weights themselves, a few megabytes at a time, before a process loads them."""

import torch

from acon_analysis.models.checkpoints.dtypes import name_of
from acon_analysis.models.checkpoints.errors import Refusal, listing
from acon_analysis.models.checkpoints.matching import Plan
from acon_analysis.models.checkpoints.records import Contents, TensorRecord
from acon_analysis.models.checkpoints.source import Source
from acon_analysis.screen import counted


def require_finite(source: Source, contents: Contents, plan: Plan) -> None:
    """Refuse NaN, infinity, values beyond the range of the model's type, bytes that are no bool."""
    bad: dict[str, list[str]] = {}
    for item in plan.taken:
        if item.record is not None:
            found = _problem(source, contents, item.record, item.dtype)
            if found:
                bad.setdefault(found, []).append(item.key)
    if bad:
        parts = [
            f"{what} in {counted(len(keys), 'tensor')}: {listing(keys)}"
            for what, keys in bad.items()
        ]
        raise Refusal("; ".join(parts) + "; such weights compute nothing")


def _problem(
    source: Source, contents: Contents, record: TensorRecord, target: torch.dtype
) -> str | None:
    dtype = record.storage.dtype
    for chunk in source.chunks(*contents.byte_range(record)):
        if dtype == torch.bool:
            if torch.frombuffer(bytearray(chunk), dtype=torch.uint8).max() > 1:
                return "bytes that are neither true nor false"
        elif dtype.is_floating_point:
            values = torch.frombuffer(bytearray(chunk), dtype=dtype)
            if not values.isfinite().all():
                return "NaN" if values.isnan().any() else "infinity"
            if float(values.abs().max()) > torch.finfo(target).max:
                return f"values beyond the range of {name_of(target)}"
    return None
