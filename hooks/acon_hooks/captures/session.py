"""Execute a capture's plan: run the network, write the units, finish the run."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from acon_analysis.errors import AconError, StoreError
from acon_analysis.runs.run import Run
from acon_hooks.captures.devices import on_device, threads
from acon_hooks.captures.forward_pass import ForwardPass
from acon_hooks.captures.identity import identity_sha256
from acon_hooks.captures.manifest import ManifestWriter, existing_manifest
from acon_hooks.captures.plan import CapturePlan, refuse_another, warn_of_other_batches
from acon_hooks.captures.recorded import Recorded
from acon_hooks.captures.unit import Columns, UnitBuffer, UnitWriter, columns_of
from acon_hooks.census.counting import naming_calls
from acon_hooks.engine.feed import Batch
from acon_hooks.engine.feeding import naming_dead_workers
from acon_hooks.errors import RowWarning
from acon_hooks.guards import full_precision
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.readings.batch import Key, to_host

#: Seconds that a process without work waits for another one to begin the run.
PATIENCE = 900.0

Arrays = dict[Key, npt.NDArray[Any]]

_cuda: Any = torch.cuda


class Session:
    """One process's part of a capture; `manifest` is that of the run, once it has begun."""

    def __init__(self, plan: CapturePlan) -> None:
        self.plan, self.folder, self.feed = plan, plan.folder, plan.feed
        self.manifest = plan.manifest
        self.writer = ManifestWriter(plan.folder, plan.identity, plan.feed, plan.unit_size)
        self.moments: Accumulator | None = None
        if plan.moments is not None:
            sha = identity_sha256(plan.identity)
            self.moments = Accumulator(plan.moments, plan.folder, sha)
        self.recorded = Recorded(plan.folder, plan.manifest, plan.unit_size, plan.feed.what)
        self.columns: Columns | None = None
        if plan.manifest is not None:
            self.columns = columns_of(plan.manifest)
        self.first_batch: Batch
        self.waiting: list[UnitBuffer] = []  # units that are read and not yet being written

    @property
    def _word(self) -> str:
        """What a sample is called."""
        return "sample" if self.feed.samples is None else "image"

    def run(self) -> Run:
        """Capture the units to do; complete the manifest if none is left."""
        if self.plan.left() != 0:
            with naming_dead_workers(), threads(self.plan.threads), full_precision():
                self._capture()
            self.plan.require_units()  # a stream's number of samples is known now
        return self._finish()

    def _capture(self) -> None:
        """Set up the network, the progress bar and the writing thread; take them down again."""
        plan = self.plan
        self.folder.clear_scratch()
        left = plan.left()
        total = getattr(self.feed, "expected", None) if left is None else left
        with (
            on_device(plan.model, plan.device),
            naming_calls(plan.model, lambda: self.first_batch),
            tqdm(total=total, unit=self._word, disable=not plan.settings.progress) as bar,
            UnitWriter(self.folder) as writer,
            ForwardPass(
                plan.model,
                plan.kinds,
                fused=plan.settings.fuse,
                moments=self.moments,
                one_pass=plan.identity["fuse"] == "one pass",
                output=plan.settings.output,
            ) as forward,
        ):
            self._capture_batches(forward, writer, bar)

    def _capture_batches(self, forward: ForwardPass, writer: UnitWriter, bar: "tqdm[Any]") -> None:
        """Read β of every batch; the next one is computed while it is copied to the host."""
        paths = None if self.feed.samples is None else self.feed.samples["path"]
        copier = HostCopy(self.plan.device)
        copying: deque[tuple[UnitBuffer, Batch, Callable[[], Arrays]]] = deque()
        buffer: UnitBuffer | None = None
        for batch in self.feed.batches(self.plan.wanted):
            if self.feed.samples is None:
                self.recorded.compare(batch)
            if batch.passed:
                continue
            if buffer is None or buffer.unit != batch.unit:
                buffer = UnitBuffer(batch.unit, paths)
            self._refuse_bad(batch, paths)
            copying.append((buffer, batch, copier.start(self._read(batch, forward))))
            if batch.last and self.moments is not None:
                buffer.more = self.moments.unit(self.columns or {})
            bar.update(len(batch.ids) + len(batch.errors))
            if len(copying) > copier.depth:
                self._store(*copying.popleft(), writer)
        while copying:
            self._store(*copying.popleft(), writer)

    def _refuse_bad(self, batch: Batch, paths: "pd.Series[str] | None") -> None:
        """Raise for the first bad sample of a strict capture."""
        if self.plan.settings.strict and batch.errors:
            sample, reason = batch.errors[0]
            name = f"sample {sample}" if paths is None else repr(str(paths.iloc[sample]))
            raise AconError(f"bad image {name}: {reason} (--strict stops at the first one)")

    def _read(self, batch: Batch, forward: ForwardPass) -> dict[Key, Tensor]:
        """Run one batch through the network; return β (N, channels) of the layers that have one."""
        if batch.inputs is None:
            return {}
        batch = batch.to(self.plan.device)
        first = forward.metadata is None
        if first:
            self.first_batch = batch
            forward.start(batch, lambda: self._opening(batch))
        values = forward(batch)
        if first:
            self._begin(forward)
        own = self.columns or {}
        return {key: value for key, value in values.items() if key in own}

    def _opening(self, batch: Batch) -> Batch | None:
        """Return the feed's first batch; None where this is it."""
        first = None if batch.unit == 0 else self.feed.first()
        return None if first is None or first.inputs is None else first.to(self.plan.device)

    def _begin(self, forward: ForwardPass) -> None:
        """Write the manifest after the first batch, or compare with what the run began with."""
        plan, metadata = self.plan, forward.metadata
        if metadata is None:
            return
        if plan.is_part and metadata.rows is not None and metadata.rows.changed:
            text = f"{metadata.rows.text}: other units are captured from another state"
            warnings.warn(text, RowWarning, stacklevel=6)
        compute = {
            "device": plan.device.type,
            "threads": torch.get_num_threads(),
            "batch_size": plan.batch_size,
            "channels_last": forward.channels_last,
            "tf32": False,
        }
        if plan.eager_because:
            compute["moments_eager_because"] = plan.eager_because
        constants = self.moments is not None and self.moments.has_constants
        if self.moments is not None and not metadata.layers["column"].any():
            self.moments.require_some()
        self.manifest = self.writer.begin(metadata, compute, plan.model, references=constants)
        refuse_another(self.folder, self.manifest, plan.identity)
        self.folder.run_id = self.manifest["run_id"]
        self._refuse_other_threads(self.manifest["compute"].get("threads"))
        warn_of_other_batches(self.folder, self.manifest["compute"], plan.batch_size)
        self.columns = columns_of(self.manifest)
        announce, count = plan.settings.announce, self.feed.count
        texts = self.first_batch.optional_words()
        if self.moments is not None and count:
            texts.append(self.moments.space_text(count, plan.unit_size))
        if announce is not None:
            for text in filter(None, texts):
                announce(text)

    def _refuse_other_threads(self, recorded: int | None) -> None:
        """Raise if a process that began at the same time computes with other threads."""
        own = torch.get_num_threads()
        if self.plan.device.type == "cpu" and recorded not in (None, own):
            raise StoreError(
                f"out: {str(self.folder.path)!r} was begun by another process with {recorded} "
                f"threads, this one has {own}: bytes repeat only for equal numbers; give all "
                f"the same, or --threads {recorded} here"
            )

    def _store(
        self, buffer: UnitBuffer, batch: Batch, fetch: Callable[[], Arrays], writer: UnitWriter
    ) -> None:
        """Add a batch's β to its unit; hand finished units to the writer."""
        buffer.add(batch, fetch())
        if batch.last:
            self.waiting.append(buffer)
        if self.columns is not None:
            # Units of bad images only wait until the layers are known.
            for done in self.waiting:
                writer.write(done, self.columns)
            self.waiting.clear()

    def _finish(self) -> Run:
        """Complete the manifest if every unit is done, by whichever process."""
        if self.manifest is None:  # no unit for this process, or bad images only
            self.manifest = self._manifest_of_others()
            refuse_another(self.folder, self.manifest, self.plan.identity)
        if self.waiting:
            columns = columns_of(self.manifest)
            with UnitWriter(self.folder) as writer:
                for unit in self.waiting:
                    writer.write(unit, columns)
            self.waiting.clear()
        count = self.feed.count
        if count is None:
            raise AconError("the stream was not read to its end")
        if self.feed.samples is None:
            self.recorded.end(count)
        self.writer.finish(count)
        return Run(self.folder.path)

    def _manifest_of_others(self) -> dict[str, Any]:
        """Return the manifest that another process writes after its first batch."""
        end = time.monotonic() + (PATIENCE if self.plan.world > 1 else 0.0)
        while True:
            found = existing_manifest(self.folder)
            if found is not None:
                return found
            if time.monotonic() >= end:
                raise AconError(self._nothing())
            time.sleep(0.2)

    def _nothing(self) -> str:
        """Return why this process has nothing to write."""
        rank, world = self.plan.rank, self.plan.world
        alone = "" if world == 1 else ", and no other process has begun the run"
        if not self.waiting:
            return f"rank {rank} of {world} has no unit of work{alone}"
        reason = self.waiting[0].first_error
        return f"none of the {self._word}s could be read{alone}; the first reason: {reason}"


class HostCopy:
    """Copies each batch's β to the host in one transfer."""

    # On CUDA devices the transfer runs on a stream of its own into page-locked memory, so that the
    # result of one batch can be fetched while the next one is computed; elsewhere it is done at
    # once.
    def __init__(self, device: torch.device) -> None:
        self._stream: Any = _cuda.Stream(device) if device.type == "cuda" else None

    @property
    def depth(self) -> int:
        """Batches that may be under way before the oldest one is fetched."""
        return 0 if self._stream is None else 1

    def start(self, values: Mapping[Key, Tensor]) -> Callable[[], Arrays]:
        """Begin to copy; what is returned waits for the end and returns the arrays, float32."""
        if self._stream is None or not values:
            arrays = to_host(values)
            return lambda: arrays
        return self._start(values, self._stream)

    @staticmethod
    def _start(values: Mapping[Key, Tensor], stream: Any) -> Callable[[], Arrays]:
        shapes = {key: tuple(value.shape) for key, value in values.items()}
        flat = torch.cat([value.detach().reshape(-1).float() for value in values.values()])
        host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
        stream.wait_stream(_cuda.current_stream(flat.device))
        with _cuda.stream(stream):
            host.copy_(flat, non_blocking=True)
            flat.record_stream(stream)  # its memory must not be reused before the copy is done
            copied = _cuda.Event()
            copied.record(stream)

        def fetch() -> Arrays:
            copied.synchronize()
            sizes = [int(np.prod(shape)) for shape in shapes.values()]
            pieces = np.split(host.numpy(), np.cumsum(sizes)[:-1])
            return {
                key: piece.reshape(shape)
                for (key, shape), piece in zip(shapes.items(), pieces, strict=True)
            }

        return fetch
