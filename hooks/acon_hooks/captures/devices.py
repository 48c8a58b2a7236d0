"""Where and how a network runs: process, device, worker processes, threads, precision, layout."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from acon_analysis.errors import UsageError
from acon_hooks.engine.aliases import same_values

_CONV2D = nn.Conv2d | nn.ConvTranspose2d

#: Most processes that decode images for one that computes.
MOST_WORKERS = 16


def rank_and_world() -> tuple[int, int]:
    """Return this process's number and how many there are, from torchrun, SLURM or the shell."""
    for rank_name, world_name in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank_name in os.environ and world_name in os.environ:
            rank, world = os.environ[rank_name], os.environ[world_name]
            if not (rank.isdigit() and world.isdigit() and int(rank) < int(world)):
                raise UsageError(
                    f"{rank_name}={rank!r} and {world_name}={world!r} must be whole numbers with "
                    f"0 <= {rank_name} < {world_name}"
                )
            return int(rank), int(world)
    return 0, 1


def pick_device(device: str | torch.device) -> torch.device:
    """Return the device that a name means; ``"auto"`` is the accelerator or else the CPU."""
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
        if not local.isdigit():
            return accelerator
        # A scheduler may show each process its own device only, which then is number 0.
        return torch.device(accelerator.type, int(local) % torch.accelerator.device_count())
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(_no_such(device)) from error
    if chosen.type == "meta":  # holds shapes only
        raise UsageError(_no_such(device))
    return chosen


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move a model to a device; then put its own tensors back, with what was changed in them."""
    home = next((value.device for value in model.parameters()), device)
    tables = [own for m in model.modules() for own in (m._parameters, m._buffers)]
    values = ((own, key, v) for own in tables for key, v in own.items() if v is not None)
    kept = [(own, key, v, v.data) for own, key, v in values if not is_lazy(v)]
    grads = [(v, v.grad, v.grad.data) for *_, v, _ in kept if v.is_leaf and v.grad is not None]
    try:
        model.to(device)
        yield
    finally:
        model.to(home)
        for own, key, value, data in kept:
            _put_back(own, key, value, data)
        for value, grad, data in grads:
            grad.data = data
            value.grad = grad


def _put_back(own: dict[str, Any], key: str, value: Tensor, data: Tensor) -> None:
    """Put a tensor and its memory back, with the values that are there now."""
    now = own[key] if key in own else None  # noqa: SIM401 - TorchScript's table has no get
    if now is None or now.shape != data.shape or now.dtype is not data.dtype:
        return  # the network has put another one there
    now = now.data
    if data.layout is torch.strided and now.device == data.device and not same_values(now, data):
        data.copy_(now)
    value.data = data
    own[key] = value


def _no_such(device: str | torch.device) -> str:
    names = ["cpu"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        count = torch.accelerator.device_count()
        names += [f"{accelerator.type}:{index}" for index in range(count)]
    return f"device {str(device)!r} cannot be used: this machine has {', '.join(names)}"


def default_workers(device: torch.device) -> Callable[[float, float], int]:
    """Return what chooses the number of processes that decode, from a batch's two times in seconds.

    These are the time to decode it in one process and to take it through the network. On the CPU
    both share the cores, in proportion to their work; on an accelerator decoding has to keep up
    with the network: their ratio, rounded up. At least 1 (0 on a single core), at most
    `MOST_WORKERS`. Processes that ``torchrun`` has started on this machine share its cores.
    """
    local = os.environ.get("LOCAL_WORLD_SIZE", "1")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = max(1, (available or 1) // max(1, int(local) if local.isdigit() else 1))
    on_cpu = device.type == "cpu"

    def choose(decoding: float, computing: float) -> int:
        if cores == 1 and on_cpu:
            return 0
        if on_cpu:
            work = computing * min(torch.get_num_threads(), cores)
            wanted = round(cores * decoding / max(decoding + work, 1e-9))
        else:
            wanted = math.ceil(decoding / max(computing, 1e-9))
        return max(1, min(wanted, MOST_WORKERS, cores if on_cpu else max(1, cores - 1)))

    return choose


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with `count` threads inside one operator; None leaves their number as it is."""
    # Sums are split by the number of threads, so bytes repeat only for equal numbers.
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def wants_channels_last(model: nn.Module) -> bool:
    """Return whether a model has 2-D convolutions in the ordinary layout."""
    # Convolutions read channels-last images 3 to 14 % faster (see ``benchmarks/``), and much faster
    # on GPUs. A model that its owner has laid out already is left alone.
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    return bool(weights) and all(weight.is_contiguous() for weight in weights)


@contextmanager
def channels_last(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Lay out the weights of 2-D convolutions channels-last; then put the same memory back."""
    kept: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for module in model.modules() if wanted else ():
            weight = module._parameters.get("weight") if isinstance(module, _CONV2D) else None
            if type(weight) is nn.Parameter and weight.ndim == 4:
                kept.append((weight, weight.data))
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for weight, data in reversed(kept):
            weight.data = data


def laid_out(images: Tensor, *, channels_last: bool, copy: bool) -> Tensor:
    """Return a batch in the layout of the weights; itself only without `copy` and if it fits."""
    last = channels_last and images.ndim == 4
    if not (copy or last or images.is_inference()) and images.is_contiguous():
        return images  # the usual case, sooner
    layout = torch.channels_last if last else torch.preserve_format
    # `contiguous` would leave other strides where an axis has length 1, and other last digits.
    strides = images.stride()
    if copy or images.is_inference() or strides != _strides(images.shape, strides, layout):
        return images.clone(memory_format=layout)
    return images


@lru_cache(maxsize=8)
def _strides(
    shape: torch.Size, strides: tuple[int, ...], layout: torch.memory_format
) -> tuple[int, ...]:
    """Return the strides that a tensor of some shape and strides would have in a layout."""
    given = torch.empty_strided(shape, strides, device="meta")
    return torch.empty_like(given, memory_format=layout).stride()
