"""How often each instruction of a timed op was executed, on an emulated board: a plugin of QEMU's counts.

with counting_device("qemu://stm32f405") as (device, counter):
    device.run(program_of_one_op, 1)
    print(counter.cycles())
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from profiler import cortex_m4
from profiler.devices import boards
from profiler.devices.build import FIRMWARE_ROOT, artifact
from profiler.errors import UserError

if TYPE_CHECKING:
    from profiler.link.session import Device

#: Emulated boards whose core's manual is :mod:`profiler.cortex_m4`.
COUNTED = ("stm32f405",)
_PLUGIN = FIRMWARE_ROOT / "boards" / "qemu-common" / "instruction_counts.c"
_LINE = re.compile(r"\s*([0-9a-f]+):\t[0-9a-f ]+\t(\S+)(?:\t([^@;]*))?")


@dataclass(frozen=True)
class Executed:
    """What became of one instruction.

    Attributes:
        executions: How often it was executed; one that its condition skipped counts too.
        jumps: How often control did not go on behind it.
    """

    executions: int
    jumps: int


class Counter:
    """Reads what the plugin has counted last: between the trigger's last rise and its fall."""

    def __init__(self, counts: Path, elf: Path) -> None:
        self._counts = counts
        self._elf = elf

    def executed(self) -> dict[int, Executed]:
        """By address."""
        lines = (line.split() for line in self._counts.read_text().splitlines())
        return {int(address, 16): Executed(int(n), int(jumps)) for address, n, jumps in lines}

    def instructions(self) -> int:
        """All instructions between the edges, the harness's among them."""
        return sum(e.executions for e in self.executed().values())

    def cycles(self) -> int:
        """What a Cortex-M4 would take for them by its manual's table: :mod:`profiler.cortex_m4`."""
        each = self._cycles_by_address
        return sum(
            e.executions * each[address] + e.jumps * cortex_m4.REFILL_CYCLES for address, e in self.executed().items()
        )

    @functools.cached_property
    def _cycles_by_address(self) -> dict[int, int]:
        command = ["arm-none-eabi-objdump", "--disassemble", str(self._elf)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        matches = (_LINE.match(line) for line in text.splitlines())
        return {int(m[1], 16): cortex_m4.cycles(m[2], m[3] or "") for m in matches if m}


@contextlib.contextmanager
def counting_device(url: str) -> Iterator[tuple[Device, Counter]]:
    """An emulated board that counts, opened.

    Raises:
        UserError: it is none whose trigger is known, or the host has no C compiler.
    """
    from profiler.link.ports.protocol_qemu import emulator_arguments  # noqa: PLC0415 - registers with pySerial
    from profiler.link.session import open_device  # noqa: PLC0415 - keeps the import light

    scheme, _, name = url.partition("://")
    if scheme != "qemu" or name not in COUNTED:
        known = ", ".join(f"qemu://{board}" for board in COUNTED)
        raise UserError(f"instructions of {url} cannot be counted one by one", hint=f"take {known}", exit_status=2)
    if shutil.which("cc") is None:
        raise UserError("counting instructions needs a C compiler for this machine", hint="apt-get install gcc")
    with tempfile.TemporaryDirectory() as folder:
        plugin, counts = Path(folder) / "instruction_counts.so", Path(folder) / "counts.txt"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, _PLUGIN], check=True)
        with (
            emulator_arguments("-plugin", f"{plugin},trigger={boards.EMULATED[name].trigger_register:#x},out={counts}"),
            open_device(url) as device,
        ):
            yield device, Counter(counts, artifact(boards.EMULATED[name].preset))
