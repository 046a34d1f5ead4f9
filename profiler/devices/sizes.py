"""What each board's firmware takes of its flash and RAM, read from the linked image; the table in firmware/README.md.

The linker itself refuses an image that outgrows a memory; this only says how near it came.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from profiler.devices.build import FIRMWARE_ROOT, PRESETS, artifact, build, build_folder
from profiler.errors import UserError

README = FIRMWARE_ROOT / "README.md"
BEGIN, END = "<!-- sizes: begin -->", "<!-- sizes: end -->"


@dataclass(frozen=True)
class Sizes:
    """One board's image, in bytes.

    Attributes:
        board: The preset's name.
        code: Instructions, constants and vectors in flash.
        blob: Frozen weights in flash.
        data: Initial values of variables (and of code that is copied to RAM) in flash.
        flash_used: All three.
        flash: The flash of the part that the linker script allows.
        variables: ``.data``, ``.bss`` and code in RAM.
        stack: Reserved for the stack.
        arena: Left for programs, in the arena region.
        other: Further memories that programs may name (sections ``.arena_NAME``).
        ram: Every RAM that the linker script names.
    """

    board: str
    code: int
    blob: int
    data: int
    flash_used: int
    flash: int
    variables: int
    stack: int
    arena: int
    other: int
    ram: int

    def row(self) -> dict[str, object]:
        """With units in the names, for a table or JSON."""
        numbers = {f"{name}_bytes": value for name, value in asdict(self).items() if name != "board"}
        return {"board": self.board} | numbers


@dataclass(frozen=True)
class _Section:
    name: str
    size: int
    address: int
    load_address: int
    loaded: bool


@dataclass(frozen=True)
class _Memory:
    origin: int
    size: int

    def holds(self, address: int) -> bool:
        return self.origin <= address < self.origin + self.size


def bare_metal_presets() -> list[str]:
    """Presets that make an image for a microcontroller."""
    return [name for name, preset in PRESETS.items() if preset.bare_metal]


def measure(preset: str) -> Sizes:
    """Sizes of a preset's image, which is built first where it is not up to date.

    Raises:
        UserError: it does not build; where it outgrows a memory the linker's words say which and by how much.
    """
    build(preset)
    sections = _sections(_run("arm-none-eabi-objdump", "-h", str(artifact(preset))))
    memories = _memories((build_folder(preset) / "firmware.map").read_text(errors="replace"))
    text = next(section for section in sections if section.name == ".text")
    flash = next(memory for memory in memories if memory.holds(text.load_address))

    def total(chosen: Iterable[_Section]) -> int:
        return sum(section.size for section in chosen)

    in_flash = [s for s in sections if s.loaded and flash.holds(s.load_address)]
    blob = [s for s in in_flash if s.name == ".blob"]
    data = [s for s in in_flash if s.address != s.load_address]
    in_ram = [s for s in sections if not flash.holds(s.address)]
    stack = [s for s in in_ram if s.name == ".stack"]
    arena = [s for s in in_ram if s.name == ".arena"]
    other = [s for s in in_ram if s.name.startswith(".arena_")]
    return Sizes(
        board=preset,
        code=total(in_flash) - total(blob) - total(data),
        blob=total(blob),
        data=total(data),
        # To the last byte, with what alignment leaves free between the sections.
        flash_used=max(s.load_address + s.size for s in in_flash) - flash.origin,
        flash=flash.size,
        variables=total(in_ram) - total(stack) - total(arena) - total(other),
        stack=total(stack),
        arena=total(arena),
        other=total(other),
        ram=sum(memory.size for memory in memories if memory is not flash),
    )


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed", hint="apt-get install binutils-arm-none-eabi") from None


def _sections(listing: str) -> list[_Section]:
    """Sections that take memory, of ``objdump -h``: a line of numbers and a line of flags each."""
    pattern = r"^ *\d+ (\S+) +([0-9a-f]{8}) +([0-9a-f]{8}) +([0-9a-f]{8}) .*\n +(.*)$"
    result = []
    for name, size, address, load_address, flags in re.findall(pattern, listing, re.MULTILINE):
        if "ALLOC" in flags and int(size, 16):
            numbers = (int(number, 16) for number in (size, address, load_address))
            result.append(_Section(name, *numbers, loaded="LOAD" in flags))
    return result


def _memories(map_file: str) -> list[_Memory]:
    """The linker script's MEMORY, of the map file; a memory that overlaps an earlier one is another name for it."""
    table = map_file.partition("Memory Configuration")[2].partition("Linker script and memory map")[0]
    result: list[_Memory] = []
    for name, origin, length in re.findall(r"^(\S+) +0x([0-9a-f]+) +0x([0-9a-f]+)", table, re.MULTILINE):
        memory = _Memory(int(origin, 16), int(length, 16))
        if name != "*default*" and not any(m.holds(memory.origin) for m in result):
            result.append(memory)
    return result


def compiler() -> str:
    """Name and version of the compiler, as the table states it."""
    return f"arm-none-eabi-gcc {_run('arm-none-eabi-gcc', '-dumpfullversion').strip()}"


def markdown(rows: Sequence[Sizes], made_with: str) -> str:
    """The table, with its heading line and without the markers."""
    lines = [
        f"Bytes, built with {made_with}; other versions differ by a little. `profile firmware sizes --write` makes it.",
        "",
        "| board | code | blob | data | flash used | of | variables | stack | arena | other | of RAM |",
        "| --- |" + " ---: |" * 10,
    ]
    for row in rows:
        board, *numbers = asdict(row).values()
        lines.append(f"| `{board}` | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return "\n".join(lines)


def write(rows: Sequence[Sizes], made_with: str, path: Path = README) -> None:
    """Put the table between the markers of a file.

    Raises:
        UserError: the file has no markers.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path} has no lines {BEGIN} and {END}", hint="put them where the table belongs")
    path.write_text(f"{before}{BEGIN}\n{markdown(rows, made_with)}\n{END}{after}")
