"""Are the nonlinear channels the important ones? Conductance of every channel, and its L.

``table = conductance(model, images, labels); correlations(table)``
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors
from tqdm.auto import tqdm

from acon_analysis.errors import UsageError
from acon_analysis.moments.frames import merge_rows
from acon_analysis.screen import counted
from acon_analysis.statistics.linearity import channel_table
from acon_hooks.engine.inputs import Forward, InputOptions
from acon_hooks.engine.outputs import Output, pick_output
from acon_hooks.engine.sites import Site, SiteCall, Visitor
from acon_hooks.engine.visiting import visiting
from acon_hooks.explainers.baselines import make_baseline
from acon_hooks.explainers.sanity import rank_correlation
from acon_hooks.guards import eager, full_precision, unwrap
from acon_hooks.layers.reading import fold
from acon_hooks.layers.scan import Layer
from acon_hooks.moments.accumulating import Accumulator
from acon_hooks.moments.options import MomentOptions
from acon_hooks.readings.batch import Key
from acon_hooks.readings.tap import Tap

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["layer", "call", "channel"]
VALUES = ["L", "nonlinearity", "dead", "constant_input"]


def conductance(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    layers: Sequence[Layer | str] | None = None,
    *,
    kinds: Iterable[str] = ("meta_acon", "acon", "activation"),
    baseline: str | Tensor = "zero",
    reference: Tensor | None = None,
    steps: int = 32,
    batch_size: int = 256,
    forward: Forward | None = None,
    output: Output = None,
) -> "pd.DataFrame":
    """Measure how much of the class score flows through each channel, and the channel's L.

    Parameters
    ----------
    model : Module
        A classifier of images, in evaluation mode, on their device.
    images : Tensor
        (N, C, H, W).
    targets : Tensor, optional
        (N,) int64: whose score; by default the predicted classes.
    layers : sequence of Layer or str, optional
        By default all of the given kinds.
    kinds : iterable of str
        Keys of `acon_hooks.KINDS`.
    baseline, reference
        As for `acon_hooks.explainers.explaining.explain`.
    steps : int
        Of the integration.
    batch_size : int
        Images a forward pass, at most (steps included).
    forward : callable, optional
        Runs the network on a batch of images: (model, images) -> output.
    output : int, str or callable, optional
        Which tensor of the output holds the class scores, (N, classes); by default the only one,
        or what is called logits.

    Returns
    -------
    DataFrame
        A row a channel and use: ``layer``, ``call``, ``kind``, ``channel``, ``outputs`` (values
        that the channel puts out for an image: its pixels), ``L`` on these images, ``nonlinearity``
        (1 - L), ``dead``, ``constant_input``, ``conductance`` (mean over the images, signed, summed
        over pixels), ``importance`` (mean of its size), ``share`` (importance over the layer's
        sum).

    Raises
    ------
    UsageError
        If the model gives no class scores.

    References
    ----------
    K. Dhamdhere, M. Sundararajan, Q. Yan (2019), How Important Is a Neuron, ICLR,
    arXiv:1805.12233.
    """
    import pandas as pd

    with torch.inference_mode(False), torch.no_grad():
        if not images.ndim or not len(images):
            raise UsageError(f"images must be (N, ...), N at least 1; got {tuple(images.shape)}")
        images = images.detach().clone()
        baselines, _ = make_baseline(images, baseline, reference)
        run = partial(InputOptions(forward=forward).call, unwrap(model))
        found, table, sizes = _observe(model, images, layers, kinds, batch_size, run)

    def scores(images: Tensor) -> Any:
        """Return the class scores, (N, classes)."""
        found = run(images.clone())  # a network may overwrite its input
        return found if isinstance(found, Tensor) and output is None else pick_output(found, output)

    targets = _targets(scores, images, targets, batch_size)
    frames = []
    for layer, call in tqdm(found, desc="conductance", unit="layer", disable=None):
        flow = layer_conductance(
            model, layer, images, baselines, targets, call, scores, steps=steps,
            batch_size=batch_size,
        )  # fmt: skip
        importance = np.abs(flow).mean(0)
        total = importance.sum()
        frames.append(
            pd.DataFrame(
                {
                    "layer": layer.name,
                    "call": call,
                    "kind": layer.kind,
                    "channel": np.arange(flow.shape[1], dtype=np.int64),
                    "outputs": sizes[layer.name, call],
                    "conductance": flow.mean(0),
                    "importance": importance,
                    "share": importance / total if total > 0 else np.zeros_like(importance),
                }
            )
        )
    joined = pd.concat(frames, ignore_index=True).merge(table, how="left", on=KEYS)
    flags = ["dead", "constant_input"]
    joined[flags] = joined[flags].eq(True)  # not known of channels without L
    first, last = ["layer", "call", "kind", "channel", "outputs"], ["conductance", "importance"]
    return joined[[*first, *VALUES, *last, "share"]]


def layer_conductance(
    model: nn.Module,
    layer: Layer,
    images: Tensor,
    baselines: Tensor,
    targets: Tensor,
    call: int = 0,
    scores: Callable[[Tensor], Tensor] | None = None,
    *,
    steps: int = 32,
    batch_size: int = 256,
) -> NDArray[np.float64]:
    """Return the conductance of a layer's output for the target scores, (N, channels).

    Of one use of the layer, summed over the pixels. Where all paths from the image to the score
    lead through the layer, the sum over its channels is the score of the image minus that of the
    baseline. `scores` runs the model; by default it is called with the images.
    """
    from captum.attr import LayerConductance

    chunk = max(1, batch_size // (steps + 1))
    parts = []
    inner, led = unwrap(model), _Led()
    site = layer.site(call)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        full_precision(),
        allow_mutation_on_saved_tensors(),  # layers that overwrite their input
        visiting(inner, [site], led),
    ):
        method = LayerConductance(scores or inner, led.through)
        for part, blank, target in zip(
            torch.split(images, chunk),
            torch.split(baselines, chunk),
            torch.split(targets, chunk),
            strict=True,
        ):
            try:
                found = method.attribute(part, blank, target=target, n_steps=steps)
            except (RuntimeError, ValueError) as error:
                raise UsageError(_no_gradient(layer, steps, error)) from error
            parts.append(fold(found.detach().double(), layer.axis).sum(2).cpu())
    return np.asarray(torch.cat(parts).numpy())


def _no_gradient(layer: Layer, steps: int, error: Exception) -> str:
    """Say why the conductance of a layer cannot be computed."""
    words = str(error).splitlines()[0] if str(error) else "no reason given"
    return (
        f"the conductance of layer {layer.name!r} cannot be computed ({type(error).__name__}: "
        f"{words}): each image goes through the network {counted(steps, 'time')} in one batch, "
        "with a gradient, so the network must take batches of any size, and must not detach, "
        "sample or checkpoint on the way"
    )


class _Led(Visitor):
    """Leads the output of one call through an identity, which runs once in a forward pass."""

    def __init__(self) -> None:
        # Of a module that runs several times, Captum sees only the last call.
        self.through = nn.Identity()

    def replaces(self, site: Site) -> bool:
        """Return True."""
        return True

    def after(self, call: SiteCall, output: Any) -> Any:
        """Run the identity, where Captum has its hooks."""
        # A copy: the gradient of a view of overwritten memory would miss what others read of it.
        return self.through(output.clone() if isinstance(output, Tensor) else output)


def correlations(table: "pd.DataFrame") -> "pd.DataFrame":
    """Correlate nonlinearity with importance within each layer of a table of `conductance`.

    Returns a row a layer and use: ``layer``, ``call``, ``kind``, ``outputs`` (values a channel puts
    out for an image), ``channels`` (used), ``left_out`` (dead, constant or without L), ``spearman``
    of 1 - L with the importance, ``low`` and ``high`` (95 %, by Fisher's z with Bonett and Wright's
    variance; NaN below 4 channels). NaN where a column is constant.

    References
    ----------
    D. G. Bonett, T. A. Wright (2000), Sample size requirements for estimating Pearson, Kendall
    and Spearman correlations, Psychometrika 65, DOI 10.1007/BF02294183.
    """
    import pandas as pd

    rows = []
    for (name, call, kind), part in table.groupby(["layer", "call", "kind"], sort=False):
        out = part["dead"] | part["constant_input"] | part["L"].isna()
        used = part[~out]
        rho = rank_correlation(used["nonlinearity"].to_numpy(), used["importance"].to_numpy())
        low, high = _interval(rho, len(used))
        rows.append(
            {
                "layer": name,
                "call": call,
                "kind": kind,
                "outputs": int(part["outputs"].iloc[0]) if "outputs" in part else 0,
                "channels": len(used),
                "left_out": int(out.sum()),
                "spearman": rho,
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def _interval(rho: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a rank correlation; NaN where it has none."""
    if count < 4 or not np.isfinite(rho):
        return float("nan"), float("nan")
    if abs(rho) >= 1:
        return rho, rho
    half = 1.959963984540054 * np.sqrt((1 + rho**2 / 2) / (count - 3))
    return float(np.tanh(np.arctanh(rho) - half)), float(np.tanh(np.arctanh(rho) + half))


def _observe(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[Layer | str] | None,
    kinds: Iterable[str],
    batch_size: int,
    run: Callable[[Tensor], Any],
) -> tuple[list[tuple[Layer, int]], "pd.DataFrame", dict[Key, int]]:
    """Run the images once: which layers run how often, L of their channels, their sizes."""
    import pandas as pd

    sums = Accumulator(MomentOptions(kernel="eager"), kinds=tuple(kinds))
    sizes: dict[Key, int] = {}
    rows = [0]

    def keep(layer: Layer, call: int, x: Tensor, y: Tensor, beta: Tensor | None) -> None:
        folded = fold(y, layer.axis)
        if len(folded) != rows[0]:
            raise UsageError(
                f"layer {layer.name!r} sees {counted(len(folded), 'row')} for "
                f"{counted(rows[0], 'image')}, so its rows "
                "are no images: leave it out with layers=[...]"
            )
        sizes[layer.name, call] = folded.shape[2]
        sums.observe(layer, call, x.double(), y.double(), beta)

    with Tap(model, layers, kinds=kinds, observe=keep, check_rows=True) as tap:
        for part in torch.split(images, batch_size):
            rows[0] = len(part)
            run(part.clone())  # a network may overwrite its input
            tap.take()
            if tap.rows is not None and tap.rows.status == "mixed":
                raise UsageError(f"{tap.rows.text}: leave it out with layers=[...]")
            sums.batch()
        known = {layer.name: layer for layer in tap.layers}
        found = [(known[name], call) for name, call in tap.shapes if name in known]
    table = channel_table(merge_rows(sums.frame()))
    return found, pd.DataFrame(table, columns=[*KEYS, *VALUES]), sizes


def _targets(
    scores_of: Callable[[Tensor], Any], images: Tensor, targets: Tensor | None, batch_size: int
) -> Tensor:
    """Return one class an image, (N,), by default the predicted ones; raise for impossible ones."""
    with torch.no_grad(), eager():
        outputs = [scores_of(part) for part in torch.split(images, batch_size)]
    first = outputs[0]
    if not isinstance(first, Tensor) or first.ndim != 2:
        given = tuple(first.shape) if isinstance(first, Tensor) else f"a {type(first).__name__}"
        raise UsageError(f"the model must give one score a class, (N, classes); it gave {given}")
    scores = torch.cat(outputs)
    if targets is None:
        return scores.argmax(1)
    if targets.shape != (len(images),) or int(targets.min()) < 0:
        raise UsageError(f"targets must be ({len(images)},) class numbers from 0")
    if int(targets.max()) >= scores.shape[1]:
        raise UsageError(
            f"class {int(targets.max())} was asked for; the model has "
            f"{counted(scores.shape[1], 'class')}"
        )
    return targets.to(images.device)
