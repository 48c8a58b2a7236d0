"""What networks are called where several runs are drawn together."""

from collections.abc import Sequence

from acon_analysis.files import spelled
from acon_analysis.runs.run import Run


def network_names(runs: Sequence[Run], *, by_data: bool = False) -> list[str]:
    """Return a name for each run's network, with its folder where several have the same name.

    With `by_data` networks on different data may have the same name.
    """
    keys = [(run.network, run.data_words if by_data else "") for run in runs]
    folders = [spelled(run.path.absolute().name) for run in runs]
    found = []
    for index, (key, folder) in enumerate(zip(keys, folders, strict=True), 1):
        own = folder if folders.count(folder) == 1 else f"run {index}"
        found.append(key[0] if keys.count(key) == 1 else f"{key[0]} ({own})")
    return found
