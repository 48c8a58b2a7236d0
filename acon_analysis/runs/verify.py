"""Whether a run is complete, unique and unaltered."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acon_analysis.runs.run import Run
from acon_analysis.store.folder import PARTS, file_sha256, unit_name


@dataclass(frozen=True)
class Verification:
    """What `verify_run` found.

    Parameters
    ----------
    problems : tuple of str
        One sentence each; empty for a sound run.
    units_done, units : int
        Finished and expected units of work.
    samples, captured, bad : int
        Samples listed, samples with β, samples whose image could not be read.
    """

    problems: tuple[str, ...]
    units_done: int
    units: int
    samples: int
    captured: int
    bad: int

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_run(path: str | Path) -> Verification:
    """Check a run: every unit done, every file as it was written, every sample exactly once.

    Bad images (rows of ``errors/``) are no problem of the run.

    Parameters
    ----------
    path : str or Path
        The run's folder.

    Raises
    ------
    UsageError
        If there is no run at all.
    """
    run = Run(path)
    problems = list(_unit_problems(run))
    problems += _foreign_files(run)
    captured, bad, counting = _count(run)
    problems += counting
    problems += _table_problems(run)
    if not run.complete and not problems:
        problems.append("the manifest is not finished; run the same capture command again")
    return Verification(
        tuple(problems),
        units_done=len(run.units),
        units=run.manifest["units"] or len(run.units),
        samples=run.manifest["samples"] or captured + bad,
        captured=captured,
        bad=bad,
    )


def _unit_problems(run: Run) -> Iterator[str]:
    """Yield what is wrong with the units of work and their parts."""
    expected = run.manifest["units"]
    missing = [unit for unit in range(expected or 0) if unit not in set(run.units)]
    if missing:
        shown = ", ".join(str(unit) for unit in missing[:5]) + (" ..." if missing[5:] else "")
        yield (
            f"{len(missing)} of {expected} units are not done ({shown}); "
            f"run the same capture command again"
        )
    recorded = run.manifest.get("parts", {})
    for unit in run.units:
        parts = run.folder.unit_parts(unit)
        if parts is None:
            yield f"done/{unit_name(unit)}.json is no mark of a unit of this run"
            continue
        yield from run.folder.damage(parts)
        for name, digest in parts.items():
            if run.complete and recorded.get(name) != digest:
                yield f"{name} is not the part that the manifest records"


def _foreign_files(run: Run) -> list[str]:
    """Return a sentence for each file that no finished unit has written."""
    known = {name for unit in run.units for name in (run.folder.unit_parts(unit) or {})}
    marks = {f"{unit_name(unit)}.json" for unit in run.units}
    return [
        f"{kind}/{file.name} belongs to no finished unit"
        for kind in PARTS
        for file in sorted((run.path / kind).glob("*"))
        if f"{kind}/{file.name}" not in known and not file.name.startswith(".")
    ] + [
        f"done/{file.name} marks no unit of this run"
        for file in sorted((run.path / "done").glob("*"))
        if file.name not in marks and not file.name.startswith(".")
    ]


def _count(run: Run) -> tuple[int, int, list[str]]:
    """Return captured and bad samples, and what is wrong with the sample ids."""
    problems, parts = [], []
    for kind in ("betas", "errors"):
        ids = []
        for file in sorted((run.path / kind).glob("*.parquet")):
            try:
                ids.append(pq.read_table(file, columns=["sample_id"])["sample_id"].to_numpy())
            except (OSError, pa.ArrowInvalid, KeyError) as error:
                problems.append(f"{kind}/{file.name} cannot be read ({type(error).__name__})")
        parts.append(np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64))
    everything = np.concatenate(parts)
    unique, counts = np.unique(everything, return_counts=True)
    if (counts > 1).any():
        problems.append(f"{int((counts > 1).sum())} samples are there more than once")
    expected = run.manifest["samples"]
    if expected is not None:
        lost = np.setdiff1d(np.arange(expected), unique)
        extra = np.setdiff1d(unique, np.arange(expected))
        if len(lost) and run.complete:
            problems.append(f"{len(lost)} samples are missing, the first is {lost[0]}")
        if len(extra):
            problems.append(f"{len(extra)} samples are not in the list, the first is {extra[0]}")
    return len(parts[0]), len(parts[1]), problems


def _table_problems(run: Run) -> Iterator[str]:
    """Yield what is wrong with the tables of a finished run."""
    for name, digest in run.manifest.get("tables", {}).items():
        file = run.path / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file_sha256(file) != digest:
            yield f"{name} is not what was written (SHA-256 differs)"
