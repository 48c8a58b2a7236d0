"""What networks are called where several runs are drawn together."""

from collections.abc import Sequence

from acon_analysis.files import spelled
from acon_analysis.runs.run import Run


def network_names(runs: Sequence[Run], *, by_data: bool = False) -> list[str]:
    """Name each run's network, with its folder where another (`by_data`: on its data) has it."""
    keys = [(run.network, run.data_words if by_data else "") for run in runs]
    return with_folders([key[0] for key in keys], keys, runs)


def with_folders(labels: Sequence[str], keys: Sequence[object], runs: Sequence[Run]) -> list[str]:
    """Add the folder of its run, or else its number, to each label whose key is that of others."""
    folders = [spelled(run.path.absolute().name) for run in runs]
    found = []
    for index, (label, key, folder) in enumerate(zip(labels, keys, folders, strict=True), 1):
        own = folder if folders.count(folder) == 1 else f"run {index}"
        found.append(label if keys.count(key) == 1 else f"{label} ({own})")
    return found
