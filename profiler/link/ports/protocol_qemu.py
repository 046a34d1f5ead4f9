"""``qemu://BOARD``: an emulated board, running this project's firmware."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextvars import ContextVar

from profiler.devices import boards
from profiler.errors import UserError
from profiler.link.ports.process import Command, ProcessSerial

_EMULATOR = "qemu-system-arm"

_more_arguments: ContextVar[tuple[str, ...]] = ContextVar("more_arguments", default=())


@contextlib.contextmanager
def emulator_arguments(*arguments: str) -> Iterator[None]:
    """Ports opened inside start the emulator with these arguments too: plugins, logs."""
    token = _more_arguments.set(arguments)
    try:
        yield
    finally:
        _more_arguments.reset(token)


class Serial(ProcessSerial):
    """Starts the emulator with the board's firmware, building that first where it is older than its sources."""

    def command(self, target: str) -> Command:
        board = boards.EMULATED.get(target)
        if board is None:
            known = ", ".join(f"qemu://{name}" for name in boards.EMULATED)
            raise UserError(f"there is no emulated board {target!r}", hint=f"known are {known}", exit_status=2)
        if shutil.which(_EMULATOR) is None:
            raise UserError(f"{_EMULATOR} is not installed", hint="install it: apt-get install qemu-system-arm")
        from profiler.devices.build import artifact, build  # noqa: PLC0415 - only an opened port needs the build

        build(board.preset)
        arguments = [_EMULATOR, "-machine", board.machine, "-nographic", "-monitor", "none", "-nodefaults"]
        arguments += ["-icount", f"shift={board.icount_shift},sleep=off"]  # ticks are the same in every boot
        arguments += ["-chardev", "socket,id=link,fd={fd}", "-serial", "chardev:link"]
        arguments += ["-kernel", str(artifact(board.preset))]
        arguments += _more_arguments.get()
        return Command(tuple(arguments), f"the emulator of {board.name}")
