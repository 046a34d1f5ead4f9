"""The boards this project knows: how to start the emulated ones, what loads firmware into the real ones.

A device is found by its port and says itself who it is; the tables here are for starting an emulator and for loading.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        trigger_register: Address whose writes change the trigger pin.
    """

    name: str
    machine: str
    preset: str
    icount_shift: int
    description: str
    trigger_register: int


#: TIM2 of the F205 and F405 models counts at 1 GHz of virtual time: with shift 0 a tick is an instruction. The CMSDK
#: timer of the MPS2 counts at 25 MHz: with shift 6 (64 ns) an instruction is 1.6 ticks.
_GPIOA_BSRR = 0x40020018
_FPGAIO_LED0 = 0x40028000

EMULATED: dict[str, EmulatedBoard] = {
    board.name: board
    for board in (
        EmulatedBoard(
            "stm32f405",
            "netduinoplus2",
            "qemu-stm32f405",
            0,
            "STM32F405 (Cortex-M4F, 128 KiB RAM), emulated",
            _GPIOA_BSRR,
        ),
        EmulatedBoard(
            "mps2-an500",
            "mps2-an500",
            "qemu-mps2-an500",
            6,
            "MPS2 AN500 (Cortex-M7, 16 MiB RAM), emulated",
            _FPGAIO_LED0,
        ),
        EmulatedBoard(
            "stm32f205",
            "netduino2",
            "qemu-stm32f205",
            0,
            "STM32F205 (Cortex-M3, no FPU, 128 KiB RAM), emulated",
            _GPIOA_BSRR,
        ),
    )
}


@dataclass(frozen=True)
class RealBoard:
    """A board with an ST-LINK on it.

    Attributes:
        name: Of the board, its preset and its folder ``firmware/boards/NAME``.
        mcu: The part.
        pyocd_targets: pyOCD's names for the part, best first: from the maker's CMSIS pack, then built in.
        board_ids: What its ST-LINK calls the board: the first four digits of the code in the drive's ``MBED.HTM``.
        drive_stem: How the label of the ST-LINK's drive ends after ``NODE_`` or ``NOD_`` (eleven characters at most, so
            that a suffix may be missing).
        description: One line for people.
        st_flash_since: First version of st-flash that knows the part.
        flash_base: Where its flash begins, and the image.
    """

    name: str
    mcu: str
    pyocd_targets: tuple[str, ...]
    board_ids: tuple[str, ...]
    drive_stem: str
    description: str
    st_flash_since: tuple[int, ...] = (1, 7, 0)
    flash_base: int = 0x0800_0000

    @property
    def preset(self) -> str:
        """CMake preset of its firmware."""
        return self.name


#: Real boards, by name. Board ids and pack names are those of pyOCD's own table of boards.
REAL: dict[str, RealBoard] = {
    board.name: board
    for board in (
        RealBoard(
            "nucleo-f446re",
            "STM32F446RE",
            ("stm32f446retx",),
            ("0777",),
            "F446RE",
            "NUCLEO-F446RE (Cortex-M4F, 128 KiB RAM)",
        ),
        RealBoard(
            "nucleo-f746zg",
            "STM32F746ZG",
            ("stm32f746zgtx",),
            ("0816",),
            "F746ZG",
            "NUCLEO-F746ZG (Cortex-M7, 320 KiB RAM)",
        ),
        RealBoard(
            "nucleo-f767zi",
            "STM32F767ZI",
            ("stm32f767zitx", "stm32f767zi"),
            ("0818",),
            "F767ZI",
            "NUCLEO-F767ZI (Cortex-M7, 512 KiB RAM)",
        ),
        RealBoard(
            "nucleo-h743zi2",
            "STM32H743ZI",
            ("stm32h743zitx", "stm32h743xx"),
            ("0836",),
            "H743ZI",
            "NUCLEO-H743ZI2 (Cortex-M7, 1 MiB RAM)",
        ),
        RealBoard(
            "nucleo-l4r5zi",
            "STM32L4R5ZI",
            ("stm32l4r5zitx",),
            ("0776",),
            "L4R5ZI",
            "NUCLEO-L4R5ZI (Cortex-M4F, 640 KiB RAM)",
        ),
        RealBoard(
            "nucleo-u575zi-q",
            "STM32U575ZI",
            ("stm32u575zitx",),
            ("0886",),
            "U575ZI",
            "NUCLEO-U575ZI-Q (Cortex-M33, 768 KiB RAM)",
            st_flash_since=(1, 8, 0),
        ),
    )
}

#: Hosts that ``native://NAME`` runs the Linux agent for, and the preset that builds it. The empty name is this host;
#: ``sanitize`` is this host with an agent that stops at the first invalid access: for tests, its times mean nothing.
NATIVE_PRESETS: dict[str, str] = {
    "": "linux-native",
    "sanitize": "linux-sanitize",
    "aarch64": "linux-aarch64",
    "cortex-a53": "linux-cortex-a53",
    "cortex-a72": "linux-cortex-a72",
    "cortex-a76": "linux-cortex-a76",
}

#: Those of them that run on this host's own processor; the others run under qemu-user.
OF_THIS_HOST = frozenset({"", "sanitize"})


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
    from profiler.devices.build import PRESETS  # noqa: PLC0415 - ports are opened without building anything

    name = EMULATED[board].preset if board in EMULATED else board
    if name not in PRESETS:
        raise UserError(f"there is no board {board!r}", hint=f"known are {', '.join(PRESETS)}", exit_status=2)
    return name


def real_board(name: str) -> RealBoard:
    """The real board of this name.

    Raises:
        UserError: there is none, or it is emulated.
    """
    if name in REAL:
        return REAL[name]
    known = f"boards with a probe are {', '.join(REAL)}"
    preset = EMULATED[name].preset if name in EMULATED else name
    for board in EMULATED.values():
        if board.preset == preset:
            raise UserError(
                f"{name} is emulated: there is nothing to load",
                hint=f"every command with --port qemu://{board.name} starts it with firmware up to date; {known}",
                exit_status=2,
            )
    raise UserError(f"there is no board {name!r} to load firmware into", hint=known, exit_status=2)
