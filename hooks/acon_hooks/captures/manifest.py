"""The manifest of a run: written after the first batch, completed last."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from torch import nn

from acon_analysis.columns import RUN_FORMAT
from acon_analysis.errors import StoreError, UsageError
from acon_analysis.files import store_errors
from acon_analysis.runs.run import Run
from acon_analysis.runs.stored_run import CENSUS
from acon_analysis.screen import counted
from acon_analysis.store.folder import PARTS, RunFolder, file_sha256
from acon_hooks.captures.forward_pass import LayerMetadata
from acon_hooks.captures.identity import identity_sha256, origin_facts, run_id, versions
from acon_hooks.engine.feed import Feed
from acon_hooks.moments.constants import REFERENCES, read_references

#: Columns that are equal for all parts of one run; errors of the proofs may differ by rounding.
_FIXED = ("layer", "call", "kind", "channels", "granularity", "column")


#: Files of a process that was killed before its first manifest, or lost it.
_EARLY = (
    *(f"{name}.parquet" for name in ("samples", "channels", "hashes", REFERENCES)),
    CENSUS,
    "tmp",
)


class ManifestWriter:
    """Writes the manifest and the tables of the whole run."""

    def __init__(
        self, folder: RunFolder, identity: Mapping[str, Any], feed: Feed, unit_size: int
    ) -> None:
        self.folder, self.identity = folder, dict(identity)
        self.feed, self.unit_size = feed, unit_size

    def begin(
        self,
        metadata: LayerMetadata,
        compute: dict[str, Any],
        model: nn.Module,
        *,
        references: bool,
    ) -> dict[str, Any]:
        """Write the manifest and the tables, unless some process has; return the manifest."""
        with store_errors(f"writing to {str(self.folder.path)!r}"), self.folder.lock("manifest"):
            if self.folder.manifest_path.is_file():
                manifest = self.folder.read_manifest()
                self._refuse_other_layers(manifest, metadata.layers)
                return manifest
            if references and read_references(self.folder, identity_sha256(self.identity)) is None:
                raise StoreError(
                    f"out: another capture has begun in {str(self.folder.path)!r} at the same "
                    "moment; choose another folder for one of them"
                )
            tables = {
                "channels.parquet": self.folder.write_table(
                    "channels", pa.Table.from_pandas(metadata.channels, preserve_index=False)
                ),
                CENSUS: self.folder.write_table(
                    Path(CENSUS).stem, pa.Table.from_pandas(metadata.census, preserve_index=False)
                ),
            }
            if self.feed.samples is not None:
                tables["samples.parquet"] = self._write_samples(self.feed.samples)
            if references:
                name = f"{REFERENCES}.parquet"
                tables[name] = file_sha256(self.folder.path / name)
            manifest = {**self._manifest(metadata, compute, model), "tables": tables}
            self.folder.write_manifest(manifest)
            return manifest

    def _write_samples(self, samples: pd.DataFrame) -> str:
        table = pa.Table.from_pandas(samples, preserve_index=False)
        return self.folder.write_table("samples", table)

    def _manifest(
        self, metadata: LayerMetadata, compute: dict[str, Any], model: nn.Module
    ) -> dict[str, Any]:
        count = self.feed.count
        return {
            "format": RUN_FORMAT,
            "identity": self.identity,
            "data": self.feed.name,
            "run_id": run_id(self.identity),
            "layers": json.loads(metadata.layers.to_json(orient="records", double_precision=15)),
            "samples": count,
            "units": None if count is None else -(-count // self.unit_size),
            "complete": False,
            "origin": origin_facts(model),
            "beta_networks": metadata.beta_networks,
            "rows": None if metadata.rows is None else asdict(metadata.rows),
            "compute": compute,
            "versions": versions(),
        }

    def _refuse_other_layers(self, manifest: Mapping[str, Any], layers: pd.DataFrame) -> None:
        old = pd.DataFrame(manifest["layers"]).reindex(columns=list(_FIXED))
        new = layers[list(_FIXED)]
        if old.astype(object).to_dict("records") == new.astype(object).to_dict("records"):
            return
        used = manifest.get("versions", {}).get("acon-analysis")
        raise StoreError(
            f"out: {str(self.folder.path)!r} was begun with {counted(len(old), 'layer')}, now "
            f"{len(new)} are found or they are read differently (begun with acon-analysis "
            f"{used}, now {versions()['acon-analysis']}); choose another folder"
        )

    def finish(self, count: int) -> None:
        """Complete the manifest if every unit is done, by whichever process; `count` samples."""
        units = -(-count // self.unit_size)
        self.folder.require_manifest()
        parts: dict[str, str] = {}
        for unit in range(units):
            own = self.folder.unit_parts(unit)
            if own is None:
                return
            parts |= own
        if not self._is_complete(self.folder.read_manifest(), parts):
            writing = store_errors(f"writing to {str(self.folder.path)!r}")
            with writing, self.folder.lock("manifest"):
                manifest = self.folder.read_manifest()
                if not self._is_complete(manifest, parts):
                    self._complete(manifest, parts, count, units)
        self.folder.clear_scratch()

    def _is_complete(self, manifest: Mapping[str, Any], parts: dict[str, str]) -> bool:
        """Whether nothing is left to write, so that a finished run may be read-only."""
        damaged = any(self.folder.damage(manifest.get("tables", {})))
        return manifest["complete"] and parts == manifest.get("parts") and not damaged

    def _complete(
        self, manifest: dict[str, Any], parts: dict[str, str], count: int, units: int
    ) -> None:
        """Write the tables that follow from the parts; raise if something else is damaged."""
        changed = set(range(units)) - self.folder.sound_units(range(units))
        if changed:
            raise StoreError(
                f"out: parts of {counted(len(changed), 'unit')} in {str(self.folder.path)!r} (the "
                f"first is {min(changed)}) were changed since they were written; the same command "
                "makes them again"
            )
        recorded = manifest.get("tables", {})
        kept = [f"{name}.parquet" for name in ("channels", REFERENCES)] + [CENSUS]
        fixed = {name: recorded[name] for name in kept if name in recorded}
        for sentence in self.folder.damage(fixed):
            raise StoreError(
                f"out: in {str(self.folder.path)!r} {sentence}, and cannot be made again from the "
                "rest: bring it back, or capture into another folder"
            )
        samples = self.feed.samples
        if samples is None:
            samples = Run(self.folder.path).collected_samples()
        self._write_samples(samples)
        counts = Run(self.folder.path).histogram_table()
        if counts is not None:
            self.folder.write_table("histograms", counts)
        names = [f"{name}.parquet" for name in ("samples", "channels", "histograms", REFERENCES)]
        files = {name: self.folder.path / name for name in [*names, CENSUS]}
        tables = {name: file_sha256(file) for name, file in files.items() if file.is_file()}
        done = {"complete": True, "samples": count, "units": units}
        self.folder.write_manifest({**manifest, **done, "parts": parts, "tables": tables})


def _is_left(entry: Path) -> bool:
    """Whether something in a folder without a manifest is a capture's, or hidden."""
    if entry.name in (*PARTS, "done"):
        return all(re.fullmatch(r"unit-\d{7,}\.\w+|\..*", own.name) for own in entry.glob("*"))
    return entry.name in _EARLY or entry.name.startswith(".")


def existing_manifest(folder: RunFolder) -> dict[str, Any] | None:
    """Return the manifest of a run that was begun; None where one can begin."""
    path = folder.path
    if folder.manifest_path.is_file():
        return folder.read_unaltered_manifest()
    if path.exists() and not path.is_dir():
        raise UsageError(f"out: {str(path)!r} is a file; give a folder")
    if path.is_dir() and not all(map(_is_left, path.iterdir())):
        if folder.manifest_path.is_file():  # another process has begun since
            return folder.read_unaltered_manifest()
        raise UsageError(
            f"out: the folder {str(path)!r} is not empty and holds no run; choose another"
        )
    return None
