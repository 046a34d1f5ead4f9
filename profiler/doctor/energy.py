"""The Joulescope: its driver, and whether one is there."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

from profiler.doctor import udev
from profiler.doctor.boards import usb_access
from profiler.doctor.check import Finding, Host, broken, ok, warning
from profiler.doctor.python import DISTRIBUTION, install, installed, requirements

EXTRA = "joulescope"
#: In a process of its own: a native library that crashes or hangs must not take the doctor with it.
_LIST_DEVICES = """
import json, pyjoulescope_driver
with pyjoulescope_driver.Driver() as driver:
    print(json.dumps(list(driver.device_paths())))
"""
_TIMEOUT_S = 20.0


def driver(host: Host) -> Finding:
    """Installed, of the versions that run on this Python, and whole."""
    try:
        wanted = list(requirements(EXTRA))
    except metadata.PackageNotFoundError:
        return broken(f"{DISTRIBUTION} is not installed into this Python", install(EXTRA))
    lacking = installed(wanted, EXTRA)
    if lacking is not None:
        return lacking
    devices = _devices()
    if isinstance(devices, Finding):
        return devices
    return ok(", ".join(f"{r.name} {metadata.version(r.name)}" for r in wanted))


def instrument(host: Host) -> Finding:
    """Whether a Joulescope is attached and may be used."""
    access = usb_access(host, udev.JOULESCOPES, "Joulescope")
    if access.fix:
        return access
    devices = _devices()
    if isinstance(devices, Finding):
        return warning("cannot be looked for without the driver", devices.fix)
    if not devices:
        return warning("no Joulescope found", "plug one in and switch it on; close other programs that have it open")
    return ok(", ".join(devices))


def _devices() -> list[str] | Finding:
    """What the driver lists (without hardware it opens and lists nothing), or why it does not run."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LIST_DEVICES], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return broken(f"pyjoulescope_driver hangs (over {_TIMEOUT_S:g} s)", "plug the Joulescope in anew")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return broken(f"pyjoulescope_driver does not run: {said}", install(EXTRA))
    return [str(path) for path in json.loads(done.stdout.strip().splitlines()[-1])]
