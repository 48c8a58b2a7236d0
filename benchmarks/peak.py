"""The most memory that a process has had, as Linux knows it; needs nothing but Python."""

import re
from pathlib import Path


def peak_megabytes(status: str | None = None) -> float:
    """Return the peak resident memory in MB (1e6 bytes) that a ``/proc/PID/status`` gives.

    By default that of this process. ru_maxrss would begin with what its parent used.
    """
    text = Path("/proc/self/status").read_text() if status is None else status
    found = re.search(r"VmHWM:\s*(\d+) kB", text)  # of 1,024 bytes each
    return int(found[1]) * 1024 / 1e6 if found else float("nan")
