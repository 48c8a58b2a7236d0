"""All figures by name: what each shows, what kind of numbers it draws and what it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from acon_analysis.errors import UsageError, closest
from acon_figures.plots.acon_c_example import acon_c_example
from acon_figures.plots.activation_gallery import activation_gallery
from acon_figures.plots.beta_against_null import beta_against_null
from acon_figures.plots.beta_distributions import beta_distributions
from acon_figures.plots.beta_heatmap import beta_heatmap
from acon_figures.plots.beta_over_epochs import beta_over_epochs
from acon_figures.plots.channel_portrait import channel_portrait
from acon_figures.plots.explanation import explanation
from acon_figures.plots.frelu_surface import frelu_surface
from acon_figures.plots.function_and_derivatives import function_and_derivatives
from acon_figures.plots.improvements import improvements
from acon_figures.plots.linearity_by_depth import linearity_by_depth
from acon_figures.plots.maxout_and_acon import maxout_and_acon
from acon_figures.plots.maxout_learned import maxout_learned
from acon_figures.plots.measures_disagree import measures_disagree
from acon_figures.plots.meta_acon_module import meta_acon_module
from acon_figures.plots.network_sketch import network_sketch
from acon_figures.plots.paper_tables import paper_tables
from acon_figures.plots.relu_like import relu_like
from acon_figures.plots.replacement_damage import replacement_damage
from acon_figures.plots.sample_extremes import sample_extremes
from acon_figures.plots.selu_self_normalisation import selu_self_normalisation
from acon_figures.plots.slopes import slopes
from acon_figures.plots.smooth_maximum import smooth_maximum
from acon_figures.plots.swish_family import swish_family
from acon_figures.plots.tfnet_block import tfnet_block
from acon_figures.plots.training_curves import training_curves
from acon_figures.style import AconFigure

Kind = Literal["formula", "printed numbers", "measured"]


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the registry.

    Attributes
    ----------
    name : str
        Its name on the command line, also the function's name.
    function : callable
        Draws it; takes the frames of `needs` first and ``width`` and ``context`` as keywords.
    description : str
        One line.
    kind : {"formula", "printed numbers", "measured"}
        Where its numbers come from; a figure never mixes them unmarked.
    needs : tuple of str
        Frames that the function takes, by argument name: "frame" (β of every sample) first.
        Empty: it draws itself.
    options : mapping of str to str
        Frames that it takes where they are there, by argument name, and what they are.
    variants : mapping of str to mapping
        Further ways to draw it that are worth keeping: a suffix of the name, and the arguments.
    bundle : str
        The one frame that holds all of `needs` and `options`, as a mapping; empty where each is a
        frame of its own.
    """

    name: str
    function: Callable[..., AconFigure]
    description: str
    kind: Kind
    needs: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bundle: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the frames without which it cannot be drawn."""
        return (self.bundle,) if self.bundle else self.needs

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames that it draws."""
        return (self.bundle,) if self.bundle else (*self.needs, *self.options)

    def draw(self, frames: Mapping[str, Any], **arguments: Any) -> AconFigure:
        """Draw it from frames by name; those of `required` must be there."""
        given = frames[self.bundle] if self.bundle else frames
        options = {name: given[name] for name in self.options if name in given}
        return self.function(*(given[name] for name in self.needs), **options, **arguments)


_PUBLISHED = {"as_published": {"as_published": True}}

_SPECS = (
    FigureSpec(
        "beta_distributions",
        beta_distributions,
        "densities of β over one layer's channels: each sample of Meta-ACON beside static ACON",
        "measured",
        needs=("frame",),
        options={
            "static": "β of a static ACON network's channels",
            "null": "BatchNorm's scale and shift before the sigmoid",
            "labels": "the class of each sample",
        },
        variants=_PUBLISHED,
    ),
    FigureSpec(
        "function_and_derivatives",
        function_and_derivatives,
        "ACON-C and its first derivative for several β, p1, p2, with the exact bounds",
        "formula",
        variants=_PUBLISHED,
    ),
    FigureSpec(
        "acon_c_example",
        acon_c_example,
        "ACON-C from the mean of two lines to their maximum as β grows",
        "formula",
    ),
    FigureSpec(
        "maxout_and_acon",
        maxout_and_acon,
        "the Maxout family beside the ACON family: the table of formulas and the curves",
        "formula",
    ),
    FigureSpec(
        "improvements",
        improvements,
        "what Swish, SENet and meta-ACON gain over ReLU in four networks",
        "printed numbers",
    ),
    FigureSpec(
        "paper_tables",
        paper_tables,
        "tables 3, 4, 9, 10, meta-ACON, TFNet and the improvements, best numbers bold",
        "printed numbers",
        variants={"counts": {"names": ("counts",)}},
    ),
    FigureSpec(
        "meta_acon_module",
        meta_acon_module,
        "how β is made layer-, channel- and pixel-wise, beside squeeze-excitation",
        "formula",
    ),
    FigureSpec(
        "tfnet_block",
        tfnet_block,
        "TFNet's blocks of stride 1 and 2 and the ACON-FReLU inside",
        "formula",
    ),
    FigureSpec(
        "activation_gallery",
        activation_gallery,
        "fifteen activations, each with derivative, formula, limits and slope bounds",
        "formula",
    ),
    FigureSpec(
        "relu_like",
        relu_like,
        "ReLU and nine activations like it in one plot",
        "formula",
    ),
    FigureSpec(
        "swish_family",
        swish_family,
        "Swish and its derivative for β = 0, 1, 5, 100: from a line to ReLU",
        "formula",
    ),
    FigureSpec(
        "smooth_maximum",
        smooth_maximum,
        "the smooth maximum of two and of five numbers, from mean to maximum",
        "formula",
    ),
    FigureSpec(
        "frelu_surface",
        frelu_surface,
        "FReLU and ACON-FReLU as surfaces over pixel and funnel condition",
        "formula",
    ),
    FigureSpec(
        "maxout_learned",
        maxout_learned,
        "Maxout units with pieces learned from ReLU, |x|, x² and tanh",
        "measured",
    ),
    FigureSpec(
        "selu_self_normalisation",
        selu_self_normalisation,
        "mean and variance through 50 layers with SELU, ELU and ReLU",
        "measured",
    ),
    FigureSpec(
        "training_curves",
        training_curves,
        "training and test error of ReLU, Swish, ACON-C and Meta-ACON against iterations",
        "measured",
        needs=("training",),
    ),
    FigureSpec(
        "linearity_by_depth",
        linearity_by_depth,
        "how linear each layer is, from the first to the last, of several networks",
        "measured",
        needs=("depth",),
    ),
    FigureSpec(
        "beta_against_null",
        beta_against_null,
        "β against what BatchNorm imposes: by channel, by sample, its variance by layer",
        "measured",
        needs=("null_table", "sample_means", "splits"),
    ),
    FigureSpec(
        "beta_heatmap",
        beta_heatmap,
        "β of every sample and channel of one layer, ordered by clustering, with classes",
        "measured",
        needs=("frame",),
        options={"labels": "the class of each sample"},
    ),
    FigureSpec(
        "beta_over_epochs",
        beta_over_epochs,
        "β while training: its spread and its differences between samples, against the nulls",
        "measured",
        needs=("epochs",),
    ),
    FigureSpec(
        "slopes",
        slopes,
        "learned p1 and p2 of every channel, and the derivatives that the data reach",
        "measured",
        needs=("channels",),
    ),
    FigureSpec(
        "channel_portrait",
        channel_portrait,
        "one channel: its function at quantiles of β, its inputs, its best straight line",
        "measured",
        needs=("channels",),
        options={"inputs": "counts of the channel's inputs"},
    ),
    FigureSpec(
        "sample_extremes",
        sample_extremes,
        "one channel at the images where it is straightest and where it bends most",
        "measured",
        needs=("own_channels", "frame"),
        options={"images": "the samples' pictures", "labels": "the class of each sample"},
    ),
    FigureSpec(
        "explanation",
        explanation,
        "which pixels decide β of the last layer: image, baseline, attribution, both β",
        "measured",
        needs=("images", "baselines", "maps", "frame"),
        options={"labels": "the class of each sample"},
        bundle="explained",
    ),
    FigureSpec(
        "measures_disagree",
        measures_disagree,
        "which measures of nonlinearity agree on a layer's channels, and which contradict",
        "measured",
        needs=("channels",),
        options={"measures": "affinity and variance of the slope of each channel"},
    ),
    FigureSpec(
        "replacement_damage",
        replacement_damage,
        "which measure foretells the damage of replacing a channel by a straight line",
        "measured",
        needs=("damage",),
    ),
    FigureSpec(
        "network_sketch",
        network_sketch,
        "a ReLU network beside an ACON one, with the curves of six trained channels",
        "measured",
        needs=("channels",),
    ),
)

#: All figures by name, in the order of the gallery.
FIGURES: dict[str, FigureSpec] = {spec.name: spec for spec in _SPECS}


def find(name: str) -> FigureSpec:
    """Return a figure of the registry; an unknown name raises a UsageError with near names."""
    if name not in FIGURES:
        raise UsageError(f"there is no figure {name!r}; {closest(name, FIGURES)}")
    return FIGURES[name]
