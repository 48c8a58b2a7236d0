"""Layers are found by the names that figures, tables and reports show, too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.layers import MetaAconC
from acon_analysis.runs.run import Run
from acon_analysis.selection import layer_path
from networks import Network


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A layer in a list, called twice, and one that is called once."""
    torch.manual_seed(0)
    acts = nn.ModuleList([MetaAconC(16), MetaAconC(16)])
    return Network(lambda net, x: net.acts[1](net.acts[0](2.0 * net.acts[0](x))), acts=acts).eval()


@pytest.fixture(scope="module")
def run(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Run:
    data = [torch.randn(30, 16, 3, 3)]
    return acon.capture(model, data, tmp_path_factory.mktemp("shown"), progress=False)


FIRST, SECOND, LAST = (
    "acts.0 (MetaAconC, call 0)",
    "acts.0 (MetaAconC, call 1)",
    "acts.1 (MetaAconC)",
)


def test_a_run_takes_paths_and_shown_names(run: Run) -> None:
    assert list(run.layer_names.values()) == [FIRST, SECOND, LAST]
    for shown, path, call in ((FIRST, "acts.0", 0), (SECOND, "acts.0", 1), (LAST, "acts.1", 0)):
        assert np.array_equal(run.beta_matrix(shown), run.beta_matrix(path, call))
        assert (run.beta(shown).layer, run.beta(shown).call) == (path, call)
        expected = run.betas(path).query("call == @call").reset_index(drop=True)
        assert run.betas([shown]).equals(expected)
        assert run.null_model(shown).equals(run.null_model(path, call))
        assert run.channels_of(shown).equals(run.channels_of(path))
        counts = run.histograms(shown, by="channel")
        assert (set(counts["layer"]), set(counts["call"])) == ({path}, {call})
    assert not np.array_equal(run.beta_matrix(FIRST), run.beta_matrix(SECOND))
    assert len(run.betas("acts.0")) == 2 * len(run.betas(LAST))
    assert run.betas([SECOND, "acts.0"]).equals(run.betas("acts.0"))
    with pytest.raises(UsageError, match=r"no layer 'acts\.0 \(Tanh\)'; did you mean"):
        run.betas("acts.0 (Tanh)")


@pytest.mark.parametrize("name", ["beta_heatmap", "beta_distributions"])
def test_a_figure_shows_the_layer_and_call_that_are_named(run: Run, name: str) -> None:
    drawn = {shown: run.plot(name, layer=shown) for shown in (FIRST, SECOND, LAST)}
    for shown, figure in drawn.items():
        assert shown in figure.caption
    assert drawn[SECOND].caption == run.plot(name, layer="acts.0").caption
    assert drawn[LAST].caption == run.plot(name).caption


def test_figures_of_the_last_call_take_its_name_and_no_other(run: Run) -> None:
    figure = run.plot("channel_portrait", layer=SECOND)
    assert figure.caption == run.plot("channel_portrait", layer="acts.0").caption
    with pytest.raises(acon.AconError, match=r"one call of a layer; give the layer, 'acts\.0'"):
        run.plot("channel_portrait", layer=FIRST)


def test_functions_of_a_model_take_shown_names(model: nn.Module) -> None:
    x = torch.randn(40, 16, 3, 3)
    with acon.record(model, [LAST]) as recording:
        model(x)
    assert set(recording.betas()["layer"]) == {"acts.1"}
    assert np.array_equal(recording.beta_matrix(LAST), recording.beta_matrix("acts.1"))
    uses = acon.gate_use(model, [x], ["mean"], [LAST], output=lambda out: out.mean((2, 3)))
    assert set(uses["layer"]) == {"acts.1", "all"}
    blocks = acon.block_linearity(model, [x], [LAST])
    assert blocks["block"].tolist() == ["acts.1"]
    with pytest.raises(UsageError, match=r"is one call of a layer; give the layer, 'acts\.0'"):
        acon.replace(model, [x], layers=[SECOND])
    assert acon.replace(model, [x], "line", layers=[LAST]) is not model


def test_a_path_that_looks_like_a_shown_name_is_a_path(tmp_path: Path) -> None:
    odd = nn.Sequential()
    odd.add_module("act (ReLU)", nn.ReLU())
    run = acon.capture(odd.eval(), [torch.randn(20, 4)], tmp_path / "run", progress=False)
    assert run.layer_row("act (ReLU)").layer == "act (ReLU)"
    assert layer_path("act (ReLU)", {"act (ReLU)"}) == "act (ReLU)"
    assert layer_path("act (ReLU)") == "act"
    assert layer_path("(ReLU)") == ""  # the network itself
