"""Run a network over images and write what its activation layers decide for every sample."""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from torch import nn
from tqdm.auto import tqdm

from acon_analysis.errors import AconError, UsageError
from acon_analysis.run import Run
from acon_analysis.schema import RUN_FORMAT
from acon_analysis.store import UNIT_SIZE, RunFolder, StoreError, file_sha256
from acon_hooks.accumulating import Accumulator, MomentOptions, Wish, default_kinds, options_of
from acon_hooks.batch import Batch as HookBatch
from acon_hooks.batch import to_host
from acon_hooks.beta_networks import run_facts
from acon_hooks.feeding import Batch, Feed, MapFeed, open_feed
from acon_hooks.identity import (
    differences,
    identity_sha256,
    model_name,
    origin_facts,
    state_sha256,
    versions,
)
from acon_hooks.layer_tables import channel_table, layer_table
from acon_hooks.moment_constants import REFERENCES
from acon_hooks.places import pick_device, rank_and_world
from acon_hooks.tap import Tap
from acon_hooks.unit import Columns, UnitBuffer, UnitWriter

#: Tables of the whole run, which a process killed before its first manifest leaves behind.
_EARLY = ("samples.parquet", "channels.parquet", f"{REFERENCES}.parquet")


class UntrainedWarning(UserWarning):
    """The network has random weights, so what it decides means nothing."""


@dataclass(frozen=True)
class Settings:
    """How a capture is done; see `capture` for the meaning of each field."""

    out: Path
    preprocess: str | None = None
    device: str | torch.device = "auto"
    batch_size: int = 64
    workers: int = 0
    limit: int | None = None
    unit_size: int | None = None
    strict: bool = False
    kinds: tuple[str, ...] | None = None
    moments: Wish | MomentOptions = True
    announce: Callable[[str], None] | None = None
    progress: bool = True


def capture(
    model: nn.Module | str,
    data: Any,
    out: str | Path,
    *,
    preprocess: str | None = None,
    device: str | torch.device = "auto",
    batch_size: int = 64,
    workers: int = 0,
    limit: int | None = None,
    unit_size: int | None = None,
    strict: bool = False,
    kinds: Sequence[str] | None = None,
    moments: Wish | MomentOptions = True,
    announce: Callable[[str], None] | None = None,
    progress: bool = True,
) -> Run:
    """Capture what a network's activation layers decide for every image of a data set.

    The same call continues what an earlier one left: units of work that are done and whose files
    are what was written are not done again. Under ``torchrun``, or with ``RANK`` and
    ``WORLD_SIZE`` set, every process takes its share of the units.

    Parameters
    ----------
    model : torch.nn.Module or str
        A network in eval mode, or a MODEL string for `build_model`.
    data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        The images; see `feeding.open_feed`.
    out : str or Path
        The run's folder.
    preprocess : str, optional
        For a folder of images; by default what the network's origin asks for.
    device : str or torch.device
        ``"auto"`` is the accelerator if there is one, and otherwise the CPU.
    batch_size : int
        Images a forward pass.
    workers : int
        Worker processes that decode images.
    limit : int, optional
        Take only the first so many images.
    unit_size : int, optional
        Images a unit of work, 4,096 unless an existing run says otherwise.
    strict : bool
        Stop at the first bad image instead of recording it.
    kinds : sequence of str
        Kinds of layers to watch; see `find_layers`. By default the ACON layers, or, where there
        are none and moments are wanted, all other elementwise activations.
    moments : bool or "full"
        Gather what `Run.linearity` and `Run.null_model` need: moments of the layers' inputs and
        outputs, and pooled inputs. ``"full"`` stores the states of every sample and channel, too.
    announce : callable, optional
        Called with one sentence about the disk space that the moments will take, as soon as the
        first batch has told it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Run
        The same as ``open_run(out)``.

    Raises
    ------
    StoreError
        If the folder holds a run of something else (the message names the difference), or the
        disk refuses.
    ProofError
        If a layer's reading does not reproduce its output on the first batch.
    AconError
        If a layer was not used as in the first batch; if every image was bad.
    """
    settings = Settings(
        Path(out).expanduser(),
        preprocess=preprocess,
        device=device,
        batch_size=batch_size,
        workers=workers,
        limit=limit,
        unit_size=unit_size,
        strict=strict,
        kinds=None if kinds is None else tuple(kinds),
        moments=moments,
        announce=announce,
        progress=progress,
    )
    return run_units(model, data, None, settings)


def run_units(
    model: nn.Module | str, data: Any, units: Iterable[int] | None, settings: Settings
) -> Run:
    """Capture the given units of work: a task for any engine that spreads work.

    Parameters
    ----------
    model, data
        As in `capture`.
    units : iterable of int or None
        Numbers of the units; None for this process's share (all of them, or every WORLD_SIZE-th).
    settings : Settings
        How.

    Returns
    -------
    Run
        The run, which is complete once every unit is done, by whichever process.
    """
    if isinstance(model, str):
        from acon_analysis.models.registry import build_model

        model = build_model(model)
    return _Capture(model, data, settings).run(None if units is None else frozenset(units))


class _Capture:
    """One process's part of a capture."""

    def __init__(self, model: nn.Module, data: Any, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.folder = RunFolder(settings.out)
        self.rank, self.world = rank_and_world()
        self.device = pick_device(settings.device)
        self.manifest = self._existing_manifest()
        recorded = None if self.manifest is None else self.manifest["identity"]["unit_size"]
        self.unit_size: int = settings.unit_size or recorded or UNIT_SIZE
        origin = getattr(model, "acon_origin", None)
        self.options = options_of(settings.moments)
        self.kinds = settings.kinds or default_kinds(model, moments=self.options is not None)
        self.feed: Feed = open_feed(
            data,
            preprocess=settings.preprocess or getattr(origin, "preprocess", None),
            limit=settings.limit,
            batch_size=settings.batch_size,
            unit_size=self.unit_size,
            workers=settings.workers,
            pin_memory=self.device.type != "cpu",
        )
        self.identity = self._identity()
        self._refuse_another()
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
            self.columns = _columns(pd.DataFrame(self.manifest["layers"]))
        self.waiting: list[UnitBuffer] = []

    def _existing_manifest(self) -> dict[str, Any] | None:
        path = self.folder.path
        if self.folder.manifest_path.is_file():
            return self.folder.read_manifest()
        if path.exists() and not path.is_dir():
            raise UsageError(f"out: {str(path)!r} is a file; give a folder")
        foreign = [entry.name for entry in path.iterdir()] if path.is_dir() else []
        # A process killed before its first manifest leaves these behind, and nothing else.
        foreign = [name for name in foreign if name not in _EARLY]
        if [name for name in foreign if name != "tmp" and not name.startswith(".")]:
            raise UsageError(
                f"out: the folder {str(path)!r} is not empty and holds no run; choose another"
            )
        return None

    def _identity(self) -> dict[str, Any]:
        dtypes = sorted({str(value.dtype) for value in self.model.parameters()})
        return {
            "model": model_name(self.model),
            "weights_sha256": state_sha256(self.model),
            "dtype": ", ".join(dtypes),
            "kinds": list(self.kinds),
            "moments": None if self.options is None else asdict(self.options),
            "unit_size": self.unit_size,
            **self.feed.identity,
        }

    def _refuse_another(self) -> None:
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

        @cache
        def wanted(unit: int) -> bool:
            mine = unit % self.world == self.rank if units is None else unit in units
            return mine and not self.folder.unit_is_done(unit)

        home = next((value.device for value in self.model.parameters()), self.device)
        self.model.to(self.device)
        try:
            with (
                tqdm(
                    total=self.feed.count, unit="image", disable=not self.settings.progress
                ) as bar,
                UnitWriter(self.folder) as writer,
                Tap(
                    self.model,
                    kinds=self.kinds,
                    observe=None if self.moments is None else self.moments.observe,
                    pooled=self.moments is not None,
                ) as tap,
            ):
                self._pass(self.feed.batches(wanted), tap, writer, bar)
        finally:
            self.model.to(home)
        return self._finish()

    def _pass(
        self, batches: Iterator[Batch], tap: Tap, writer: UnitWriter, bar: "tqdm[Any]"
    ) -> None:
        paths = None if self.feed.samples is None else self.feed.samples["path"]
        buffer: UnitBuffer | None = None
        for batch in batches:
            if buffer is None or buffer.unit != batch.unit:
                buffer = UnitBuffer(batch.unit, paths)
            self._refuse_bad(batch, paths)
            buffer.add(batch, self._read(batch, tap))
            bar.update(len(batch.ids) + len(batch.errors))
            if batch.last:
                if self.moments is not None:
                    buffer.more = self.moments.unit(self.columns or {})
                self.waiting.append(buffer)
            if self.columns is not None:
                # Units of bad images only may have had to wait until the layers were known.
                for done in self.waiting:
                    writer.write(done.unit, done.tables(self.columns))
                self.waiting.clear()

    def _refuse_bad(self, batch: Batch, paths: "pd.Series[str] | None") -> None:
        if self.settings.strict and batch.errors:
            sample, reason = batch.errors[0]
            name = f"sample {sample}" if paths is None else repr(str(paths.iloc[sample]))
            raise AconError(f"bad image {name}: {reason} (--strict stops at the first one)")

    def _read(self, batch: Batch, tap: Tap) -> dict[tuple[str, int], npt.NDArray[Any]]:
        """Run one batch through the network; return β of every layer that has one per sample."""
        if batch.images is None:
            return {}
        images = batch.images.to(self.device, non_blocking=True)
        values = self._forward(images, batch, tap)
        if self.manifest is None:
            self._begin(tap)
        wanted = {key: value for key, value in values.items() if key in (self.columns or {})}
        return to_host(wanted)

    def _forward(self, images: torch.Tensor, batch: Batch, tap: Tap) -> HookBatch:
        """Run one batch; before the first one settle what moments are taken about."""
        if self.moments is not None and self.moments.learning:
            self._run(self._opening(images, batch), tap)
            self.moments.learned()
        values = self._run(images, tap)
        if self.moments is not None:
            self.moments.batch(batch.ids, values.pooled)
        return values

    def _run(self, images: torch.Tensor, tap: Tap) -> HookBatch:
        with torch.inference_mode():
            self.model(images)
        return tap.take()

    def _opening(self, images: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the data set's first batch, so that all processes settle on the same."""
        if batch.unit == 0 or not isinstance(self.feed, MapFeed):
            return images
        first = next(iter(self.feed.batches(lambda unit: unit == 0)))
        return images if first.images is None else first.images.to(self.device)

    def _begin(self, tap: Tap) -> None:
        """Write what the first batch has told of the layers, and the manifest."""
        by_name = {layer.name: layer for layer in tap.layers}
        layers = layer_table({key: by_name[key[0]] for key in tap.shapes}, tap.reports)
        self.columns = _columns(layers)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        channels = channel_table([layer for layer in tap.layers if layer.name not in tap.unused])
        self.folder.write_table("channels", pa.Table.from_pandas(channels, preserve_index=False))
        if self.feed.samples is not None:
            table = pa.Table.from_pandas(self.feed.samples, preserve_index=False)
            self.folder.write_table("samples", table)
        self.manifest = {
            "format": RUN_FORMAT,
            "identity": self.identity,
            "run_id": identity_sha256(self.identity)[:16],
            "layers": json.loads(layers.to_json(orient="records", double_precision=15)),
            "samples": self.feed.count,
            "units": None if self.feed.count is None else -(-self.feed.count // self.unit_size),
            "complete": False,
            "origin": origin_facts(self.model),
            "beta_networks": run_facts(tap.layers) if self.moments is not None else {},
            "compute": {
                "device": str(self.device),
                "threads": torch.get_num_threads(),
                "batch_size": self.settings.batch_size,
            },
            "versions": versions(),
        }
        self.folder.write_manifest(self.manifest)
        if self.moments is not None and self.settings.announce is not None and self.feed.count:
            self.settings.announce(self.moments.space_text(self.feed.count, self.unit_size))

    def _finish(self) -> Run:
        """Complete the manifest if every unit is done, by whichever process."""
        if self.manifest is None:
            raise AconError(
                f"none of the images could be read; the first reason: "
                f"{self.waiting[0].first_error if self.waiting else 'there were no images'}"
            )
        count = self.feed.count
        units = -(-count // self.unit_size) if count is not None else 0
        parts: dict[str, str] = {}
        for unit in range(units):
            own = self.folder.unit_parts(unit)
            if own is None:
                return Run(self.folder.path)
            parts |= own
        if not self.manifest["complete"] or parts != self.manifest.get("parts"):
            self._complete(parts, units)
        return Run(self.folder.path)

    def _complete(self, parts: dict[str, str], units: int) -> None:
        if self.feed.samples is None:
            found = Run(self.folder.path).samples
            self.folder.write_table("samples", pa.Table.from_pandas(found, preserve_index=False))
        names = ("samples.parquet", "channels.parquet", f"{REFERENCES}.parquet")
        files = {name: self.folder.path / name for name in names}
        tables = {name: file_sha256(file) for name, file in files.items() if file.is_file()}
        done = {"complete": True, "samples": self.feed.count, "units": units}
        self.folder.write_manifest(
            {**(self.manifest or {}), **done, "parts": parts, "tables": tables}
        )
        self.folder.clear_scratch()


def _columns(layers: pd.DataFrame) -> Columns:
    own = layers[layers["column"] != ""]
    return {
        (row.layer, int(row.call)): (
            row.column,
            1 if row.granularity == "layer" else int(row.channels),
        )
        for row in own.itertuples(index=False)
    }
