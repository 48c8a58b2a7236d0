"""The public names, all of them: whoever adds one adds it here, too."""

import importlib

import pytest

#: Package -> what a user may import from it; functions of `family` have their derivatives, too.
PUBLIC = {
    "acon_analysis": """
        AconError Run UsageError block_linearity build_model capture compare example_run explain
        family find_layers gate_use layers linearity linearize nonlinearities open_run
        paper record replace
    """,
    "acon_analysis.family": """
        ACTIVATIONS Activation Limits Line Source T_STAR U_STAR acon_a acon_b acon_c
        acon_frelu derivative derivative_bounds derivative_range elu extremum_position
        frelu gelu gelu_tanh get hardsigmoid hardswish hardtanh leaky_relu maxout mish
        prelu relu relu6 rrelu selu sigmoid silu smooth_maximum
        smooth_maximum_derivative_bounds softplus swish tanh
    """,
    "acon_analysis.layers": """
        AconA AconB AconC AconFReLU FReLU Maxout MetaAconC ShapeError SqueezeExcitation
    """,
    "acon_analysis.paper": """
        PaperTable TABLES best_mask contradictions describe overview printed table
    """,
    "acon_hooks": """
        Batch BlockWarning HookError KINDS Layer ProofError ProofReport Reading Recording
        Tap UnusedLayerWarning block_linearity capture conductance explain find_layers
        fit_units fold_lines gate_use linearize load_linearized load_plan
        nonlinearities prove record replace run_units save_linearized to_host verify_plan
    """,
    "acon_figures": """
        AconFigure FIGURES FigureSpec acon_c_example acon_unit activation_gallery
        beta_against_null beta_distributions beta_heatmap beta_over_epochs
        channel_portrait channel_portraits channel_spread channel_states explanation
        explore_unit find frelu_surface function_and_derivatives gate_changes
        gradients_by_layer improvements linearity_by_depth maxout_and_acon maxout_learned
        measures_disagree meta_acon_module network_sketch network_strip paper_tables
        reached_slopes relu_like replacement_damage replacement_forms sample_extremes
        sample_spread save
        selu_self_normalisation slopes smooth_maximum swish_family tfnet_block theme
        training_curves trial_accuracies write_report
    """,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_these(name: str) -> None:
    module = importlib.import_module(name)
    found, expected = set(module.__all__), set(PUBLIC[name].split())
    if name == "acon_analysis.family":
        slopes = {one for one in found if one.endswith("_derivative")}
        assert {one.removesuffix("_derivative") for one in slopes} <= expected
        found -= slopes
    assert found == expected
    assert all(hasattr(module, one) for one in expected)
