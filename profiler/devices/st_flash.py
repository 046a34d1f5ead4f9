"""``st-flash`` of the open ST-LINK tools: loads an image, resets a board, and leaves the core without debugger."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from profiler.errors import UserError

_PROGRAM = "st-flash"
_TIMEOUT_S = 180.0
_HINT = "check cable and power; with another debugger open, close it; unplug the board and plug it in again"


def version() -> tuple[int, ...] | None:
    """Of the installed program; None where there is none."""
    if shutil.which(_PROGRAM) is None:
        return None
    done = subprocess.run([_PROGRAM, "--version"], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout + done.stderr)
    return tuple(map(int, found.groups())) if found else (0,)


def load(serial: str, image: Path, base: int) -> None:
    """Write an image (``.bin``) to flash at ``base``, through the probe with this serial number, and reset the board.

    The probe holds NRST while it connects, so that firmware that hangs or sleeps does not keep it out.

    Raises:
        UserError: it failed, with what the program said last.
    """
    _run("--connect-under-reset", "--reset", serial=serial, verb=["write", str(image), f"{base:#010x}"])


def reset(serial: str) -> None:
    """Pulse NRST through the probe with this serial number.

    Raises:
        UserError: it failed, with what the program said last.
    """
    _run(serial=serial, verb=["reset"])


def _run(*options: str, serial: str, verb: list[str]) -> None:
    command = [_PROGRAM, *(["--serial", serial] if serial else []), *options, *verb]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{' '.join(command)} did not end within {_TIMEOUT_S:g} s", hint=_HINT) from None
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line or "WARN" in line or "ailed" in line or "ouldn't" in line]
        said = (errors or lines or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"{' '.join(command)} failed: {said}", hint=_HINT)
