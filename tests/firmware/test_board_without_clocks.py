"""A real board's own image where no oscillator answers: the NUCLEO-F446RE's in QEMU's STM32F405, which has no RCC.

The UART is where the F446 has it, as QEMU's second serial port. There is no ROM with the unique id, and reading it
would fault: the image that runs here reads it from RAM instead, and is the board's in every other byte.
"""

import pytest
import raw_device as raw

from profiler.devices import build
from profiler.link.ports.process import Command
from profiler.link.ports.protocol_qemu import Serial
from profiler.ops import Linear, Op, Pass

ID_PAGE, RAM_PAGE = 0x1FFF_7000, 0x2000_7000
TIMER_STOPPED = 21  # enum status_reason of firmware/runtime/status.h


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    build.build("nucleo-f446re")
    image = build.artifact("nucleo-f446re").read_bytes()
    assert image.count(ID_PAGE.to_bytes(4, "little")) == 1
    elf = tmp_path_factory.mktemp("image") / "firmware.elf"
    elf.write_bytes(image.replace(ID_PAGE.to_bytes(4, "little"), RAM_PAGE.to_bytes(4, "little")))

    def command(self, target):
        machine = ("qemu-system-arm", "-machine", "netduinoplus2", "-nographic", "-monitor", "none", "-nodefaults")
        link = ("-chardev", "socket,id=link,fd={fd}", "-serial", "null", "-serial", "chardev:link")
        return Command((*machine, *link, "-icount", "shift=0,sleep=off", "-kernel", str(elf)), "the emulator")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Serial, "command", command)
        device = raw.RawDevice("qemu://nucleo-f446re")
        yield device
        device.close()


def test_it_starts_and_says_that_it_runs_at_the_reset_oscillator(board):
    assert board.identity[2] == "nucleo-f446re"
    assert board.identity[5] == 16_000_000 and board.identity[6][:3] == ["dwt_cyccnt", 16_000_000, 32]
    assert board.identity[7] == "HSI, no HSE; flash I off, D off, prefetch off"


def test_it_times_nothing_while_the_cycle_counter_stands(board):
    answer = board.run(raw.program(Op(Linear(20, 20), Pass.FORWARD)), 3)
    assert answer[:2] == [raw.REFUSED, TIMER_STOPPED]
    assert board.identify(9)[0] == raw.IDENTITY
