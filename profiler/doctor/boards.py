"""What stands between this user and a board: ports, probes, what else wants them, and what loads firmware."""

from __future__ import annotations

import os
from importlib import metadata

from profiler.devices import pyocd_probe, st_flash
from profiler.devices.access import denied
from profiler.devices.boards import REAL
from profiler.devices.ports import Port, PortKind, serial_ports
from profiler.devices.probes import CABLE
from profiler.doctor import udev
from profiler.doctor.check import Finding, Host, apt, as_root, broken, first_line, is_root, ok, set_kernel_file, warning
from profiler.doctor.python import install
from profiler.errors import UserError
from profiler.link.ports.labgrid_client import client

#: Of 30 ms that a trial may cost; 16 ms is what FTDI adapters come with.
MOST_LATENCY_MS = 4


def ports(host: Host) -> Finding:
    """Whether this user may open the serial ports that there are."""
    there = _ports(host)
    if not there:
        return warning("no serial port: no board is attached", f"plug one in; {CABLE}")
    shut = []
    for port in there:
        try:
            if found := denied(port.url):
                shut.append(found)
        except FileNotFoundError:
            continue  # unplugged meanwhile
    if shut:
        fixes = dict.fromkeys(one.fix for one in shut)
        return broken("; ".join(one.reason for one in shut), "; ".join(fixes))
    return ok(", ".join(f"{port.url} ({port.kind})" for port in there))


def port_names(host: Host) -> Finding:
    """Names that stay: with two boards ``/dev/ttyACM0`` is one today and the other tomorrow."""
    usb = [port for port in _ports(host) if port.kind is not PortKind.SERIAL]
    nameless = [port.url for port in usb if port.by_id is None]
    if nameless:
        return warning(
            f"no name in /dev/serial/by-id for {', '.join(nameless)}",
            "let udev run (in a container: share the host's /dev), or name ports anew after plugging",
        )
    return ok(", ".join(port.by_id for port in usb if port.by_id) or "no USB serial port, none needed")


def st_links(host: Host) -> Finding:
    return usb_access(host, udev.ST_LINKS, "ST-LINK")


def usb_access(host: Host, products: dict[tuple[int, int], str], what: str) -> Finding:
    """Whether this user may use devices of these products, now or as soon as one is plugged in."""
    there = udev.attached(host, products)
    shut = [found for device in there if (found := denied(device.node))]
    if shut:
        return broken("; ".join(one.reason for one in shut), udev.INSTALL)
    rules = list(udev.rules(host))
    lacking = [name for product, name in products.items() if not any(udev.grants_access(r, product) for r in rules)]
    named = ", ".join(dict.fromkeys(device.name for device in there)) or f"no {what} attached"
    if there or is_root():
        return ok(f"{named}, this user may use it" if there else f"{named}; root may use each")
    if lacking:
        return warning(f"{named}, and no udev rule gives a user the {', '.join(dict.fromkeys(lacking))}", udev.INSTALL)
    return ok(f"{named}; udev's rules give users each")


def autosuspend(host: Host) -> Finding:
    """A probe or instrument that was put to sleep answers late or loses what it was set to."""
    there = udev.attached(host, udev.ST_LINKS | udev.JOULESCOPES)
    asleep = [device for device in there if udev.suspends(device)]
    if asleep:
        fix = "; ".join(set_kernel_file(f"{device.folder}/power/control", "on") for device in asleep)
        return warning(
            f"the kernel may suspend {', '.join(device.name for device in asleep)}", f"{fix}; for good: {udev.INSTALL}"
        )
    return ok("off for " + ", ".join(device.name for device in there) if there else "no probe or instrument attached")


def adapter_latency(host: Host) -> Finding:
    """An FTDI adapter holds back what it has received for so long, at the end of every reply."""
    slow = []
    for file in sorted((host.root / "sys/bus/usb-serial/devices").glob("*/latency_timer")):
        if int(_text(file) or 0) > MOST_LATENCY_MS:
            slow.append(file)
    if slow:
        return warning(
            ", ".join(f"/dev/{file.parent.name} holds replies back for {_text(file)} ms" for file in slow),
            f"{'; '.join(set_kernel_file(str(file), '1') for file in slow)}; for good: {udev.INSTALL}",
        )
    return ok("no adapter holds replies back")


def modem_manager(host: Host) -> Finding:
    """It sends AT commands to ports that look like modems, ST-LINKs' among them, as they are plugged in."""
    if not any(_text(comm) == "ModemManager" for comm in (host.root / "proc").glob("[0-9]*/comm")):
        return ok("not running")
    rules = list(udev.rules(host))
    hidden = [any(udev.hides_from_modem_manager(rule, product) for rule in rules) for product in udev.ST_LINKS]
    if all(hidden):
        return ok("running, and told to leave ST-LINKs alone")
    return warning(
        "ModemManager is running and may open the ports of boards as they are plugged in",
        f"{udev.INSTALL}; or {as_root('systemctl disable --now ModemManager')}",
    )


def loaders(host: Host) -> Finding:
    """What loads firmware; a board's own drive does without any of it."""
    found, lacking = [], []
    if pyocd_probe.installed():
        found.append(f"pyOCD {metadata.version('pyocd')}")
        lacking = [board for board in REAL.values() if pyocd_probe.target(board) is None]
    if (version := st_flash.version()) is not None:
        found.append(f"st-flash {'.'.join(map(str, version))}")
    if openocd := first_line("openocd", "--version"):
        found.append(f"{openocd} (not used by `profile firmware flash`)")
    if not pyocd_probe.installed() and version is None:
        return warning(
            f"neither pyOCD nor st-flash is installed{', only ' + found[0] if found else ''}: firmware is loaded by "
            "copying it onto the board's drive",
            f"{install('flash')}, or {apt('stlink-tools')}",
        )
    if lacking:
        return warning(
            f"{', '.join(found)}; pyOCD has no target for {', '.join(board.name for board in lacking)}",
            "; ".join(f"pyocd pack install {board.pyocd_targets[0]}" for board in lacking),
        )
    return ok(", ".join(found))


def labgrid(host: Host) -> Finding:
    """Reserves and switches boards of a farm (``labgrid://PLACE``)."""
    coordinator = os.environ.get("LG_COORDINATOR", "this host (LG_COORDINATOR is unset)")
    try:
        return ok(f"{client()}, coordinator at {coordinator}")
    except UserError as error:
        return ok(f"not installed; only labgrid:// and --lab with places need it ({error.hint})")


def _ports(host: Host) -> list[Port]:
    return [p for p in serial_ports(sys_root=host.root / "sys", dev_root=host.root / "dev") if not p.not_asked]


def _text(path: os.PathLike[str]) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
