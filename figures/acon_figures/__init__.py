"""Figures of activation functions and of what trained networks decide: frames in, Figures out.

Nothing here loads torch, touches the user's matplotlib settings or writes to disk, but `save`
and `write_report`.
"""

from acon_figures.plots.acon_c_example import acon_c_example
from acon_figures.plots.acon_unit import acon_unit
from acon_figures.plots.activation_gallery import activation_gallery
from acon_figures.plots.beta_against_null import beta_against_null
from acon_figures.plots.beta_distributions import beta_distributions
from acon_figures.plots.beta_heatmap import beta_heatmap
from acon_figures.plots.beta_over_epochs import beta_over_epochs
from acon_figures.plots.channel_portrait import channel_portrait
from acon_figures.plots.explanation import explanation
from acon_figures.plots.frelu_surface import frelu_surface
from acon_figures.plots.function_and_derivatives import function_and_derivatives
from acon_figures.plots.gradients_by_layer import gradients_by_layer
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
from acon_figures.plots.trial_accuracies import trial_accuracies
from acon_figures.registry import FIGURES, FigureSpec, find
from acon_figures.report import write_report
from acon_figures.saving import save
from acon_figures.style import AconFigure, theme

__all__ = [
    "FIGURES",
    "AconFigure",
    "FigureSpec",
    "acon_c_example",
    "acon_unit",
    "activation_gallery",
    "beta_against_null",
    "beta_distributions",
    "beta_heatmap",
    "beta_over_epochs",
    "channel_portrait",
    "explanation",
    "find",
    "frelu_surface",
    "function_and_derivatives",
    "gradients_by_layer",
    "improvements",
    "linearity_by_depth",
    "maxout_and_acon",
    "maxout_learned",
    "measures_disagree",
    "meta_acon_module",
    "network_sketch",
    "paper_tables",
    "relu_like",
    "replacement_damage",
    "sample_extremes",
    "save",
    "selu_self_normalisation",
    "slopes",
    "smooth_maximum",
    "swish_family",
    "tfnet_block",
    "theme",
    "training_curves",
    "trial_accuracies",
    "write_report",
]
