"""The table of checks, in the order in which to put things right."""

from __future__ import annotations

from profiler.doctor import boards, energy, host, python, toolchain
from profiler.doctor.check import BOARD, EMULATOR, ENERGY, EVERYTHING, FIRMWARE, NATIVE, Check

CHECKS: tuple[Check, ...] = (
    Check("Python", EVERYTHING, python.interpreter),
    Check("Python packages", EVERYTHING, python.packages),
    Check("PyTorch", EVERYTHING, python.torch),
    Check("disk", EVERYTHING, host.disk),
    Check("firmware sources", EVERYTHING, toolchain.sources),
    # Every measurement is checked against kernels that are built for this host, whatever it is taken on.
    Check("host compiler", EVERYTHING, toolchain.host_compiler),
    Check("CMake", EVERYTHING, toolchain.cmake),
    Check("Ninja", EVERYTHING, toolchain.ninja),
    Check("code generator", EVERYTHING, toolchain.code_generator),
    Check("Arm compiler", FIRMWARE, toolchain.arm_compiler),
    Check("AArch64 compiler", BOARD, toolchain.aarch64_compiler),
    Check("firmware builds", FIRMWARE | NATIVE, toolchain.builds),
    Check("emulator", EMULATOR, toolchain.emulator),
    Check("emulator of 64-bit Arm", EMULATOR, toolchain.user_emulator),
    Check("serial ports", BOARD, boards.ports),
    Check("names of ports", BOARD, boards.port_names),
    Check("ST-LINK", BOARD, boards.st_links),
    Check("USB autosuspend", BOARD | ENERGY, boards.autosuspend),
    Check("USB adapters", BOARD, boards.adapter_latency),
    Check("ModemManager", BOARD, boards.modem_manager),
    Check("firmware loaders", BOARD, boards.loaders),
    Check("labgrid", BOARD, boards.labgrid),
    Check("clock", NATIVE, host.clock),
    Check("frequency governor", NATIVE, host.governor),
    Check("virtual machine", NATIVE, host.virtual_machine),
    Check("quiet host", NATIVE, host.quiet),
    Check("cycle counters", NATIVE, host.counters),
    Check("Joulescope driver", ENERGY, energy.driver),
    Check("Joulescope", ENERGY, energy.instrument),
)
