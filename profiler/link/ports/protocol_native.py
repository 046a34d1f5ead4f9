"""``native://`` runs the Linux agent on this host, ``native://aarch64`` the AArch64 one under qemu-user."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextvars import ContextVar

from profiler.devices import boards
from profiler.errors import UserError
from profiler.link.ports.process import Command, ProcessSerial

_EMULATOR = "qemu-aarch64-static"


_more_arguments: ContextVar[tuple[str, ...]] = ContextVar("more_arguments", default=())


@contextlib.contextmanager
def agent_arguments(*arguments: str) -> Iterator[None]:
    """Ports opened inside start the agent with these arguments too."""
    token = _more_arguments.set(arguments)
    try:
        yield
    finally:
        _more_arguments.reset(token)


class Serial(ProcessSerial):
    """Starts the agent with the link on its standard input and output, building it first where it is out of date."""

    def command(self, target: str) -> Command:
        preset = boards.NATIVE_PRESETS.get(target)
        if preset is None:
            known = ", ".join(f"native://{name}" for name in boards.NATIVE_PRESETS)
            raise UserError(f"there is no agent for {target!r}", hint=f"known are {known}", exit_status=2)
        prefix: list[str] = []
        if target not in boards.OF_THIS_HOST:
            if shutil.which(_EMULATOR) is None:
                raise UserError(f"{_EMULATOR} is not installed", hint="install it: apt-get install qemu-user-static")
            prefix = [_EMULATOR]
        from profiler.devices.build import artifact, build  # noqa: PLC0415 - only an opened port needs the build

        build(preset)
        return Command((*prefix, str(artifact(preset)), "--stdio", *_more_arguments.get()), f"the agent {preset}")
