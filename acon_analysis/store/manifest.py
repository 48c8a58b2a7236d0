"""The manifest of a run as text: what it must hold, and whether it is what was written."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from acon_analysis.columns import LAYER_COLUMNS, LAYER_DEFAULTS, READABLE_FORMATS, dtypes

#: Key of the SHA-256 of what a capture began with; earlier versions wrote none.
HASH = "begun_sha256"

#: What the end of a capture changes. All of it follows from the units.
_LATER = frozenset({HASH, "complete", "samples", "units", "parts", "tables"})

_MAPPING, _NUMBER = dict, (int, type(None))

#: Type of what every manifest holds.
_REQUIRED: dict[str, Any] = {
    "identity": _MAPPING, "layers": list, "samples": _NUMBER, "units": _NUMBER, "complete": bool,
}  # fmt: skip

#: Type of what some hold.
_OPTIONAL: dict[str, Any] = {
    "run_id": str, "parts": _MAPPING, "tables": _MAPPING, "compute": _MAPPING,
    "origin": (_MAPPING, type(None)), "beta_networks": _MAPPING, "rows": (_MAPPING, type(None)),
    "versions": _MAPPING, HASH: str,
}  # fmt: skip

#: Python types of a value of `LAYER_COLUMNS`, by dtype.
_KINDS: dict[str, Any] = {"str": str, "int64": int, "float64": (int, float, type(None))}

#: Half of a character, which JSON can spell and no file can hold.
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_FILE = re.compile(r"(?:\w+/)?[\w-]+\.parquet")


def manifest_text(content: Mapping[str, Any]) -> bytes:
    """Return a manifest as JSON with sorted keys and the SHA-256 of what does not change."""
    plain = json.loads(json.dumps(content))
    return json_text({**plain, HASH: _digest(plain)})


def json_text(content: Mapping[str, Any]) -> bytes:
    """Return content as JSON with sorted keys."""
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def parse_manifest(text: bytes) -> dict[str, Any]:
    """Return the manifest in a text; ValueError if it is none, damaged, or of a later version."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(found, dict) or "format" not in found:
        raise ValueError("it names no format")
    version = found["format"]
    if version not in READABLE_FORMATS:
        known = " and ".join(map(repr, READABLE_FORMATS))
        raise ValueError(f"it has the format {version!r}, this version reads {known}")
    _require_types(found)
    _require_layers(found["layers"])
    return found


def alteration(manifest: Mapping[str, Any]) -> str:
    """Say how a manifest differs from what was written; empty where it does not."""
    identity = json.dumps(manifest["identity"], sort_keys=True).encode()
    run_id = hashlib.sha256(identity).hexdigest()[:16]
    if HASH in manifest and manifest[HASH] != _digest(manifest):
        return "manifest.json is not what was written when the capture began (SHA-256 differs)"
    if manifest.get("run_id", run_id) != run_id:
        return "manifest.json is not what was written (its identity is not that of its run_id)"
    return ""


def _digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a capture began with."""
    rest = {name: value for name, value in manifest.items() if name not in _LATER}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _require_types(found: Mapping[str, Any]) -> None:
    """Raise ValueError for a value that is missing or of another type."""
    for name, kind in _REQUIRED.items():
        if name not in found:
            raise ValueError(f"it has no {name!r}")
        _require(name, found[name], kind)
    for name in _OPTIONAL.keys() & found.keys():
        _require(name, found[name], _OPTIONAL[name])
    for name in ("samples", "units"):
        if found[name] is not None and (isinstance(found[name], bool) or found[name] < 0):
            raise ValueError(f"its {name!r} is {found[name]!r}")
    for name in ("parts", "tables"):
        for file, digest in found.get(name, {}).items():
            if not _FILE.fullmatch(file) or not isinstance(digest, str):
                raise ValueError(f"its {name!r} names {file!r:.100}, which is no file of a run")
    for name, facts in found.get("beta_networks", {}).items():
        _require(f"beta_networks.{name}", facts, dict)


def _require(name: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"its {name!r:.100} is {value!r:.100}")


def _require_layers(rows: list[Any]) -> None:
    """Raise ValueError unless each row of the table of layers has its columns' types."""
    kinds = dtypes(LAYER_COLUMNS)
    if not rows:
        raise ValueError("it names no layers")
    for row in rows:
        _require("layers", row, dict)
        for name, kind in kinds.items():
            value = (LAYER_DEFAULTS | row).get(name, ())
            if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
                raise ValueError(f"a row of its 'layers' has {name!r} {value!r:.100}")
            if isinstance(value, str) and _SURROGATE.search(value):
                raise ValueError(f"a row of its 'layers' has {name!r} {value!r:.100}, no text")
        if row["call"] < 0 or not 0 < row["channels"] < 2**40:
            raise ValueError("a row of its 'layers' has a 'call' or 'channels' out of range")
