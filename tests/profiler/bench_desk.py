"""A desk with boards on it, as the host sees it: serial ports, drives, st-flash. Only what lies beyond the process and
the file system is made up; the board that answers is an emulated one.
"""

import json
import os
import stat
import sys

from serial.tools.list_ports_common import ListPortInfo

from profiler.devices import boards, drive, flash, probes, pyocd_probe

SERIAL = "066DFF485671664867182828"
OTHER_SERIAL = "0669FF303430484257143840"
#: Loaded in the tests through a made-up probe; what answers then is the emulated board with this very firmware.
BOARD = boards.RealBoard(
    "qemu-stm32f405", "STM32F405RG", ("stm32f405rgtx",), ("0999",), "F405RG", "for tests", flash_base=0x0800_0000
)
URL = "qemu://stm32f405"

#: Records its arguments a line a call; fails where a file `fails` lies beside it.
ST_FLASH = """#!{python}
import json, pathlib, sys
here = pathlib.Path({folder!r})
if sys.argv[1:] == ["--version"]:
    print("v{version}")
    sys.exit(0)
with (here / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if (here / "fails").exists():
    print("st-flash {version}")
    print("2026-11-22T00:59:49 WARN usb.c: Couldn't find any ST-Link devices", file=sys.stderr)
    sys.exit(255)
"""


def port_info(device, *, serial=SERIAL, vid=0x0483, pid=0x374B, location="1-2:1.2"):
    """An entry as pySerial makes it on Linux."""
    info = ListPortInfo(device, skip_link_detection=True)
    info.vid, info.pid, info.serial_number, info.location = vid, pid, serial, location
    info.description = "STM32 STLink - ST-Link VCP Ctrl" if vid == 0x0483 else "USB serial"
    return info


class Desk:
    """What is attached to this host and installed on it."""

    def __init__(self, tmp_path, monkeypatch):
        self.folder, self._monkeypatch = tmp_path, monkeypatch
        self.ports = []
        self.mounts = tmp_path / "mounts"
        self.mounts.write_text("/dev/sda1 / ext4 rw 0 0\nproc /proc proc rw 0 0\n")
        self.block = tmp_path / "sys" / "class" / "block"
        self.block.mkdir(parents=True)
        monkeypatch.setattr(probes.list_ports, "comports", lambda: list(self.ports))
        monkeypatch.setattr(drive, "_MOUNTS", self.mounts)
        monkeypatch.setattr(drive, "_BLOCK_DEVICES", self.block)
        monkeypatch.setattr(drive, "_FAILURE_WAIT_S", 0.3)
        monkeypatch.setattr(pyocd_probe, "installed", lambda: False)
        monkeypatch.setattr(flash.st_flash, "_PROGRAM", "st-flash-of-the-tests")
        monkeypatch.setitem(boards.REAL, BOARD.name, BOARD)

    def install_st_flash(self, version="1.7.0"):
        folder = self.folder / "bin"
        folder.mkdir()
        program = folder / "st-flash-of-the-tests"
        program.write_text(ST_FLASH.format(python=sys.executable, folder=str(folder), version=version))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self._monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return folder

    def st_flash_calls(self):
        return [json.loads(line) for line in (self.folder / "bin" / "calls.jsonl").read_text().splitlines()]

    def plug_drive(self, name, *, serial=SERIAL, code=None, mounted=True, device="sdb"):
        """A drive with the files that an ST-LINK shows, and its place in sysfs."""
        usb = self.folder / "sys" / "devices" / "usb1" / f"1-{device}"
        block = usb / "1-2:1.1" / "host6" / "block" / device
        block.mkdir(parents=True)
        (usb / "idVendor").write_text("0483\n")
        (usb / "serial").write_text(f"{serial}\n")
        (self.block / device).symlink_to(block)
        path = self.folder / "media" / name
        path.mkdir(parents=True)
        (path / "DETAILS.TXT").write_text("Version: 0221\nBuild:   Jan  7 2019 11:43:27\n")
        if code:
            link = f"http://mbed.org/device/?code={code}{serial}"
            (path / "MBED.HTM").write_text(f'<html><meta http-equiv="refresh" content="0; url={link}"/></html>')
        if mounted:
            point = str(path).replace(" ", "\\040")
            with self.mounts.open("a") as file:
                file.write(f"/dev/{device} {point} vfat rw,relatime,uid=1000 0 0\n")
        return path
