"""The registry as a frame."""

import pandas as pd
import torch

from acon_analysis.models.registry import registry, weights_metadata


def model_table() -> pd.DataFrame:
    """Return a row a network of the registry.

    Returns
    -------
    pandas.DataFrame
        ``name, source, parameters, input_shape, weights, test_accuracy``: weights are
        ``"shipped"`` or ``"random"``; the accuracy is that of the shipped weights, and NaN
        without them.
    """
    rows = []
    for spec in registry().values():
        with torch.device("meta"):
            model = spec.build()
        shipped = spec.shipped
        accuracy = float("nan")
        if shipped is not None:
            accuracy = float(weights_metadata(shipped).get("test_accuracy", "nan"))
        rows.append(
            {
                "name": spec.name,
                "source": spec.source,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "input_shape": ",".join(str(size) for size in spec.input_shape),
                "weights": "random" if shipped is None else "shipped",
                "test_accuracy": accuracy,
            }
        )
    return pd.DataFrame(rows)
