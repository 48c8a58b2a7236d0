"""The runs that figures are drawn from when no other run is given."""

from collections.abc import Callable
from pathlib import Path

from acon_analysis.models.registry import build_model
from acon_analysis.runs.examples import example_names, example_run
from acon_analysis.runs.run import Run
from acon_hooks.captures.capturing import capture

#: The digits networks behind the default figures: Meta-ACON, and the same with other activations.
DEFAULT_NETWORKS = ("digits_metaacon", "digits_acon", "digits_swish", "digits_relu")


def default_runs(
    folder: str | Path,
    *,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> list[Run]:
    """Return the runs that come with the package, and runs of the digits networks.

    The first are of photographs, captured beforehand; the digits are captured here, on their test
    images, or opened where an earlier call captured them: they are here to be shown.

    Parameters
    ----------
    folder : str or Path
        Gets one run a digits network.
    progress : bool
        Show progress bars.
    tell : callable, optional
        Gets one line for each network.
    """
    runs = [example_run(name) for name in example_names()]
    for name in DEFAULT_NETWORKS:
        if tell is not None:
            tell(f"capturing {name}")
        runs.append(capture(build_model(name), "digits", Path(folder) / name, progress=progress))
    return runs
