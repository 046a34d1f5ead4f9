"""Images of the real boards: what the compiler and the linker made of them, against the parts' memories."""

import itertools
import re
import struct
import subprocess
from dataclasses import dataclass

import pytest

from profiler.devices import build as firmware_build

KIB = 1024


@dataclass(frozen=True)
class Part:
    """A part's memories as (first address, bytes), from its reference manual.

    Attributes:
        flash: Where it starts from.
        stack: The memory at whose bottom the stack lies.
        arena: The memory that the arena ends with.
        others: Memories that programs may use beside it, by the section that covers them.
        blob_bytes: Frozen weights.
    """

    flash: tuple[int, int]
    stack: tuple[int, int]
    arena: tuple[int, int]
    others: dict[str, tuple[int, int]]
    blob_bytes: int


FLASH_2_MIB = (0x0800_0000, 2048 * KIB)

PARTS = {
    # RM0390: SRAM1 and SRAM2.
    "nucleo-f446re": Part((0x0800_0000, 512 * KIB), (0x2000_0000, 128 * KIB), (0x2000_0000, 128 * KIB), {}, 256 * KIB),
    # RM0385: DTCM; SRAM1 and SRAM2.
    "nucleo-f746zg": Part(
        (0x0800_0000, 1024 * KIB),
        (0x2000_0000, 64 * KIB),
        (0x2001_0000, 256 * KIB),
        {".arena_dtcm": (0x2000_0000, 64 * KIB)},
        4 * 192 * KIB,
    ),
    # RM0410: DTCM; SRAM1 and SRAM2.
    "nucleo-f767zi": Part(
        FLASH_2_MIB,
        (0x2000_0000, 128 * KIB),
        (0x2002_0000, 384 * KIB),
        {".arena_dtcm": (0x2000_0000, 128 * KIB)},
        4 * 384 * KIB,
    ),
    # RM0433: DTCM; AXI SRAM; SRAM1, SRAM2 and SRAM3; SRAM4.
    "nucleo-h743zi2": Part(
        FLASH_2_MIB,
        (0x2000_0000, 128 * KIB),
        (0x2400_0000, 512 * KIB),
        {
            ".arena_dtcm": (0x2000_0000, 128 * KIB),
            ".arena_d2": (0x3000_0000, 288 * KIB),
            ".arena_d3": (0x3800_0000, 64 * KIB),
        },
        4 * 384 * KIB,
    ),
    # RM0432: SRAM1, SRAM2 by its second address, SRAM3.
    "nucleo-l4r5zi": Part(FLASH_2_MIB, (0x2000_0000, 640 * KIB), (0x2000_0000, 640 * KIB), {}, 4 * 384 * KIB),
    # RM0456: SRAM1, SRAM2, SRAM3; SRAM4.
    "nucleo-u575zi-q": Part(
        FLASH_2_MIB,
        (0x2000_0000, 768 * KIB),
        (0x2000_0000, 768 * KIB),
        {".arena_sram4": (0x2800_0000, 16 * KIB)},
        4 * 384 * KIB,
    ),
}


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def image_of(board):
    firmware_build.build(board)
    return firmware_build.artifact(board)


def sections_of(board):
    """Section to (address, bytes), of those that take memory."""
    listing = run("arm-none-eabi-objdump", "-h", image_of(board))
    rows = re.findall(r"^ *\d+ (\S+) +(\w{8}) +(\w{8}) .*\n(.*)$", listing, re.MULTILINE)
    return {name: (int(address, 16), int(size, 16)) for name, size, address, flags in rows if "ALLOC" in flags}


def symbols_of(board):
    lines = run("arm-none-eabi-nm", image_of(board)).splitlines()
    return {fields[-1]: int(fields[0], 16) for fields in map(str.split, lines) if len(fields) == 3}


def body_of(board, function):
    """Instructions of a function, a line each, without addresses."""
    listing = run("arm-none-eabi-objdump", "-d", "--no-show-raw-insn", image_of(board))
    body = re.search(rf"^[0-9a-f]+ <{function}>:\n(.*?)(?:\n\n|\Z)", listing, re.MULTILINE | re.DOTALL).group(1)
    return [line.partition("\t")[2] for line in body.splitlines()]


def inside(span, memory):
    return memory[0] <= span[0] and span[0] + span[1] <= memory[0] + memory[1]


@pytest.mark.parametrize("board", PARTS)
def test_every_section_lies_in_one_of_the_parts_memories_and_no_two_share_a_byte(board):
    part, sections = PARTS[board], sections_of(board)
    memories = [part.flash, part.stack, part.arena, *part.others.values()]
    assert {".text", ".blob", ".stack", ".data", ".bss", ".arena", *part.others} <= set(sections)
    for name, span in sections.items():
        assert any(inside(span, memory) for memory in memories), name
    spans = sorted(sections.values())
    assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("board", PARTS)
def test_the_part_starts_with_the_stack_at_the_bottom_of_its_memory_and_with_the_reset_handler(board, tmp_path):
    part, sections, symbols = PARTS[board], sections_of(board), symbols_of(board)
    binary = tmp_path / "firmware.bin"
    run("arm-none-eabi-objcopy", "-O", "binary", image_of(board), binary)
    content = binary.read_bytes()
    stack_pointer, reset = struct.unpack_from("<II", content)
    assert sections[".text"][0] == part.flash[0] and len(content) <= part.flash[1]
    assert sections[".stack"][0] == part.stack[0]
    assert stack_pointer == symbols["stack_top"] == sum(sections[".stack"]) and stack_pointer % 8 == 0
    assert reset == symbols["reset_handler"] | 1 and inside((reset & ~1, 2), sections[".text"])


@pytest.mark.parametrize("board", PARTS)
def test_programs_get_all_that_the_firmware_leaves_of_every_memory(board):
    part, sections = PARTS[board], sections_of(board)
    assert sections[".blob"][1] == part.blob_bytes and sections[".blob"][0] % 16 == 0
    for name, memory in {".arena": part.arena, **part.others}.items():
        assert sections[name][0] % 16 == 0
        assert sum(sections[name]) == sum(memory), f"{name} ends where its memory does"
        firmware = sum(size for other, (at, size) in sections.items() if other != name and inside((at, size), memory))
        assert sections[name][1] >= memory[1] - firmware - 64


@pytest.mark.parametrize(("board", "port"), [("nucleo-f446re", 0x4002_0000), ("nucleo-f767zi", 0x4002_1400)])
def test_the_trigger_is_one_store_to_the_ports_bsrr(board, port):
    """PA8 and PF13: bit n sets, bit n + 16 resets."""
    body = body_of(board, "trigger_set")
    pin = {"nucleo-f446re": 8, "nucleo-f767zi": 13}[board]
    assert sum(line.startswith("str") for line in body) == 1
    (offset,) = re.search(r"#(\d+)\]", next(line for line in body if line.startswith("str"))).groups()
    (base,) = (int(line.split()[-1], 16) for line in body if line.startswith(".word"))
    assert base + int(offset) == port + 0x18
    assert {int(value) for value in re.findall(r"mov\S*\tr\d, #(\d+)", "\n".join(body))} == {1 << pin, 1 << pin + 16}


def test_a_reading_of_the_cycle_counter_waits_for_what_is_in_flight():
    body = [line for line in body_of("nucleo-f767zi", "timer_now") if not line.startswith(".word")]
    reading = next(i for i, line in enumerate(body) if re.match(r"ldr\tr\d, \[r\d, #4\]", line))
    assert [line.split()[0] for line in body[:2]] == ["dsb", "isb"] and reading >= 2


def test_the_h743_chooses_its_supply_before_anything_is_written_to_memory():
    stores = re.compile(r"^(str|stm|push|vst|vpush)")
    reset = body_of("nucleo-h743zi2", "reset_handler")
    calls = [line for line in reset if re.match(r"(bl|b)(\.[nw])?\t", line)]
    assert "board_supply_init" in calls[0] and "<start>" in calls[1]
    assert [line for line in reset if stores.match(line)] == ["str\tr1, [r0, #0]"], "CPACR"
    supply = body_of("nucleo-h743zi2", "board_supply_init")
    assert [line.split("@")[0].strip() for line in supply if stores.match(line)] == ["str\tr1, [r0, #12]"], "PWR_CR3"
    words = {line.split()[-1] for line in supply if line.startswith(".word")}
    assert {"0x1ff1e8c0", "0x48373433", "0x58024800"} <= words


@pytest.mark.parametrize("board", PARTS)
def test_the_dense_kernels_inner_loops_are_those_for_32_float_registers(board):
    listing = run("arm-none-eabi-objdump", "-d", "--no-show-raw-insn", image_of(board))
    assert len(re.findall(r"\tvldmia\tr\d+!, \{s16-s17\}", listing)) >= 2
