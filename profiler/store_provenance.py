"""What a run's manifest says of the machine and the software that made it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

#: Packages whose versions are part of what a trial means.
_PACKAGES = ("tinytrain-hil", "numpy", "torch", "cbor2", "pyserial", "pandas", "typer")


def now() -> str:
    """The time, as manifests have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def package_version(package: str) -> str:
    """The version of an installed package, or ``not installed``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def provenance() -> dict[str, Any]:
    """Versions, host and commit, for the manifest."""
    uname = platform.uname()
    versions = {"python": platform.python_version()}
    versions |= {package: package_version(package) for package in _PACKAGES}
    return {
        "versions": versions,
        "git_commit": _git_commit(),
        "host": {
            "name": uname.node,
            "system": f"{uname.system} {uname.release}",
            "machine": uname.machine,
            "processor": _processor(),
            "cpu_count": os.cpu_count(),
        },
        "created_at": now(),
    }


def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def _git_commit() -> str | None:
    """Commit of the source tree, ``+changes`` where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if dirty else "")
