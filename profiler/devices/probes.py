"""ST-LINK probes: found by their serial ports' VID and PID, told apart by serial number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from serial.tools import list_ports

from profiler.errors import UserError

VENDOR_ID = 0x0483
#: Product ids of the ST-LINKs that have a virtual COM port. (0x3744 and 0x3748 have none; 0x374D and 0x3755 are the
#: loaders in which an ST-LINK waits for firmware of its own.)
MODELS: dict[int, str] = {
    0x374A: "ST-LINK/V2-1",
    0x374B: "ST-LINK/V2-1",
    0x3752: "ST-LINK/V2-1",  # no drive
    0x374E: "STLINK-V3",
    0x374F: "STLINK-V3",  # with a bridge
    0x3753: "STLINK-V3",  # two ports, no drive
    0x3754: "STLINK-V3",  # no drive
    0x3757: "STLINK-V3PWR",
}

CABLE = "check that the cable carries data and that `lsusb` shows 0483:37xx"
CHECKS = f"{CABLE}, and see with `profile doctor --for board` whether udev lets you use it"


@dataclass(frozen=True)
class Probe:
    """A probe that is attached.

    Attributes:
        serial: Its serial number.
        model: For people.
        port: Its serial port; of two the first, which is the board's.
    """

    serial: str
    model: str
    port: str

    def __str__(self) -> str:
        return f"{self.serial} ({self.model}, {self.port})"


def probe_of(port_info: Any) -> Probe | None:
    """The ST-LINK that a port of pySerial's list belongs to; None where it is something else."""
    if port_info.vid != VENDOR_ID or port_info.pid not in MODELS:
        return None
    return Probe(port_info.serial_number or "", MODELS[port_info.pid], port_info.device)


def attached() -> list[Probe]:
    """Every ST-LINK with a serial port, each once, by serial number."""
    ports = sorted(list_ports.comports(), key=lambda p: (p.location or "", p.device))
    first: dict[str, Probe] = {}
    for probe in filter(None, map(probe_of, ports)):
        first.setdefault(probe.serial.casefold(), probe)
    return [first[key] for key in sorted(first)]


def find(serial: str) -> Probe | None:
    """The probe with this serial number, if it is attached."""
    return next((probe for probe in attached() if same(probe.serial, serial)), None)


def same(one: str, other: str) -> bool:
    """Whether two serial numbers are one: systems disagree on the case of the digits."""
    return one.casefold() == other.casefold()


def choose(serial: str | None = None, port: str | None = None) -> Probe:
    """The probe that the user means: the one named, the one of the port named, or the only one.

    Args:
        serial: Its serial number, or how that ends.
        port: The serial port of its board.

    Raises:
        UserError: none is attached, none or several are meant.
    """
    there = attached()
    listed = ", ".join(map(str, there))
    if serial is not None:
        meant = [probe for probe in there if probe.serial.casefold().endswith(serial.casefold())]
        if len(meant) == 1:
            return meant[0]
        if port is not None:
            return Probe(serial, "ST-LINK", port)  # a probe without a port of its own, the board's UART wired elsewhere
        if meant:
            raise UserError(
                f"{len(meant)} probes' serial numbers end in {serial}", hint=f"give more of it: {listed}", exit_status=2
            )
        raise UserError(
            f"no ST-LINK with serial number {serial} is attached",
            hint=f"attached: {listed}" if there else CHECKS,
        )
    if port is not None:
        meant = [probe for probe in there if os.path.realpath(probe.port) == os.path.realpath(port)]
        if meant:
            return meant[0]
        if len(there) == 1:
            return Probe(there[0].serial, there[0].model, port)
    if not there:
        raise UserError("no ST-LINK is attached", hint=CHECKS)
    if len(there) > 1:
        raise UserError(
            f"{len(there)} probes are attached: {listed}", hint="say which with --probe SERIAL", exit_status=2
        )
    return there[0]
