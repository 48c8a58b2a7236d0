"""Captured runs that come with the package: what trained networks decide on photographs."""

from pathlib import Path

from acon_analysis.errors import UsageError, closest
from acon_analysis.runs.run import Run

#: Folder of the runs, by name of the network.
EXAMPLES = Path(__file__).parent / "example_runs"


def example_run(name: str = "cifar10_metaacon") -> Run:
    """Open a run that comes with the package, to be read only; a UsageError if there is none.

    This project's CIFAR-10 networks, captured with moments on the first 1,000 test images (100 of
    each class, their labels included, no pixels). ``name`` is the network's.
    """
    known = example_names()
    if name not in known:
        raise UsageError(f"there is no example run {name!r}; {closest(name, known)}")
    return Run(EXAMPLES / name)


def example_names() -> list[str]:
    """Return the names that `example_run` knows, Meta-ACON's first."""
    found = [path.parent.name for path in EXAMPLES.glob("*/manifest.json")]
    return sorted(found, key=lambda name: ("metaacon" not in name, name))
