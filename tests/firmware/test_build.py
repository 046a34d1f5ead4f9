"""Building the firmware, and what the compiler and the linker made of it."""

import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from profiler.devices import build as firmware_build
from profiler.errors import UserError

BARE_METAL = tuple(name for name, preset in firmware_build.PRESETS.items() if preset.bare_metal)


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def sections(preset):
    """Size and address of every section of a board's image."""
    firmware_build.build(preset)
    table = run("arm-none-eabi-size", "-A", firmware_build.artifact(preset))
    rows = re.findall(r"^(\.\S+)\s+(\d+)\s+(\d+)$", table, re.MULTILINE)
    return {name: (int(size), int(address)) for name, size, address in rows}


@pytest.mark.parametrize("preset", firmware_build.PRESETS)
def test_every_preset_builds_what_runs(preset):
    folder = firmware_build.build(preset)
    assert firmware_build.artifact(preset).parent == folder
    assert firmware_build.artifact(preset).stat().st_size > 10_000


@pytest.mark.parametrize("preset", firmware_build.PRESETS)
def test_an_up_to_date_build_starts_no_tool(preset, monkeypatch):
    firmware_build.build(preset)
    monkeypatch.setattr(firmware_build.subprocess, "run", lambda *_, **__: pytest.fail("a tool was started"))
    firmware_build.build(preset)


def test_a_build_is_up_to_date_for_every_program_of_the_environment_that_made_it():
    firmware_build.build("qemu-stm32f405")
    code = "from profiler.devices.build import is_current; print(is_current('qemu-stm32f405'))"
    for name in ("python", "python3"):
        assert run(Path(sys.prefix) / "bin" / name, "-c", code).strip() == "True"


def copied_sources(tmp_path, monkeypatch):
    """The firmware's sources in a folder of the test's own."""
    root = tmp_path / "firmware"
    shutil.copytree(firmware_build.FIRMWARE_ROOT, root, ignore=shutil.ignore_patterns("build"))
    monkeypatch.setattr(firmware_build, "FIRMWARE_ROOT", root)
    return root


@pytest.mark.slow
def test_a_changed_source_is_built_again_once_by_however_many_and_changes_the_hash(tmp_path, monkeypatch):
    root = copied_sources(tmp_path, monkeypatch)
    compiled = []
    compile_ = firmware_build._compile
    monkeypatch.setattr(firmware_build, "_compile", lambda *a: (compiled.append(a), compile_(*a)))

    def hash_now():
        text = (root / "build" / "qemu-stm32f405" / "generated" / "build_info.c").read_text()
        return re.search(r'build_hash\[\] = "(\w{16})"', text).group(1)

    def build_in_threads():
        threads = [threading.Thread(target=firmware_build.build, args=("qemu-stm32f405",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    build_in_threads()
    first = hash_now()
    with (root / "runtime" / "digest.c").open("a") as file:
        file.write("/* changed */\n")
    build_in_threads()
    assert len(compiled) == 2 and hash_now() != first
    (root / "runtime" / "digest.c").write_text("this is not C\n")
    with pytest.raises(UserError, match=r"digest\.c"):
        firmware_build.build("qemu-stm32f405")


def test_the_hash_depends_on_content_names_compiler_and_flags_and_not_on_the_place(tmp_path):
    location = firmware_build.FIRMWARE_ROOT / "cmake" / "build_info.py"
    spec = importlib.util.spec_from_file_location("build_info", location)
    build_info = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_info)
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for name, content in (("a.c", "1"), ("b.c", "2"), ("c.c", "1")):
            (tmp_path / place / name).write_text(content)

    def hashed(place="here", sources=("a.c", "b.c"), compiler="gcc 12", flags="-O3"):
        return build_info.build_hash(tmp_path / place, list(sources), compiler, flags)

    assert hashed() == hashed("there") == hashed(sources=("b.c", "a.c"))
    others = [hashed(compiler="gcc 13"), hashed(flags="-O2"), hashed(sources=("c.c", "b.c")), hashed(sources=("a.c",))]
    assert len({hashed(), *others}) == 5


def test_unknown_presets_and_missing_tools_end_in_a_sentence_that_names_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="linux-native") as unknown:
        firmware_build.build("esp32")
    assert unknown.value.exit_status == 2
    copied_sources(tmp_path, monkeypatch)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "arm-none-eabi-gcc" else which(tool))
    with pytest.raises(UserError, match=r"arm-none-eabi-gcc.*apt-get install gcc-arm-none-eabi"):
        firmware_build.build("qemu-stm32f405")
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "ninja" else which(tool))
    with pytest.raises(UserError, match=r"ninja.*apt-get install ninja-build"):
        firmware_build.build("linux-native")
    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(firmware_build.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="zcbor"):
        firmware_build.build("linux-native")


# ---------------------------------------------------------------- memories


def test_the_stm32f405_image_keeps_to_the_parts_memories_and_leaves_112_kib_of_arena():
    image = sections("qemu-stm32f405")
    flash = [(a, a + s) for n, (s, a) in image.items() if n in (".text", ".blob", ".ARM.exidx")]
    assert min(a for a, _ in flash) == 0x0800_0000
    flash_end = max(end for _, end in flash) + image[".data"][0]
    assert flash_end <= 0x0800_0000 + (1 << 20)
    assert image[".blob"][0] == 768 * 1024
    ram = [(a, a + s) for s, a in (image[n] for n in (".stack", ".data", ".bss", ".arena"))]
    assert min(a for a, _ in ram) == 0x2000_0000 and max(end for _, end in ram) <= 0x2000_0000 + 128 * 1024
    assert image[".arena"][0] >= 112 * 1024


def test_the_mps2_image_keeps_to_its_memories():
    image = sections("qemu-mps2-an500")
    assert image[".blob"][0] == 2048 * 1024
    assert image[".blob"][1] + image[".blob"][0] + image[".data"][0] <= 4 << 20
    assert image[".stack"][1] == 0x6000_0000
    size, address = image[".arena"]
    assert address + size == 0x6100_0000 and size >= 15 << 20


@pytest.mark.parametrize("preset", BARE_METAL)
def test_the_image_has_no_heap_and_no_system_calls(preset):
    firmware_build.build(preset)
    names = {line.split()[-1] for line in run("arm-none-eabi-nm", firmware_build.artifact(preset)).splitlines()}
    assert {"reset_handler", "timer_now", "kernel_find"} <= names
    assert not names & {"malloc", "_malloc_r", "free", "_sbrk", "_sbrk_r", "_write", "_read", "_exit", "printf", "main"}


# ---------------------------------------------------------------- the timed region

#: Preset: (disassembler, a direct call of a function, an indirect call).
CALLS = dict.fromkeys(BARE_METAL, ("arm-none-eabi-objdump", r"\bbl\t.*<{}>", r"\bblx\t(?!.*<)")) | {
    "linux-native": ("objdump", r"\bcall\s.*<{}>", r"\bcall\s+\*"),
    "linux-aarch64": ("aarch64-linux-gnu-objdump", r"\bbl\t.*<{}>", r"\bblr\tx\d+"),
    "linux-cortex-a53": ("aarch64-linux-gnu-objdump", r"\bbl\t.*<{}>", r"\bblr\tx\d+"),
}


@pytest.mark.parametrize("preset", CALLS)
def test_the_two_timer_readings_bracket_the_kernels_call_and_nothing_else(preset):
    disassembler, direct, indirect = CALLS[preset]
    if shutil.which(disassembler) is None or (preset == "linux-native" and "x86" not in run("uname", "-m")):
        pytest.skip(f"no {disassembler} that reads {preset}")
    firmware_build.build(preset)
    listing = run(disassembler, "-d", "--no-show-raw-insn", firmware_build.artifact(preset))
    body = re.search(r"^[0-9a-f]+ <timed_call>:\n(.*?)\n\n", listing, re.MULTILINE | re.DOTALL).group(1)
    steps = []
    for line in body.splitlines():
        if re.search(direct.format("timer_now"), line):
            steps.append("timer")
        elif re.search(indirect, line):
            steps.append("kernel")
        elif re.search(direct.format(r"\w+"), line):
            steps.append("other")
    first = steps.index("timer")
    assert steps[first : first + 3] == ["timer", "kernel", "timer"]
    assert steps.count("timer") == 2 and steps.count("kernel") == 1


#: A kernel that only reads memory, whose result is used after the second reading: what compilers like to move.
PURE_KERNEL = """
#define timer_now inlined_timer_now
#include "runtime/timer.h"
#ifdef WITHOUT_BARRIER
#undef timer_barrier
#define timer_barrier()
#endif
uint64_t timer_now(void) { return *(volatile uint32_t *)0x40000024u; }
__attribute__((noinline)) static float kernel(const float *x, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += x[i];
    return sum;
}
uint64_t measured(const float *x, int n, float *y) {
    uint64_t start, end;
    float sum;
    timer_measure(start, end, sum = kernel(x, n));
    *y = sum;
    return end - start;
}
"""


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_the_barrier_is_what_keeps_a_kernel_between_two_inlined_timer_readings(tmp_path, core):
    (tmp_path / "measured.c").write_text(PURE_KERNEL)

    def order(*options):
        flags = [f"-mcpu={core}", "-mthumb", "-mfloat-abi=hard", "-mfpu=auto", "-O3", "-std=gnu11"]
        flags += ["-I", firmware_build.FIRMWARE_ROOT, *options]
        run("arm-none-eabi-gcc", *flags, "-S", tmp_path / "measured.c", "-o", tmp_path / "measured.s")
        body = (tmp_path / "measured.s").read_text().partition("\nmeasured:")[2].partition(".size")[0]
        # The timer is read through a register that holds its address: 36 is 0x24, where the compiler splits it.
        steps = re.findall(r"\bldr\s+\w+, \[\w+(?:, #36)?\](?!.*@)|\bbl\s+kernel", body)
        return ["kernel" if "kernel" in step else "timer" for step in steps]

    assert order() == ["timer", "kernel", "timer"]
    assert order("-DWITHOUT_BARRIER") != ["timer", "kernel", "timer"]
