"""What builds the firmware, and what runs it without a board."""

from __future__ import annotations

import re
from importlib import metadata

from profiler.devices import build
from profiler.devices.boards import EMULATED
from profiler.doctor.check import Finding, Host, apt, broken, first_line, lines, ok, warning
from profiler.doctor.python import install

OLDEST_QEMU = (7, 2)


def sources(host: Host) -> Finding:
    if not build.PRESETS:
        return broken(
            f"no firmware sources in {build.FIRMWARE_ROOT}",
            "install from a checkout of the repository: pip install --editable .",
        )
    return ok(f"{len(build.PRESETS)} presets in {build.FIRMWARE_ROOT}")


def cmake(host: Host) -> Finding:
    return _tool("cmake", "cmake")


def ninja(host: Host) -> Finding:
    return _tool("ninja", "ninja-build")


def code_generator(host: Host) -> Finding:
    """zcbor makes the C side of the protocol."""
    if not build.has_code_generator():
        return broken("the Python package zcbor is not installed", install())
    return ok(f"zcbor {metadata.version('zcbor')}")


def host_compiler(host: Host) -> Finding:
    return _compiler("linux-native")


def arm_compiler(host: Host) -> Finding:
    return _compiler("qemu-stm32f405")


def aarch64_compiler(host: Host) -> Finding:
    finding = _compiler("linux-aarch64")
    if finding.fix:
        return warning(f"{finding.found}; only agents for 64-bit Arm (Raspberry Pi) need it", finding.fix)
    return finding


def _compiler(preset: str) -> Finding:
    made = build.PRESETS.get(preset)
    if made is None:
        return broken(f"there is no preset {preset}", "install from a checkout of the repository")
    version = first_line(made.compiler, "--version")
    if version is None:
        return broken(f"{made.compiler} is not installed", apt(made.packages, made.library_package))
    if not build.has_library(made):
        return broken(f"{version}, but without its C library ({made.library})", apt(made.library_package))
    return ok(f"{version}, with {made.library}")


def _tool(command: str, package: str) -> Finding:
    version = first_line(command, "--version")
    if version is None:
        return broken(f"{command} is not installed", apt(package))
    return ok(version if version.startswith(command) else f"{command} {version}")


def builds(host: Host) -> Finding:
    """Commands build what they need; where they do that first, they take a minute longer."""
    stale = [preset for preset in build.PRESETS if not build.is_current(preset)]
    current = [preset for preset in build.PRESETS if preset not in stale]
    if stale:
        which = "--all" if not current else " ".join(stale)
        return warning(
            f"older than its sources or not built: {', '.join(stale)}; up to date: {', '.join(current) or 'none'}",
            f"profile firmware build {which} (or leave it: each is built when it is first used)",
        )
    return ok(f"up to date: {', '.join(current)}")


def emulator(host: Host) -> Finding:
    version = first_line("qemu-system-arm", "--version")
    if version is None:
        return broken("qemu-system-arm is not installed", apt("qemu-system-arm"))
    found = re.search(r"version (\d+)\.(\d+)", version)
    newer = f"install QEMU {'.'.join(map(str, OLDEST_QEMU))} or newer; {apt('qemu-system-arm')} on Debian 12 does"
    if not found or tuple(map(int, found.groups())) < OLDEST_QEMU:
        return broken(version, newer)
    machines = {line.partition(" ")[0] for line in lines("qemu-system-arm", "-machine", "help") or ()}
    lacking = sorted({board.machine for board in EMULATED.values()} - machines)
    if lacking:
        return broken(f"{version}, without the machines {', '.join(lacking)}", newer)
    return ok(version)


def user_emulator(host: Host) -> Finding:
    version = first_line("qemu-aarch64-static", "--version")
    if version is None:
        return warning("qemu-aarch64-static is not installed; only native://aarch64 needs it", apt("qemu-user-static"))
    return ok(version)
