"""How much memory a process of a benchmark took."""

from __future__ import annotations

from pathlib import Path


def peak_mib() -> float:
    """Most memory that this process ever had resident.

    Not ``ru_maxrss``: that of a process begins with what its parent had.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("/proc/self/status has no VmHWM")
