"""The scripts of the benchmarks, tried small: what they write, not how fast anything is."""

import argparse
import copy
import importlib
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import acon_analysis as acon
from acon_analysis.data.sources import digits
from acon_analysis.models.bottleneck import BottleneckResNet
from acon_analysis.studies import results
from acon_analysis.training.recipes import RECIPES
from acon_analysis.training.release import wilson_interval

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a script by its name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def tiny(seed: int) -> BottleneckResNet:
    torch.manual_seed(seed)
    return BottleneckResNet("metaacon", input_shape=(1, 8, 8), widths=(4,), blocks=(1,))


def test_a_snapshot_missed_by_a_killed_training_comes_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    beta = script("beta_learning")
    recipe = replace(RECIPES["digits"], epochs=3, batch_size=50)
    monkeypatch.setattr(beta, "VARIANTS", {"tiny": SimpleNamespace(build=tiny, recipe=recipe)})
    monkeypatch.setattr(beta, "open_data", lambda name: digits(name.partition(":")[2]).head(50))
    save = beta.save

    def killed(model: torch.nn.Module, stem: Path, epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt
        save(model, stem, epoch)

    options = argparse.Namespace(seeds=[0], variants=["tiny"], work=tmp_path / "work")
    with monkeypatch.context() as patched:
        patched.setattr(beta, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            beta.train(options)
    beta.train(options)
    found = sorted(path.name for path in options.work.iterdir())
    epochs = [f"tiny-seed0.epoch{epoch:03d}.safetensors" for epoch in (0, 1, 3)]
    assert found == ["tiny-seed0.csv", *epochs]
    untrained, first, _ = (load_file(options.work / name) for name in epochs)
    assert torch.equal(untrained["fc.weight"], tiny(0).state_dict()["fc.weight"])
    assert not torch.equal(untrained["fc.weight"], first["fc.weight"])


def test_accuracies_of_the_page_on_beta_have_the_interval_of_the_test_images(script: Any) -> None:
    beta = script("beta_learning")
    table = pd.concat([results.table("beta_over_epochs"), results.table("beta_of_long")])
    last = results.table("beta_variants")
    page = beta.text_of(table, last)
    for variant, seed, accuracy in zip(
        last["variant"], last["seed"], last["test_accuracy"], strict=True
    ):
        section = page.partition(f"## {variant}: ")[2].partition("\n## ")[0]
        low, high = wilson_interval(round(10_000 * accuracy), 10_000)
        assert f"seed {seed} {accuracy:.4f} ({low:.4f} to {high:.4f})" in section
    assert "what another seed would change is not in it" in page
    assert "## long: `cifar10_metaacon` by its own recipe (seed 0 is shipped)" in page


def test_memory_is_what_tensors_and_python_take(script: Any) -> None:
    def call() -> object:
        text = bytearray(300_000)
        temporary = torch.zeros(1_000_000)
        return temporary[:250_000].clone(), len(text)

    found = script("recording").memory(call)
    assert found.kept == pytest.approx(1.0, abs=0.01)  # 250,000 values of 4 bytes
    assert found.peak == pytest.approx(5.0, abs=0.01)
    assert found.python == pytest.approx(0.3, abs=0.03)  # of tensors Python knows nothing


def test_the_isolated_layers_are_read_as_in_the_network(
    script: Any, digits_metaacon: torch.nn.Module
) -> None:
    recording = script("recording")
    x = torch.rand(2, 1, 8, 8, generator=torch.manual_seed(0))
    model = copy.deepcopy(digits_metaacon)
    read = recording.ours(model, x, last=True)
    expected = read()
    ready = recording.made_beforehand(copy.deepcopy(digits_metaacon), x)
    recording.hollow(model, ready)
    found = read()
    assert list(found) == list(expected) == [(name, 0) for name, *_ in ready]
    for name, _, logits, *_ in ready:
        own = found[name, 0]
        np.testing.assert_array_equal(own, torch.sigmoid(logits).flatten(1).numpy())
        np.testing.assert_allclose(own, expected[name, 0], rtol=1e-5, atol=1e-6)
    row = recording.isolated(copy.deepcopy(digits_metaacon), x, pairs=9)
    assert row[:2] == [2, 6]


def test_the_second_look_of_the_first_batch_is_measured(
    script: Any, digits_metaacon: torch.nn.Module
) -> None:
    model, sizes = copy.deepcopy(digits_metaacon), list[int]()
    model.register_forward_pre_hook(lambda _model, args: sizes.append(len(args[0])))
    rows = script("recording").first_batch(model, torch.rand(6, 1, 8, 8), pairs=2)
    assert [row[:2] for row in rows] == [
        [6, "first batch, readings proved"],
        [6, "first batch, with the second look"],
        [6, "first batch, readings proved, BatchNorms settled"],
    ]
    assert sizes.count(2) == sizes.count(4) > 0
    assert all(float(row[2]) > 0 for row in rows)


def test_ways_to_store_take_turns_and_ratios_are_those_of_pairs(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, calls = script("storing"), list[str]()
    monkeypatch.setattr(storing, "seconds", lambda call: call())

    def way(name: str, took: float) -> Any:
        def call() -> float:
            calls.append(name)
            return took * (1 + calls.count(name) // 2)  # every later one takes longer

        return call

    short = {"ours": way("ours, few", 2), "other": way("other, few", 6)}
    long = {"ours": way("ours, many", 5), "other": way("other, many", 30)}
    times = storing.interleaved(short, long, 2)
    assert calls == ["ours, few", "other, few", "ours, many", "other, many"] * 2
    assert times == {"ours": [(2, 5), (4, 10)], "other": [(6, 30), (12, 60)]}
    assert storing.rows_of(times, 1, 4) == [
        # many; less 4 batches of 1 and 2 s (of 8 and 16 s), or medians thereof
        ["ours", "7.50", "1.50", "1.50"],
        ["other", "45.00", "-3.00", "12.00"],
        ["ratio", "6.0", "", "8.0"],
    ]


def test_speeds_are_compared_with_both_layouts_of_the_bare_forward(script: Any) -> None:
    times = {"bare": [(0.1, 3.0)] * 3, "last": [(0.05, 2.0)] * 3, "capture": [(0.2, 7.5)] * 3}
    assert script("throughput").speeds(times) == [
        ["bare", "10.0", "1.000", "0.500", "+0.0"],
        ["last", "20.0", "2.000", "1.000", "-1.0"],
        ["capture", "5.0", "0.500", "0.250", "+4.5"],
    ]


def test_the_obvious_script_reads_every_layer(script: Any, tmp_path: Path) -> None:
    throughput, common = script("throughput"), script("common")
    images = common.make_jpegs(tmp_path / "images", 1, side=32)
    model = acon.build_model("shufflenet_v2_x0_5_metaacon", weights=None)
    throughput.obvious(model, images, tmp_path / "out", 1, 0)
    kept = torch.load(tmp_path / "out", weights_only=True)
    assert sorted(kept) == sorted(f"{layer.name}.bn2" for layer in acon.find_layers(model))


def test_every_file_of_two_runs_is_compared(script: Any, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "betas").mkdir(parents=True)
        (folder / "betas" / "0.parquet").write_bytes(b"same")
        (folder / "manifest.json").write_bytes(folder.name[:3].encode())  # as long, as old
    assert script("resuming").differing(one, other) == (2, ["manifest.json"])
    (one / "betas" / "1.parquet").write_bytes(b"")
    assert script("resuming").differing(one, other) == (3, ["betas/1.parquet", "manifest.json"])
    assert script("resuming").differing(one, one) == (3, [])


def test_photographs_are_linked_until_there_are_enough(script: Any, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / "few" / name).write_text(name)
    linked = script("common").repeated(tmp_path / "few", tmp_path / "many", 3)
    found = {path.name: path.read_text() for path in linked.iterdir()}
    assert found == {"000000.png": "a.png", "000001.jpg": "b.JPG", "000002.png": "a.png"}
    with pytest.raises(SystemExit, match="holds no images"):
        script("common").repeated(tmp_path / "many" / "none", tmp_path / "x", 3)


def test_a_capture_that_ends_before_its_kill_is_said(script: Any, tmp_path: Path) -> None:
    wrong = ["layer", "digits_metaacon"]
    with (
        script("resuming").Began(["acon_analysis"], wrong, tmp_path / "run") as began,
        pytest.raises(SystemExit, match=r"ended before 1 units(.|\n)*No such command 'layer'"),
    ):
        began.reach(1)


def test_a_large_run_is_captured_and_read_in_small(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, asked = script("reading"), list[str]()

    def process(arguments: list[str]) -> tuple[float, float]:
        asked.append(" ".join(arguments[:2]))
        if arguments[0] == "report":
            Path(arguments[-1]).write_text("x")
        return 0.5, 100.0

    monkeypatch.setattr(reading, "whole_process", process)
    monkeypatch.setattr(reading, "drawing_rows", lambda _: [])
    rows = reading.measured(tmp_path / "run", 40, (4, 6))
    run = acon.open_run(tmp_path / "run")
    assert run.complete
    assert run.beta_matrix(run.layers["layer"].iloc[-1]).shape == (40, 6)
    assert run.labels.tolist() == [str(index % 10) for index in range(40)]
    assert [row[0] for row in rows[:2]] == [
        "captured, with moments", "one layer, (40, 4), into numpy",
    ]  # fmt: skip
    folder = str(tmp_path / "run")
    assert asked == [f"summary {folder}"] * 2 + ["figures --run", f"report {folder}"]


def test_a_whole_process_is_measured(script: Any) -> None:
    whole_process = script("reading").whole_process
    seconds, peak = whole_process(["--version"])
    assert 0 < seconds < 60
    assert 5 < peak < 120  # this process, which loads torch, has more
    with pytest.raises(subprocess.CalledProcessError):
        whole_process(["no-such-command"])
    assert script("peak").peak_megabytes("VmPeak:\t 9 kB\nVmHWM:\t  1000 kB\n") == 1.024
    assert script("peak").peak_megabytes() > 5


@pytest.mark.slow
def test_use_and_help_of_gates_become_tables_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    gates = script("gate_use")
    monkeypatch.setattr(gates, "TABLES", tmp_path)
    monkeypatch.setattr(gates, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(gates, "INTERVENTIONS", {"mean": "", "level": ""})
    monkeypatch.setattr(
        gates, "open_data", lambda name: digits(name.partition(":")[2] or "test").head(40)
    )
    recipe = replace(RECIPES["digits"], epochs=1, batch_size=20)
    monkeypatch.setattr(gates, "RECIPES", {"digits": recipe})
    options = argparse.Namespace(
        networks=["digits_metaacon"], images=20, data="digits", variants=list(gates.VARIANTS),
        seeds=[0, 1], work=tmp_path / "work",
    )  # fmt: skip
    gates.measure(options)
    gates.measure(options)  # in the place of the last rows
    gates.train(options)
    gates.write(options)
    assert len(pd.read_csv(tmp_path / "gate_use.csv")) == 7 * 2 * 2
    helped = pd.read_csv(tmp_path / "gate_help.csv")
    assert sorted(zip(helped["variant"], helped["seed"], strict=True)) == [
        (variant, seed) for variant in ("frozen", "meta", "parameter") for seed in (0, 1)
    ]
    page = (tmp_path / "page.md").read_text("utf-8")
    assert "| all | as they are |" in page
    assert "| digits | β frozen at 0.5 | 2 |" in page


def test_networks_without_a_gate_begin_like_those_with_one(script: Any) -> None:
    gates = script("gate_use")
    networks = {name: gates.build("digits", name, 3) for name in gates.VARIANTS}
    meta = networks["meta"].state_dict()
    for name in ("frozen", "parameter"):
        betas = []
        for key, value in networks[name].state_dict().items():
            own = key.replace(".layer.", ".")
            if own.endswith(".beta"):
                betas.append(value)
            else:
                assert torch.equal(value, meta[own]), key
        assert len(betas) == 6
        assert all(bool((beta == 0.5).all()) for beta in betas)
        trained = [key for key, p in networks[name].named_parameters() if p.requires_grad]
        assert any(key.endswith("beta") for key in trained) is (name == "parameter")


def test_the_sweep_compares_every_layer_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    sweep, out = script("sweep"), tmp_path / "sweep.csv"
    for names in (["timm:test_efficientnet"], ["timm:test_efficientnet", "timm:no_such_network"]):
        monkeypatch.setattr("sys.argv", ["sweep.py", "--out", str(out), *names])
        sweep.main()
    table = pd.read_csv(out)
    assert table["network"].tolist() == ["timm:test_efficientnet", "timm:no_such_network"]
    assert table["verdict"].tolist() == ["ok", "left out"]
    first = table.iloc[0]
    assert first["layers"] == first["compared"] > 10
    assert first["measured"] == first["nonlinear"] > 10
    # SiLU is summed from its input: its outputs are those of the kernel, not of torch.
    assert first["L_error"] < 1e-8
    assert first["L_channel_error"] < 1e-7


def test_the_sweep_notices_a_wrong_linearity(script: Any) -> None:
    sweep, sums = script("sweep"), script("sweep_oracle").Sums()
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    sums.add([x, x.relu()], 1)
    whole, channels, _, _ = sums.linearity()
    assert max(sweep._errors(whole, channels, sums)) < 1e-12
    assert sweep._errors(whole + 2e-6, channels, sums)[0] > sweep.TOLERANCE
    assert sweep._errors(whole, channels * 1.0001, sums)[1] > 10 * sweep.TOLERANCE


def test_replacing_goes_on_and_writes_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    replacing = script("replacing")
    for name in ("DAMAGE", "MIXED", "RANKS", "PAGE", "TABLE"):
        monkeypatch.setattr(replacing, name, tmp_path / name)
    monkeypatch.setattr(replacing, "RANK_CHANNELS", 5)
    monkeypatch.setattr(replacing, "RANK_IMAGES", 8)
    options = argparse.Namespace(
        networks=["digits_swish"], forms=["line"], budgets=[1.0], images=20
    )
    monkeypatch.setattr(replacing, "MAX_CHANGES", (0.1,))
    for _ in range(2):
        replacing.measure(options)
        replacing.mix(options)
        replacing.ranks(options)
    table = pd.read_csv(tmp_path / "DAMAGE")
    assert list(table["form"]) == ["line", "relu"] * 2
    assert set(table["channels"]) == {256}
    assert list(pd.read_csv(tmp_path / "RANKS")["channels"]) == [5]
    replacing.write(options)
    page = (tmp_path / "PAGE").read_text("utf-8")
    row = table[(table["form"] == "line") & ~table["recalibrated"]].iloc[0]
    assert f"{100 * row['accuracy_change']:+.1f} (" in page
    assert "| digits_swish | line | 5 |" in page
    mixed = pd.read_csv(tmp_path / "MIXED").iloc[0]
    assert mixed["channels"] == mixed[["line", "relu", "two-piece"]].sum()
    assert f"| digits_swish | 0.1 | {mixed['line']} |" in page
    shipped = pd.read_csv(tmp_path / "TABLE")
    assert list(shipped["form"]) == ["line", "relu"] * 2
    assert set(shipped["activation"]) == {"Swish"}


def test_correlations_are_averaged_over_layers_then_seeds(script: Any) -> None:
    keys = {"network": "net", "measure": "s_c", "units": 20}
    values = {(0, "a"): 0.2, (0, "b"): 0.4, (1, "a"): 0.9, (2, "b"): 1.0, (2, "a"): np.nan}
    frame = pd.DataFrame([
        {**keys, "seed": seed, "layer": layer, "spearman": value}
        for (seed, layer), value in values.items()
    ])  # fmt: skip
    row = script("replacement").summarize(frame, draws=200).squeeze()
    assert row["spearman"] == pytest.approx((0.3 + 0.9 + 1.0) / 3)
    assert 0.2 <= row["low"] <= row["spearman"] <= row["high"] <= 1
    assert row["seed_std"] == pytest.approx(np.std([0.3, 0.9, 1.0], ddof=1))
    assert (row["least"], row["seeds"], row["layers"], row["units"]) == (0.2, 3, 4, 80)


def test_replacements_are_compared_by_their_median(script: Any) -> None:
    rows = [("net", 0, "a", 0, channel, kind, value)
            for channel in range(3)
            for kind, value in (("affine", 0.1 * (channel + 1)), ("zero", 0.5), ("identity", 0.2))
            ]  # fmt: skip
    names = ["network", "seed", "layer", "call", "channel", "replacement", "median"]
    found = script("replacement").compare(pd.DataFrame(rows, columns=names))
    found = found.set_index("replacement")
    np.testing.assert_allclose(found["median"], [0.2, 0.2, 0.5])
    np.testing.assert_allclose(found["times_affine"], [1, 1, 2.5])
    np.testing.assert_allclose(found["affine_better"], [np.nan, 1 / 3, 1])
