"""Pictures of the guide's pages that no figure of the gallery shows."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

import acon_analysis as acon
from acon_analysis import family
from acon_docs.pictures import BLUE, GREEN, GREY, ORANGE, picture

GUIDE = Path(__file__).parents[1] / "guide"


def _table(page: str, head: str) -> list[list[str]]:
    """Return the rows of the Markdown table of a guide page that begins with some words."""
    text = (GUIDE / f"{page}.md").read_text("utf-8")
    lines = text[text.index(head) :].partition("\n\n")[0].splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return [rows[0], *rows[2:]]


@picture(width=7.0, height=2.8)
def costs(ax: Axes) -> None:
    """Draw forward pass with recording, relative to the bare forward pass."""
    head, *rows = _table("costs", "| recorded / bare")
    heights = np.arange(len(rows))
    for number, (name, colour) in enumerate(
        zip(head[1:], (BLUE, "#56b4e9", ORANGE, GREEN), strict=True)
    ):
        values = [float(row[number + 1] or "nan") for row in rows]
        ax.barh(heights + 0.2 * number - 0.3, values, 0.18, color=colour, label=name)
    ax.axvline(1, color=GREY, lw=1)
    ax.set(
        yticks=heights,
        yticklabels=[row[0].replace("`", "") for row in rows],
        xlabel="times the bare forward pass",
    )
    ax.invert_yaxis()
    ax.legend(fontsize=8)


@picture(width=6.0, height=2.2)
def measured(ax: Axes) -> None:
    """Draw share of the nonlinear elements that is measured, for five networks."""
    _, *rows = _table("measured", "| network | operators")
    shares = [int(row[4].strip("%")) for row in rows]
    heights = np.arange(len(rows))
    ax.barh(heights, shares, color=BLUE, label="measured")
    ax.barh(
        heights,
        [100 - share for share in shares],
        left=shares,
        color="#d0d0d0",
        label="not measured",
    )
    for height, row in zip(heights, rows, strict=True):
        ax.annotate(row[3] if row[3] != "-" else "", (101, height), va="center", fontsize=7.5)
    ax.set(
        yticks=heights,
        yticklabels=[row[0] for row in rows],
        xlim=(0, 160),
        xticks=range(0, 101, 25),
        xlabel="% of the elements of nonlinear operators",
    )
    ax.invert_yaxis()


@picture(width=6.0, height=2.0)
def inputs(ax: Axes) -> None:
    """Draw positions of a padded batch that count."""
    lengths = np.array([7, 3, 5, 1])
    valid = np.arange(7) < lengths[:, None]
    for row, column in np.ndindex(valid.shape):
        there = bool(valid[row, column])
        ax.add_patch(Rectangle((column, row), 0.92, 0.85, color=BLUE if there else "#e2e2e2"))
        ax.annotate(
            "token" if there else "pad",
            (column + 0.46, row + 0.43),
            ha="center",
            va="center",
            color="white" if there else GREY,
            fontsize=8,
        )
    for row, length in enumerate(lengths):
        ax.annotate(
            f"{length} position" + ("s count" if length > 1 else " counts"),
            (7.15, row + 0.43),
            va="center",
        )
    ax.set(
        xlim=(0, 9.6),
        ylim=(4, 0),
        yticks=np.arange(4) + 0.43,
        yticklabels=[f"sample {number}" for number in range(4)],
        xticks=[],
    )
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _boxes(ax: Axes, texts: list[str], colours: list[str], *, arrows: bool = True) -> None:
    """Draw boxes from left to right, by default with arrows between them."""
    for number, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        ax.text(
            number,
            0,
            text,
            ha="center",
            va="center",
            fontsize=8.5,
            linespacing=1.5,
            bbox={"boxstyle": "round,pad=0.6", "fc": "white", "ec": colour, "lw": 1.5},
        )
        if number and arrows:
            ax.annotate(
                "",
                (number - 0.36, 0),
                xytext=(number - 0.6, 0),
                arrowprops={"arrowstyle": "-|>", "color": GREY},
            )
    ax.set(xlim=(-0.5, len(texts) - 0.5), ylim=(-1, 1))
    ax.axis("off")


@picture(width=7.6, height=1.4)
def checkpoints(ax: Axes) -> None:
    """Draw what a checkpoint passes: gate, child process, comparison."""
    texts = [
        "file from\nelsewhere",
        "gate: size, zip,\npickle's names",
        "child process,\nlimited time\nand memory",
        "names, shapes,\ndtypes, finite",
        "safetensors\nby SHA-256",
    ]
    _boxes(ax, texts, [ORANGE, BLUE, BLUE, BLUE, GREEN])


@picture(width=7.6, height=1.4)
def limits(ax: Axes) -> None:
    """Draw which networks can be watched, with care, or not at all."""
    texts = {
        "modules,\nfunctions,\nformulas": GREEN,
        "torch.compile:\nthe module inside": GREEN,
        "forward passes that\nbranch on their data:\nproved on the\nfirst batches": ORANGE,
        "TorchScript,\nexported,\nCUDA graphs:\nrefused": GREY,
    }
    _boxes(ax, list(texts), list(texts.values()), arrows=False)


@picture(width=7.0, height=2.0)
def at_scale(ax: Axes) -> None:
    """Draw units of work, and the processes that take them."""
    colours = (BLUE, ORANGE, GREEN, "#cc78bc")
    for unit in range(14):
        done = unit < 9
        ax.add_patch(
            Rectangle(
                (unit // 4, unit % 4),
                0.94,
                0.85,
                fc=colours[unit % 4] if done else "white",
                ec=colours[unit % 4],
                lw=1.2,
            )
        )
        ax.annotate(
            f"unit {unit}" + (", done" if done else ""),
            (unit // 4 + 0.47, unit % 4 + 0.43),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if done else GREY,
        )
    ax.set(
        xlim=(0, 4),
        ylim=(4, 0),
        yticks=np.arange(4) + 0.43,
        xticks=[],
        yticklabels=[f"process {number}" for number in range(4)],
    )
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


@picture(width=6.0, height=2.4)
def your_model(ax: Axes) -> None:
    """Draw the output computed again from β, and from another sample's."""
    import torch

    from acon_analysis.layers import MetaAconC

    torch.manual_seed(0)
    layer = MetaAconC(16).double().eval()
    images = torch.randn(64, 16, 8, 8, dtype=torch.float64)
    model = torch.nn.Sequential(layer)
    with acon.record(model) as recording:
        out = model(images).detach().numpy()
    beta = recording.beta_matrix("0")[:, :, None, None]
    p1, p2 = (one.detach().numpy().reshape(1, -1, 1, 1) for one in (layer.p1, layer.p2))
    bins = np.geomspace(1e-17, 1, 70).tolist()
    for given, colour, label in (
        (beta, BLUE, "β as read"),
        (np.roll(beta, 1, 0), ORANGE, "another sample's β"),
    ):
        again = np.asarray(family.acon_c(images.numpy(), p1, p2, given))
        ax.hist(np.abs(again - out).ravel() + 1e-17, bins, color=colour, label=label, alpha=0.85)
    ax.set(xscale="log", xlabel="|output computed again from β - output of the layer|", yticks=[])
    ax.legend()
