"""Small frames of the kinds that figures take, and every figure drawn from them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from acon_analysis.runs.examples import example_run
from acon_analysis.statistics import batchnorm_null, beta_variance
from acon_analysis.statistics.gaussian import RELU_L
from acon_figures import AconFigure, FigureSpec, find

LAYERS = ("layer3.5.acon", "layer4.2.acon")


def betas(samples: int = 9, channels: int = 64) -> pd.DataFrame:
    """β per sample, layer and channel; every sample has a level of its own."""
    rng = np.random.default_rng(11)
    parts = []
    for layer in LAYERS:
        for sample in range(samples):
            logit = rng.normal(1.3 * rng.normal(), 0.7, channels)
            values = 1.0 / (1.0 + np.exp(-logit))
            head = {"sample": 100 + sample, "layer": layer, "call": 0}
            parts.append(pd.DataFrame(head | {"channel": range(channels), "beta": values}))
    return pd.concat(parts, ignore_index=True)


def static(channels: int = 64) -> pd.DataFrame:
    """β of a static network; some lie beyond 1."""
    rng = np.random.default_rng(5)
    parts = []
    for layer in LAYERS:
        columns = {"channel": range(channels), "beta": rng.normal(0.8, 0.15, channels)}
        parts.append(pd.DataFrame({"layer": layer, **columns}))
    return pd.concat(parts, ignore_index=True)


def null(channels: int = 64) -> pd.DataFrame:
    """BatchNorm's scale and shift."""
    rng = np.random.default_rng(6)
    parts = []
    for layer in LAYERS:
        weight, bias = rng.normal(1.0, 0.1, channels), rng.normal(0.0, 0.3, channels)
        columns = {"channel": range(channels), "bn_weight": weight, "bn_bias": bias}
        parts.append(pd.DataFrame({"layer": layer, **columns}))
    return pd.concat(parts, ignore_index=True)


def labels(samples: int = 9) -> "pd.Series[Any]":
    """Classes of the samples of `betas`."""
    return pd.Series(
        [str(number % 3) for number in range(samples)], index=range(100, 100 + samples)
    )


def training(seeds: int = 1) -> pd.DataFrame:
    """Logs of two networks."""
    rng = np.random.default_rng(8)
    parts = []
    for activation in ("ReLU", "Meta-ACON"):
        for seed in range(seeds):
            epochs = np.arange(1, 7)
            error = np.exp(-epochs / 2.0) * rng.uniform(0.8, 1.2, 6)
            columns = {"iteration": 21 * epochs, "train_error": error, "test_error": 1.3 * error}
            parts.append(pd.DataFrame({"activation": activation, "seed": seed, **columns}))
    return pd.concat(parts, ignore_index=True)


def depth() -> pd.DataFrame:
    """Measures of the layers of two networks; one has a further layer, and no gate."""
    rows = []
    for network, layers in (("acon", LAYERS), ("relu", ("stem.relu", *LAYERS))):
        for place, layer in enumerate(layers):
            for measure, value in (("L", 0.7), ("L_own", 0.9), ("G", 0.2)):
                known = value - 0.1 * place if measure != "G" or network == "acon" else np.nan
                head: dict[str, Any] = {
                    "network": network,
                    "data": "9 samples",
                    "activation": network,
                }
                head |= {"place": place, "layer": layer, "call": 0, "class_name": "AconC"}
                ends = {"value": known, "low": known - 0.03, "high": known + 0.02}
                ends |= {"dead": False, "values": 30.0 if place else 400.0}
                rows.append(head | {"measure": measure} | ends)
    return pd.DataFrame(rows)


def spread() -> pd.DataFrame:
    """L of the samples of two layers, one of few values a sample."""
    head = {"network": "acon", "data": "9 samples", "class_name": "AconC", "call": 0}
    head |= {"samples": 9, "every": 1}
    ends = {"least_sample": 2, "least_L": 0.6, "most_sample": 7, "most_L": 0.95, "L": 0.7}
    boxes = {"low": 0.65, "lower": 0.7, "median": 0.75, "upper": 0.8, "high": 0.9}
    rows = [
        head | ends | boxes | {"place": place, "layer": layer, "values": 9.0 if place else 400.0}
        for place, layer in enumerate(LAYERS)
    ]
    return pd.DataFrame(rows)


def channels(count: int = 12) -> pd.DataFrame:
    """Facts of the channels of two ACON layers of one network."""
    rng = np.random.default_rng(3)
    rows = []
    for layer in LAYERS:
        for channel in range(count):
            p1, p2 = rng.normal(0.0, 1.0, 2)
            ends = {"slope_min": min(p1, p2) - 0.1, "slope_max": max(p1, p2) + 0.1}
            head: dict[str, Any] = {
                "network": "acon",
                "data": "9 samples",
                "layer": layer,
                "call": 0,
            }
            head |= {"channel": channel, "activation": "AconC", "dead": False, "cause": "switching"}
            head |= {"parameters": "", "yardstick": RELU_L}
            betas = {"beta_low": 0.2, "beta_middle": 0.5, "beta_high": 0.9, "beta_mean": 0.52}
            fit = {"slope": (p1 + p2) / 2, "intercept": 0.3, "L": rng.uniform(0.3, 1.0)}
            fit |= {"kappa": 0.5 * abs(p1 - p2), "positive": rng.uniform(0.2, 0.9)}
            inputs = {"mean_x": 0.1, "std_x": 1.0, "min_x": -4.0, "max_x": 5.0}
            over = {"slope_low": ends["slope_min"] + 0.05, "slope_high": ends["slope_max"]}
            other = {"s_c": rng.uniform(), "G": 0.1, "std_y": rng.uniform(0.5, 2.0)}
            why = {"why": "nonlinear: its gate switches (G = 0.1)"}
            rows.append(
                head | {"p1": p1, "p2": p2} | betas | fit | inputs | ends | over | other | why
            )
    return pd.DataFrame(rows)


def every_channel(count: int = 40) -> pd.DataFrame:
    """Facts of the channels of a ReLU network with one dead channel a layer."""
    table = channels(count).assign(network="relu", activation="ReLU", cause="nonlinear")
    table[["p1", "p2", "beta_low", "beta_middle", "beta_high", "beta_mean", "G"]] = np.nan
    table[["slope_min", "slope_max", "slope_low", "slope_high"]] = np.nan
    table["slope"] = table["channel"] / count
    dead, open_ = table["channel"] == 0, table["channel"] == 1
    return table.assign(
        dead=dead, std_y=table["std_y"].mask(dead, 0.0), max_x=table["max_x"].mask(dead, -0.5),
        L=table["L"].mask(dead | open_, 1.0), min_x=table["min_x"].mask(open_, 0.1),
        cause=table["cause"].mask(open_, "positive"),
    )  # fmt: skip


def null_table() -> pd.DataFrame:
    """β per channel of the last layer against the null."""
    frame = betas()
    own = frame[frame["layer"] == LAYERS[-1]]
    norms = null().query("layer == @LAYERS[-1]")
    matrix = own.pivot(index="sample", columns="channel", values="beta").to_numpy()
    table = batchnorm_null.null_table(matrix, norms["bn_bias"], norms["bn_weight"])
    return table.assign(layer=LAYERS[-1], call=0)


def sample_means() -> pd.DataFrame:
    """Mean β of each sample in the last layer."""
    own = betas().query("layer == @LAYERS[-1]")
    return own.groupby("sample")["beta"].mean().reset_index()


def splits() -> pd.DataFrame:
    """Split of the variance of β of both layers."""
    rows = []
    for layer, own in betas().groupby("layer", sort=False):
        matrix = own.pivot(index="sample", columns="channel", values="beta").to_numpy()
        split = beta_variance.variance_split(matrix)
        names = ["mean", "sample_share", "channel_share", "rest_share", "expected_sample_std"]
        values = {name: getattr(split, name) for name in [*names, "ratio"]}
        rows.append({"layer": layer, "answer": "more"} | values)
    return pd.DataFrame(rows)


def own_channels() -> pd.DataFrame:
    """Facts of the channels of the network of `betas`, whose spread of β grows by channel."""
    table = channels(64)
    table["beta_low"] = 0.5 - 0.4 * (table["channel"] + 1) / 64
    table["beta_high"] = 0.5 + 0.4 * (table["channel"] + 1) / 64
    return table


def images() -> dict[int, npt.NDArray[np.float64]]:
    """Pictures of all samples of `betas` but one, grey and coloured."""
    rng = np.random.default_rng(9)
    shapes = [(8, 8), (1, 8, 8), (8, 8, 3), (3, 8, 8)]
    return {100 + sample: rng.random(shapes[sample % 4]) for sample in range(8)}


def inputs() -> pd.DataFrame:
    """Counts of the inputs of the channels of the last layer of `channels`."""
    facts = channels().query("layer == @LAYERS[-1]")
    edges = np.linspace(-4.0, 5.0, 31)
    counts = np.round(1000 * np.exp(-0.5 * (edges[:-1] - 0.1) ** 2)).astype(np.int64)
    parts = [
        pd.DataFrame({
            "network": "acon", "layer": LAYERS[-1], "call": 0, "channel": channel,
            "left": edges[:-1], "right": edges[1:], "count": counts, "images": 50,
        })
        for channel in facts["channel"]
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def measures() -> pd.DataFrame:
    """Other measures of the channels of the last layer of `channels`."""
    rng = np.random.default_rng(12)
    own = channels().query("layer == @LAYERS[-1]")[["network", "layer", "call", "channel"]]
    values = {
        "affinity": rng.uniform(0.6, 1.0, len(own)),
        "gradient_variance": rng.random(len(own)),
    }
    return own.assign(**values).reset_index(drop=True)


def explained() -> dict[str, Any]:
    """Three explained images."""
    rng = np.random.default_rng(13)
    frame = pd.DataFrame({
        "sample": [4, 5, 6], "layer": LAYERS[-1], "channel": 2, "method": "integrated_gradients",
        "baseline": "zero", "beta": [0.8, 0.4, 0.6], "beta_baseline": 0.5, "delta": 1e-4,
    })  # fmt: skip
    pictures = rng.random((3, 1, 8, 8))
    maps = rng.normal(0.0, 0.02, (3, 8, 8))
    arrays = {"images": pictures, "baselines": np.zeros_like(pictures), "maps": maps}
    return {**arrays, "frame": frame, "labels": {4: "0", 5: "1"}}


def gates() -> pd.DataFrame:
    """Return interventions on the gates of two layers and on both at once."""
    rows = [
        (network, layer, intervention, again, change, change - 0.02, change + 0.02, -change / 3,
         "used" if change > 0.02 else "undecided")
        for network in ("digits_metaacon", "cifar10_metaacon")
        for intervention, base in (("mean", 0.05), ("constant", 0.0), ("resample", 0.3))
        for again in (False, True)
        for layer, change in (("layer1.0.acon", base / 9), ("layer1.1.acon", -base), ("all", base))
    ]  # fmt: skip
    columns = ["network", "layer", "intervention", "recalibrated", "loss_change", "low", "high",
               "accuracy_change", "verdict"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def forms() -> pd.DataFrame:
    """Return what three networks lose by form, all channels or half of them replaced."""
    networks = (("digits_acon", "digits", "ACON-C", 8), ("cifar10_swish", "CIFAR-10", "Swish", 2),
                ("digits_swish", "digits", "Swish", 1))  # fmt: skip
    kinds = [
        ("line", False), ("relu", False), ("relu", True), ("hardswish", False), ("poly:2", False),
        ("poly:4", False), ("two-piece", False), ("two-piece", True),
    ]  # fmt: skip
    rows = [
        (*network[:3], *kind, budget, -size, -size - 0.01, -size + 0.01, 2 * size)
        for budget in (1.0, 0.5)
        for network in networks
        for number, kind in enumerate(kinds)
        for size in [0.1 * network[3] * budget / (number + 1)]
    ]
    columns = ["network", "data", "activation", "form", "recalibrated", "budget", "accuracy_change",
               "accuracy_low", "accuracy_high", "output_change"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def damage() -> pd.DataFrame:
    """Replaced channels of two seeds."""
    rng = np.random.default_rng(14)
    parts = []
    for seed in (1, 2):
        hurt = 10.0 ** rng.uniform(-4.0, -1.0, 40)
        columns = {"first_order": hurt * rng.uniform(0.8, 1.2, 40), "s_c": hurt**0.8}
        columns |= {
            "nonlinearity": rng.uniform(0.01, 1.0, 40),
            "abs_beta": rng.uniform(0.2, 0.8, 40),
        }
        head = {"network": "acon", "seed": seed, "layer": LAYERS[-1], "call": 0}
        parts.append(pd.DataFrame({**head, "channel": range(40), **columns, "damage": hurt}))
    return pd.concat(parts, ignore_index=True)


def epochs(seeds: int = 2) -> pd.DataFrame:
    """β over ten epochs of two variants and layers, in the second layer learned by one variant."""
    rng = np.random.default_rng(15)
    rows = []
    for variant, learned in (("official recipe", 0.0), ("no decay", 1.0)):
        for seed in range(seeds):
            for layer in LAYERS:
                for epoch in range(11):
                    gain = learned * epoch * (layer == LAYERS[-1])
                    noise = rng.uniform(0.95, 1.05)
                    rows.append(
                        {
                            "variant": variant, "seed": seed, "epoch": epoch, "layer": layer,
                            "beta_mean": 0.5, "beta_sd": (0.2 + 0.004 * gain) * noise,
                            "null_sd": 0.208, "effect_ratio": (1.2 + 0.8 * gain) * noise,
                            "null_low": 0.6, "null_high": 2.1,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def blocks() -> pd.DataFrame:
    """Three blocks of a network and the network itself; one block mixes positions."""
    names = ["layer1.0", "layer1.1", "layer2.0", "whole network"]
    numbers = {
        "nlc": [1.2, 1.0, 0.9, 1.4], "nlc_error": [0.01, 0.0, 0.02, 0.05],
        "r2": [0.6, 1.0, 0.4, np.nan],
    }  # fmt: skip
    kinds = ["positions", "samples", "mixes positions", "mixes positions"]
    inside: list[list[float]] = [[0.7, 0.9], [], [0.75], [0.7, 0.9, 0.75]]
    return pd.DataFrame({"block": names, **numbers, "vectors": kinds, "inside": inside})


FRAMES: dict[str, Callable[[], Any]] = {
    "frame": betas, "static": static, "null": null, "labels": labels, "training": training,
    "depth": depth, "spread": spread, "channels": channels, "every_channel": every_channel,
    "null_table": null_table, "sample_means": sample_means,
    "splits": splits, "own_channels": own_channels, "images": images, "inputs": inputs,
    "measures": measures, "explained": explained, "damage": damage, "gates": gates, "forms": forms,
    "epochs": epochs, "blocks": blocks,
}  # fmt: skip


def draw(name: str, **arguments: Any) -> AconFigure:
    """Draw a registered figure with all frames that it needs or takes."""
    return find(name).draw(frames(find(name)), **arguments)


def frames(spec: FigureSpec) -> dict[str, Any]:
    """Return the inputs of a figure: made here, or by the figure's own file from a shipped run."""
    made = {name: FRAMES[name]() for name in spec.frames if name in FRAMES}
    own = [name for name in spec.frames if name not in FRAMES]
    return made | {name: spec.own(name)([example_run("cifar10_metaacon")]) for name in own}
