"""Shared fixtures: the shipped networks, captured once.

The process that hands tests to others reads this file too; it needs no torch.
"""

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import nn

    from acon_analysis.runs.run import Run
    from acon_hooks.moments.native.sums import NativeSums

os.environ["COLUMNS"] = "300"  # so wide that no sentence is wrapped, whatever the paths in it
# Tests start many processes: without kept bytecode each would compile the packages anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Nearly all objects are those of imported modules: to search them for garbage often costs 5 %.
gc.set_threshold(20_000, 20, 50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: no process waits at the end for another's."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run side by side; more threads than cores only slow them down."""
    import torch

    torch.set_num_threads(1)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Import every file with the same random numbers, whichever files came before it."""
    if isinstance(collector, pytest.Module):
        import torch

        torch.manual_seed(0)


def pytest_runtest_setup() -> None:
    """Begin every test with the same random numbers, whichever tests ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def kernel() -> "NativeSums":
    """The compiled kernel of moments; tests that need it are skipped without a compiler."""
    from acon_hooks.moments.native.build import NativeError
    from acon_hooks.moments.native.sums import native

    try:
        return native()
    except NativeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def digits_metaacon() -> "nn.Module":
    import acon_analysis as acon

    model: nn.Module = acon.build_model("digits_metaacon")
    return model


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory, digits_metaacon: "nn.Module") -> "Run":
    """digits_metaacon on the 500 test images, in units of 128."""
    import acon_analysis as acon

    folder: Path = tmp_path_factory.mktemp("runs") / "digits_metaacon"
    return acon.capture(digits_metaacon, "digits", folder, unit_size=128, progress=False)


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Run, Path]":
    """A run whose every name is hostile, and its page with the figures that show names."""
    import reportpages

    return reportpages.reported(tmp_path_factory.mktemp("report"))
