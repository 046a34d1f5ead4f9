"""Power cycling: a shell command of the user's, or an instrument in the supply, brings a board back that a reset over
the line no longer reaches."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from profiler.errors import UserError


@dataclass(frozen=True)
class PowerCycle:
    """How to take a device's power away and give it back.

    Attributes:
        command: For the shell, for example ``uhubctl -a cycle -p 2``.
        command_wait_s: How long it may take.
        back_wait_s: How long the device may take afterwards until it identifies itself; a Raspberry Pi boots meanwhile.
        on_cycle: Called with a sentence before each cycle.
    """

    command: str
    command_wait_s: float = 60.0
    back_wait_s: float = 120.0
    on_cycle: Callable[[str], None] = lambda sentence: None

    def run(self, reason: str) -> None:
        """Run the command.

        Args:
            reason: What the device did, in words.

        Raises:
            UserError: it failed, with the last line that it wrote, or did not end.
        """
        self.on_cycle(f"{reason}: power cycling ({self.command})")
        hint = f"try it by itself: {self.command}"
        # A file and not a pipe: what the command leaves running in the background would keep a pipe open.
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                self.command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(self.command_wait_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                raise UserError(
                    f"the power-cycle command did not end within {self.command_wait_s:g} s", hint=hint
                ) from None
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        if status:
            raise UserError(
                f"the power-cycle command ended with status {status}" + (f": {lines[-1].strip()}" if lines else ""),
                hint=hint,
            )


@dataclass(frozen=True)
class TargetSupply:
    """The target's supply as a switch that this process holds: an instrument that lies in it.

    Takes the place of :class:`PowerCycle`. Other wires that end at the target, UART and debugger, may go on feeding it
    while its supply is off; it then does not restart.

    Attributes:
        switch: Gives the target its power (true) or takes it away.
        off_s: How long it has none: its capacitors have to be empty.
        back_wait_s: How long the device may take afterwards until it identifies itself.
        on_cycle: Called with a sentence before each cycle.
    """

    switch: Callable[[bool], None]
    off_s: float = 3.0
    back_wait_s: float = 120.0
    on_cycle: Callable[[str], None] = lambda sentence: None

    def run(self, reason: str) -> None:
        """Switch off, wait, switch on; on also where switching off or waiting is interrupted.

        Args:
            reason: What the device did, in words.

        Raises:
            UserError: the instrument does not do it.
        """
        self.on_cycle(f"{reason}: switching the target off and on (Joulescope)")
        try:
            self.switch(False)
            time.sleep(self.off_s)
        finally:
            self.switch(True)
