"""Where a capture runs: which process of how many, on which device."""

import math
import os
from collections.abc import Callable

import torch

from acon_analysis.errors import UsageError


def rank_and_world() -> tuple[int, int]:
    """Return this process's number and how many there are, from torchrun, SLURM or the shell.

    Raises
    ------
    UsageError
        If the environment's numbers make no sense.
    """
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
    """Return the device that a name means; ``"auto"`` is the accelerator or else the CPU.

    Raises
    ------
    UsageError
        If there is no such device here.
    """
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


def _no_such(device: str | torch.device) -> str:
    names = ["cpu"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        count = torch.accelerator.device_count()
        names += [f"{accelerator.type}:{index}" for index in range(count)]
    return f"device {str(device)!r} cannot be used: this machine has {', '.join(names)}"


#: Most processes that decode images for one that computes.
MOST_WORKERS = 16


def default_workers(device: torch.device) -> Callable[[float, float], int]:
    """Return what tells how many processes shall decode images for one that computes.

    It is asked with the seconds that a batch took to decode in one process and to go through the
    network, so that a small network is not left waiting nor a large one robbed of its cores:

    - on the CPU both share the cores, in proportion to their work;
    - on an accelerator decoding shall keep up with the network: their ratio, rounded up.

    At least 1 (0 on a single core) and at most `MOST_WORKERS`. Processes that ``torchrun`` has
    started on this machine share its cores.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    """
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = max(1, (available or 1) // max(1, int(beside) if beside.isdigit() else 1))
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
