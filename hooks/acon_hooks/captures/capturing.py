"""Run a network over a data set and write what its activation layers decide for every sample."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from acon_analysis.errors import UsageError
from acon_analysis.folders import expanded
from acon_analysis.runs.examples import example_names, example_run
from acon_analysis.runs.run import Run
from acon_hooks.captures.plan import Settings, UntrainedWarning, plan_capture
from acon_hooks.captures.session import Session
from acon_hooks.engine.inputs import Forward, Mask
from acon_hooks.engine.outputs import Output
from acon_hooks.guards import refuse_without_values, unwrap
from acon_hooks.moments.options import MomentOptions, Wish

__all__ = ["Settings", "UntrainedWarning", "capture", "default_runs", "run_units"]

#: The digits networks behind the default figures: Meta-ACON, and the same with other activations.
DEFAULT_NETWORKS = ("digits_metaacon", "digits_acon", "digits_swish", "digits_relu")


def capture(
    model: nn.Module | str,
    data: Any,
    out: str | Path,
    *,
    preprocess: str | None = None,
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    limit: int | None = None,
    unit_size: int | None = None,
    strict: bool = False,
    kinds: Sequence[str] | None = None,
    moments: Wish | MomentOptions | None = None,
    announce: Callable[[str], None] | None = None,
    fuse: bool = False,
    threads: int | None = None,
    progress: bool = True,
    forward: Forward | None = None,
    mask: Mask | None = None,
    output: Output = None,
    sample_axis: int = 0,
) -> Run:
    """Capture what a network's activation layers decide for every image of a data set.

    The same call continues what an earlier one left: units of work that are done and whose files
    are what was written (their SHA-256 is compared) are not done again. Under ``torchrun``, or
    with ``RANK`` and ``WORLD_SIZE`` set, every process takes its share of the units.

    Parameters
    ----------
    model : torch.nn.Module or str
        A network in eval mode, or a MODEL string for `build_model`.
    data : str, Path, ImageSource, Dataset, DataLoader or iterable of batches
        The images; see `acon_hooks.engine.feeding.open_feed`.
    out : str or Path
        The run's folder.
    preprocess : str, optional
        For a folder of images; by default what the network's origin asks for.
    device : str or torch.device
        ``"auto"`` is the accelerator if there is one, and otherwise the CPU.
    batch_size : int, optional
        Images a forward pass; by default what the run began with, else 64.
    workers : int, optional
        Worker processes that decode images; by default none, except for a folder of at least 200
        images: there the first two batches show how long decoding and the network take.
    limit : int, optional
        Take only the first `limit` images.
    unit_size : int, optional
        Images a unit of work, 4,096 unless an existing run says otherwise.
    strict : bool
        Stop at the first bad image instead of recording it.
    kinds : sequence of str, optional
        Kinds of layers to watch; see `find_layers`. By default the ACON layers, or, where there
        are none and moments are wanted, all other elementwise activations.
    moments : bool or "full", optional
        Gather what `Run.linearity` and `Run.null_model` need: moments of the layers' inputs and
        outputs, and pooled inputs. ``"full"`` stores the states of every sample and channel, too.
        By default they are gathered. An
        `acon_hooks.moments.options.MomentOptions` also chooses the kernel that sums: C++ compiled
        once on this machine, or torch. A run keeps the one it began with.
    announce : callable, optional
        Called with one sentence before a kernel is compiled, and after the first batch with one
        about the disk space that the moments will take, if that is 1 GB or a tenth of what is free.
    fuse : bool
        Fold BatchNorm and exchange Meta-ACON layers for equal, faster ones, compared on the first
        batch: outputs and β within 1e-5 of their scale. A network that float32's own rounding moves
        further is allowed four times that, if the exchange holds to 1e-5 in float64; with random
        weights ShuffleNetV2 0.5x is 2e-5 to 6e-5 from its own float64. With a compiled kernel of
        moments, it writes the layers' outputs, too.
    threads : int, optional
        Threads within an operator, on the CPU. A run keeps the number it began with, because
        bytes repeat only for equal numbers; by default what torch has when the run begins.
    progress : bool
        Show a progress bar.
    forward : callable, optional
        Runs the network on a batch: (model, batch) -> output, with one call of the model. By
        default a tensor is its argument, a mapping gives arguments by name (what the network does
        not take and is named label, labels or target is the label), and a tuple is an input and
        its label if the second looks like labels (one number a sample, or one-hot), and several
        arguments otherwise.
    mask : str, int, callable or mapping, optional
        Which positions of a batch hold data, bool (N, T): the key of the batch, or a callable that
        is given the batch. Padded positions are left out of every statistic. Where parts of a
        network have positions of their own, masks by module path:
        ``{"encoder": "attention_mask", "decoder": "decoder_attention_mask"}``.
    output : int, str or callable, optional
        Which tensor of the network's output a fused network must reproduce: an index,
        a key or the name of an attribute, or a callable that is given the output; by default all.
    sample_axis : int
        Axis of the samples in what the network is given: 1 for time-first inputs (T, N, ...).

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
        If a layer's reading does not reproduce its output on the first batch, or a fused
        network differs.
    UsageError
        If the batches are not what the network takes; the message shows how to say it.
    AconError
        If a layer was not used as in the first batch; if every image was bad.
    """
    if not str(out).strip():
        raise UsageError("out is empty; give a folder for the run")
    settings = Settings(
        expanded(out), preprocess=preprocess, device=device, batch_size=batch_size,
        workers=workers, limit=limit, unit_size=unit_size, strict=strict,
        kinds=None if kinds is None else tuple(kinds), moments=moments, announce=announce,
        fuse=fuse, threads=threads, progress=progress, forward=forward, mask=mask, output=output,
        sample_axis=sample_axis,
    )  # fmt: skip
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

    Raises
    ------
    UsageError
        If a unit does not exist.
    """
    if isinstance(model, str):
        from acon_analysis.models.registry import build_model

        model = build_model(model)
    refuse_without_values(unwrap(model))
    asked = None if units is None else frozenset(units)
    return Session(plan_capture(model, data, settings, asked)).run()


def default_runs(
    folder: str | Path, *, progress: bool = False, announce: Callable[[str], None] | None = None
) -> list[Run]:
    """Return the package's runs, and those of the digits networks, captured here or earlier."""
    runs = [example_run(name) for name in example_names()]
    for name in DEFAULT_NETWORKS:
        if announce is not None:
            announce(f"capturing {name}")
        runs.append(capture(name, "digits", Path(folder) / name, progress=progress))
    return runs
