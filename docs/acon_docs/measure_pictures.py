"""What each measure is, in a picture: one function a page of docs/measures."""

import math
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import acon_analysis as acon
from acon_analysis import family
from acon_analysis.statistics import gaussian as normal
from acon_docs.pictures import BLUE, GREEN, GREY, ORANGE, picture

X = np.linspace(-3, 3, 601)


def normal_inputs(count: int = 400, seed: int = 0) -> Any:
    """Return standard normal numbers, the same at every build."""
    return np.random.default_rng(seed).standard_normal(count)


def _cloud(ax: Axes, x: Any, y: Any, title: str, colour: str = BLUE) -> None:
    """Draw points, their best line and the residuals from it."""
    fit = acon.linearity(x, y)
    line = fit.slope * x + fit.intercept
    ax.vlines(x, line, y, color=GREY, lw=0.4, alpha=0.6)
    ax.plot(x, y, ".", color=colour, ms=3)
    ax.axline((0, fit.intercept), slope=fit.slope, color=ORANGE, lw=1.5)
    ax.set(title=f"{title}: L = {fit.L:.3f}", xlabel="input x")


@picture(axes=3)
def linearity(one: Axes, two: Axes, three: Axes) -> None:
    """Draw inputs and outputs of ReLU and Swish, the best line, and L."""
    x = normal_inputs()
    _cloud(one, x, np.maximum(x, 0), "ReLU about 0")
    _cloud(two, x + 1.5, np.maximum(x + 1.5, 0), "ReLU about 1.5")
    _cloud(three, x, x / (1 + np.exp(-x)), "Swish about 0")
    one.set_ylabel("output y")


@picture(width=6.0, axes=2)
def gated_products(one: Axes, two: Axes) -> None:
    """Show that a sigmoid gate is nearly a line, and the product that it gates is not."""
    a, b = normal_inputs(1500, 1), normal_inputs(1500, 2)
    gate = 1 / (1 + np.exp(-b))
    _cloud(one, b[:300], gate[:300], "gate σ(b)")
    points = two.scatter(a, b, c=a * gate, s=5, cmap="RdBu_r", vmin=-2, vmax=2)
    design = np.column_stack([np.ones_like(a), a, b])
    rest = a * gate - design @ np.linalg.lstsq(design, a * gate, rcond=None)[0]
    share = 1 - rest.var() / (a * gate).var()
    two.set(title=f"product a·σ(b): L = {share:.3f}", xlabel="a", ylabel="b")
    two.figure.colorbar(points, ax=two, label="a·σ(b)")


def _example() -> Any:
    """Return the channels of the shipped run of a Meta-ACON network."""
    return acon.example_run("cifar10_metaacon").linearity(by="channel", columns="all")


@picture(width=4.6)
def nonlinearity_share(ax: Axes) -> None:
    """Draw 1 - L and s_c of the channels of a layer."""
    table = _example()
    own = table[table["layer"] == "layer3.1.acon"]
    ax.plot(1 - own["L"], own["s_c"], "o", color=BLUE, ms=4, alpha=0.7)
    for place in (own["s_c"].idxmax(), own[own["L"] < 0.1]["s_c"].idxmin()):
        one = own.loc[place]
        ax.annotate(
            f"channel {one['channel']}",
            (1 - one["L"], one["s_c"]),
            ha="right",
            xytext=(-7, 0),
            textcoords="offset points",
        )
    ax.set(
        xlabel="1 - L of the channel",
        ylabel="$s_c$: share of the layer",
        title="64 channels of layer3.1.acon, cifar10_metaacon",
    )


@picture(width=6.0, axes=2)
def within_samples(one: Axes, two: Axes) -> None:
    """Draw one line for all samples, and a line for each."""
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, 4))
    everything: list[Any] = []
    for centre, colour in zip((-2.0, -0.7, 0.7, 2.0), shades, strict=True):
        x = centre + 0.8 * normal_inputs(80, int(10 * centre) + 50)
        y = np.maximum(x, 0)
        fit = acon.linearity(x, y)
        everything.append((x, y))
        for ax in (one, two):
            ax.plot(x, y, ".", color=colour, ms=3)
        ends = np.array([x.min(), x.max()])
        two.plot(ends, fit.slope * ends + fit.intercept, color=colour, lw=1.8)
    x, y = (np.concatenate(part) for part in zip(*everything, strict=True))
    fit = acon.linearity(x, y)
    one.axline((0, fit.intercept), slope=fit.slope, color=ORANGE, lw=1.8)
    one.set(title=f"one line for all samples: L = {fit.L:.2f}", xlabel="x", ylabel="ReLU(x)")
    two.set(title="a line for each of four samples: L_own", xlabel="x")


@picture(width=6.0, axes=2)
def gate(one: Axes, two: Axes) -> None:
    """Draw the gate over Gaussian inputs, and G by gain."""
    for kappa, colour in ((0.5, GREEN), (1, BLUE), (3, ORANGE)):
        share = float(normal.gaussian_gate(kappa))
        one.plot(
            X, 1 / (1 + np.exp(-kappa * X)), color=colour, label=f"κ = {kappa:g}: G = {share:.2f}"
        )
    one.fill_between(X, 0.4 * np.exp(-X * X / 2), color=GREY, alpha=0.25, lw=0)
    one.legend(loc="upper left", fontsize=8)
    one.set(title="the gate over Gaussian inputs (grey)", xlabel="x / std(x)", ylabel="gate")
    kappas = np.geomspace(0.05, 100, 60)
    for mean, colour in ((0, BLUE), (1, ORANGE), (3, GREEN)):
        two.semilogx(
            kappas,
            [float(normal.gaussian_gate(k, mean)) for k in kappas],
            color=colour,
            label=f"mean {mean}",
        )
    two.legend(fontsize=8)
    two.set(title="G by gain", xlabel="gain κ", ylabel="G")


@picture(width=7.0, axes=3)
def gain_contrast_offset(one: Axes, two: Axes, three: Axes) -> None:
    """Draw L by gain, contrast and offset."""
    kappas = np.geomspace(0.05, 100, 60)
    for rho, colour in ((0.3, GREEN), (1, BLUE), (3, ORANGE)):
        values = [float(normal.gaussian_fit(kappa, rho).L) for kappa in kappas]
        one.semilogx(kappas, values, color=colour, label=f"ρ = {rho:g}")
    one.legend(fontsize=8)
    one.set(title="gain κ: how far into the bend", xlabel="κ", ylabel="L", ylim=(0, 1.03))
    rhos = np.geomspace(0.05, 20, 60)
    two.semilogx(rhos, [float(normal.gaussian_fit(3, rho).L) for rho in rhos], color=BLUE)
    two.set(title="contrast ρ, at κ = 3", xlabel="ρ", ylim=(0, 1.03))
    offsets = np.linspace(-3, 3, 61)
    three.plot(offsets, [float(normal.gaussian_fit(3, 1, nu).L) for nu in offsets], color=BLUE)
    three.set(title="offset ν, at κ = 3, ρ = 1", xlabel="ν", ylim=(0, 1.03))


@picture(width=4.6)
def gaussian(ax: Axes) -> None:
    """Draw L on Gaussian inputs by gain."""
    kappas = np.geomspace(0.05, 100, 80)
    ax.semilogx(kappas, [float(normal.gaussian_fit(k, 1.0).L) for k in kappas], color=BLUE)
    for kappa, name in ((1.0, "Swish"), (3.145, "0.707, the least")):
        value = float(normal.gaussian_fit(kappa, 1.0).L)
        ax.plot(kappa, value, "o", color=ORANGE)
        ax.annotate(
            name,
            (kappa, value),
            xytext=(8, 8) if kappa == 1 else (2, -13),
            textcoords="offset points",
        )
    limit = float(normal.gaussian_fit(math.inf, 1.0).L)
    ax.axhline(limit, color=GREY, ls="--", lw=1)
    ax.annotate("ReLU: 0.733", (0.06, limit), xytext=(0, 4), textcoords="offset points")
    ax.set(
        xlabel="gain κ",
        ylabel="L on Gaussian inputs",
        title="ρ = 1: from a line to ReLU",
        ylim=(0.67, 1.02),
    )


@picture(width=6.0, axes=2)
def derivatives(one: Axes, two: Axes) -> None:
    """Draw bounds of the derivative, and its range over the data."""
    low, high = (float(bound) for bound in family.derivative_bounds(1.0, 0.0, 1.0))
    wide = np.linspace(-7, 7, 500)
    one.plot(wide, family.acon_c(wide, 1.0, 0.0, 1.0), color=BLUE)
    one.axvspan(-1, 1, color=ORANGE, alpha=0.2, lw=0)
    one.set(title="Swish, and the inputs that it had", xlabel="x", ylabel="f(x)")
    gate = 1 / (1 + np.exp(-wide))
    two.plot(wide, gate + wide * gate * (1 - gate), color=BLUE)
    two.axvspan(-1, 1, color=ORANGE, alpha=0.2, lw=0)
    for bound in (low, high):
        two.axhline(bound, color=GREY, ls="--", lw=1)
    reached = [float(slope) for slope in family.derivative_range(1.0, 0.0, 1.0, -1.0, 1.0)]
    two.hlines(reached, -1, 1, color=ORANGE, lw=2)
    two.set(title="bounds, and range over the data", xlabel="x", ylabel="f'(x)")


@picture(width=7.0, height=2.3, axes=4)
def flags(one: Axes, two: Axes, three: Axes, four: Axes) -> None:
    """Draw a dead channel, a constant input, inputs of one sign and equal slopes."""
    x = normal_inputs(150)
    cases = (
        (one, x, np.zeros_like(x), "dead"),
        (two, np.full(150, 0.7), np.full(150, 0.7), "constant_input"),
        (three, np.abs(x) + 0.2, np.abs(x) + 0.2, "one_signed"),
        (four, x, family.acon_c(x, 1.0, 0.8, 1.0), "equal_slopes"),
    )
    for ax, inputs, outputs, name in cases:
        ax.plot(
            X,
            np.maximum(X, 0)
            if ax in (two, three)
            else np.interp(X, np.sort(inputs), outputs[np.argsort(inputs)]),
            color=GREY,
            lw=1,
        )
        ax.plot(inputs, outputs, ".", color=BLUE, ms=4)
        ax.set(title=name, xlabel="x", xlim=(-3, 3), ylim=(-3, 3))


@picture(width=6.0, axes=2)
def jackknife(one: Axes, two: Axes) -> None:
    """Draw L without each block, and the intervals of six layers."""
    rng = np.random.default_rng(3)
    scales = rng.uniform(0.5, 1.5, (40, 1))
    x = scales * rng.standard_normal((40, 60)) + 0.3
    whole = acon.linearity(x.ravel(), np.maximum(x, 0).ravel()).L
    without = [
        acon.linearity(*(np.delete(v, j, 0).ravel() for v in (x, np.maximum(x, 0)))).L
        for j in range(40)
    ]
    one.plot(without, "o", color=BLUE, ms=3)
    one.axhline(whole, color=ORANGE)
    one.set(title="L without each of 40 blocks", xlabel="block left out", ylabel="L")
    table = acon.example_run("cifar10_metaacon").linearity()
    y = np.arange(len(table))
    two.errorbar(
        table["L"],
        y,
        xerr=[table["L"] - table["L_low"], table["L_high"] - table["L"]],
        fmt="o",
        color=BLUE,
        ms=4,
        capsize=3,
    )
    two.set(
        yticks=y, yticklabels=table["layer"], xlabel="L, 95 % interval", title="cifar10_metaacon"
    )
    two.invert_yaxis()


@picture(width=6.0, axes=2)
def logit_normal(one: Axes, two: Axes) -> None:
    """Draw densities of β that BatchNorm alone gives; spread measured and by BatchNorm alone."""
    grid = np.linspace(0.001, 0.999, 400)
    logit = np.log(grid / (1 - grid))
    for shift, scale, colour in ((0, 0.5, GREEN), (0, 1, BLUE), (0.8, 1.5, ORANGE)):
        density = np.exp(-(((logit - shift) / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
        one.plot(
            grid, density / (grid * (1 - grid)), color=colour, label=f"b = {shift:g}, γ = {scale:g}"
        )
    one.legend(fontsize=8)
    one.set(title="what BatchNorm alone makes of β", xlabel="β", ylabel="density", ylim=(0, 4))
    run = acon.example_run("cifar10_metaacon")
    table = run.null_model("layer3.1.acon")
    two.plot(table["null_std"], table["std"], ".", color=BLUE)
    two.axline((0.15, 0.15), slope=1, color=GREY, ls="--", lw=1)
    two.set(
        title="64 channels, cifar10_metaacon",
        xlabel="std of β by BatchNorm alone",
        ylabel="std measured",
    )


@picture(width=5.5)
def variance_split(ax: Axes) -> None:
    """Draw the measured ratio of six layers, and that of redrawn β networks."""
    table = acon.example_run("cifar10_metaacon").variance_split(draws=40)
    y = np.arange(len(table))
    ax.hlines(
        y,
        table["null_p05"],
        table["null_p95"],
        color=GREY,
        lw=7,
        alpha=0.4,
        label="redrawn β networks, 5 to 95 %",
    )
    ax.plot(table["ratio"], y, "D", color=BLUE, ms=5, label="measured")
    ax.set(
        yticks=y,
        yticklabels=table["layer"],
        xlabel="variance of the samples' means / independent channels",
        title="cifar10_metaacon",
        xlim=(0, 4.4),
    )
    ax.invert_yaxis()
    ax.legend(fontsize=8, loc="center right")


@picture(width=5.5)
def class_share(ax: Axes) -> None:
    """Draw mean β of the images of each class."""
    run = acon.example_run("cifar10_metaacon")
    beta = run.beta("layer3.1.acon")
    means = beta.values.mean(1)
    labels = run.labels.reindex(beta.sample_ids).to_numpy()
    classes = sorted(set(labels))
    ax.boxplot(
        [means[labels == one] for one in classes],
        orientation="horizontal",
        widths=0.6,
        flierprops={"ms": 2},
        medianprops={"color": ORANGE},
    )
    split = run.variance_split(draws=0).set_index("layer").loc["layer3.1.acon"]
    ax.set(
        yticklabels=classes,
        xlabel="mean β of an image over 64 channels",
        title=f"layer3.1.acon, cifar10_metaacon: η² = {split['eta2']:.3f}, "
        f"by chance {split['eta2_expected']:.3f}",
    )
