"""What one process of a capture has to do, decided before the first batch."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acon_analysis.errors import StoreError, UsageError
from acon_analysis.folders import expanded
from acon_analysis.screen import counted
from acon_analysis.store.folder import UNIT_SIZE, RunFolder
from acon_hooks.captures.devices import default_workers, pick_device, rank_and_world
from acon_hooks.captures.identity import (
    differences,
    model_name,
    run_id,
    settings_identity,
    state_sha256,
)
from acon_hooks.captures.manifest import existing_manifest
from acon_hooks.engine.feed import Feed
from acon_hooks.engine.feeding import open_feed, own_preprocess
from acon_hooks.engine.inputs import Forward, Mask, input_options
from acon_hooks.engine.outputs import Output
from acon_hooks.layers.scan import check_kinds, default_kinds
from acon_hooks.moments.options import MomentOptions, Wish, options_of, recorded_options, settle

#: Images a forward pass, unless asked otherwise.
BATCH_SIZE = 64


class UntrainedWarning(UserWarning):
    """The network has random weights, so what it decides means nothing."""


class OtherBatchSizeWarning(UserWarning):
    """A run goes on with batches of another size, which may change the last digits."""


@dataclass(frozen=True)
class Settings:
    """How a capture is done; see `capture` for the meaning of each field."""

    out: Path
    preprocess: str | None = None
    device: str | torch.device = "auto"
    batch_size: int | None = None
    workers: int | None = None
    limit: int | None = None
    unit_size: int | None = None
    strict: bool = False
    kinds: tuple[str, ...] | None = None
    moments: Wish | MomentOptions | None = None
    announce: Callable[[str], None] | None = None
    fuse: bool = False
    threads: int | None = None
    progress: bool = True
    forward: Forward | None = None
    mask: Mask | None = None
    output: Output = None
    sample_axis: int = 0


@dataclass(frozen=True)
class CapturePlan:
    """One process's part of a capture, resolved and checked; see `plan_capture`."""

    model: nn.Module
    feed: Feed
    settings: Settings
    folder: RunFolder
    # Of a run that is continued; None of one that has not begun.
    manifest: dict[str, Any] | None
    # What makes two captures the same.
    identity: dict[str, Any]
    kinds: tuple[str, ...]
    # What is summed, with which kernel; None for no moments.
    moments: MomentOptions | None
    # Why moments are summed by torch although the kernel was left open; empty otherwise.
    eager_because: str
    # Samples in a unit of work and in a forward pass.
    unit_size: int
    batch_size: int
    device: torch.device
    # Within an operator; None leaves torch's number.
    threads: int | None
    # Number of this process, and how many there are.
    rank: int
    world: int
    # Those asked for; None for every `world`-th, from `rank` on.
    units: frozenset[int] | None
    # Those of them that are finished and whose files are what was written.
    done: frozenset[int]

    def wanted(self, unit: int) -> bool:
        """Whether this process has to capture a unit."""
        mine = unit % self.world == self.rank if self.units is None else unit in self.units
        return mine and unit not in self.done

    @property
    def is_part(self) -> bool:
        """Whether other calls or processes capture some units of the run."""
        return self.world > 1 or self.units is not None or bool(self.done)

    def left(self) -> int | None:
        """Return the number of samples in the units to do; None if nobody knows beforehand."""
        if self.feed.count is None:
            return None
        sizes = (
            min(self.unit_size, self.feed.count - start)
            for start in range(0, self.feed.count, self.unit_size)
            if self.wanted(start // self.unit_size)
        )
        return sum(sizes)

    def require_units(self) -> None:
        """Raise UsageError if a unit asked for does not exist, as far as is known."""
        count = self.feed.count
        end = None if count is None else -(-count // self.unit_size)
        for unit in sorted(self.units or ()):
            if unit < 0 or (end is not None and unit >= end):
                raise UsageError(
                    f"units: there is no unit {unit}; {counted(count or 0, 'image')} in units of "
                    f"{self.unit_size} are units 0 to {(end or 0) - 1}"
                )


def plan_capture(
    model: nn.Module, data: Any, settings: Settings, units: frozenset[int] | None = None
) -> CapturePlan:
    """Decide what this process captures, and how; refuse what cannot be one run.

    What is not given is taken from the run that is continued, if there is one. A StoreError if the
    folder holds a run of something else, a UsageError for a setting that makes no sense.
    """
    folder = RunFolder(settings.out)
    rank, world = rank_and_world()
    device = pick_device(settings.device)
    manifest = existing_manifest(folder)
    begun: dict[str, Any] = {"identity": {}, "compute": {}, **(manifest or {})}
    if settings.kinds is not None:
        check_kinds(settings.kinds)
    _refuse_idle_preprocess(settings.preprocess, data)

    unit_size: int = _first_of(settings.unit_size, begun["identity"].get("unit_size"), UNIT_SIZE)
    batch_size: int = _first_of(settings.batch_size, begun["compute"].get("batch_size"), BATCH_SIZE)
    warn_of_other_batches(folder, begun["compute"], batch_size)
    threads = _threads(folder, settings.threads, begun["compute"].get("threads"), device)
    moments, eager_because = options_of(settings.moments), ""
    begun_moments = begun["identity"].get("moments")
    options = input_options(model, settings.forward, settings.mask, settings.sample_axis)
    if moments is not None:
        same = begun["identity"].get("mask") == options.identity.get("mask")
        moments, eager_because = settle(
            moments,
            device,
            begun_moments if same else None,  # otherwise it is another run, refused below
            settings.announce,
            masked=bool(options.masks),
        )
    begun_kinds = tuple(begun["identity"].get("kinds") or ())
    kinds = settings.kinds or begun_kinds or default_kinds(model, moments=moments is not None)

    origin = getattr(model, "acon_origin", None)
    feed = open_feed(
        data,
        preprocess=settings.preprocess or own_preprocess(model),
        limit=settings.limit,
        batch_size=batch_size,
        unit_size=unit_size,
        workers=settings.workers,
        default_workers=lambda: default_workers(device),
        pin_memory=device.type == "cuda",
        memory=folder.path / "hashes.parquet",
        options=options,
    )
    identity = {
        "model": model_name(model),
        "weights_sha256": state_sha256(model),
        **settings_identity(model, manifest),
        "dtype": ", ".join(sorted({str(value.dtype) for value in model.parameters()})),
        "kinds": list(kinds),
        "moments": None if moments is None else recorded_options(moments, begun_moments),
        "unit_size": unit_size,
        "compile": False,  # as runs of versions that could compile
        "fuse": _fusing(settings.fuse, moments, begun["identity"].get("fuse")),
        **feed.identity,
        **options.identity,
    }
    refuse_another(folder, manifest, identity)
    folder.run_id = begun.get("run_id", run_id(identity))
    if origin is not None and origin.weights == "random":
        warnings.warn(
            f"{origin.model} is untrained: its weights are random (seed {origin.seed})",
            UntrainedWarning,
            stacklevel=4,
        )

    plan = CapturePlan(
        model, feed, settings, folder, manifest, identity, kinds, moments, eager_because,
        unit_size, batch_size, device, threads, rank, world, units, done=frozenset(),
    )  # fmt: skip
    plan.require_units()
    if manifest is None:
        return plan
    marked = filter(plan.wanted, folder.done_units())
    return replace(plan, done=frozenset(folder.sound_units(marked)))


def _fusing(fuse: bool, moments: MomentOptions | None, begun: bool | str | None) -> bool | str:
    """Return how layers are fused: "one pass" with the sums, unless the run began without."""
    kernel = moments is not None and moments.kernel != "eager"
    return "one pass" if fuse and kernel and begun is not True else fuse


def _first_of(*values: Any) -> Any:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)


def _threads(
    folder: RunFolder, asked: int | None, recorded: int | None, device: torch.device
) -> int | None:
    """Return the number of threads to compute with; None to leave it."""
    if asked is not None and asked < 1:
        raise UsageError(f"threads must be at least 1; got {asked}")
    if device.type != "cpu":
        return asked
    if asked is not None and recorded is not None and asked != recorded:
        raise StoreError(
            f"out: {str(folder.path)!r} was begun with {counted(recorded, 'thread')}, asked for "
            f"are {asked}: bytes repeat only for equal numbers; leave --threads out"
        )
    return asked or recorded


def warn_of_other_batches(folder: RunFolder, compute: Mapping[str, Any], batch_size: int) -> None:
    """Warn if a run was begun with batches of another size."""
    recorded = compute.get("batch_size", batch_size)
    if recorded != batch_size:
        warnings.warn(
            f"{str(folder.path)!r} was begun with batches of {counted(recorded, 'image')} and goes "
            f"on with {batch_size}: last digits may differ between its units",
            OtherBatchSizeWarning,
            stacklevel=5,
        )


def refuse_another(
    folder: RunFolder, manifest: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> None:
    """Raise StoreError if the folder holds a run of something else."""
    found = [] if manifest is None else list(differences(manifest["identity"], identity))
    if found:
        advice = "choose another folder"
        if not folder.done_units():
            advice = f"it holds no finished samples: delete it, or {advice}"
        raise StoreError(
            f"out: {str(folder.path)!r} holds a run of something else: {'; '.join(found)}; {advice}"
        )


def _refuse_idle_preprocess(preprocess: str | None, data: Any) -> None:
    """Raise if a preprocessing was asked for that would not be used."""
    if preprocess is None or (isinstance(data, str | Path) and expanded(data).is_dir()):
        return
    named = repr(str(data)) if isinstance(data, str | Path) else f"a {type(data).__name__}"
    raise UsageError(
        f"preprocess {preprocess!r} is for a folder of images; {named} has its images ready"
    )
