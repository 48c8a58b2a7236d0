"""A capture end to end: what is in the run, what continues, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import acon_analysis as acon
from acon_analysis.columns import BETA_COLUMNS, LAYER_COLUMNS, SAMPLE_COLUMNS, names
from acon_analysis.data.sources import digits
from acon_analysis.errors import AconError, StoreError, UsageError
from acon_analysis.layers import AconC, MetaAconC
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_hooks.captures.capturing import UntrainedWarning
from captures import Tiny, contents
from network_oracle import assert_measured


def test_the_run_holds_what_the_layers_decided(digits_run: Run) -> None:
    test = digits("test")
    images = torch.stack([test[index] for index in range(len(test))])
    model = acon.build_model("digits_metaacon")
    axes = dict.fromkeys(digits_run.layers["layer"], 1)
    assert_measured(digits_run, model, [images], axes, tolerance=2e-6)


def test_tables_of_the_run(digits_run: Run) -> None:
    assert digits_run.complete
    assert list(digits_run.layers.columns) == names(LAYER_COLUMNS)
    assert list(digits_run.samples.columns) == names(SAMPLE_COLUMNS)
    assert len(digits_run.layers) == 6
    assert digits_run.layers["channels"].tolist() == [16, 16, 32, 32, 32, 128]
    assert (digits_run.layers["proof_error"] < 3e-6).all()
    assert digits_run.units == [0, 1, 2, 3]
    assert digits_run.errors.empty
    model = acon.build_model("digits_metaacon")
    own = digits_run.channels.query("layer == 'layer3.0.acon'")
    acon_layer = model.get_submodule("layer3.0.acon")
    assert isinstance(acon_layer, MetaAconC)
    state = acon_layer.state_dict()
    pairs = {"p1": "p1", "p2": "p2", "bn_weight": "bn2.weight", "bn_bias": "bn2.bias"}
    for column, name in pairs.items():
        np.testing.assert_array_equal(own[column], state[name].double().flatten())
    assert own["beta"].isna().all()
    assert digits_run.manifest["origin"]["weights"] == "shipped"


def test_long_frame(digits_run: Run) -> None:
    frame = digits_run.betas(layers=["layer1.0.acon"], samples=[3, 400])
    assert list(frame.columns) == names(BETA_COLUMNS)
    assert frame["sample"].tolist() == [3] * 16 + [400] * 16
    matrix = digits_run.beta_matrix("layer1.0.acon")
    np.testing.assert_array_equal(frame["beta"], np.concatenate([matrix[3], matrix[400]]))
    assert frame["beta"].dtype == np.float32
    assert len(digits_run.betas()) == 500 * 256


def test_long_frame_refuses_what_would_not_fit(
    digits_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acon_analysis.runs.run.MAX_ROWS", 1000)
    with pytest.raises(AconError, match=r"128,000 rows.*betas\(layers=.*beta_matrix"):
        digits_run.betas()
    assert len(digits_run.betas(layers="layer1.0.acon", samples=range(10))) == 160


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ["layer1.0.akon"]}, "did you mean 'layer1.0.acon'"),
        ({"samples": [0, 500]}, r"no sample 500; it holds 0 to 499"),
        ({"samples": [-1]}, "no sample -1"),
    ],
)
def test_long_frame_of_what_is_not_there(
    digits_run: Run, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        digits_run.betas(**arguments)


def test_static_beta_is_the_same_for_every_sample(tmp_path: Path) -> None:
    run = acon.capture("digits_acon", "digits", tmp_path / "r", limit=20, progress=False)
    assert (run.layers["granularity"] == "static").all()
    matrix = run.beta_matrix("layer3.0.acon")
    assert matrix.shape == (20, 128)
    model = acon.build_model("digits_acon")
    layer = model.get_submodule("layer3.0.acon")
    assert isinstance(layer, AconC)
    beta = layer.beta.detach().flatten().numpy()
    np.testing.assert_array_equal(matrix, np.tile(beta, (20, 1)))
    frame = run.betas(layers=["layer3.0.acon"], samples=[0])
    np.testing.assert_array_equal(frame["beta"], beta)


def test_a_finished_run_is_opened_not_redone(digits_run: Run, digits_metaacon: nn.Module) -> None:
    before = {path: path.stat().st_mtime_ns for path in digits_run.path.rglob("*")}
    handle = digits_metaacon.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    acon.capture(digits_metaacon, "digits", digits_run.path, progress=False)
    handle.remove()
    assert {path: path.stat().st_mtime_ns for path in digits_run.path.rglob("*")} == before


def test_interrupted_and_continued_equals_uninterrupted(
    tmp_path: Path, digits_run: Run, digits_metaacon: nn.Module
) -> None:
    calls = 0

    def stop(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:  # three of them are the second look at the first batch, and its census
            raise KeyboardInterrupt

    handle = digits_metaacon.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        acon.capture(digits_metaacon, "digits", tmp_path / "r", unit_size=128, progress=False)
    handle.remove()
    halfway = Run(tmp_path / "r")
    assert not halfway.complete
    assert 0 < len(halfway.units) < 4
    run = acon.capture(digits_metaacon, "digits", tmp_path / "r", progress=False)
    assert run.complete
    assert contents(run.path) == contents(digits_run.path)
    assert verify_run(run.path).sound


def test_senseless_ranks(
    tmp_path: Path, digits_metaacon: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="0 <= RANK < WORLD_SIZE"):
        acon.capture(digits_metaacon, "digits", tmp_path / "r", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "digits:train"}, r"data was 'digits:test', is 'digits:train'"),
        ({"limit": 10}, r"count was 500, is 10"),
        ({"unit_size": 64}, r"unit_size was 128, is 64"),
        ({"kinds": ("acon",)}, r"kinds was"),
        ({"model": "digits_acon"}, r"model was 'digits_metaacon', is 'digits_acon'"),
        ({"weights": True}, r"weights_sha256 was"),
        ({"dtype": True}, r"dtype was 'torch.float32', is 'torch.float64'"),
    ],
)
def test_a_run_of_something_else_is_refused(
    digits_run: Run, change: dict[str, Any], message: str
) -> None:
    change = dict(change)
    model = acon.build_model(change.pop("model", "digits_metaacon"))
    if change.pop("weights", False):
        with torch.no_grad():
            model.get_submodule("layer1.0.acon").p1[0, 3] += 1e-3  # type: ignore[operator, index]
    if change.pop("dtype", False):
        model.double()
    data = change.pop("data", "digits")
    with pytest.raises(StoreError, match=f"a run of something else: .*{message}"):
        acon.capture(model, data, digits_run.path, progress=False, **change)


def test_a_folder_with_other_things_is_refused(tmp_path: Path, digits_metaacon: nn.Module) -> None:
    (tmp_path / "thesis.tex").write_text("!")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        acon.capture(digits_metaacon, "digits", tmp_path, progress=False)
    with pytest.raises(UsageError, match="is a file"):
        acon.capture(digits_metaacon, "digits", tmp_path / "thesis.tex", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def test_bad_images_are_rows_and_the_run_goes_on(tmp_path: Path, photographs: Path) -> None:
    for name in ("cat/0.png", "cat/1.png", "dog/3.png"):
        (photographs / name).write_bytes((photographs / name).read_bytes()[:50])
    run = acon.capture(
        Tiny(), photographs, tmp_path / "r", batch_size=2, unit_size=4, progress=False
    )
    assert run.complete
    assert run.errors["path"].tolist() == ["cat/0.png", "cat/1.png", "dog/3.png"]
    assert run.errors["sample_id"].tolist() == [0, 1, 9]
    assert (run.errors["reason"].str.len() > 10).all()
    assert run.sample_ids.tolist() == [2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert len(run.beta_matrix("acon")) == 9
    found = verify_run(run.path)
    assert found.sound
    assert (found.captured, found.bad, found.samples) == (9, 3, 12)


def test_a_unit_of_bad_images_only_has_the_columns_of_the_others(
    tmp_path: Path, photographs: Path
) -> None:
    for number in range(4):
        (photographs / f"cat/{number}.png").write_bytes(b"")
    run = acon.capture(Tiny(), photographs, tmp_path / "r", unit_size=4, progress=False)
    assert run.complete
    assert len(pd.read_parquet(run.path / "betas")) == 8
    assert verify_run(run.path).sound


def test_strict_stops_at_the_first_bad_image(tmp_path: Path, photographs: Path) -> None:
    (photographs / "dog/3.png").write_bytes(b"")
    with pytest.raises(AconError, match=r"bad image 'dog/3.png'.*--strict"):
        acon.capture(Tiny(), photographs, tmp_path / "r", strict=True, progress=False)


def test_no_image_can_be_read(tmp_path: Path, photographs: Path) -> None:
    for file in photographs.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(AconError, match="none of the images could be read"):
        acon.capture(Tiny(), photographs, tmp_path / "r", progress=False)


def test_images_of_different_sizes_need_a_preprocessing(tmp_path: Path, photographs: Path) -> None:
    Image.new("RGB", (9, 9)).save(photographs / "cat" / "0.png")
    with pytest.raises(AconError, match=r"different shapes, \(3, 9, 9\) and \(3, 6, 5\).*official"):
        acon.capture(Tiny(), photographs, tmp_path / "r", progress=False)


def test_datasets_loaders_and_iterables_give_the_same_betas(tmp_path: Path) -> None:
    images = torch.randn(23, 3, 6, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(23) % 3
    dataset = TensorDataset(images, labels)
    sources: dict[str, Any] = {
        "dataset": dataset,
        "loader": DataLoader(dataset, batch_size=5),
        "batches": [(images[:7], labels[:7]), (images[7:], labels[7:])],
    }
    model = Tiny()
    matrices = {}
    for name, source in sources.items():
        run = acon.capture(model, source, tmp_path / name, unit_size=10, progress=False)
        assert run.complete, name
        assert run.units == [0, 1, 2], name
        assert verify_run(run.path).sound, name
        assert run.samples["label"].tolist() == [str(int(label)) for label in labels], name
        assert run.samples["sha256"].nunique() == 23, name
        matrices[name] = run.beta_matrix("acon")
    np.testing.assert_allclose(matrices["loader"], matrices["dataset"], atol=1e-6)
    np.testing.assert_allclose(matrices["batches"], matrices["dataset"], atol=1e-6)


@pytest.mark.parametrize("data", [3, torch.zeros(4, 3, 6, 5), None])
def test_what_is_no_data(tmp_path: Path, data: Any) -> None:
    with pytest.raises(UsageError, match="data must be"):
        acon.capture(Tiny(), data, tmp_path / "r", progress=False)


def test_random_weights_are_announced(tmp_path: Path) -> None:
    model = acon.build_model("digits_metaacon", weights=None)
    with pytest.warns(UntrainedWarning, match="digits_metaacon is untrained"):
        acon.capture(model, "digits", tmp_path / "r", limit=4, progress=False)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there(tmp_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"device '{device}' cannot be used"):
        acon.capture(Tiny(), [torch.zeros(1, 3, 6, 5)], tmp_path / "r", device=device)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_an_accelerator_reads_the_same(tmp_path: Path, digits_run: Run) -> None:
    model = acon.build_model("digits_metaacon")
    run = acon.capture(model, "digits", tmp_path / "r", unit_size=128, progress=False)
    assert run.manifest["compute"]["device"] != "cpu"
    assert next(model.parameters()).device.type == "cpu"
    for layer in run.layers["layer"]:
        np.testing.assert_allclose(run.beta_matrix(layer), digits_run.beta_matrix(layer), atol=1e-4)


@pytest.mark.parametrize("out", ["", " "])
def test_an_empty_name_is_no_folder(out: str) -> None:
    with pytest.raises(UsageError, match="out is empty"):
        acon.capture(Tiny(), [torch.zeros(1, 3, 6, 5)], out, progress=False)
