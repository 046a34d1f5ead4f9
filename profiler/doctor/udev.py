"""USB devices as sysfs shows them, and udev's rules about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from profiler.devices.probes import MODELS, VENDOR_ID
from profiler.doctor.check import Host

try:
    import grp
except ImportError:  # Windows
    grp = None  # type: ignore[assignment]

#: Before 73-seat-late.rules, which gives tagged devices to whoever sits at the machine.
RULES_FILE = "/etc/udev/rules.d/70-profiler.rules"
INSTALL = (
    f"profile doctor --udev-rules | sudo tee {RULES_FILE} && sudo udevadm control --reload && sudo udevadm trigger, "
    "then plug the device in again"
)
#: Rules of one name: the first folder that has it counts.
FOLDERS = tuple(f"{place}/udev/rules.d" for place in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
#: Groups that give USB devices to people, by distribution; the first that exists is taken.
_GROUPS = ("plugdev", "dialout", "uucp")

ST_LINKS: dict[tuple[int, int], str] = {(VENDOR_ID, pid): name for pid, name in MODELS.items()}
#: Vendor and product ids of the instruments themselves, as in their maker's udev rules (bootloaders left out).
JOULESCOPES: dict[tuple[int, int], str] = {
    (0x16D0, 0x0E88): "Joulescope JS110",
    (0x16D0, 0x10BA): "Joulescope JS220",
    (0x16D0, 0x135A): "Joulescope JS320",
}


@dataclass(frozen=True)
class UsbDevice:
    """A USB device that is plugged in.

    Attributes:
        name: For people.
        folder: In sysfs.
        node: What programs open.
        product: Vendor and product id.
    """

    name: str
    folder: Path
    node: Path
    product: tuple[int, int]


def attached(host: Host, products: dict[tuple[int, int], str]) -> list[UsbDevice]:
    """Those of these products that are plugged in."""
    found = []
    for folder in sorted((host.root / "sys/bus/usb/devices").glob("*")):
        try:
            product = (int(_read(folder, "idVendor"), 16), int(_read(folder, "idProduct"), 16))
            place = host.root / f"dev/bus/usb/{int(_read(folder, 'busnum')):03}/{int(_read(folder, 'devnum')):03}"
        except (OSError, ValueError):
            continue  # an interface, or gone by now
        if product in products:
            found.append(UsbDevice(products[product], folder, place, product))
    return found


def suspends(device: UsbDevice) -> bool:
    """Whether the kernel may put the device to sleep."""
    try:
        return _read(device.folder, "power/control") == "auto"
    except OSError:
        return False


def _read(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip()


# ---------------------------------------------------------------- rules


def rules(host: Host) -> Iterator[str]:
    """Every rule that is in force, a line each."""
    seen: set[str] = set()
    for folder in FOLDERS:
        for file in sorted((host.root / folder).glob("*.rules")):
            if file.name in seen:
                continue
            seen.add(file.name)
            text = file.read_text(errors="replace").replace("\\\n", " ")
            yield from (line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] != "#")


def grants_access(rule: str, product: tuple[int, int]) -> bool:
    """Whether a rule is about this product and says who may use it."""
    return _is_about(rule, product) and re.search(r'\b(MODE|GROUP)\s*:?=|TAG\s*\+=\s*"uaccess"', rule) is not None


def hides_from_modem_manager(rule: str, product: tuple[int, int]) -> bool:
    """Whether a rule tells ModemManager to leave this product alone."""
    return _is_about(rule, product) and re.search(r"ID_MM_(DEVICE|PORT)_IGNORE}\s*=", rule) is not None


def _is_about(rule: str, product: tuple[int, int]) -> bool:
    vendor = re.search(r'ATTRS?\{idVendor}\s*==\s*"([^"]*)"', rule)
    model = re.search(r'ATTRS?\{idProduct}\s*==\s*"([^"]*)"', rule)
    if not vendor or not _matches(f"{product[0]:04x}", vendor[1]):
        return False
    return model is None or _matches(f"{product[1]:04x}", model[1])


def _matches(text: str, pattern: str) -> bool:
    return any(fnmatchcase(text, alternative) for alternative in pattern.lower().split("|"))


def wanted_rules(groups: Iterable[str] | None = None) -> str:
    """The content of :data:`RULES_FILE` for this host: access, no sleep, and no ModemManager.

    Args:
        groups: The groups that there are; by default this host's.
    """
    there = set(groups if groups is not None else (entry.gr_name for entry in (grp.getgrall() if grp else ())))
    group = next((name for name in _GROUPS if name in there), _GROUPS[0])
    text = "# Debug probes and energy instruments for `profile`; made by `profile doctor --udev-rules`.\n"
    text += 'ACTION=="remove", GOTO="profiler_end"\n'
    for (vendor, product), name in (ST_LINKS | JOULESCOPES).items():
        ids = f'ATTRS{{idVendor}}=="{vendor:04x}", ATTRS{{idProduct}}=="{product:04x}"'
        itself = f'SUBSYSTEM=="usb", ENV{{DEVTYPE}}=="usb_device", {ids}'
        text += f"\n# {name}\n"
        text += f'{itself}, MODE="0660", GROUP="{group}", TAG+="uaccess"\n'
        text += f'{itself}, TEST=="power/control", ATTR{{power/control}}="on"\n'
        if (vendor, product) in ST_LINKS:
            text += f'SUBSYSTEM=="tty", {ids}, ENV{{ID_MM_DEVICE_IGNORE}}="1"\n'
    text += "\n# FTDI adapters: pass on replies at once\n"
    text += 'SUBSYSTEM=="usb-serial", DRIVER=="ftdi_sio", ATTR{latency_timer}="1"\n'
    return text + '\nLABEL="profiler_end"\n'
