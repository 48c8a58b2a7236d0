"""The registry as a frame, without building a network: torch is not loaded."""

import json
import struct
from pathlib import Path
from typing import Any

import pandas as pd

_HERE = Path(__file__).parent
#: Folder of the weights that come with the package.
WEIGHTS = _HERE / "weights"


def model_table() -> pd.DataFrame:
    """Return a row a network: name, source, parameters, input_shape, weights, test_accuracy.

    Weights are ``"shipped"`` or ``"random"``; the accuracy is NaN for random ones.
    """
    table = pd.read_csv(_HERE / "networks.csv")
    files = [shipped_weights(name) for name in table["name"]]
    table["weights"] = ["random" if file is None else "shipped" for file in files]
    table["test_accuracy"] = [
        float("nan") if file is None else float(weights_metadata(file).get("test_accuracy", "nan"))
        for file in files
    ]
    return table


def shipped_weights(name: str) -> Path | None:
    """Return the weights of a network that come with the package, if any."""
    path = WEIGHTS / f"{name}.safetensors"
    return path if path.is_file() else None


def weights_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in a safetensors file's header, without loading its tensors."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata
