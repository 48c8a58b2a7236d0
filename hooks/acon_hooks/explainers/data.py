"""Explain β for images of a named data set, and write the tables: what ``acon explain`` does."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from acon_analysis.data.image_source import ImageSource
from acon_analysis.data.sources import open_data
from acon_analysis.errors import UsageError
from acon_analysis.files import write_csv
from acon_analysis.screen import counted
from acon_hooks.captures.devices import on_device, pick_device
from acon_hooks.engine.feeding import own_preprocess
from acon_hooks.explainers.explaining import EXPLAINABLE, explain, settled
from acon_hooks.explainers.explanations import Explanation
from acon_hooks.explainers.importance import conductance, correlations
from acon_hooks.explainers.sanity import randomization_check
from acon_hooks.layers.scan import scan_layers
from acon_hooks.moments.recording import record

if TYPE_CHECKING:
    import pandas as pd

#: Images that the baseline "mean" is the mean of, at most.
REFERENCE = 500
#: Images explained where none is named, and among how many they and the channel are looked for.
DEFAULT_SAMPLES, LOOKED_AT = 3, 128


def explain_data(
    model: nn.Module,
    data: str | Path,
    layer: str,
    channel: int | None,
    samples: Sequence[int] | None = None,
    *,
    baseline: str = "zero",
    preprocess: str | None = None,
    device: str = "auto",
    most_varied: bool = False,
    announce: Callable[[str], None] | None = None,
    **arguments: Any,
) -> tuple[Explanation, dict[int, str]]:
    """Explain β for some images of a data set; return their labels by sample id, too.

    Images are by default three, evenly spread over the data set. `baseline` is a key of `BASELINES`
    or "sample:ID". With `most_varied` and no channel, the one whose β varies most between the
    images is explained, for the images of its lowest, middle and highest β, and announced.
    """
    source = open_data(data, preprocess or own_preprocess(model))
    if most_varied and channel is None:
        channel, ends, text = _most_varied(model, source, layer, pick_device(device))
        samples = samples or ends
        if announce is not None:
            announce(text)
    chosen = _default(len(source)) if not samples else list(samples)
    images = load(source, chosen)
    start: str | Tensor = baseline
    reference = None
    kind, _, number = baseline.partition(":")
    if kind == "sample":
        if not number.isdigit():
            raise UsageError(f"a baseline image is named like sample:7; got {baseline!r}")
        start = load(source, [int(number)])
    elif baseline == "mean":
        reference = load(source, range(min(REFERENCE, len(source))))
    with on_device(model, pick_device(device)):
        found = explain(
            model,
            images,
            layer,
            channel,
            baseline=start,
            reference=reference,
            samples=chosen,
            **arguments,
        )
    found = replace(found, preprocess=source.preprocess)
    if kind == "sample":
        found = replace(found, baseline=f"sample {number}")
    labels = source.samples["label"].iloc[chosen]
    named = {
        sample: str(label)
        for sample, label in zip(chosen, labels, strict=True)
        if isinstance(label, str)
    }
    return found, named


def _most_varied(
    model: nn.Module, source: ImageSource, layer: str, device: torch.device
) -> tuple[int, list[int], str]:
    """Return the channel of a layer whose β varies most, images at its ends, and both in words."""
    count = min(LOOKED_AT, len(source))
    ids = [index * len(source) // count for index in range(count)]
    with on_device(model, device):
        settled(model, load(source, ids[:1]).to(device), load(source, ids[:1]).to(device), layer)
        with torch.no_grad(), record(model, [layer], EXPLAINABLE, moments=False) as recording:
            for start in tqdm(range(0, count, 64), desc="β", unit="batch", disable=None):
                model(load(source, ids[start : start + 64]).to(device))
    beta = recording.beta_matrix(layer).astype("float64")
    channel = int(beta.std(0).argmax())
    order = beta[:, channel].argsort(kind="stable")
    ends = [ids[int(order[rank])] for rank in (0, count // 2, count - 1)]
    text = (
        f"channel {channel} of {beta.shape[1]}: its β varies most, from "
        f"{beta[:, channel].min():.3g} to {beta[:, channel].max():.3g} over "
        f"{counted(count, 'image')}"
    )
    return channel, list(dict.fromkeys(ends)), text


def load(source: ImageSource, samples: Sequence[int]) -> Tensor:
    """Return the images of some sample ids, (N, C, H, W)."""
    for sample in samples:
        if not 0 <= sample < len(source):
            raise UsageError(
                f"{source.name} has no sample {sample}: its images are numbered from 0 to "
                f"{len(source) - 1}"
            )
    images = [source[sample] for sample in samples]
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise UsageError(
            f"the images differ in size ({', '.join(map(str, sorted(shapes)))}): take one at a "
            "time (--sample, or --limit 1), or choose a preprocessing that makes them equal "
            "(--preprocess official or imagenet)"
        )
    return torch.stack(images)


def conductance_data(
    model: nn.Module,
    data: str | Path,
    folder: Path,
    layers: Sequence[str] | None = None,
    *,
    limit: int = 64,
    preprocess: str | None = None,
    device: str = "auto",
    baseline: str = "zero",
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Write and return `conductance` and its `correlations` for images of a data set.

    `folder` gets ``conductance.csv`` (a row a channel) and ``layers.csv`` (a row a layer). Layers
    are by default the ACON layers, or all elementwise activations where there are none.
    """
    source = open_data(data, preprocess or own_preprocess(model))
    count = min(limit, len(source))
    if count < 1:
        raise UsageError(f"at least one image is needed; the limit is {limit}")
    images = load(source, [index * len(source) // count for index in range(count)])
    target = pick_device(device)
    kinds: tuple[str, ...] = ("meta_acon", "acon", "activation")
    if layers is None:
        known = {layer.kind for layer in scan_layers(model, kinds)}
        kinds = ("meta_acon", "acon") if known & {"meta_acon", "acon"} else ("activation",)
    with on_device(model, target):
        table = conductance(model, images.to(target), layers=layers, kinds=kinds, baseline=baseline)
    ranks = correlations(table)
    write_csv(folder, {"conductance": table, "layers": ranks})
    return table, ranks


def write_tables(explanation: Explanation, folder: Path) -> list[Path]:
    """Write ``explanation.csv`` (a row an image) and ``pixels.csv`` (a row a pixel)."""
    tables = {"explanation": explanation.to_frame(), "pixels": explanation.pixels()}
    return write_csv(folder, tables)


def check_data(
    model: nn.Module,
    explanation: Explanation,
    folder: Path,
    *,
    device: str = "auto",
    seed: int = 0,
    steps: int = 64,
) -> "pd.DataFrame":
    """Write and return ``randomization.csv``: how the maps change when the layer is shuffled."""
    with on_device(model, pick_device(device)):
        table = randomization_check(
            model,
            torch.from_numpy(explanation.images),
            explanation.layer,
            explanation.channel,
            seed=seed,
            baseline=torch.from_numpy(explanation.baselines),
            samples=explanation.samples,
            method=explanation.method,
            call=explanation.call,
            # Ranks of pixels need no exact sum: it takes these steps and no more.
            steps=steps,
            max_steps=steps,
            tolerance=float("inf"),
        )
    write_csv(folder, {"randomization": table})
    return table


def _default(count: int) -> list[int]:
    """Return the sample ids that are explained where none is given."""
    wanted = min(DEFAULT_SAMPLES, count)
    return [(2 * index + 1) * count // (2 * wanted) for index in range(wanted)]
