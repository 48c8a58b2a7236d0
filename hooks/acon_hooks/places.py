"""Where a capture runs: which process of how many, on which device."""

import os

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


def default_workers(device: torch.device) -> int:
    """Return how many processes shall decode images for one that computes.

    On an accelerator as many as the machine has cores for, up to 8; on the CPU, where they take
    cores from the network, one for every eight cores, at least one, at most 4.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    """
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = max(1, (available or 1) // max(1, int(beside) if beside.isdigit() else 1))
    if device.type == "cpu":
        return min(4, max(1, cores // 8)) if cores > 1 else 0
    return min(8, max(1, cores - 1))
