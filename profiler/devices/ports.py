"""Where a device may be: this host's serial ports, and the devices that need no hardware."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from profiler.devices.boards import known_ports
from profiler.devices.drive import mounted
from profiler.devices.probes import Probe, probe_of


class PortKind(StrEnum):
    """What a port is, likeliest place of a board first."""

    ST_LINK = "st-link"
    USB = "usb"
    SERIAL = "serial"
    NETWORK = "network"
    QEMU = "qemu"
    NATIVE = "native"


@dataclass(frozen=True)
class Port:
    """A port, as far as is known without opening it.

    Attributes:
        url: Its path, or a URL such as ``qemu://stm32f405``.
        kind: What it is.
        description: One line for people.
        vid: USB vendor id; None where it is no USB device.
        pid: USB product id, likewise.
        serial_number: Of the USB device.
        by_id: Its name below ``/dev/serial/by-id``, which stays the same whatever else is plugged in.
        probe: The ST-LINK it belongs to.
        probably: The board that the ST-LINK's drive tells of: a guess, the board itself may run anything.
        emulated: Whether what answers there is emulated, so that its times are no board's.
        not_asked: Why it is not opened unless it is named; empty: there is no reason.
    """

    url: str
    kind: PortKind
    description: str
    vid: int | None = None
    pid: int | None = None
    serial_number: str | None = None
    by_id: str | None = None
    probe: Probe | None = None
    probably: str | None = None
    emulated: bool = False
    not_asked: str = ""

    @property
    def usb_id(self) -> str | None:
        """VID:PID as ``lsusb`` shows it."""
        return None if self.vid is None or self.pid is None else f"{self.vid:04x}:{self.pid:04x}"

    @property
    def is_serial(self) -> bool:
        """Whether hardware may hang on it."""
        return self.kind not in (PortKind.QEMU, PortKind.NATIVE)


def serial_ports(*, sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev")) -> list[Port]:
    """This host's serial ports: ST-LINKs, other USB devices, then what is built in.

    Names without hardware behind them are left out: Linux makes ``/dev/ttyS0`` to ``ttyS3`` and more on every PC.
    """
    boards = {drive.serial.casefold(): drive.board for drive in mounted() if drive.serial}
    names = _names_by_id(dev_root)
    consoles = _words(sys_root / "class/tty/console/active")
    found = []
    for info in list_ports.comports():
        if info.vid is None and not _has_hardware(info.device, sys_root):
            continue
        probe = probe_of(info)
        found.append(
            Port(
                info.device,
                PortKind.ST_LINK if probe else PortKind.SERIAL if info.vid is None else PortKind.USB,
                "" if info.description in (None, "n/a") else info.description,
                vid=info.vid,
                pid=info.pid,
                serial_number=info.serial_number,
                by_id=names.get(os.path.realpath(info.device)),
                probe=probe,
                probably=boards.get(probe.serial.casefold()) if probe else None,
                not_asked=_why_not(info, consoles),
            )
        )
    order = list(PortKind)
    return sorted(found, key=lambda port: (order.index(port.kind), _natural(port.url)))


def ports_without_hardware() -> list[Port]:
    """The emulated boards and this host's own processor."""
    found = []
    for url, description in known_ports():
        kind = PortKind(url.partition(":")[0])
        found.append(Port(url, kind, description, emulated=url != "native://"))
    return found


def port_named(name: str, ports: Iterable[Port]) -> Port:
    """The port that a user names by path, by a link to it or by URL. Whoever names a port wants it asked."""
    for port in ports:
        if port.url == name or (port.is_serial and os.path.realpath(port.url) == os.path.realpath(name)):
            return dataclasses.replace(port, not_asked="")
    scheme, separator, _ = name.partition("://")
    if not separator:
        return Port(name, PortKind.SERIAL, "")
    ours = {kind.value: kind for kind in (PortKind.QEMU, PortKind.NATIVE)}
    return Port(name, ours.get(scheme, PortKind.NETWORK), "", emulated=scheme in ours)


def _has_hardware(device: str, sys_root: Path) -> bool:
    """Whether a port that is no USB device exists; where the system does not tell, it does."""
    return _words(sys_root / "class/tty" / os.path.basename(device) / "type") != [
        "0"
    ]  # PORT_UNKNOWN of the 8250 driver


def _why_not(info: ListPortInfo, consoles: list[str]) -> str:
    name = os.path.basename(info.device)
    if name in consoles:
        return "the kernel's console"
    if name.startswith("rfcomm") or "bluetooth" in name.casefold():
        return "Bluetooth: opening it calls up what is paired"
    return ""


def _names_by_id(dev_root: Path) -> dict[str, str]:
    return {os.path.realpath(link): str(link) for link in _entries(dev_root / "serial/by-id")}


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _natural(name: str) -> list[str | int]:
    """``ttyACM10`` after ``ttyACM9``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
