"""The histograms of all layers of a run, drawn from counts; prints seconds and peak MB as JSON.

A process of its own, without torch, as somebody has who only looks at a run.
"""

import json
import sys
import time

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from peak import peak_megabytes

from acon_analysis.runs.run import open_run
from acon_analysis.store.histograms import bin_edges


def _panels(count: int) -> list[Axes]:
    """Return the panels of a new figure, four a row."""
    _, panels = plt.subplots(-(-count // 4), 4, figsize=(10, 8), sharex=True)
    return list(panels.flat)[:count]


def main(out: str) -> None:
    """Draw; `counted` and `drawn` are seconds of processor time since the imports.

    `panels` are those of the same panels without anything in them: Matplotlib's own part.
    """
    start = time.process_time()
    frame = open_run(out).histograms()
    counted = time.process_time() - start
    panels = _panels(len(frame))
    for panel, name, count in zip(panels, frame["layer"], frame["count"], strict=True):
        panel.stairs(count, bin_edges(), fill=True)
        panel.set_title(name)
    plt.gcf().canvas.draw()
    drawn = time.process_time() - start
    peak = peak_megabytes()
    start = time.process_time()
    panels = _panels(len(frame))
    for panel, name in zip(panels, frame["layer"], strict=True):
        panel.set_title(name)
    plt.gcf().canvas.draw()
    empty = time.process_time() - start
    print(json.dumps({"counted": counted, "drawn": drawn, "panels": empty, "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1])
