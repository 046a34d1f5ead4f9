"""The boards this project knows: how to start the emulated ones, and which firmware each takes.

A real board is found by its port, not by a table; it will get a row in :data:`REAL` for flashing (preset, debug
probe) once there is firmware for one.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiler.devices.build import PRESETS
from profiler.errors import UserError


@dataclass(frozen=True)
class EmulatedBoard:
    """A board as QEMU knows it.

    Attributes:
        name: As in ``qemu://NAME``.
        machine: QEMU's name for it (``-machine``).
        preset: CMake preset of its firmware.
        icount_shift: An instruction takes ``2 ** shift`` ns of virtual time; chosen so that one tick of the board's
            timer is at most one instruction.
        description: One line for people.
    """

    name: str
    machine: str
    preset: str
    icount_shift: int
    description: str


#: TIM2 of the F405 model counts at 1 GHz of virtual time: with shift 0 a tick is an instruction. The CMSDK timer of the
#: MPS2 counts at 25 MHz: with shift 6 (64 ns) an instruction is 1.6 ticks.
EMULATED: dict[str, EmulatedBoard] = {
    board.name: board
    for board in (
        EmulatedBoard(
            "stm32f405", "netduinoplus2", "qemu-stm32f405", 0, "STM32F405 (Cortex-M4F, 128 KiB RAM), emulated"
        ),
        EmulatedBoard("mps2-an500", "mps2-an500", "qemu-mps2-an500", 6, "MPS2 AN500 (Cortex-M7, 16 MiB RAM), emulated"),
    )
}

#: Real boards, by name. None yet.
REAL: dict[str, object] = {}

#: Hosts that ``native://NAME`` runs the Linux agent for, and the preset that builds it. The empty name is this host.
NATIVE_PRESETS: dict[str, str] = {"": "linux-native", "aarch64": "linux-aarch64"}


def known_ports() -> list[tuple[str, str]]:
    """(port URL, description) of every device that needs no hardware."""
    rows = [(f"qemu://{board.name}", board.description) for board in EMULATED.values()]
    rows.append(("native://", "this host's own processor, through the Linux agent"))
    rows.append(("native://aarch64", "the AArch64 Linux agent under qemu-user (functional check, no timing)"))
    return rows


def preset_of(board: str) -> str:
    """The preset that builds a board's firmware.

    Args:
        board: A preset's name, or an emulated board's as in ``qemu://NAME``.

    Raises:
        UserError: there is no such board.
    """
    name = EMULATED[board].preset if board in EMULATED else board
    if name not in PRESETS:
        raise UserError(f"there is no board {board!r}", hint=f"known are {', '.join(PRESETS)}", exit_status=2)
    return name
