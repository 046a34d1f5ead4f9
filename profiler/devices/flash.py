"""Load a board's firmware with whatever is at hand, then see that it is what answers."""

from __future__ import annotations

import os
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from profiler.devices import drive, probes, pyocd_probe, st_flash
from profiler.devices.boards import RealBoard
from profiler.devices.build import artifact, build, built_hash
from profiler.devices.identity import Identity
from profiler.devices.probes import Probe
from profiler.errors import UserError
from profiler.link.errors import LinkError

#: How long a board may take from loading until its new firmware answers: the ST-LINK may show its ports anew.
ANSWER_WAIT_S = 20.0
_POLL_S = 0.25


class Method(StrEnum):
    """How firmware gets into a board."""

    PYOCD = "pyocd"
    ST_FLASH = "st-flash"
    DRIVE = "drive"


@dataclass(frozen=True)
class Choice:
    """A method, and why it."""

    method: Method
    why: str


@dataclass(frozen=True)
class Images:
    """A board's image in the forms that the methods take."""

    hex: Path
    bin: Path


def images(board: RealBoard) -> Images:
    """Build the board's firmware where it is not up to date, and write it as ``.hex`` and ``.bin``.

    Raises:
        UserError: it does not build, or its vectors do not lie at the board's flash.
    """
    build(board.preset)
    elf = artifact(board.preset)
    made = Images(elf.with_suffix(".hex"), elf.with_suffix(".bin"))
    for form, path in (("ihex", made.hex), ("binary", made.bin)):
        # Put in its place when it is whole: another process may be loading the one that lies there.
        growing = path.with_name(f"{path.name}.{os.getpid()}")
        command = ["arm-none-eabi-objcopy", "-O", form, str(elf), str(growing)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError:
            raise UserError(f"{command[0]} is not installed", hint="apt-get install binutils-arm-none-eabi") from None
        growing.replace(path)
    content = made.bin.read_bytes()
    _, reset_vector = struct.unpack_from("<II", content)
    if not board.flash_base <= reset_vector < board.flash_base + len(content):
        raise UserError(
            f"the image of {board.name} starts at {reset_vector:#010x}, outside of flash at {board.flash_base:#010x}",
            hint=f"correct firmware/boards/{board.name}/board.ld",
        )
    return made


# ---------------------------------------------------------------- which method


def choose(board: RealBoard, probe: Probe, wanted: Method | None = None) -> Choice:
    """The method that is asked for, or the first that is at hand.

    Raises:
        UserError: it is not at hand, or none is; the sentence says what each lacks.
    """
    lacking: dict[Method, UserError] = {}
    for method in (wanted,) if wanted else Method:
        try:
            what = _ready(method, board, probe)
        except UserError as error:
            lacking[method] = error
            continue
        if wanted:
            return Choice(method, f"{what}, as asked")
        passed_over = [f"not {other}: {error.args[0]}" for other, error in lacking.items()]
        return Choice(method, "; ".join([what, *passed_over]))
    if wanted:
        raise lacking[wanted]
    raise UserError(
        f"nothing here can load {board.name}: " + "; ".join(error.args[0] for error in lacking.values()),
        hint="do one of: " + "; ".join(error.hint for error in lacking.values()),
    )


def _ready(method: Method, board: RealBoard, probe: Probe) -> str:
    """What a method would use.

    Raises:
        UserError: what it lacks.
    """
    match method:
        case Method.PYOCD:
            if not pyocd_probe.installed():
                raise UserError("pyOCD is not installed", hint=pyocd_probe.INSTALL)
            target = pyocd_probe.target(board)
            if target is None:
                name = board.pyocd_targets[0]
                raise UserError(f"pyOCD has no target {name}", hint=f"pyocd pack install {name}")
            return f"pyOCD has the target {target}"
        case Method.ST_FLASH:
            found = st_flash.version()
            if found is None:
                raise UserError("st-flash is not installed", hint="apt-get install stlink-tools")
            if found < board.st_flash_since:
                needed = ".".join(map(str, board.st_flash_since))
                raise UserError(
                    f"st-flash {'.'.join(map(str, found))} does not know the {board.mcu}",
                    hint=f"install stlink-tools {needed} or newer",
                )
            return f"st-flash {'.'.join(map(str, found))} is installed"
        case Method.DRIVE:
            found_drive = drive.find(probe, board)
            if found_drive is not None:
                return f"the ST-LINK's drive is mounted at {found_drive.path}"
            device = drive.unmounted_device(probe)
            raise UserError(
                f"no drive of the ST-LINK {probe.serial} is mounted",
                hint=f"udisksctl mount -b {device}" if device else "mount the board's drive",
            )


def load(
    board: RealBoard,
    probe: Probe,
    method: Method,
    image: Images,
    on_progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Load the image; afterwards the board has been reset and no debugger holds it.

    Raises:
        UserError: the probe is on another board, or loading failed.
    """
    mounted = drive.find(probe, board)
    if mounted is not None and mounted.board not in (None, board.name):
        raise UserError(
            f"the probe {probe.serial} is on a {mounted.board}, not on a {board.name}",
            hint=f"profile firmware flash {mounted.board}, or name another probe",
            exit_status=2,
        )
    match method:
        case Method.PYOCD:
            pyocd_probe.load(probe.serial, board, image.hex, on_progress)
        case Method.ST_FLASH:
            st_flash.load(probe.serial, image.bin, board.flash_base)
        case Method.DRIVE:
            if mounted is None:
                raise UserError(f"the drive of the ST-LINK {probe.serial} is gone", hint="mount it again")
            drive.load(mounted, image.bin)


# ---------------------------------------------------------------- the handshake


def handshake(
    board: RealBoard, probe: Probe, *, baud: int, port: str | None = None, wait_s: float | None = None
) -> tuple[str, Identity]:
    """Wait until the board answers with the build that was loaded.

    Args:
        board: What was loaded.
        probe: Its probe.
        baud: Bits a second.
        port: Where to ask; by default the probe's port, looked up again by serial number as its name may have changed.
        wait_s: How long; :data:`ANSWER_WAIT_S` by default.

    Returns:
        The port and who answers there.

    Raises:
        UserError: nothing answers, or something else than what was loaded.
    """
    from profiler.link.session import open_device  # noqa: PLC0415 - the link is not needed to build or load

    expected = built_hash(board.preset)
    deadline_s = time.monotonic() + (ANSWER_WAIT_S if wait_s is None else wait_s)
    while True:
        there = port or (probes.find(probe.serial) or probe).port
        try:
            with open_device(there, timeout_s=3.0, baud=baud) as device:
                identity = device.identity
            if identity.board == board.name and identity.build_hash == expected:
                return there, identity
            problem = _stranger(board, there, identity, expected)
        except LinkError as error:
            problem = error
        if time.monotonic() > deadline_s:
            raise UserError(
                f"{board.name} was loaded, but {problem.args[0]}", hint=problem.hint, exit_status=problem.exit_status
            )
        time.sleep(_POLL_S)


def _stranger(board: RealBoard, port: str, identity: Identity, expected: str) -> UserError:
    if identity.board != board.name:
        return UserError(
            f"at {port} there is {identity.board}",
            hint="give the port of the board that was loaded with --port, or name its probe with --probe",
        )
    return UserError(
        f"at {port} its build {identity.build_hash} answers, not {expected}",
        hint="load it again with another --method; unplug the board and plug it in again",
    )
