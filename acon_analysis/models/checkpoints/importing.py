"""Turns a foreign checkpoint into a safetensors file for good."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import nn

from acon_analysis.errors import UsageError
from acon_analysis.files import atomic_write
from acon_analysis.models.checkpoints.errors import CheckpointError
from acon_analysis.models.checkpoints.limits import DEFAULT_LIMITS, Limits
from acon_analysis.models.checkpoints.loading import load_state_dict
from acon_analysis.models.checkpoints.source import Source
from acon_analysis.models.checkpoints.tensorfile import Declared, in_file_order, make_header


@dataclass(frozen=True)
class ImportResult:
    """What was imported: the safetensors file with its SHA-256 and size in bytes.

    ``format``, of the checkpoint, is ``"torch zip"``, ``"torch legacy"`` or ``"safetensors"``;
    ``notes`` say what was done to make it fit.
    """

    path: Path
    tensors: int
    values: int
    size: int
    source_sha256: str
    sha256: str
    format: str
    notes: tuple[str, ...]


def import_checkpoint(
    file: str | os.PathLike[str],
    model: nn.Module,
    out: str | os.PathLike[str],
    *,
    model_name: str | None = None,
    entry: str | None = None,
    drop: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> ImportResult:
    """Read a foreign checkpoint safely and write it as safetensors; see `load_state_dict`.

    Parameters
    ----------
    file : str or path-like
        The checkpoint.
    model : nn.Module
        The network it has to fit.
    out : str or path-like
        The file to write, ending in ``.safetensors``; it appears complete or not at all, and
        replaces an older one. Its metadata name the source, its SHA-256 and the model.
    model_name : str, optional
        Name of the model for the metadata; by default its class.
    entry : str, optional
        The key of the state dict in a training checkpoint.
    drop : sequence of str
        Keys that the file may have beyond the model's, by name or `fnmatch` pattern.
    limits : Limits
        How large a file may be.

    Returns
    -------
    ImportResult
        What was written.

    Raises
    ------
    CheckpointError
        The file is missing, damaged or hostile, does not fit, or `out` cannot be written.
    UsageError
        `out` does not end in ``.safetensors`` or is the checkpoint itself.
    """
    source, target = Path(file), Path(out)
    if target.suffix != ".safetensors":
        raise UsageError(f"the output is named {target.name!r}, expected a name in .safetensors")
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"the output {str(target)!r} is the checkpoint itself; name another file")
    result = load_state_dict(source, model, entry=entry, drop=drop, limits=limits)
    metadata = {
        "format": "pt",
        "model": model_name or type(model).__name__,
        "source": source.name,
        "source_sha256": result.sha256,
    }
    write_safetensors(target, result.state, metadata)
    with Source(target, limits) as written:
        return ImportResult(
            path=target,
            tensors=len(result.state),
            values=sum(tensor.numel() for tensor in result.state.values()),
            size=written.size,
            source_sha256=result.sha256,
            sha256=written.sha256(),
            format=result.format,
            notes=result.notes,
        )


def write_safetensors(
    path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write plain CPU tensors, the file complete or not at all, the same bytes each time."""
    tensors = in_file_order(
        [Declared(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()]
    )

    def write(file: IO[bytes]) -> None:
        file.write(make_header(tensors, metadata))
        for tensor in tensors:
            flat = state[tensor.name].detach().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)

    try:
        atomic_write(path, write)
    except OSError as error:
        raise CheckpointError(f"cannot write {str(path)!r} ({error.strerror or error})") from None
