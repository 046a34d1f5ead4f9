"""What the firmware takes of each board's memory: the linker decides, the table in the README tells."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import pytest

from profiler.devices import boards, flash, sizes
from profiler.devices import build as firmware_build
from profiler.errors import UserError

#: Another version of the compiler, or a kernel more, moves numbers by less than this; then the table still tells.
RELATIVE_TOLERANCE = 0.15
ABSOLUTE_TOLERANCE_BYTES = 2048


def parse_markdown(text):
    """The rows of the table between the markers; none where there is none."""
    table = text.partition(sizes.BEGIN)[2].partition(sizes.END)[0]
    rows = re.findall(r"^\| `(\S+)` \| (.*) \|$", table, re.MULTILINE)
    return [sizes.Sizes(board, *(int(n.replace(",", "")) for n in numbers.split("|"))) for board, numbers in rows]


@pytest.mark.parametrize("preset", sizes.bare_metal_presets())
def test_the_table_in_the_readme_says_what_each_board_takes(preset):
    found = sizes.measure(preset)
    table = {row.board: row for row in parse_markdown(sizes.README.read_text())}
    remedy = "the table is stale: profile firmware sizes --write"
    assert preset in table, remedy
    for field in dataclasses.fields(sizes.Sizes)[1:]:
        stated, measured = getattr(table[preset], field.name), getattr(found, field.name)
        # What a part has and what a board's folder sets depend on no compiler.
        if field.name in ("flash", "ram", "blob", "stack"):
            assert stated == measured, f"{field.name}: {remedy}"
        else:
            slack = max(RELATIVE_TOLERANCE * measured, ABSOLUTE_TOLERANCE_BYTES)
            assert abs(stated - measured) <= slack, f"{field.name}: {remedy}"


def test_the_table_names_no_board_that_is_gone():
    stated = [row.board for row in parse_markdown(sizes.README.read_text())]
    assert sorted(stated) == sorted(sizes.bare_metal_presets()), "profile firmware sizes --write"


@pytest.mark.parametrize("preset", sizes.bare_metal_presets())
def test_what_is_counted_as_flash_is_what_would_be_loaded_and_everything_fits(preset, tmp_path):
    found = sizes.measure(preset)
    image = tmp_path / "firmware.bin"
    objcopy = ["arm-none-eabi-objcopy", "-O", "binary", firmware_build.artifact(preset), image]
    subprocess.run(objcopy, check=True)
    assert found.flash_used == image.stat().st_size <= found.flash
    assert found.code > 10_000 and found.code + found.blob + found.data <= found.flash_used
    assert found.variables > 0 and found.variables + found.stack + found.arena <= found.ram
    assert found.arena > found.ram // 4


@pytest.mark.slow
def test_a_board_whose_firmware_outgrows_its_flash_or_ram_does_not_build(tmp_path, monkeypatch):
    root = tmp_path / "firmware"
    shutil.copytree(firmware_build.FIRMWARE_ROOT, root, ignore=shutil.ignore_patterns("build"))
    monkeypatch.setattr(firmware_build, "FIRMWARE_ROOT", root)
    script = root / "boards" / "qemu-stm32f405" / "board.ld"
    whole = script.read_text()
    refusals = {"1024K": r"region `CODE' overflowed by \d+ bytes", "128K": "cannot move location counter backwards"}
    for size, refusal in refusals.items():
        script.write_text(whole.replace(f"LENGTH = {size}", "LENGTH = 4K"))
        assert script.read_text() != whole
        with pytest.raises(UserError, match=refusal):
            sizes.measure("qemu-stm32f405")


def test_memories_beside_the_arena_are_told_apart_from_it(tmp_path, monkeypatch):
    sections = """
  0 .text         00000100  08000000  08000000  00001000  2**6
                  CONTENTS, ALLOC, LOAD, READONLY, CODE
  1 .data         00000010  20000000  08000100  00005c00  2**2
                  CONTENTS, ALLOC, LOAD, DATA
  2 .stack        00000400  20000010  20000010  000d6000  2**0
                  ALLOC
  3 .arena_dtcm   00000800  20000410  20000410  000d6000  2**0
                  ALLOC
  4 .arena        00001000  24000000  24000000  000d5e00  2**4
                  ALLOC
  5 .debug_info   000462a9  00000000  00000000  000d5cac  2**0
                  CONTENTS, READONLY, DEBUGGING, OCTETS
"""
    memories = """
Memory Configuration

Name             Origin             Length             Attributes
CODE             0x08000000         0x00001000         xr
RAM              0x20000000         0x00002000         rw
ARENA            0x24000000         0x00001000         rw
*default*        0x00000000         0xffffffff

Linker script and memory map
"""
    (tmp_path / "firmware.map").write_text(memories)
    monkeypatch.setattr(sizes, "build", lambda preset: tmp_path)
    monkeypatch.setattr(sizes, "build_folder", lambda preset: tmp_path)
    monkeypatch.setattr(sizes, "_run", lambda *command: sections)
    expected = sizes.Sizes("qemu-stm32f405", 0x100, 0, 0x10, 0x110, 0x1000, 0x10, 0x400, 0x1000, 0x800, 0x3000)
    assert sizes.measure("qemu-stm32f405") == expected


def row(board="b", **changes):
    return dataclasses.replace(sizes.Sizes(board, 1000, 2000, 3, 3003, 4096, 5, 6, 70_000, 0, 131_072), **changes)


def test_the_table_replaces_what_stood_between_its_markers_and_nothing_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{sizes.BEGIN}\nold\n{sizes.END}\nafter\n")
    rows = [row(), row("c", arena=7)]
    sizes.write(rows, "gcc 1", readme)
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "gcc 1" in text and "| 70,000 |" in text
    assert parse_markdown(text) == rows
    sizes.write(rows[:1], "gcc 1", readme)
    assert parse_markdown(readme.read_text()) == rows[:1]
    readme.write_text("no markers")
    with pytest.raises(UserError, match="has no lines"):
        sizes.write(rows, "gcc 1", readme)


# ---------------------------------------------------------------- the command


def profile(*arguments):
    call = [sys.executable, "-m", "profiler.cli", "firmware", *arguments]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_building_tells_where_the_image_is_its_hash_and_its_sizes():
    done = profile("build", "stm32f405", "linux-native", "--json")
    assert done.returncode == 0, done.stderr
    board, agent = json.loads(done.stdout)
    assert board["board"] == "qemu-stm32f405" and board["path"].endswith("qemu-stm32f405/firmware.elf")
    assert board["build_hash"] == firmware_build.built_hash("qemu-stm32f405") and len(board["build_hash"]) == 16
    assert board["sizes"]["flash_used_bytes"] == sizes.measure("qemu-stm32f405").flash_used
    assert agent["path"].endswith("linux-native/agent") and "sizes" not in agent
    done = profile("build", "stm32f405")
    assert board["path"] in done.stdout and f"{board['sizes']['flash_used_bytes']:,}" in done.stdout


def test_a_board_that_there_is_not_or_none_ends_in_the_list_of_those_there_are():
    for arguments in (["build"], ["build", "nucleo-f999"]):
        done = profile(*arguments)
        assert done.returncode == 2 and done.stdout == ""
        assert "qemu-mps2-an500" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "board", [b for b in boards.REAL.values() if b.preset in firmware_build.PRESETS], ids=lambda board: board.name
)
def test_a_real_boards_image_starts_at_its_flash(board):
    made = flash.images(board)
    assert made.bin.stat().st_size == sizes.measure(board.preset).flash_used
    assert made.hex.stat().st_size > 2 * made.bin.stat().st_size
