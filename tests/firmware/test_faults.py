"""What the firmware does when it goes wrong, brought about through QEMU's debugger port."""

import re
import socket
import time

import pytest
import raw_device as raw

from profiler.link.ports.process import Command
from profiler.link.ports.protocol_qemu import Serial

STACK_BOTTOM = {
    "qemu://stm32f405": 0x2000_0000,
    "qemu://stm32f205": 0x2000_0000,
    "qemu://mps2-an500": 0x6000_0000,
}
UNMAPPED = 0xF000_0000
SP, PC = 13, 15


class Debugger:
    """The few packets of GDB's remote protocol that set a register and continue."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))

    def send(self, packet):
        self.socket.sendall(f"${packet}#{sum(packet.encode()) % 256:02x}".encode())

    def ask(self, packet, answer):
        """Send, and wait for an answer that looks like ``answer``: stop reports come unasked too."""
        self.send(packet)
        received = b""
        while not re.search(answer, received):
            received += self.socket.recv(4096)
        self.socket.sendall(b"+")

    def set_register(self, number, value):
        self.ask("qXfer:features:read:target.xml:0,ffb", rb"\$[lm]<")  # without it QEMU takes no single register
        self.ask(f"P{number:x}={value.to_bytes(4, 'little').hex()}", rb"\$OK#")


@pytest.fixture(params=raw.EMULATED_URLS)
def board(request, tmp_path, monkeypatch):
    """An emulated board, and a function that sets a register in the middle of what it does."""
    path = tmp_path / "gdb"
    start = Serial.command

    def debugged(self, target):
        command = start(self, target)
        gdb = ("-chardev", f"socket,id=gdb,path={path},server=on,wait=off", "-gdb", "chardev:gdb")
        return Command((*command.arguments, *gdb), command.name)

    monkeypatch.setattr(Serial, "command", debugged)
    device = raw.RawDevice(request.param)

    def break_it(register, value):
        debugger = Debugger(path)  # connecting stops the core
        debugger.set_register(register, value)
        debugger.ask("D", rb"\$OK#")  # detach: the core goes on
        debugger.socket.close()

    yield device, break_it
    device.close()


@pytest.mark.parametrize("what", ["a wild jump", "a stack overflow"])
def test_a_fault_says_so_and_restarts_and_the_boot_id_shows_it(board, what):
    device, break_it = board
    register, value = (PC, UNMAPPED) if what == "a wild jump" else (SP, STACK_BOTTOM[device.url])
    device.identify(5)
    assert device.boot_id != 0
    break_it(register, value)
    device.send(1, [raw.PEEK, 0, 4])  # wakes the core where it waits for a byte
    report, end = b"", time.monotonic() + 10
    while b"\r\n" not in report and time.monotonic() < end:
        report += device.port.read(device.port.in_waiting or 1)
    assert re.search(rb"fault: exception [0-9a-f]{8} cfsr [0-9a-f]{8} hfsr [0-9a-f]{8}.*\r\n", report)
    time.sleep(0.3)
    device.ask([raw.PEEK, 0, 4])
    assert device.boot_id == 0
    device.identify(6)
    assert device.boot_id == 6
