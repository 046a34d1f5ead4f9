"""What ends the agent in the middle of its work starts it anew in place, and the next identity says what it was."""

import os
import signal
import time

import cbor2
import pytest
import raw_device as raw
from processes import wait_until_computed
from test_agent import Line, agent, line, start  # noqa: F401 - fixtures

from profiler.link import frames
from profiler.ops import Conv2d, Op, Pass

UNKNOWN, WATCHDOG, FAULT = 0, 4, 5
WATCHDOG_MS, RESET = 21, 22
#: Takes several seconds on any machine: 7.7e9 multiply-accumulates, each tested for the border.
LONG = Op(Conv2d(200, 200, 16, 16, 27, 27, pad_h=13, pad_w=13), Pass.FORWARD, variant="reference")


def begin_long_run(process, line):  # noqa: F811
    """Gives the number of the entry that then runs, for seconds."""
    header, entries = raw.program(LONG)
    os.write(line.ours, b"\0" + frames.encode(cbor2.dumps([77, [raw.RUN, 1, 0, 1, header, entries]])))
    assert line.answer(77, timeout_s=60.0) == [raw.ACCEPTED]
    wait_until_computed(process.pid, 0.5)
    return len(entries)


def run_whole(line, number, command):  # noqa: F811
    """A run under an id of its own, until it is done."""
    os.write(line.ours, b"\0" + frames.encode(cbor2.dumps([number, command])))
    decoder = frames.Decoder()
    while True:
        for frame in decoder.feed(os.read(line.ours, 65536)):
            if cbor2.loads(frame.payload)[2][0] == raw.DONE:
                return


def test_it_starts_without_a_reset_to_tell_of(start, line):  # noqa: F811
    start("--port", line.path, "--watchdog", 0)
    identity = line.identify(1)
    assert identity[WATCHDOG_MS] == 0 and identity[RESET] == [UNKNOWN, 0, []]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE])
def test_a_fault_while_it_waits_is_told_by_the_next_life_alone(start, line, number):  # noqa: F811
    process = start("--port", line.path)
    assert line.identify(1)[WATCHDOG_MS] == 60_000
    process.send_signal(number)
    cause, running, registers = line.identify(2)[RESET]
    assert (cause, running) == (FAULT, 0) and registers[:2] == [number, 0]  # code 0: sent by another process
    assert registers[4] | registers[5] << 32 > 4096  # where it was: in some code
    assert process.poll() is None
    process.send_signal(signal.SIGSEGV)
    assert line.identify(3)[RESET][2][0] == signal.SIGSEGV
    process.terminate()
    assert process.wait(60) == 0


def test_a_fault_in_the_middle_of_a_run_names_the_entry(start, line):  # noqa: F811
    process = start("--port", line.path, "--arena", "64")
    line.identify(1)
    entry = begin_long_run(process, line)
    process.send_signal(signal.SIGSEGV)
    assert line.identify(2)[RESET][:2] == [FAULT, entry]


def test_the_watchdog_ends_an_op_that_takes_too_long_and_names_it(start, line):  # noqa: F811
    process = start("--port", line.path, "--watchdog", 2, "--arena", "64")
    assert line.identify(1)[WATCHDOG_MS] == 2000
    entry = begin_long_run(process, line)
    assert line.identify(2)[RESET] == [WATCHDOG, entry, []]


def test_an_op_within_the_limit_is_left_alone_however_long_the_run(start, line):  # noqa: F811
    start("--port", line.path, "--watchdog", 4)
    line.identify(1)
    header, entries = raw.program(Op(Conv2d(20, 20, 16, 16, 3, 3), Pass.FORWARD))
    begun = time.monotonic()
    runs = 0
    while runs < 3 or time.monotonic() < begun + 5:
        runs += 1
        run_whole(line, 100 + runs, [raw.RUN, 100, 0, 1, header, entries])
    assert line.identify(2)[RESET] == [UNKNOWN, 0, []]
