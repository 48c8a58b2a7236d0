"""From a foreign file to tensors that fit a model, in four steps: gate, process, check, keep."""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from acon_analysis.models.checkpoints import cache, torchfile
from acon_analysis.models.checkpoints.dtypes import BY_NAME, name_of
from acon_analysis.models.checkpoints.errors import CheckpointError, Refusal, show
from acon_analysis.models.checkpoints.limits import DEFAULT_LIMITS, Limits
from acon_analysis.models.checkpoints.matching import (
    Converter,
    Plan,
    Wanted,
    make_plan,
    no_conversion,
)
from acon_analysis.models.checkpoints.reader_process import convert
from acon_analysis.models.checkpoints.records import Contents, TensorRecord
from acon_analysis.models.checkpoints.source import CHANGED, Source, foreign
from acon_analysis.models.checkpoints.tensorfile import looks_like, read_safetensors
from acon_analysis.models.checkpoints.values import require_finite


@dataclass(frozen=True)
class CheckpointResult:
    """Weights that fit a model, and where they come from.

    Parameters
    ----------
    state : dict of str to torch.Tensor
        The model's names, shapes and element types; contiguous, finite, on the CPU.
    sha256 : str
        SHA-256 of the file that was read.
    format : str
        ``"torch zip"``, ``"torch legacy"`` or ``"safetensors"``.
    notes : tuple of str
        What was done to make it fit: the entry taken, prefixes removed, types converted.
    """

    state: dict[str, torch.Tensor]
    sha256: str
    format: str
    notes: tuple[str, ...]


def load_state_dict(
    path: str | os.PathLike[str],
    model: nn.Module | Mapping[str, torch.Tensor],
    *,
    entry: str | None = None,
    drop: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> CheckpointResult:
    """Read a checkpoint that may be hostile, for a model, without ever running what is in it.

    The file is checked first (size, archive, every pickle instruction, names, shapes, types,
    values); then a process of its own, with little memory and time, loads it with torch's
    restricted reader and writes plain tensors, which are kept in the cache folder (``ACON_CACHE``).
    A safetensors file holds no code and is read directly.

    Parameters
    ----------
    path : str or path-like
        A ``.pth``, ``.pt``, ``.tar``, ``.bin`` or ``.safetensors`` file; its content decides.
    model : nn.Module or mapping of str to torch.Tensor
        What has to come out: every name, shape and element type. Floating types are converted
        into the model's, with a note. ``num_batches_tracked``, which torch did not save before
        0.4.1 and which only training uses, may be missing altogether and becomes 0.
    entry : str, optional
        The key of the state dict in a training checkpoint; by default the first there is of
        ``state_dict``, ``model_state_dict``, ``model``, ``state_dict_ema``, ``model_ema``,
        ``ema_state_dict``, ``ema``. The prefixes ``module.``, ``_orig_mod.`` and ``model.`` are
        removed when that makes more keys fit. Names that the model's own loading hooks convert,
        such as ``weight_g`` and ``weight_v`` of torch's older weight normalisation, are converted,
        and the newer names of it for a model of the older one.
    drop : sequence of str
        Keys that the file may have beyond the model's, by name or `fnmatch` pattern.
    limits : Limits
        How large a file may be.

    Returns
    -------
    CheckpointResult
        All tensors of the model and no others.

    Raises
    ------
    CheckpointError
        The file is missing, damaged or hostile, or does not fit the model.
    """
    try:
        if isinstance(drop, str):
            drop = (drop,)
        wanted = _wanted(model)
        renaming = _own_conversion(model) if isinstance(model, nn.Module) else no_conversion

        def planned(contents: Contents) -> Plan:
            return make_plan(contents, wanted, entry, limits, drop=drop, convert=renaming)

        with Source(path, limits) as source:
            return _load(source, planned, wanted, limits)
    except Refusal as refusal:
        name = show(os.fspath(path))
        raise CheckpointError(f"cannot use the checkpoint {name}: {refusal}") from None


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> str:
    """Load a checkpoint into a model, strictly; see `load_state_dict`.

    Parameters
    ----------
    model : nn.Module
        Gets the weights; unchanged if the file is refused.
    path : str or path-like
        The checkpoint.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    CheckpointError
        The file is missing, damaged or hostile, or does not fit the model.
    """
    result = load_state_dict(path, model)
    model.load_state_dict(result.state, strict=True)
    return result.sha256


def examine(source: Source, limits: Limits) -> Contents:
    """Pass a file through the gate of its format, which its first bytes show."""
    if source.head.startswith(torchfile.ZIP_MAGIC):
        if source.path.suffix == ".safetensors":
            # torch goes by this ending and would not read the archive that was checked.
            raise Refusal("it is a torch zip archive in spite of its ending; rename it to .pth")
        return torchfile.read_zip(source, limits)
    if source.head.startswith(torchfile.LEGACY_MAGIC):
        if source.path.suffix == ".safetensors":
            raise Refusal("it is a torch file in spite of its ending; rename it to .pth")
        return torchfile.read_legacy(source, limits)
    if looks_like(source.head, source.size):
        return read_safetensors(source, limits)
    what = foreign(source.head)
    if what is not None:
        raise Refusal(f"it is {what}")
    if torchfile.is_tar(source.head):
        raise Refusal(
            "it is a tar archive (or a checkpoint of torch before 0.1.10, which is one); unpack "
            "it, or load and save it once with a torch of its time"
        )
    if source.path.suffix == ".safetensors":
        raise Refusal("its safetensors header is damaged or cut off; download it again")
    if source.head.startswith(b"\x80"):
        raise Refusal("it is a pickle, but not one that `torch.save` wrote; only those are read")
    raise Refusal("it is neither a torch file nor safetensors; the file may be damaged")


def _wanted(model: nn.Module | Mapping[str, torch.Tensor]) -> dict[str, Wanted]:
    state = model.state_dict() if isinstance(model, nn.Module) else model
    wanted = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or is_lazy(tensor):
            raise Refusal(f"the model has no plain tensor under {name!r} to load into")
        dtype = name_of(tensor.dtype)
        if dtype not in BY_NAME:
            raise Refusal(f"the model's tensor {name!r} has the type {dtype}, which is not read")
        wanted[name] = Wanted(tuple(tensor.shape), dtype)
    return wanted


def _own_conversion(model: nn.Module) -> Converter:
    """Return the renaming that a model's own hooks do when it loads a state dict."""
    hooks = [
        (f"{name}." if name else "", hook)
        for name, module in model.named_modules()
        for hook in module._load_state_dict_pre_hooks.values()
    ]

    def convert(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        try:
            given = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
            state: dict[str, torch.Tensor] = OrderedDict(given)
            for prefix, hook in hooks:
                hook(state, prefix, {}, True, [], [], [])
        except Exception:  # a hook that needs more than names and shapes
            return {}
        old = {id(tensor): name for name, tensor in given.items()}
        return {old[id(tensor)]: name for name, tensor in state.items() if id(tensor) in old}

    return convert if hooks else no_conversion


def _load(
    source: Source, planned: Callable[[Contents], Plan], wanted: dict[str, Wanted], limits: Limits
) -> CheckpointResult:
    contents = examine(source, limits)
    plan = planned(contents)
    digest = source.sha256()
    keys = [(item.name, item.key) for item in plan.taken]
    index = cache.index_name(digest, [plan.entry, keys, sorted(wanted.items())])
    state = _recall(index, wanted, limits)
    if state is not None:
        return CheckpointResult(state, digest, contents.format, plan.notes)
    require_finite(source, contents, plan)
    source.require_unchanged()
    if contents.format == "safetensors":
        state = _tensors(source, contents, plan)
        source.require_unchanged()
        return CheckpointResult(state, digest, contents.format, plan.notes)
    with cache.workplace() as folder:
        with Source(source.copy_to(folder / f"checkpoint{source.path.suffix}"), limits) as own:
            copied = examine(own, limits)
            # Plans are compared, as other content can take forever to compare.
            if own.sha256() != digest or planned(copied) != plan:
                raise Refusal(CHANGED)
            made = convert(own, copied, plan, folder, limits)
        source.require_unchanged()
        with Source(made, limits) as result:
            state = _checked(result, wanted, limits)
            weights = result.sha256()
        cache.keep(made, weights, index)
    return CheckpointResult(state, digest, contents.format, plan.notes)


def _recall(
    index: str, wanted: dict[str, Wanted], limits: Limits
) -> dict[str, torch.Tensor] | None:
    """Return an earlier conversion if it is there and still what its name says."""
    found = cache.recall(index)
    if found is None:
        return None
    path, digest = found
    try:
        with Source(path, limits) as kept:
            return _checked(kept, wanted, limits) if kept.sha256() == digest else None
    except Refusal:
        return None


def _checked(source: Source, wanted: dict[str, Wanted], limits: Limits) -> dict[str, torch.Tensor]:
    """Read a converted file; the process that wrote it is trusted no more than its input."""
    contents = read_safetensors(source, limits)
    root = contents.root if isinstance(contents.root, dict) else {}
    found = {
        name: Wanted(record.shape, name_of(record.storage.dtype))
        for name, record in root.items()
        if isinstance(record, TensorRecord)
    }
    if found != wanted:
        raise Refusal("the reading process wrote other tensors than it was asked for")
    plan = make_plan(contents, wanted, None, limits)
    require_finite(source, contents, plan)
    return _tensors(source, contents, plan)


def _tensors(source: Source, contents: Contents, plan: Plan) -> dict[str, torch.Tensor]:
    """Read tensors whose offsets the gate has checked; each owns its memory."""
    state = {}
    for item in plan.taken:
        if item.record is None:
            state[item.name] = torch.zeros(item.shape, dtype=item.dtype)
            continue
        raw = bytearray(source.read(*contents.byte_range(item.record)))
        saved = item.record.storage.dtype
        flat = torch.frombuffer(raw, dtype=saved) if raw else torch.empty(0, dtype=saved)
        state[item.name] = flat.reshape(item.shape).to(item.dtype)
    return state
