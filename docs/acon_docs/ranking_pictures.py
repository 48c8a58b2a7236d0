"""Pictures of the measures that rank, or that others use: see docs/measures."""

import numpy as np
from matplotlib.axes import Axes

import acon_analysis as acon
from acon_analysis.statistics import other_measures
from acon_analysis.studies import results
from acon_docs.measure_pictures import X, normal_inputs
from acon_docs.pictures import BLUE, GREEN, GREY, ORANGE, picture


def _against_damage(ax: Axes, column: str, label: str) -> None:
    """Draw the measured change of the logits against a measure, channel by channel."""
    table = results.table("replacement_damage")
    own = table[(table["network"] == "digits_metaacon") & (table["seed"] == 1)]
    own = own[(own["damage"] > 0) & (own[column] > 0)]
    for layer, group in own.groupby("layer", sort=False):
        ax.loglog(group[column], group["damage"], ".", ms=4, label=layer)
    rank = np.mean(
        [g[column].corr(g["damage"], method="spearman") for _, g in own.groupby("layer")]
    )
    ax.set(
        xlabel=label,
        ylabel="measured change of the logits",
        title=f"digits_metaacon: mean rank correlation {rank:.2f}",
    )
    ax.legend(fontsize=7, markerscale=2)


@picture(width=5.0, height=3.2)
def first_order(ax: Axes) -> None:
    """Draw predicted and measured change of the logits, channel by channel."""
    _against_damage(ax, "first_order", "predicted change of the logits")


@picture(width=5.0, height=3.2)
def abs_beta(ax: Axes) -> None:
    """Draw mean |β| and the measured change of the logits, channel by channel."""
    _against_damage(ax, "abs_beta", "mean |β|")


@picture(width=4.6)
def affine_r2(ax: Axes) -> None:
    """Draw affine R² and L of two ReLUs whose outputs are turned."""
    x = np.random.default_rng(0).standard_normal((6000, 2))
    angles = np.linspace(0, np.pi / 2, 25)
    own, full = [], []
    for angle in angles:
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        y = np.maximum(x, 0) @ turn
        full.append(other_measures.affine_r2(x, y))
        own.append(
            1 - sum(acon.linearity(x[:, c], y[:, c]).sse for c in (0, 1)) / (6000 * y.var(0).sum())
        )
    ax.plot(np.degrees(angles), full, color=BLUE, label="affine R²: a matrix")
    ax.plot(np.degrees(angles), own, color=ORANGE, label="L: a line per channel")
    ax.legend(fontsize=8, loc="lower left")
    ax.set(xlabel="outputs of two ReLUs turned by (degrees)", ylabel="share explained", ylim=(0, 1))


@picture(width=6.0, axes=2)
def affinity(one: Axes, two: Axes) -> None:
    """Draw outputs of ReLU and a Gaussian; L and affinity of four functions."""
    x = normal_inputs(20_000)
    functions = {
        "ReLU": np.maximum(x, 0),
        "Swish": x / (1 + np.exp(-x)),
        "tanh": np.tanh(x),
        "|x|": np.abs(x),
    }
    one.hist(functions["ReLU"], 60, color=BLUE, density=True)
    one.hist(
        acon.linearity(x, functions["ReLU"]).slope * 1.17 * x + 0.4,
        60,
        color=ORANGE,
        alpha=0.5,
        density=True,
    )
    one.set(title="outputs of ReLU, and a Gaussian of its variance", xlabel="output", ylim=(0, 1.5))
    y = np.arange(len(functions))
    two.barh(
        y - 0.2, [acon.linearity(x, f).L for f in functions.values()], 0.38, color=ORANGE, label="L"
    )
    two.barh(
        y + 0.2,
        [other_measures.affinity_score(x, f) for f in functions.values()],
        0.38,
        color=BLUE,
        label="affinity",
    )
    two.set(yticks=y, yticklabels=functions, title="Gaussian inputs", xlim=(0, 1.5))
    two.legend(fontsize=8, loc="upper right")


@picture(width=4.6)
def gate_entropy(ax: Axes) -> None:
    """Draw entropy by the share of positive inputs."""
    share = np.linspace(0.001, 0.999, 300)
    ax.plot(share, other_measures.gate_entropy(share), color=BLUE)
    ax.set(xlabel="share of inputs above 0", ylabel="entropy (bits)", title="1 bit at one half")


@picture(width=6.0, axes=2)
def gradient_variance(one: Axes, two: Axes) -> None:
    """Draw the derivative of Swish, and its variance over Gaussian inputs."""
    x = normal_inputs(3000)
    for kappa, colour in ((0.3, GREEN), (1, BLUE), (5, ORANGE)):
        gate = 1 / (1 + np.exp(-kappa * X))
        one.plot(X, gate + kappa * X * gate * (1 - gate), color=colour, label=f"β = {kappa:g}")
    one.legend(fontsize=8)
    one.set(title="derivative of Swish", xlabel="x", ylabel="f'(x)")
    kappas = np.geomspace(0.05, 30, 40)
    spread = []
    for kappa in kappas:
        gate = 1 / (1 + np.exp(-kappa * x))
        spread.append(float(other_measures.gradient_variance(gate + kappa * x * gate * (1 - gate))))
    two.semilogx(kappas, spread, color=BLUE)
    two.axhline(1, color=GREY, ls="--", lw=1)
    two.annotate("ReLU: 1", (0.06, 1.0), xytext=(0, 3), textcoords="offset points")
    two.set(title="its variance over Gaussian inputs", xlabel="β", ylabel="gradient variance")
