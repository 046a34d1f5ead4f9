"""What the firmware does when it goes wrong, brought about through QEMU's debugger port."""

import json
import re
import socket
import subprocess
import time

import pytest
import raw_device as raw
from processes import GIVE_UP_S, wait_until_computed

from profiler.devices import boards
from profiler.devices.build import artifact
from profiler.link import frames
from profiler.link.ports.process import Command
from profiler.link.ports.protocol_qemu import Serial
from profiler.ops import Linear, Op, Pass

STACK_BOTTOM = {
    "qemu://stm32f405": 0x2000_0000,
    "qemu://stm32f205": 0x2000_0000,
    "qemu://mps2-an500": 0x6000_0000,
}
UNMAPPED = 0xF000_0000
SP, PC = 13, 15
#: Causes of a reset in the identity.
POWER, SOFTWARE, WATCHDOG, FAULT = 1, 3, 4, 5
HARD_FAULT, INVALID_PC_OR_STATE = 3, 0x2_0000
WATCHDOG_MS, RESET = 21, 22
#: Fills, then the op three times.
FILLS, COPIES = 4, 3


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


class Monitor:
    """QEMU's machine protocol: it tells of resets without the firmware's help, and without a byte to wake it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(GIVE_UP_S)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rw")
        self.lines.write(json.dumps({"execute": "qmp_capabilities"}))
        self.lines.flush()
        self._wait_for("return")

    def wait_for_reset(self):
        """Until the firmware has reset the core, once more since this was connected."""
        self._wait_for("event", "RESET")

    def close(self):
        self.lines.close()
        self.socket.close()

    def _wait_for(self, key, *values):
        while not (key in (told := json.loads(self.lines.readline())) and (not values or told[key] in values)):
            pass


@pytest.fixture(params=raw.EMULATED_URLS)
def board(request, tmp_path, monkeypatch):
    """An emulated board, and a function that sets a register in the middle of what it does."""
    path = tmp_path / "gdb"
    start = Serial.command

    def debugged(self, target):
        command = start(self, target)
        gdb = ("-chardev", f"socket,id=gdb,path={path},server=on,wait=off", "-gdb", "chardev:gdb")
        qmp = ("-qmp", f"unix:{tmp_path / 'qmp'},server=on,wait=off")
        return Command((*command.arguments, *gdb, *qmp), command.name)

    monkeypatch.setattr(Serial, "command", debugged)
    device = raw.RawDevice(request.param)

    def break_it(register, value):
        debugger = Debugger(path)  # connecting stops the core
        debugger.set_register(register, value)
        debugger.ask("D", rb"\$OK#")  # detach: the core goes on
        debugger.socket.close()

    yield device, break_it
    device.close()


@pytest.fixture
def monitor(board, tmp_path):
    connected = Monitor(tmp_path / "qmp")
    yield connected
    connected.close()


@pytest.mark.parametrize("what", ["a wild jump", "a stack overflow"])
def test_a_fault_says_so_and_restarts_and_the_boot_id_shows_it(board, what):
    device, break_it = board
    register, value = (PC, UNMAPPED) if what == "a wild jump" else (SP, STACK_BOTTOM[device.url])
    device.identify(5)
    assert device.boot_id != 0
    break_it(register, value)
    device.send(1, [raw.PEEK, 0, 4])  # wakes the core where it waits for a byte
    report, end = b"", time.monotonic() + 60
    while b"\r\n" not in report and time.monotonic() < end:
        report += device.port.read(device.port.in_waiting or 1)
    assert re.search(rb"fault: exception [0-9a-f]{8} cfsr [0-9a-f]{8} hfsr [0-9a-f]{8}.*\r\n", report)
    identity_after_restart(device)
    assert device.boot_id == 99


def long_run(device):
    """Starts a run that takes seconds and waits until it was accepted."""
    header, entries = raw.program(Op(Linear(200, 100), Pass.FORWARD))
    assert header[2] == FILLS
    entries += [entries[-1]] * (COPIES - 1)
    header[4] += COPIES - 1
    device.send(7, [raw.RUN, 1000, 1000, 1, header, entries])
    assert device.reply() == (7, [raw.ACCEPTED])
    wait_until_computed(device.port.process_id, 0.2)


def identity_after_restart(device):
    """Waits for the boot id to be 0 again, and gives the next identity."""
    end = time.monotonic() + 120
    device.boot_id = None
    while device.boot_id != 0:
        assert time.monotonic() < end
        time.sleep(0.2)
        device.port.reset_input_buffer()
        device.decoder = frames.Decoder()
        device.waiting = []
        device.send(0, [raw.PEEK, 0, 4])  # 0: late answers are passed over by who asks next
        try:
            device.reply(0.5)
        except TimeoutError:
            continue
    return device.identify(99)


def test_power_on_is_told_from_a_reset(board):
    device, _ = board
    assert device.identity[RESET] == [POWER, 0, []]
    assert device.identify(3)[RESET] == [POWER, 0, []]  # as long as it lives


def test_a_faults_registers_and_what_ran_are_in_the_next_identity(board):
    device, break_it = board
    long_run(device)
    break_it(PC, UNMAPPED)
    cause, running, registers = identity_after_restart(device)[RESET]
    assert cause == FAULT and FILLS < running <= FILLS + COPIES
    exception, cfsr, _, _, _, pc, lr, _ = registers
    assert exception == HARD_FAULT and cfsr and pc == UNMAPPED
    assert lr & ~1 < 1 << 28  # somewhere in the code
    break_it(PC, UNMAPPED)
    device.send(1, [raw.PEEK, 0, 4])
    cause, running, registers = identity_after_restart(device)[RESET]
    assert (cause, running) == (FAULT, 0) and registers[5] == UNMAPPED  # of this life, not the one before


def test_a_stack_overflow_has_no_frame_to_report(board):
    device, break_it = board
    long_run(device)
    break_it(SP, STACK_BOTTOM[device.url])
    cause, running, registers = identity_after_restart(device)[RESET]
    assert cause == FAULT and FILLS < running <= FILLS + COPIES
    assert registers[0] == HARD_FAULT and registers[5:] == [0, 0, 0]


def endless_wait(url):
    """Where the firmware waits for a byte: in the middle of an op, for one that never comes. Asleep, so that virtual
    time runs on to the watchdog's limit at once."""
    elf = artifact(boards.EMULATED[url.removeprefix("qemu://")].preset)
    symbols = subprocess.run(["arm-none-eabi-nm", elf], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"^([0-9a-f]+) T board_receive$", symbols, re.MULTILINE).group(1), 16) & ~1


def test_the_watchdog_ends_an_op_that_hangs_and_names_it(board, monitor):
    device, break_it = board
    limit_ms = device.identity[WATCHDOG_MS]
    _, timer_hz, timer_bits, *_ = device.identity[6]
    assert 0 < limit_ms * timer_hz / 1000 < 1 << timer_bits  # no single reading of the timer can wrap unseen
    long_run(device)
    break_it(PC, endless_wait(device.url))
    monitor.wait_for_reset()  # a byte would end the wait
    cause, running, registers = identity_after_restart(device)[RESET]
    assert (cause, registers) == (WATCHDOG, []) and FILLS < running <= FILLS + COPIES
    assert device.run(raw.program(Op(Linear(200, 100), Pass.FORWARD)))[0] == raw.DONE
