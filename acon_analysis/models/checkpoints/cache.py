"""Where converted checkpoints are kept: safetensors files named by their own SHA-256."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from acon_analysis.files import atomic_write, user_cache
from acon_analysis.models.checkpoints.errors import Refusal

_INDEX_BYTES = 4096
_VERSION = 1


def cache_folder() -> Path:
    """Return the folder of converted checkpoints; it need not exist."""
    return user_cache() / "checkpoints"


@contextmanager
def workplace() -> Iterator[Path]:
    """Make a temporary folder next to the converted checkpoints; it is gone afterwards.

    Raises
    ------
    Refusal
        The cache folder cannot be written to.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix="tmp-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise Refusal(
            f"the cache folder {folder} cannot be written to ({error.strerror or error}); set "
            "ACON_CACHE to a folder that can"
        ) from None
    with made as name:
        yield Path(name)


def index_name(sha256: str, request: Sequence[object]) -> str:
    """Return the name under which the conversion of a file for a model is noted."""
    text = json.dumps([_VERSION, sha256, *request], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest() + ".json"


def recall(index: str) -> tuple[Path, str] | None:
    """Return path and SHA-256 of an earlier conversion; None if there is none."""
    try:
        with (cache_folder() / index).open("rb") as file:
            noted = json.loads(file.read(_INDEX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    digest = noted.get("weights_sha256") if isinstance(noted, dict) else None
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        return None
    return cache_folder() / f"{digest}.safetensors", digest


def keep(made: Path, digest: str, index: str) -> None:
    """Move a finished file into the cache under its SHA-256, then note under `index` where it is.

    Raises
    ------
    Refusal
        The cache folder cannot be written to.
    """
    try:
        made.replace(cache_folder() / f"{digest}.safetensors")
        atomic_write(cache_folder() / index, json.dumps({"weights_sha256": digest}).encode())
    except OSError as error:
        raise Refusal(
            f"the cache folder cannot be written to ({error.strerror or error})"
        ) from None
