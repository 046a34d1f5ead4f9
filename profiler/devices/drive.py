"""The drive that an ST-LINK shows: a file copied onto it is programmed into the board."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler.devices.boards import REAL, RealBoard
from profiler.devices.probes import VENDOR_ID, Probe, same
from profiler.errors import UserError

_MOUNTS = Path("/proc/self/mounts")
_BLOCK_DEVICES = Path("/sys/class/block")
_MAC_VOLUMES = Path("/Volumes")
#: How long the ST-LINK may take to say, in FAIL.TXT, that it could not program the file.
_FAILURE_WAIT_S = 3.0


@dataclass(frozen=True)
class Drive:
    """A mounted drive of an ST-LINK.

    Attributes:
        path: Where it is mounted.
        serial: Serial number of its probe; empty where the system does not tell.
        board: Name of the board that its files or its label speak of; None where that is none of ours.
    """

    path: Path
    serial: str
    board: str | None


def mounted() -> list[Drive]:
    """Every mounted drive of an ST-LINK."""
    drives = []
    for path, serial in _candidates():
        with contextlib.suppress(OSError):
            if serial or (path / "MBED.HTM").is_file() or _board_by_label(path.name):
                drives.append(Drive(path, serial, _board(path)))
    return drives


def find(probe: Probe, board: RealBoard) -> Drive | None:
    """The drive of a probe: by serial number where the system tells it, else the only one of that board."""
    there = mounted()
    of_probe = [drive for drive in there if drive.serial and same(drive.serial, probe.serial)]
    if of_probe:
        return of_probe[0]
    nameless = [drive for drive in there if not drive.serial and drive.board == board.name]
    return nameless[0] if len(nameless) == 1 else None


def unmounted_device(probe: Probe) -> str | None:
    """The block device of a probe's drive, where the system shows one (mounted or not)."""
    for device in _entries(_BLOCK_DEVICES):
        found = _usb_serial(device.name)
        if found and same(found, probe.serial):
            return f"/dev/{device.name}"
    return None


def load(drive: Drive, image: Path) -> None:
    """Copy the image (``.bin``) onto the drive; the ST-LINK programs it and resets the board.

    Raises:
        UserError: the copy failed, or the ST-LINK says that programming did.
    """
    report = drive.path / "FAIL.TXT"
    with contextlib.suppress(OSError):
        report.unlink(missing_ok=True)  # of an earlier attempt
    try:
        with (drive.path / image.name).open("wb") as file:
            file.write(image.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(
            f"cannot copy the firmware onto {drive.path}: {error.strerror}",
            hint="unplug the board, plug it in again and see that its drive is mounted writable",
        ) from None
    deadline_s = time.monotonic() + _FAILURE_WAIT_S
    while time.monotonic() < deadline_s:
        reason = failure(drive)
        if reason:
            raise UserError(
                f"the ST-LINK could not program the board: {reason}",
                hint="unplug the board and plug it in again; see in its README how to recover a locked part",
            )
        time.sleep(0.1)


def failure(drive: Drive) -> str | None:
    """What FAIL.TXT says, where there is one. The drive may be away for a moment while it is mounted again."""
    try:
        return " ".join((drive.path / "FAIL.TXT").read_text(errors="replace").split())
    except OSError:
        return None


# ---------------------------------------------------------------- where drives are


def _candidates() -> Iterator[tuple[Path, str]]:
    """(mount point, serial number of the ST-LINK or empty) of drives that may be an ST-LINK's."""
    if sys.platform == "win32":
        yield from ((Path(f"{letter}:/"), "") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ")
    elif sys.platform == "darwin":
        yield from ((path, "") for path in _entries(_MAC_VOLUMES))
    else:
        # Names of other drives may be in any encoding, and hold white space beside what stands between words here.
        for line in filter(None, os.fsdecode(_MOUNTS.read_bytes()).split("\n")):
            device, point, kind, *_ = line.split(" ")
            if device.startswith("/dev/") and kind in ("vfat", "msdos", "fuseblk"):
                path = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), point))  # a space is \040
                yield path, _usb_serial(Path(device).name)


def _usb_serial(device: str) -> str:
    """Serial number of the ST-LINK behind a block device; empty where it is none."""
    for folder in (_BLOCK_DEVICES / device).resolve().parents:
        try:
            if int((folder / "idVendor").read_text(), 16) != VENDOR_ID:
                return ""
            return (folder / "serial").read_text().strip()
        except OSError:
            continue  # not the USB device itself yet
    return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


# ---------------------------------------------------------------- which board a drive is of


def _board(path: Path) -> str | None:
    try:
        found = re.search(r"[?&]code=([0-9A-Fa-f]{4})", (path / "MBED.HTM").read_text(errors="replace"))
    except OSError:
        found = None
    if found:
        for board in REAL.values():
            if found[1].upper() in board.board_ids:
                return board.name
    return _board_by_label(path.name)


def _board_by_label(label: str) -> str | None:
    words = re.fullmatch(r"NODE?[_ ](\w+)", label.upper())
    return next((b.name for b in REAL.values() if words and words[1].startswith(b.drive_stem)), None)
