"""Where converted checkpoints are kept: safetensors files named by their own SHA-256."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from acon_analysis.files import (
    is_own_file,
    keep_private,
    private_cache,
    shared_by,
    user_cache,
    warn_of_cache,
)
from acon_analysis.models.checkpoints.errors import Refusal

_INDEX_BYTES = 4096
_VERSION = 1


def cache_folder() -> Path:
    """Return the folder of converted checkpoints; it need not exist."""
    return user_cache() / "checkpoints"


@contextmanager
def workplace() -> Iterator[Path]:
    """Make a temporary folder in the cache, or the system's where there is none; then remove it."""
    folder = private_cache("checkpoints")
    if folder is not None and not os.access(folder, os.W_OK | os.X_OK):
        warn_of_cache(folder, "it cannot be written to")
        folder = None
    try:
        made = tempfile.TemporaryDirectory(prefix="tmp-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise Refusal(
            f"no temporary folder can be made ({error.strerror or error}); set ACON_CACHE to a "
            "folder that can be written to"
        ) from None
    with made as name:
        if why := shared_by(Path(name)):
            raise Refusal(
                f"the temporary folder {name!r} is not safe: {why}; set ACON_CACHE to a folder of "
                "your own"
            )
        yield Path(name)


def index_name(sha256: str, request: Sequence[object]) -> str:
    """Return the name under which the conversion of a file for a model is noted."""
    text = json.dumps([_VERSION, sha256, *request], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest() + ".json"


def recall(index: str) -> tuple[Path, str] | None:
    """Return path and SHA-256 of an earlier conversion; None if there is none."""
    folder = private_cache("checkpoints") if cache_folder().is_dir() else None
    if folder is None or not is_own_file(folder / index):
        return None
    try:
        with (folder / index).open("rb") as file:
            noted = json.loads(file.read(_INDEX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    digest = noted.get("weights_sha256") if isinstance(noted, dict) else None
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        return None
    path = folder / f"{digest}.safetensors"
    return (path, digest) if is_own_file(path) else None


def keep(made: Path, digest: str, index: str) -> None:
    """Name a file of the cache by its SHA-256, and note that name under `index`."""
    folder = cache_folder()
    if made.parent.parent != folder:
        return
    try:
        made.chmod(0o600)
        made.replace(folder / f"{digest}.safetensors")
    except OSError as error:
        warn_of_cache(folder, f"it cannot be written to ({error.strerror or error})")
    else:
        keep_private(folder / index, json.dumps({"weights_sha256": digest}).encode())
