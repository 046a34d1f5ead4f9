"""``profile doctor``: each thing that can be wrong with a host is made wrong, and said with what to do."""

import json
import os
import shutil
import sys
from collections import namedtuple
from importlib import metadata

import pytest
from command_line import profile
from made_up_host import plug, program, write
from packaging.requirements import Requirement
from unprivileged import as_nobody

from profiler.devices import build
from profiler.devices.boards import EMULATED
from profiler.doctor import boards, check, energy, host, python, table, toolchain, udev
from profiler.doctor.check import Check, Finding, Host, Status

# ---------------------------------------------------------------- Python


def test_an_old_python_is_broken(bare, monkeypatch):
    assert python.interpreter(bare).status == "ok"
    monkeypatch.setattr(python, "OLDEST", (9, 0))
    assert "install Python 9.0" in python.interpreter(bare).fix


def test_packages_are_compared_with_what_the_project_requires(bare):
    finding = python.packages(bare)
    assert finding.status == "ok" and f"pyserial {metadata.version('pyserial')}" in finding.found
    lacking = python.installed([Requirement("numpy>=99"), Requirement("no-such-package"), Requirement("typer")])
    assert lacking.status == "broken" and lacking.fix.startswith(sys.executable)
    assert lacking.found == f"numpy is {metadata.version('numpy')}, needed is >=99, no-such-package is not installed"


def test_a_project_that_is_not_installed_is_said(bare, monkeypatch):
    monkeypatch.setattr(python, "DISTRIBUTION", "no-such-project")
    assert "no-such-project is not installed" in python.packages(bare).found
    assert "pip install" in energy.driver(bare).fix


def test_extras_are_told_apart():
    assert {r.name for r in python.requirements("joulescope")} == {"pyjoulescope_driver", "pyjls"}
    always = {r.name for r in python.requirements()}
    assert "torch" in always and not always & {"pyjoulescope_driver", "pytest", "pyocd"}


def test_a_pytorch_that_cannot_be_imported_is_broken(bare, monkeypatch):
    assert python.torch(bare).status == "ok"
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = python.torch(bare)
    assert finding.status == "broken" and "cannot be imported" in finding.found and "pip install" in finding.fix


# ---------------------------------------------------------------- toolchain and emulators


@pytest.mark.parametrize(
    ("look", "status", "package"),
    [
        (toolchain.host_compiler, "broken", "gcc libc6-dev"),
        (toolchain.arm_compiler, "broken", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
        (toolchain.aarch64_compiler, "warning", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
        (toolchain.cmake, "broken", "cmake"),
        (toolchain.ninja, "broken", "ninja-build"),
        (toolchain.emulator, "broken", "qemu-system-arm"),
        (toolchain.user_emulator, "warning", "qemu-user-static"),
    ],
)
def test_a_tool_is_there_with_its_version_or_its_package_is_named(bare, no_programs, look, status, package):
    there = look(bare)
    assert there.status == "ok" and any(c.isdigit() for c in there.found)
    no_programs()
    finding = look(bare)
    assert finding.status == status and finding.fix.endswith(f"apt-get install {package}")


def test_a_compiler_without_its_c_library_is_broken(bare, tmp_path, monkeypatch):
    program(tmp_path, "arm-none-eabi-gcc", "libm.a")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = toolchain.arm_compiler(bare)
    assert finding.status == "broken" and "libm.a" in finding.found
    assert finding.fix.endswith("apt-get install libnewlib-arm-none-eabi")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (("QEMU emulator version 6.1.0", *(f"{b.machine} of QEMU" for b in EMULATED.values())), "6.1.0"),
        (("QEMU emulator version 9.0.1", "netduino2 Netduino"), "without the machines mps2-an500, netduinoplus2"),
    ],
)
def test_an_emulator_that_is_too_old_or_lacks_a_board_is_broken(bare, tmp_path, monkeypatch, said, reason):
    program(tmp_path, "qemu-system-arm", *said)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    finding = toolchain.emulator(bare)
    assert finding.status == "broken" and reason in finding.found and "7.2 or newer" in finding.fix


def test_firmware_that_is_not_built_is_named(bare, tmp_path, monkeypatch):
    build.build("qemu-stm32f405")
    monkeypatch.setattr(build, "PRESETS", {"qemu-stm32f405": build.PRESETS["qemu-stm32f405"]})
    assert toolchain.builds(bare).found == "up to date: qemu-stm32f405"
    monkeypatch.setattr(build, "build_folder", lambda preset: tmp_path)
    finding = toolchain.builds(bare)
    assert finding.status == "warning" and "profile firmware build --all" in finding.fix


def test_an_installation_without_the_firmwares_sources_is_broken(bare, monkeypatch):
    monkeypatch.setattr(build, "PRESETS", {})
    assert {look(bare).status for look in (toolchain.sources, toolchain.host_compiler, toolchain.arm_compiler)} == {
        "broken"
    }


def test_a_missing_code_generator_is_broken(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "zcbor", None)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    assert toolchain.code_generator(bare).status == "broken"


# ---------------------------------------------------------------- this host


def test_a_folder_that_may_not_be_written_and_a_full_disk_are_broken(bare, monkeypatch):
    shut = bare.folder / "shut"
    shut.mkdir(mode=0o555)
    assert "may not be written" in as_nobody(lambda: host.disk(Host(folder=shut)).found)
    usage = namedtuple("usage", "total used free")
    for free, status in ((50e6, "broken"), (1e9, "warning"), (5e9, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(1e12, 1e12 - free, free))
        assert host.disk(bare).status == status


def test_a_slow_clock_source_is_said(bare, monkeypatch):
    source = bare.root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
    for name, status in (("tsc", "ok"), ("arch_sys_counter", "ok"), ("hpet", "warning"), ("acpi_pm", "warning")):
        write(source, name)
        assert host.clock(bare).status == status
    monkeypatch.setattr(host.time, "clock_getres", lambda _: 4e-3)
    assert "4,000,000 ns" in host.clock(bare).found and "too coarse" in host.clock(bare).found


def test_a_governor_that_follows_the_load_is_said(bare):
    assert host.governor(bare).status == "ok"
    for cpu, name in ((0, "performance"), (1, "schedutil")):
        write(bare.root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", name)
    finding = host.governor(bare)
    assert finding.status == "warning" and "schedutil" in finding.found and "echo performance | " in finding.fix


def test_a_virtual_machine_is_said(bare):
    write(bare.root / "proc/cpuinfo", "model name : x\nflags\t: fpu sse hypervisor avx\n")
    write(bare.root / "sys/class/dmi/id/product_name", "KVM\n")
    assert host.virtual_machine(bare).found.startswith("a virtual machine (KVM)")
    write(bare.root / "proc/cpuinfo", "model name : hypervisor\nflags\t: fpu sse avx\n")
    assert host.virtual_machine(bare).status == "ok"


def test_a_busy_host_and_a_crowded_one_are_said(bare):
    write(bare.root / "proc/loadavg", "0.10 0.20 0.30 1/100 4242\n")
    write(bare.root / "proc/stat", "cpu  100 0 100 9790 0 0 0 10 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    assert host.quiet(bare).status == "ok" and "0.1 % of the time stolen" in host.quiet(bare).found
    write(bare.root / "proc/stat", "cpu  100 0 100 9500 0 0 0 300 0 0\n")
    assert "other virtual machines" in host.quiet(bare).fix
    write(bare.root / "proc/stat", "")
    write(bare.root / "proc/loadavg", f"{os.cpu_count() + 1}.00 1 1 1/1 1\n")
    assert "top" in host.quiet(bare).fix


def test_counters_that_users_may_not_use_are_said(bare, monkeypatch):
    monkeypatch.setattr(host, "is_root", lambda: False)
    assert host.counters(bare).status == "ok"
    level = write(bare.root / "proc/sys/kernel/perf_event_paranoid", "4")
    assert "a virtual machine?" in host.counters(bare).found
    (bare.root / "sys/bus/event_source/devices/armv8_cortex_a72").mkdir(parents=True)
    assert host.counters(bare).fix == "sudo sysctl kernel.perf_event_paranoid=2"
    level.write_text("2")
    assert host.counters(bare).status == "ok"


# ---------------------------------------------------------------- Joulescope


def joulescope(tmp_path, monkeypatch, body):
    write(tmp_path / "fake/pyjoulescope_driver/__init__.py", body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))


DRIVER = """
class Driver:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def device_paths(self): return {paths}
"""


@pytest.mark.parametrize(
    ("body", "said"), [("import os\nos.abort()", "exit status -6"), ("raise ImportError('no libusb')", "no libusb")]
)
def test_a_driver_that_crashes_does_not_take_the_doctor_with_it(bare, tmp_path, monkeypatch, body, said):
    joulescope(tmp_path, monkeypatch, body)
    finding = energy.driver(bare)
    assert finding.status == "broken" and said in finding.found and "[joulescope]" in finding.fix
    assert energy.instrument(bare).status == "warning"


def test_a_driver_that_hangs_is_given_up(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "_TIMEOUT_S", 0.5)
    joulescope(tmp_path, monkeypatch, "import time\ntime.sleep(60)")
    assert "hangs" in energy.driver(bare).found


def test_a_driver_that_is_not_installed_names_the_extra(bare, monkeypatch):
    monkeypatch.setattr(energy, "requirements", lambda extra: [Requirement("no-such-driver>=2")])
    finding = energy.driver(bare)
    assert finding.status == "broken" and "[joulescope]" in finding.fix


def test_joulescopes_are_listed_and_none_is_no_breakage(bare, tmp_path, monkeypatch):
    joulescope(tmp_path, monkeypatch, DRIVER.format(paths=[]))
    monkeypatch.setattr(boards, "is_root", lambda: True)
    assert energy.instrument(bare).found == "no Joulescope found" and energy.instrument(bare).status == "warning"
    joulescope(tmp_path, monkeypatch, DRIVER.format(paths=["u/js220/000415"]))
    plug(bare, (0x16D0, 0x10BA))
    assert energy.instrument(bare) == Finding(Status.OK, "u/js220/000415")
    plug(bare, (0x16D0, 0x10BA), node_mode=0o000)
    assert as_nobody(lambda: energy.instrument(bare)).status == "broken"


def test_the_real_driver_opens_without_hardware(bare):
    pytest.importorskip("pyjoulescope_driver")
    assert energy.driver(bare).status == "ok"


# ---------------------------------------------------------------- the table and the command


def test_every_check_survives_a_host_without_anything_and_says_what_to_do(bare, desk, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for check_ in table.CHECKS:
        finding = check_.find(bare)
        assert finding.found and (finding.status == "ok") is not bool(finding.fix), check_.name


def test_names_of_checks_are_told_apart():
    assert len({check_.name for check_ in table.CHECKS}) == len(table.CHECKS)


def test_what_cannot_be_looked_at_is_a_warning(bare):
    def shut(_):
        raise PermissionError(13, "Permission denied", "/proc/x")

    finding = Check("x", check.NATIVE, shut).find(bare)
    assert finding.status == "warning" and "/proc/x" in finding.found


def doctor(*arguments):
    status, out, err = profile("doctor", "--json", *arguments)
    return status, json.loads(out), err


def test_a_machine_without_toolchain_is_told_what_to_install(desk, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, record, err = doctor()
    assert status == 1
    assert "measuring cannot work: host compiler, CMake, Ninja" in err
    assert not any(record["set_up_for"].values())
    fixes = {row["check"]: row["fix"] for row in record["checks"]}
    assert "qemu-system-arm" in fixes["emulator"] and "libnewlib-arm-none-eabi" in fixes["Arm compiler"]


def stub(monkeypatch, *checks):
    monkeypatch.setattr(table, "CHECKS", checks)


FINE = Check("fine", check.EVERYTHING, lambda _: check.ok("there"))
NO_ENERGY = Check("Joulescope driver", check.ENERGY, lambda _: check.broken("not there", "install it"))
DOUBT = Check("clock", check.NATIVE, lambda _: check.warning("slow", "boot anew"))


def test_what_only_some_need_is_no_failure_unless_it_is_asked_for(monkeypatch):
    stub(monkeypatch, FINE, NO_ENERGY, DOUBT)
    status, record, err = doctor()
    assert status == 0 and not err
    assert record["set_up_for"] == {"board": True, "emulator": True, "native": True, "energy": False}
    status, record, err = doctor("--for", "energy")
    assert status == 1 and "energy cannot work: Joulescope driver" in err
    assert [row["check"] for row in record["checks"]] == ["fine", "Joulescope driver"]
    assert doctor("--for", "native", "--for", "board")[0] == 0


def test_people_get_a_table_and_each_fix_on_a_line_to_copy(monkeypatch):
    stub(monkeypatch, FINE, NO_ENERGY, DOUBT)
    status, out, _ = profile("doctor")
    lines = out.splitlines()
    assert status == 0
    assert "Joulescope driver (broken): install it" in lines and "clock (warning): boot anew" in lines
    assert lines[-2:] == ["set up for: board, emulator, native (1 warning)", "not set up for: energy"]


def test_rules_are_printed_and_nothing_else(monkeypatch):
    stub(monkeypatch)
    status, out, err = profile("doctor", "--udev-rules")
    assert status == 0 and out == udev.wanted_rules() and not err


def test_an_unknown_purpose_is_bad_usage():
    status, _, err = profile("doctor", "--for", "fun")
    assert status == 2 and "board" in err


def test_the_doctor_is_in_the_help_with_an_example():
    status, out, _ = profile("doctor", "--help")
    assert status == 0 and "Example: profile doctor --for board" in out
