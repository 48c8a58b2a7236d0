"""The captured runs in the package: sound, of the shipped weights, small, without pixels."""

import numpy as np
import pytest
import torch

import acon_analysis as acon
from acon_analysis.errors import UsageError
from acon_analysis.runs.examples import EXAMPLES, example_names
from acon_analysis.runs.verify import verify_run
from acon_hooks.captures.identity import state_sha256

NAMES = ("cifar10_metaacon", "cifar10_acon")


def test_which_there_are() -> None:
    assert tuple(example_names()) == NAMES
    assert acon.example_run().path.name == "cifar10_metaacon"
    with pytest.raises(
        UsageError, match="no example run 'cifar_acon'; did you mean 'cifar10_acon'"
    ):
        acon.example_run("cifar_acon")


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_run_of_the_shipped_weights(name: str) -> None:
    run = acon.example_run(name)
    found = verify_run(run.path)
    assert found.problems == ()
    assert (found.captured, found.bad) == (1000, 0)
    assert (run.samples["label"].value_counts() == 100).all()
    model = acon.build_model(name)
    identity = run.manifest["identity"]
    assert identity["weights_sha256"] == state_sha256(model)
    assert identity["data"] == "cifar10:test"
    own = run.channels
    for layer in run.layers["layer"]:
        slopes = own.loc[own["layer"] == layer, "p1"].to_numpy()
        parameter = model.get_parameter(f"{layer}.p1").detach().flatten()
        np.testing.assert_array_equal(slopes, parameter.to(torch.float64).numpy())


def test_what_they_show() -> None:
    meta, static = (acon.example_run(name) for name in NAMES)
    layer = meta.layers["layer"].iloc[-1]
    beta = meta.beta_matrix(layer)
    assert beta.shape == (1000, 64)
    assert 0 < beta.min() < beta.max() < 1
    assert beta.std(0).min() > 0
    assert np.ptp(static.beta_matrix(layer), axis=0).max() == 0
    for run in (meta, static):
        table = run.linearity("layer", columns="all")
        assert table["L"].between(0.2, 0.95).all()
        assert (table["L_low"] < table["L"]).all()
        assert (table["n_samples"] == 1000).all()


def test_blocks_and_classes_do_not_coincide() -> None:
    """The images take turns by class: blocks that did, too, would be one class each."""
    run = acon.example_run()
    blocks = run.manifest["identity"]["moments"]["blocks"]
    labels = run.samples.set_index("sample_id")["label"]
    assert labels.groupby(labels.index % blocks).nunique().min() == 10


def test_they_are_small_and_hold_no_pixels() -> None:
    files = [path for path in EXAMPLES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    assert {path.suffix for path in files} == {".parquet", ".json"}
