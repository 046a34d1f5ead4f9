"""The trigger pin, seen through QEMU's log of writes to the GPIO port that it does not emulate."""

import re

import pytest
import raw_device as raw

from profiler.link.ports.process import Command
from profiler.link.ports.protocol_qemu import Serial
from profiler.ops import Empty, Linear, Op, Pass

RISE, FALL = 1 << 8, 1 << 24  # PA8 through GPIOA_BSRR


@pytest.fixture
def board(tmp_path, monkeypatch):
    """An emulated STM32F405 and a function that gives the edges of the trigger pin so far."""
    log = tmp_path / "qemu.log"
    start = Serial.command

    def logged(self, target):
        command = start(self, target)
        return Command((*command.arguments, "-d", "unimp", "-D", str(log)), command.name)

    monkeypatch.setattr(Serial, "command", logged)
    device = raw.RawDevice("qemu://stm32f405")

    def edges():
        writes = re.findall(r"GPIOA: unimplemented device write .*offset 0x018, value 0x([0-9a-f]+)", log.read_text())
        level, found = False, []
        for value in (int(write, 16) for write in writes):
            assert value in (RISE, FALL)
            if (value == RISE) != level:
                level = not level
                found.append(level)
        return found

    yield device, edges
    device.close()


def test_fills_and_warmups_leave_the_trigger_low(board):
    device, edges = board
    program = raw.program(Op(Linear(20, 20), Pass.FORWARD))
    device.run(program, 0)
    device.run(program, 0, warmups=5)
    assert edges() == []


def test_repetitions_without_fills_between_them_are_one_window(board):
    device, edges = board
    device.run(raw.program(Op(Linear(20, 20), Pass.FORWARD)), 5, warmups=2)
    assert edges() == [True, False]


def test_fills_of_images_part_the_windows(board):
    device, edges = board
    empty = raw.program(Op(Empty(), Pass.FORWARD))[1][0]
    program = ([64, 3, 0, 1, 2], [raw.fill(16, 0), empty, empty])  # the last runs once a repetition
    device.run(program, 4, warmups=1)
    assert edges() == [True, False] * 12
