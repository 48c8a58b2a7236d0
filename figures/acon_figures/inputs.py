"""The frames that measured figures need, taken from captured runs."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from acon_analysis.run import Run


def frames_of(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Return every frame that these runs can give to a figure, by the figures' argument names.

    Parameters
    ----------
    runs : sequence of Run
        Captured runs; for each frame the first run that can give it does.

    Returns
    -------
    dict of str to pandas.DataFrame
        Names as in `FigureSpec.needs` and `FigureSpec.options`; without what no run has.
    """
    found = {}
    for name, provider in PROVIDERS.items():
        for run in runs:
            frame = provider(run)
            if frame is not None and len(frame):
                found[name] = frame
                break
    return found


def last_betas(run: Run) -> pd.DataFrame | None:
    """Return β per sample of the run's last Meta-ACON layer."""
    own = run.layers[run.layers["column"] != ""]
    return None if own.empty else run.betas(layers=[own["layer"].iloc[-1]])


def static_betas(run: Run) -> pd.DataFrame | None:
    """Return layer, channel, β of every layer whose β is a parameter."""
    own = run.channels.dropna(subset=["beta"])
    return None if own.empty else own[["layer", "channel", "beta"]]


PROVIDERS: Mapping[str, Callable[[Run], pd.DataFrame | None]] = {
    "frame": last_betas,
    "static": static_betas,
}
