"""What a captured run says of linearity and of what was learned, on networks built to be known."""

import warnings
from html import escape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import acon_analysis as acon
from acon_analysis.cli import app
from acon_analysis.columns import (
    DIFFERENCE_COLUMNS,
    LINEARITY_CHANNEL_COLUMNS,
    LINEARITY_LAYER_COLUMNS,
    LINEARITY_SAMPLE_COLUMNS,
    NULL_COLUMNS,
    SHORT_LINEARITY,
    SPLIT_COLUMNS,
    TOTAL_COLUMNS,
    names,
)
from acon_analysis.errors import AconError, UsageError
from acon_analysis.layers import AconC, MetaAconC
from acon_analysis.moments.fields import MOMENT_COLUMNS
from acon_analysis.runs.compare import compare_runs, comparison_text, same_samples, side_by_side
from acon_analysis.runs.run import Run
from acon_analysis.runs.verify import verify_run
from acon_analysis.statistics.verdicts import verdict_text

CHANNELS = 24


class Known(nn.Module):
    """A convolution and a Meta-ACON layer whose BatchNorms know the data."""

    input_shape = (3, 8, 8)

    def __init__(self, images: Tensor, *, shared: bool = False, equal: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, CHANNELS, 3)
        self.acon = MetaAconC(CHANNELS)
        self.head = nn.Linear(CHANNELS, 2)
        with torch.no_grad():
            if shared:  # every channel's β follows the same hidden unit
                self.acon.fc2.weight[:] = 0.0
                self.acon.fc2.weight[:, 0] = 1.0
            if equal:
                self.acon.p2.copy_(self.acon.p1)
            for norm in (m for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
                norm.momentum = None
            self.train()
            for _ in range(2):
                self(images)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.acon(self.conv(x)).mean((2, 3)))
        return out


def pictures(count: int = 240, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of two classes that differ in brightness, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    colour = torch.randn(count, 3, 1, 1, generator=generator)
    texture = torch.randn(count, 3, 8, 8, generator=generator)
    return 0.7 * texture + colour + labels.view(-1, 1, 1, 1) - 0.5, labels


def captured(folder: Path, **options: bool) -> Run:
    images, labels = pictures()
    model = Known(images, **options)
    return acon.capture(model, TensorDataset(images, labels), folder, progress=False)


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """BatchNorm spreads β, and nothing was learned."""
    return captured(tmp_path_factory.mktemp("spread") / "run")


@pytest.fixture(scope="module")
def dependent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """β of all channels moves with the sample."""
    return captured(tmp_path_factory.mktemp("dependent") / "run", shared=True)


def said(run: Run, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["summary", str(run.path), *arguments])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_batchnorm_alone_is_no_finding(spread: Run) -> None:
    beta = spread.beta_matrix("acon")
    assert 0.15 < beta.std(0).mean() < 0.25  # it looks as if β depended on the sample
    table = spread.variance_split()
    assert table["answer"].tolist() == ["no more"]
    assert table["null"].tolist() == ["batchnorm"]
    assert table["p_value"][0] > 0.05
    last = said(spread)
    assert "means of β vary no more than with random weights" in last


def test_a_beta_that_depends_on_the_sample_is_found(dependent: Run) -> None:
    table = dependent.variance_split()
    assert table["answer"].tolist() == ["more"]
    assert table["ratio"][0] > 0.9 * CHANNELS
    assert table["p_value"][0] == pytest.approx(0.01)
    assert "more than BatchNorm alone would make them" in table["text"][0]
    last = said(dependent)
    assert "more than with random weights in 1 of 1 layer (acon)" in last
    assert "no more" not in last


def test_a_network_made_linear_is_called_linear(tmp_path: Path) -> None:
    run = captured(tmp_path / "run", equal=True)
    layer = run.linearity(columns="all")
    assert layer["L"].tolist() == [1.0]
    assert layer["linear"].tolist() == [CHANNELS]
    assert layer["why"][0].startswith("24 channels: all linear because p1≈p2")
    channel = run.linearity("channel", columns="all")
    assert set(channel["why"]) == {"linear because p1≈p2"}
    assert (channel["nonlinearity"] < 1e-12).all()
    assert run.linearity("sample")["L"].min() == 1.0
    assert "linear because p1≈p2" in said(run, "--by", "channel")


def test_tables_of_a_run(spread: Run) -> None:
    for by, columns in (
        ("layer", LINEARITY_LAYER_COLUMNS),
        ("channel", LINEARITY_CHANNEL_COLUMNS),
        ("sample", LINEARITY_SAMPLE_COLUMNS),
    ):
        table = spread.linearity(by, columns="all")
        assert list(table.columns) == names(columns)
        assert table["L"].between(0, 1).all()
    layer, channel = spread.linearity(columns="all"), spread.linearity("channel", columns="all")
    assert (layer["L_low"] < layer["L"]).all()
    assert (layer["L"] < layer["L_high"]).all()
    assert channel["s_c"].sum() == pytest.approx(1 - layer["L"][0])
    assert layer["n"][0] == 240 * CHANNELS * 36
    assert layer["n_samples"][0] == 240
    assert (layer["L_own"] >= layer["L"]).all()
    null = spread.null_model("acon")
    assert list(null.columns) == ["layer", "call", *names(NULL_COLUMNS)]
    np.testing.assert_allclose(null["null_std"], 0.2083, atol=1e-3)
    np.testing.assert_allclose(channel["beta_reference"], 0.5, atol=1e-6)
    split = spread.variance_split(draws=20)
    assert list(split.columns) == names(SPLIT_COLUMNS)
    shares = split[["sample_share", "channel_share", "rest_share"]].sum(axis=1)
    assert shares[0] == pytest.approx(1)
    assert verdict_text(split.iloc[:0]) == ""


def test_moments_are_read_with_pandas_alone(spread: Run) -> None:
    moments = pd.read_parquet(spread.path / "moments")
    assert list(moments.columns) == names(MOMENT_COLUMNS)
    totals = pd.read_parquet(spread.path / "totals")
    assert list(totals.columns) == names(TOTAL_COLUMNS)
    assert len(totals) == 240
    pooled = spread.pooled_matrix("acon")
    assert pooled is not None
    assert pooled.shape == (240, CHANNELS)
    mean = totals["n"].iloc[0] / CHANNELS
    assert mean == 36
    assert verify_run(spread.path).sound


def test_units_and_a_second_process_merge(spread: Run, tmp_path: Path) -> None:
    """Other units, captured in another order by another process, give the same tables."""
    from acon_hooks.captures.capturing import run_units
    from acon_hooks.captures.plan import Settings

    images, labels = pictures()
    data = TensorDataset(images, labels)
    settings = Settings(tmp_path / "run", unit_size=64, progress=False)
    run_units(Known(images), data, [2, 3], settings)
    run = run_units(Known(images), data, [0, 1], settings)
    assert run.complete
    assert len(run.units) == 4
    for by in ("layer", "channel"):
        one, two = spread.linearity(by, columns="all"), run.linearity(by, columns="all")
        numbers = one.select_dtypes("number").columns
        np.testing.assert_allclose(two[numbers], one[numbers], rtol=2e-4, atol=1e-6)
        assert one["why"].tolist() == two["why"].tolist()
    np.testing.assert_allclose(
        run.linearity("sample")["L"], spread.linearity("sample")["L"], rtol=1e-5
    )


def test_without_moments(tmp_path: Path, spread: Run) -> None:
    images, labels = pictures(32)
    data = TensorDataset(images, labels)
    run = acon.capture(Known(images), data, tmp_path / "r", moments=False, progress=False)
    assert not (run.path / "moments").exists()
    assert not (run.path / "pooled").exists()
    with pytest.raises(AconError, match=r"holds no moments.*--moments"):
        run.linearity()
    assert run.variance_split()["answer"].tolist() == ["unknown"]
    assert "L_low" not in run.summary_table()
    table = compare_runs(run, spread)
    assert table["quantity"].tolist() == ["beta"]
    with pytest.raises(AconError, match="moments was"):
        acon.capture(Known(images), data, tmp_path / "r", progress=False)


def test_a_summary_counts_the_channels_of_layers_without_beta(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), AconC(4)).eval()
    kinds = ["acon", "activation"]
    data = [torch.randn(30, 3)]
    run = acon.capture(model, data, tmp_path / "run", kinds=kinds, progress=False)
    table = run.summary_table()
    assert table["channels"].tolist() == [5, 4]
    assert table["kind"].tolist() == ["activation", "acon"]
    assert list(table.columns[:5]) == ["layer", "call", "kind", "granularity", "channels"]
    assert np.isnan(table["mean"].iloc[0])
    assert table["L"].notna().all()


def test_folders_are_compared_and_quantities_that_no_layer_has_are_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.SiLU()).eval()
    folders = [tmp_path / "one", tmp_path / "two"]
    runs = [acon.capture(model, [torch.randn(30, 3)], one, progress=False) for one in folders]
    found = acon.compare(str(folders[0]), folders[1])
    pd.testing.assert_frame_equal(found, acon.compare(*runs))
    assert found[["layer", "quantity"]].to_numpy().tolist() == [["1", "L"], ["3", "L"]]
    with pytest.raises(UsageError, match="expected a Run or the folder of one; got a DataFrame"):
        acon.compare(runs[0], found)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nowhere"):
        acon.compare(runs[0], "nowhere")


def test_a_class_of_a_script_is_named_without_its_module(tmp_path: Path) -> None:
    of_script = type("Net", (nn.Sequential,), {"__module__": "__main__"})
    model = of_script(nn.Linear(3, 3), nn.ReLU()).eval()
    run = acon.capture(model, [torch.randn(30, 3)], tmp_path / "run", progress=False)
    assert run.model == "Net"
    assert run.plot("linearity_by_depth").subject == "Net on 30 samples"


def test_wrong_names(spread: Run) -> None:
    with pytest.raises(UsageError, match=r"linearity by 'layers'.*layer"):
        spread.linearity("layers")
    with pytest.raises(UsageError, match=r"holds no layer 'akon'.*acon"):
        spread.null_model("akon")


def test_networks_of_ordinary_activations(tmp_path: Path) -> None:
    images, labels = pictures(60)
    torch.manual_seed(0)
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), relu, nn.Conv2d(4, 4, 3), relu,
        nn.Conv2d(4, 4, 1), nn.SiLU(), nn.Flatten(), nn.Linear(144, 5), nn.PReLU(),
    ).eval()  # fmt: skip
    run = acon.capture(model, TensorDataset(images, labels), tmp_path / "run", progress=False)
    table = run.linearity(columns="all")
    assert list(zip(table["layer"], table["call"], strict=True)) == [
        ("2", 0), ("2", 1), ("6", 0), ("9", 0)
    ]  # fmt: skip
    assert table["L"].between(0, 1).all()
    assert table["G"].isna().all()
    assert not run.variance_split().size
    text = said(run)
    assert "L_low" in text
    assert "BatchNorm" not in text
    with pytest.raises(UsageError, match="no β that depends on the sample"):
        run.null_model("6")


def test_comparison(spread: Run, dependent: Run) -> None:
    assert same_samples(spread, dependent)
    itself = compare_runs(spread, spread)
    assert (itself["difference"] == 0).all()
    assert itself["paired"].all()
    table = compare_runs(spread, dependent)
    assert list(table.columns) == names(DIFFERENCE_COLUMNS)
    assert table["quantity"].tolist() == ["beta", "L", "L_own", "beta_gain", "G"]
    finite = table.dropna()
    assert (finite["low"] <= finite["difference"]).all()
    assert (finite["difference"] <= finite["high"]).all()
    direct = dependent.beta_matrix("acon").mean() - spread.beta_matrix("acon").mean()
    assert table["difference"][0] == pytest.approx(direct, abs=1e-6)
    one, two = spread.linearity()["L"][0], dependent.linearity()["L"][0]
    assert table["difference"][1] == pytest.approx(two - one)
    shown = side_by_side(table)
    assert len(shown) == 1
    assert (shown["L first"][0], shown["L second"][0]) == pytest.approx((one, two))
    assert shown["β second"][0] - shown["β first"][0] == pytest.approx(direct, abs=1e-6)
    changed = [table.assign(low=d - 0.05, high=d + 0.05, difference=d) for d in (0.15, -0.15)]
    for given, word in zip(changed, ("more", "less"), strict=True):
        assert f"the second run is {word} linear in 1 of 1 layer (95 %" in comparison_text(given)
    # -0.0004 is 0.000 on the screen, however narrow its interval.
    little = table.assign(difference=-0.0004, low=-0.0005, high=-0.0003)
    for given in (itself, little):
        assert "neither more linear nor less linear in its one layer" in comparison_text(given)
    command = ["compare", str(spread.path), str(dependent.path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert "The second run is" in result.output
    full = CliRunner().invoke(app, [*command, "--format", "csv"])
    assert "beta_gain" in full.output


def test_runs_that_share_nothing(spread: Run, tmp_path: Path) -> None:
    images, labels = pictures(20)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU()).eval()
    other = acon.capture(model, TensorDataset(images, labels), tmp_path / "run", progress=False)
    assert not same_samples(spread, other)
    with pytest.raises(AconError, match=r"share no layer|nothing in common"):
        compare_runs(spread, other)


@pytest.mark.parametrize(("free", "said"), [(10**12, False), (10**6, True)])
def test_disk_space_is_announced_where_it_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, said: bool
) -> None:
    images, _ = pictures(20)
    announced: list[str] = []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    acon.capture(
        Known(images), TensorDataset(images), tmp_path / "run",
        moments="full", announce=announced.append, progress=False,
    )  # fmt: skip
    assert len(announced) == said
    assert all("moments take up to" in text and "(1 MB free)" in text for text in announced)
    states = pd.read_parquet(tmp_path / "run" / "states")
    assert len(states) == 20 * CHANNELS


def test_beta_networks_without_batchnorm_have_a_reference(tmp_path: Path) -> None:
    class Plain(MetaAconC):
        def forward(self, x: Tensor) -> Tensor:
            beta = torch.sigmoid(self.fc2(self.fc1(x.mean((2, 3), keepdim=True))))
            d = (self.p1 - self.p2) * x
            return d * torch.sigmoid(beta * d) + self.p2 * x

    images, labels = pictures(120)
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 3), Plain(CHANNELS)).eval()
    del model[1].bn1, model[1].bn2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = acon.capture(model, TensorDataset(images, labels), tmp_path / "r", progress=False)
    reference = run.references["beta_reference"]
    np.testing.assert_allclose(reference, run.beta_matrix("1")[:64].mean(0), atol=1e-6)
    table = run.variance_split(draws=20)
    assert table["null"].tolist() == ["untrained"]
    assert run.null_model("1")["ks"].isna().all()


def test_what_is_printed_of_linearity_shows_l(spread: Run) -> None:
    for by in ("layer", "channel", "sample"):
        table = spread.linearity(by)
        assert tuple(table.columns) == SHORT_LINEARITY[by]
        whole = spread.linearity(by, columns="all")
        pd.testing.assert_frame_equal(
            pd.DataFrame(table), whole[list(table.columns)], check_exact=True
        )
        first, *rows = str(table).splitlines()
        assert first.split() == list(table.columns)
        assert max(map(len, rows)) < 125
    layers = spread.linearity(columns="all")
    shares = spread.linearity("channel").groupby(["layer", "call"], sort=False)["s_c"].max()
    np.testing.assert_array_equal(layers["s_max"], shares)
    with pytest.raises(UsageError, match=r"columns: did you mean 'short'\? .*given: 'shrt'"):
        spread.linearity(columns="shrt")


def test_a_run_is_summed_up_in_words(spread: Run) -> None:
    summary = spread.summary()
    text = str(summary)
    assert text.startswith(f"Known: {len(spread.layers)} layer")
    assert f"{len(spread.sample_ids):,} {spread.sample_word}s" in text
    assert "0.733" in text
    table = spread.linearity(columns="all")
    assert f"L = {table['L'].max():.3f}" in text
    assert str(table["layer"].iloc[int(table["L"].argmax())]) in summary.sentences[0]
    np.testing.assert_array_equal(summary.table["L"], table["L"])
    html = summary._repr_html_()
    assert all(escape(one).replace("\n", "<br>") in html for one in summary.sentences)
    assert spread._repr_html_().count("<tr") == min(len(spread.layers), 20) + 1
