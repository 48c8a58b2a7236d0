"""Make every ACON layer of a shipped network affine, fold it away, and measure what that saves.

Writes RESULTS_folding.csv: the equality of the folded network, the damage of making the layers
affine, and processor time a forward pass of one thread (medians, networks timed in turns).

    python benchmarks/folding.py
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from acon_analysis.data.sources import open_data
from acon_analysis.models.registry import build_model
from acon_hooks.readings.found_layers import find_layers
from acon_hooks.replacement.fitting import fit_units
from acon_hooks.replacement.folding import fold_lines
from acon_hooks.replacement.linearizing import linearize
from acon_hooks.replacement.verifying import verify_plan

NETWORKS = ("digits_metaacon", "digits_acon", "digits_swish")


def measure(name: str, images: int, repeats: int) -> dict[str, object]:
    """Return a row: the folded network against the original."""
    model = build_model(name)
    layers = [layer.name for layer in find_layers(model)]
    plan = fit_units(model, "digits:train", layers=layers, batch_size=256).plan(layers=layers)
    lined = linearize(model, plan)
    test = open_data("digits")
    batch = torch.stack([test[i] for i in np.linspace(0, len(test) - 1, images).astype(int)])
    done = fold_lines(lined, batch)
    summary = verify_plan(model, plan, test, batch_size=250).summary
    times = forward_times(
        {"original": model, "affine": lined, "folded": done.model}, batch, repeats=repeats
    )
    return {
        "network": name,
        "layers": len(layers),
        "folded": int((done.table["where"] != "").sum()),
        "error": done.error,
        "change_median": summary["q50"],
        "change_predicted": summary["predicted"],
        "accuracy_before": summary["accuracy_before"],
        "accuracy_after": summary["accuracy_after"],
        **{f"ms_{kind}": 1000 * seconds for kind, seconds in times.items()},
        "speed_up": times["original"] / times["folded"],
        "images": images,
        "repeats": repeats,
    }


def forward_times(
    models: dict[str, nn.Module], images: Tensor, *, repeats: int = 20
) -> dict[str, float]:
    """Return median seconds of a forward pass of each model, timed in turns."""
    # In turns, so that a busy machine disturbs all alike; the first passes are not counted.
    clock = time.perf_counter if images.is_cuda else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for repeat in range(repeats + 1):
            for name, model in models.items():
                start = clock()
                model(images)
                if images.is_cuda:
                    torch.cuda.synchronize(images.device)
                if repeat:
                    seconds[name].append(clock() - start)
    return {name: float(pd.Series(values).median()) for name, values in seconds.items()}


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description="what folding affine layers saves")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frame = pd.DataFrame([measure(name, options.images, options.repeats) for name in NETWORKS])
    frame.to_csv(
        options.out / "RESULTS_folding.csv", index=False, float_format="%.4g", lineterminator="\n"
    )
    print(frame.T.to_string())


if __name__ == "__main__":
    main()
