"""One process's part of a capture: what is left to do, doing it, and finishing the run."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from acon_analysis.errors import AconError, UsageError
from acon_analysis.runs.run import Run
from acon_analysis.store.folder import UNIT_SIZE, RunFolder, StoreError
from acon_hooks.captures.arithmetic import full_precision, threads
from acon_hooks.captures.devices import default_workers, pick_device, rank_and_world
from acon_hooks.captures.engine import Engine
from acon_hooks.captures.hostcopy import Arrays, HostCopy
from acon_hooks.captures.identity import (
    differences,
    identity_sha256,
    model_name,
    run_id,
    settings_identity,
    state_sha256,
)
from acon_hooks.captures.manifest import Beginning, existing_manifest
from acon_hooks.captures.recorded import Recorded
from acon_hooks.captures.settings import Settings
from acon_hooks.captures.unit import Columns, UnitBuffer, UnitWriter
from acon_hooks.engine.feed import Batch, Feed
from acon_hooks.engine.feeding import open_feed
from acon_hooks.layers.scan import check_kinds
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.options import (
    default_kinds,
    options_of,
    recorded_options,
    settle,
)

#: Images a forward pass, unless asked otherwise.
BATCH_SIZE = 64

#: Seconds that a process without work waits for another one to begin the run.
PATIENCE = 900.0


class UntrainedWarning(UserWarning):
    """The network has random weights, so what it decides means nothing."""


class OtherBatchSizeWarning(UserWarning):
    """A run goes on with batches of another size, which may change the last digits."""


class Session:
    """One process's part of a capture.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode.
    data : Any
        See `acon_hooks.engine.feeding.open_feed`.
    settings : Settings
        How.
    """

    def __init__(self, model: nn.Module, data: Any, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.folder = RunFolder(settings.out)
        self.rank, self.world = rank_and_world()
        self.device = pick_device(settings.device)
        self.manifest = existing_manifest(self.folder)
        before = self.manifest or {}
        recorded = before.get("identity", {}).get("unit_size")
        if settings.kinds is not None:
            check_kinds(settings.kinds)
        _refuse_idle_preprocess(settings.preprocess, data)
        asked = settings.unit_size
        self.unit_size: int = asked if asked is not None else recorded or UNIT_SIZE
        compute = before.get("compute", {})
        asked = settings.batch_size
        self.batch_size: int = asked if asked is not None else compute.get("batch_size", BATCH_SIZE)
        self._warn_of_other_batches(compute)
        self.threads = self._threads(compute)
        origin = getattr(model, "acon_origin", None)
        self.options = options_of(settings.moments, compiled=settings.compile)
        self.eager_reason = ""
        self.begun_options = before.get("identity", {}).get("moments")
        if self.options is not None:
            self.options, self.eager_reason = settle(
                self.options, self.device, self.begun_options, settings.announce
            )
        self.kinds = settings.kinds or default_kinds(model, moments=self.options is not None)
        self.feed: Feed = open_feed(
            data,
            preprocess=settings.preprocess or getattr(origin, "preprocess", None),
            limit=settings.limit,
            batch_size=self.batch_size,
            unit_size=self.unit_size,
            workers=settings.workers,
            default_workers=lambda: default_workers(self.device),
            pin_memory=self.device.type == "cuda",
            memory=self.folder.path / "hashes.parquet",
        )
        self.identity = self._identity()
        self.refuse_another()
        self.folder.run_id = before.get("run_id", run_id(self.identity))
        self.moments: Accumulator | None = None
        if self.options is not None:
            sha = identity_sha256(self.identity)
            self.moments = Accumulator(self.options, self.folder, sha)
        if origin is not None and origin.weights == "random":
            warnings.warn(
                f"{origin.model} is untrained: its weights are random (seed {origin.seed})",
                UntrainedWarning,
                stacklevel=4,
            )
        self.columns: Columns | None = None
        if self.manifest is not None:
            self.columns = columns_of(pd.DataFrame(self.manifest["layers"]))
        self.recorded = Recorded(self.folder, self.manifest, self.unit_size, self.feed.what)
        self.waiting: list[UnitBuffer] = []

    def _threads(self, compute: dict[str, Any]) -> int | None:
        """Return the number of threads to compute with; None to leave it."""
        asked, recorded = self.settings.threads, compute.get("threads")
        if asked is not None and asked < 1:
            raise UsageError(f"threads must be at least 1; got {asked}")
        if self.device.type != "cpu":
            return asked
        if asked is not None and recorded is not None and asked != recorded:
            raise StoreError(
                f"out: {str(self.folder.path)!r} was begun with {recorded} threads, asked for are "
                f"{asked}: bytes repeat only for equal numbers; leave --threads out"
            )
        return asked or recorded

    def _refuse_other_threads(self, compute: dict[str, Any]) -> None:
        """Raise if a process that began at the same time computes with other threads."""
        recorded, own = compute.get("threads"), torch.get_num_threads()
        if self.device.type == "cpu" and recorded not in (None, own):
            raise StoreError(
                f"out: {str(self.folder.path)!r} was begun by another process with {recorded} "
                f"threads, this one has {own}: bytes repeat only for equal numbers; give all "
                f"the same, or --threads {recorded} here"
            )

    def _warn_of_other_batches(self, compute: dict[str, Any]) -> None:
        recorded = compute.get("batch_size", self.batch_size)
        if recorded != self.batch_size:
            warnings.warn(
                f"{str(self.folder.path)!r} was begun with batches of {recorded} images and goes "
                f"on with {self.batch_size}: last digits may differ between its units",
                OtherBatchSizeWarning,
                stacklevel=5,
            )

    def _identity(self) -> dict[str, Any]:
        dtypes = sorted({str(value.dtype) for value in self.model.parameters()})
        moments = None
        if self.options is not None:
            moments = recorded_options(self.options, self.begun_options)
        return {
            "model": model_name(self.model),
            "weights_sha256": state_sha256(self.model),
            **settings_identity(self.model, self.manifest),
            "dtype": ", ".join(dtypes),
            "kinds": list(self.kinds),
            "moments": moments,
            "unit_size": self.unit_size,
            "compile": self.settings.compile,
            "fuse": self.settings.fuse,
            **self.feed.identity,
        }

    def refuse_another(self) -> None:
        """Raise if the folder holds a run of something else."""
        if self.manifest is None:
            return
        found = list(differences(self.manifest["identity"], self.identity))
        if found:
            raise StoreError(
                f"out: {str(self.folder.path)!r} holds a run of something else: "
                f"{'; '.join(found)}; choose another folder"
            )

    def run(self, units: frozenset[int] | None) -> Run:
        """Capture the wanted units that are not done; finish the manifest if none is left."""
        self._require_units(units)

        def mine(unit: int) -> bool:
            return unit % self.world == self.rank if units is None else unit in units

        done = filter(mine, self.folder.done_units()) if self.manifest else ()
        sound = self.folder.sound_units(done)

        def wanted(unit: int) -> bool:
            return mine(unit) and unit not in sound

        left = None
        if self.feed.count is not None:
            left = sum(len(self._members(unit)) for unit in range(self._units()) if wanted(unit))
        if left != 0:
            with threads(self.threads), full_precision():
                self._run(wanted, left)
            self._require_units(units)  # a stream's number of images is known now
        return self._finish()

    def _units(self) -> int:
        return -(-(self.feed.count or 0) // self.unit_size)

    def _members(self, unit: int) -> range:
        return range(unit * self.unit_size, min((unit + 1) * self.unit_size, self.feed.count or 0))

    def _require_units(self, units: frozenset[int] | None) -> None:
        strange = sorted(unit for unit in units or () if unit < 0)
        if self.feed.count is not None:
            strange = sorted(unit for unit in units or () if not 0 <= unit < self._units())
        if strange:
            raise UsageError(
                f"units: there is no unit {strange[0]}; {self.feed.count} images in units of "
                f"{self.unit_size} are units 0 to {self._units() - 1}"
            )

    def _run(self, wanted: Callable[[int], bool], left: int | None) -> None:
        self.folder.clear_scratch()
        home = next((value.device for value in self.model.parameters()), self.device)
        self.model.to(self.device)
        try:
            with (
                tqdm(total=left, unit="image", disable=not self.settings.progress) as bar,
                UnitWriter(self.folder) as writer,
                Engine(
                    self.model,
                    self.kinds,
                    batch_size=self.batch_size,
                    fused=self.settings.fuse,
                    compiled=self.settings.compile,
                    moments=self.moments,
                ) as engine,
            ):
                self._pass(self.feed.batches(wanted), engine, writer, bar)
        finally:
            self.model.to(home)

    def _pass(
        self, batches: Iterator[Batch], engine: Engine, writer: UnitWriter, bar: "tqdm[Any]"
    ) -> None:
        paths = None if self.feed.samples is None else self.feed.samples["path"]
        copier = HostCopy(self.device)
        under_way: deque[tuple[UnitBuffer, Batch, Callable[[], Arrays]]] = deque()
        buffer: UnitBuffer | None = None
        for batch in batches:
            self._compare(batch)
            if batch.passed:
                continue
            if buffer is None or buffer.unit != batch.unit:
                buffer = UnitBuffer(batch.unit, paths)
            self._refuse_bad(batch, paths)
            under_way.append((buffer, batch, self._read(batch, engine, copier)))
            if batch.last and self.moments is not None:
                buffer.more = self.moments.unit(self.columns or {})
            bar.update(len(batch.ids) + len(batch.errors))
            if len(under_way) > copier.depth:
                self._store(*under_way.popleft(), writer)
        while under_way:
            self._store(*under_way.popleft(), writer)

    def _store(
        self, buffer: UnitBuffer, batch: Batch, fetch: Callable[[], Arrays], writer: UnitWriter
    ) -> None:
        buffer.add(batch, fetch())
        if batch.last:
            self.waiting.append(buffer)
        if self.columns is not None:
            # Units of bad images only may have had to wait until the layers were known.
            for done in self.waiting:
                writer.write(done, self.columns)
            self.waiting.clear()

    def _refuse_bad(self, batch: Batch, paths: "pd.Series[str] | None") -> None:
        if self.settings.strict and batch.errors:
            sample, reason = batch.errors[0]
            name = f"sample {sample}" if paths is None else repr(str(paths.iloc[sample]))
            raise AconError(f"bad image {name}: {reason} (--strict stops at the first one)")

    def _compare(self, batch: Batch) -> None:
        """Raise if images without names are not those that the run holds already."""
        if self.feed.samples is None:
            self.recorded.compare(batch)

    def _read(self, batch: Batch, engine: Engine, copier: HostCopy) -> Callable[[], Arrays]:
        """Run one batch through the network; return what fetches β of the layers that have one."""
        images = batch.to(self.device).inputs
        if images is None:
            return dict
        first = engine.facts is None
        if first:
            engine.start(images, lambda: self._opening(images, batch))
        values = engine(images, batch.ids)
        if first:
            self._begin(engine)
        own = self.columns or {}
        return copier.start({key: value for key, value in values.items() if key in own})

    def _opening(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the data set's first batch, so that all processes settle on the same."""
        first = None if batch.unit == 0 else self.feed.first()
        if first is None or first.inputs is None:
            return images
        return first.inputs.to(self.device)

    def _begin(self, engine: Engine) -> None:
        """Write what the first batch has told, or compare it with what the run began with."""
        if engine.facts is None:
            return
        beginning = Beginning(self.folder, self.identity, self.feed, self.unit_size)
        compute = {
            "device": self.device.type,
            "threads": torch.get_num_threads(),
            "batch_size": self.batch_size,
            "channels_last": engine.channels_last,
            "tf32": False,
        }
        if self.eager_reason:
            compute["moments_eager_because"] = self.eager_reason
        measured = self.moments is not None and self.moments.has_constants
        self.manifest = beginning.begin(engine.facts, compute, self.model, references=measured)
        self.refuse_another()
        self.folder.run_id = self.manifest["run_id"]
        self._refuse_other_threads(self.manifest["compute"])
        self._warn_of_other_batches(self.manifest["compute"])
        self.columns = columns_of(engine.facts.layers)
        if self.moments is not None and self.settings.announce and self.feed.count:
            self.settings.announce(self.moments.space_text(self.feed.count, self.unit_size))

    def _finish(self) -> Run:
        """Complete the manifest if every unit is done, by whichever process."""
        if self.manifest is None:  # no unit for this process, or bad images only
            self.manifest = self._manifest_of_others()
            if self.manifest is None:
                raise AconError(self._nothing())
            self.refuse_another()
        if self.waiting:
            columns = columns_of(pd.DataFrame(self.manifest["layers"]))
            with UnitWriter(self.folder) as writer:
                for unit in self.waiting:
                    writer.write(unit, columns)
            self.waiting.clear()
        count = self.feed.count
        if count is None:
            raise AconError("the stream was not read to its end")
        if self.feed.samples is None:
            self.recorded.end(count)
        beginning = Beginning(self.folder, self.identity, self.feed, self.unit_size)
        beginning.finish(count)
        return Run(self.folder.path)

    def _manifest_of_others(self) -> dict[str, Any] | None:
        """Return the manifest that another process writes after its first batch."""
        end = time.monotonic() + (PATIENCE if self.world > 1 else 0.0)
        while True:
            found = existing_manifest(self.folder)
            if found is not None or time.monotonic() >= end:
                return found
            time.sleep(0.2)

    def _nothing(self) -> str:
        alone = "" if self.world == 1 else ", and no other process has begun the run"
        if not self.waiting:
            return f"rank {self.rank} of {self.world} has no unit of work{alone}"
        reason = self.waiting[0].first_error
        return f"none of the images could be read{alone}; the first reason: {reason}"


def columns_of(layers: pd.DataFrame) -> Columns:
    """Return (layer, call) -> column and width in ``betas/``, from a table of layers."""
    own = layers[layers["column"] != ""]
    return {
        (str(row["layer"]), int(row["call"])): (
            str(row["column"]),
            1 if row["granularity"] == "layer" else int(row["channels"]),
        )
        for row in own.to_dict("records")
    }


def _refuse_idle_preprocess(preprocess: str | None, data: Any) -> None:
    """Raise if a preprocessing was asked for that would not be used."""
    if preprocess is None or (isinstance(data, str | Path) and Path(data).expanduser().is_dir()):
        return
    named = repr(str(data)) if isinstance(data, str | Path) else f"a {type(data).__name__}"
    raise UsageError(
        f"preprocess {preprocess!r} is for a folder of images; {named} has its images ready"
    )
