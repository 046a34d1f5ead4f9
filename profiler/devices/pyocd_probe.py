"""pyOCD (extra ``flash``): loads an image, resets a board, and leaves the core without debugger."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from profiler.devices.boards import RealBoard
from profiler.devices.probes import same
from profiler.errors import UserError

INSTALL = 'pip install -e ".[flash]"'
#: The probe holds NRST while it connects, so that firmware that hangs or sleeps does not keep it out; on closing the
#: core runs and C_DEBUGEN is cleared. Neither a pyocd.yaml nor a user script of the current folder has a say.
OPTIONS: dict[str, Any] = {
    "connect_mode": "under-reset",
    "resume_on_disconnect": True,
    "no_config": True,
    "hide_programming_progress": True,
}


def installed() -> bool:
    """Whether pyOCD can be imported."""
    return importlib.util.find_spec("pyocd") is not None


def target(board: RealBoard) -> str | None:
    """The first of the board's targets that pyOCD has: of an installed CMSIS pack, or built in; None where none is."""
    from pyocd.target import TARGET  # noqa: PLC0415 - an extra
    from pyocd.target.pack.pack_target import ManagedPacks  # noqa: PLC0415

    packs = {device.part_number.lower() for device in ManagedPacks.get_installed_targets()}
    return next((name for name in board.pyocd_targets if name in TARGET or name in packs), None)


def load(serial: str, board: RealBoard, image: Path, on_progress: Callable[[float], None] = lambda share: None) -> None:
    """Write an image (``.hex``) to flash, then let the core go and pulse NRST.

    The pulse comes last, with the debugger away: pyOCD clears DEMCR as it leaves, and with it TRCENA, without which the
    cycle counter stands still; firmware that started before that would have lost its timer.

    Args:
        serial: The probe's serial number.
        board: What is behind it.
        image: What to write.
        on_progress: Called with the share that is done, 0 to 1.

    Raises:
        UserError: pyOCD does not know the part, does not find the probe, or failed.
    """
    from pyocd.core.session import Session  # noqa: PLC0415 - an extra
    from pyocd.flash.file_programmer import FileProgrammer  # noqa: PLC0415

    name = target(board)
    if name is None:
        raise UserError(
            f"pyOCD has no target for {board.mcu}",
            hint=f"install its pack: pyocd pack install {board.pyocd_targets[0]}",
        )
    with _errors(f"pyOCD could not load {board.name}"):
        probe = _probe(serial)
        with Session(probe, options=OPTIONS | {"target_override": name}) as session:
            FileProgrammer(session, progress=on_progress).program(str(image))
    reset(serial)


def reset(serial: str) -> None:
    """Pulse NRST through the probe with this serial number; the core's debug port is not touched.

    Raises:
        UserError: pyOCD does not find the probe, or failed.
    """
    from pyocd.core.session import Session  # noqa: PLC0415 - an extra

    with _errors("pyOCD could not reset the board"):
        probe = _probe(serial)
        # Not opened: a session that is connects to the core. The probe wants one for its options.
        session = Session(probe, auto_open=False, options=OPTIONS | {"target_override": "cortex_m"})
        session.probe.open()
        try:
            session.probe.reset()
        finally:
            session.probe.close()


def _probe(serial: str) -> Any:
    from pyocd.core.helpers import ConnectHelper  # noqa: PLC0415 - an extra

    there = ConnectHelper.get_all_connected_probes(blocking=False)
    for probe in there:
        if same(probe.unique_id, serial):
            return probe
    found = ", ".join(probe.unique_id for probe in there) or "none"
    raise UserError(
        f"pyOCD does not find the probe {serial} (it finds: {found})",
        hint="let a udev rule give you the probe (apt-get install stlink-tools brings one), then plug it in again",
    )


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    from pyocd.core import exceptions  # noqa: PLC0415 - an extra

    try:
        yield
    except exceptions.Error as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{what}: {said}",
            hint="check cable and power, close other debuggers; unplug the board and plug it in again; its README says "
            "how to recover a locked part",
        ) from None
