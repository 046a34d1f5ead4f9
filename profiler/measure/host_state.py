"""State of this host that moves timings of ``native://``: recorded before and after a sitting."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THERMAL = Path("/sys/class/thermal")


def host_state() -> dict[str, Any]:
    """Governor, frequency, temperature, throttling and load, each where there is such a thing."""
    state: dict[str, Any] = {"load_average": round(os.getloadavg()[0], 2)}
    for name, path in (("governor", _CPU / "scaling_governor"), ("frequency_khz", _CPU / "scaling_cur_freq")):
        text = _read(path)
        if text is not None:
            state[name] = int(text) if text.isdecimal() else text
    temperatures = [text for path in sorted(_THERMAL.glob("thermal_zone*/temp")) if (text := _read(path))]
    if temperatures:
        state["temperature_c"] = max(int(t) / 1000 for t in temperatures if t.lstrip("-").isdecimal())
    if shutil.which("vcgencmd"):  # Raspberry Pi
        answer = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
        state["throttled"] = answer.stdout.strip()
    return state


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
