"""`run_units` as tasks of Ray or Dask: each task captures one unit, any engine may run it.

python benchmarks/ray_units.py dask|ray OUT      (in an environment that has them)

Ray starts a node of its own, or takes the cluster that RAY_ADDRESS names.
"""

import os
import sys
import warnings
from pathlib import Path

import acon_analysis as acon
from acon_hooks.captures.capturing import Settings, run_units

MODEL, DATA, UNIT = "digits_metaacon", "digits", 128


def task(out: str, unit: int) -> int:
    """Capture one unit; everything that it needs is said by names."""
    warnings.simplefilter("ignore")
    settings = Settings(Path(out), unit_size=UNIT, threads=1, progress=False)
    run_units(MODEL, DATA, [unit], settings)
    return unit


def with_dask(out: str, units: range) -> list[int]:
    """Run the tasks in Dask's processes."""
    import dask

    tasks = [dask.delayed(task)(out, unit) for unit in units]
    return list(dask.compute(*tasks, scheduler="processes", num_workers=2))


def with_ray(out: str, units: range) -> list[int]:
    """Run the tasks in Ray's workers."""
    import ray

    ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else 2)
    remote = ray.remote(task)
    return list(ray.get([remote.remote(out, unit) for unit in units]))


def main(engine: str, out: str) -> None:
    """Capture all units and verify the run."""
    done = {"dask": with_dask, "ray": with_ray}[engine](out, range(4))
    acon.capture(MODEL, DATA, out, unit_size=UNIT, progress=False)  # nothing left: only finishes
    print(f"units {done}: {acon.open_run(out)}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
