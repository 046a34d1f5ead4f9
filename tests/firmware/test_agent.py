"""The Linux agent's command line and its end of the link."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import cbor2
import pytest
import raw_device as raw

from profiler.devices.build import artifact, build
from profiler.link import frames
from profiler.ops import Conv2d, Op, Pass

TCGETS2 = 0x802C542A


@pytest.fixture(scope="module")
def agent():
    build("linux-native")
    return artifact("linux-native")


class Line:
    """A pseudo terminal: our end, and the other below a path that outlives it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ours = self.theirs = -1
        self.requests = 0
        self.plug_in()

    def plug_in(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.path.symlink_to(os.ttyname(self.theirs))

    def unplug(self) -> None:
        """The path is gone, and whoever has it open sees a hang-up."""
        self.path.unlink()
        os.close(self.theirs)
        os.close(self.ours)

    def replug(self) -> None:
        """A hang-up, after which the path leads to another terminal: there is no moment in which it leads nowhere."""
        before = self.ours, self.theirs
        self.ours, self.theirs = pty.openpty()
        beside = self.path.with_name("next")
        beside.symlink_to(os.ttyname(self.theirs))
        beside.replace(self.path)
        for handle in before:
            os.close(handle)

    def ask(self, command, timeout_s=60.0):
        """The first answer to a request that is sent until one comes; late answers to earlier ones are dropped."""
        self.requests += 1
        request = frames.encode(cbor2.dumps([self.requests, command]))
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            os.write(self.ours, b"\0" + request)
            answer = self.answer(self.requests, timeout_s=1.0)
            if answer is not None:
                return answer
        raise TimeoutError("the agent does not answer")

    def answer(self, number, timeout_s):
        """The next answer to the request of this number; None: there was none in time."""
        decoder = frames.Decoder()
        end = time.monotonic() + timeout_s
        while select.select([self.ours], [], [], max(0.0, end - time.monotonic()))[0]:
            for frame in decoder.feed(os.read(self.ours, 65536)):
                if frame.payload:
                    replied_to, _, answer = cbor2.loads(frame.payload)
                    if replied_to == number:
                        return answer
        return None

    def identify(self, nonce):
        return self.ask([raw.IDENTIFY, nonce, 0])


@pytest.fixture
def line(tmp_path):
    opened = Line(tmp_path / "port")
    yield opened
    for handle in (opened.ours, opened.theirs):
        try:
            os.close(handle)
        except OSError:
            continue


@pytest.fixture
def start(agent):
    """A function that starts an agent with a small arena; it is killed at the end of the test."""
    started = []

    def run(*arguments):
        process = subprocess.Popen(
            [agent, "--arena", "4", *map(str, arguments)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--core", "one"], ["--core", "-1"], ["--core", ""]),
        *(["--arena", "12x"], ["--arena", "0"], ["--arena", "9" * 30]),
        *(["--baud", "fast"], ["--baud", "5000000"], ["--trigger-line", "-1"], ["--trigger-line", "64"]),
    ],
    ids=" ".join,
)
def test_an_option_that_is_no_number_in_range_is_named_and_ends_it(agent, arguments):
    ended = subprocess.run(
        [agent, *arguments, "--stdio"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f'agent: "{arguments[1]}" is no number from ')


@pytest.mark.parametrize(
    "arguments",
    [[], ["--stdio", "--port", "/dev/null"], ["/dev/null"], ["--timer", "sundial", "--stdio"], ["--wrong"]],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_ends_it_with_the_usage(agent, arguments):
    ended = subprocess.run([agent, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "usage: agent" in ended.stderr


def test_the_usage_names_every_option(agent):
    usage = subprocess.run([agent, "--help"], capture_output=True, text=True, check=True).stdout
    source = (Path(__file__).parents[2] / "firmware" / "linux" / "options.c").read_text()
    for option in re.findall(r'\{"([a-z-]+)", (?:no|required)_argument', source):
        assert option == "help" or f"--{option}" in usage


def test_it_ends_when_the_other_side_hangs_up(agent):
    assert subprocess.run([agent, "--stdio"], stdin=subprocess.DEVNULL, timeout=60, check=False).returncode == 0


# ---------------------------------------------------------------- the port


def test_a_port_that_is_not_there_ends_it_with_a_sentence(start, tmp_path):
    process = start("--port", tmp_path / "none")
    assert process.wait(60) == 1
    assert process.stderr.readlines()[-1] == f"agent: cannot open {tmp_path / 'none'}: No such file or directory\n"


def test_a_port_that_goes_away_for_good_ends_it_with_a_sentence(start, line):
    process = start("--port", line.path)
    assert line.identify(1)[0] == raw.IDENTITY
    line.unplug()
    assert process.wait(60) == 1
    assert process.stderr.readlines()[-1] == f"agent: {line.path} is gone: No such file or directory\n"


def test_a_hang_up_is_survived_and_what_was_half_received_forgotten(start, line):
    process = start("--port", line.path)
    for nonce in (1, 2, 3):
        assert line.identify(nonce)[0] == raw.IDENTITY
        os.write(line.ours, b"\x05half")
        line.replug()
    assert process.poll() is None


def test_with_stay_a_port_is_waited_for_before_and_after_it_was_there(start, line):
    line.unplug()
    process = start("--stay", "--port", line.path)
    next(said for said in process.stderr if said.startswith("agent: waiting for "))
    for nonce in (1, 2):
        line.plug_in()
        assert line.identify(nonce)[0] == raw.IDENTITY
        line.unplug()
    assert process.poll() is None
    line.plug_in()


@pytest.mark.parametrize("baud", [115_200, 921_600, 4_000_000, 250_000, 3_333_333])
def test_the_terminal_is_raw_and_at_the_rate_asked_for_whether_it_has_a_constant_or_not(start, line, baud):
    start("--port", line.path, "--baud", baud)
    line.identify(1)
    settings = fcntl.ioctl(line.theirs, TCGETS2, bytes(44))
    assert struct.unpack_from("<II", settings, 36) == (baud, baud)
    input_, output, _, local, *_ = termios.tcgetattr(line.theirs)
    assert not local & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert not output & termios.OPOST and not input_ & (termios.IXON | termios.ICRNL)


# ---------------------------------------------------------------- its end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_it_was(start, line, number):
    before = termios.tcgetattr(line.theirs)
    process = start("--port", line.path)
    line.identify(1)
    assert termios.tcgetattr(line.theirs) != before
    process.send_signal(number)
    assert process.wait(60) == 0
    assert termios.tcgetattr(line.theirs) == before


def test_a_signal_ends_it_in_the_middle_of_a_run_too(start, line):
    process = start("--port", line.path)
    line.identify(1)
    header, entries = raw.program(Op(Conv2d(40, 40, 64, 64, 3, 3), Pass.FORWARD))
    assert line.ask([raw.RUN, 60_000, 0, 1, header, entries]) == [raw.ACCEPTED]  # minutes
    process.terminate()
    assert process.wait(60) == 0


# ---------------------------------------------------------------- what it takes of the machine


def test_it_runs_on_the_core_that_was_asked_for_and_tells_it(start, line):
    core = min(os.sched_getaffinity(0))
    process = start("--port", line.path, "--core", core)
    assert line.ask([raw.STATE])[1] == core
    assert os.sched_getaffinity(process.pid) == {core}


def test_real_time_is_taken_or_what_is_lacking_is_said(start, line):
    process = start("--port", line.path, "--realtime")
    sharing = line.ask([raw.STATE])[2]
    policy = os.sched_getscheduler(process.pid)
    process.terminate()
    said = process.stderr.read()
    assert ("SCHED_FIFO" in sharing) == (policy == os.SCHED_FIFO) == ("no real-time priority" not in said)
    assert ("locked" in sharing) == ("memory is not locked" not in said)


def test_cycles_are_told_as_the_timer_or_the_reason_why_not_is_said(start, line):
    process = start("--port", line.path, "--timer", "cycles")
    timer = line.identify(1)[6][0]
    process.terminate()
    said = process.stderr.read()
    assert timer in ("perf_cycles", "clock_monotonic_raw")
    assert (timer == "perf_cycles") == ("no timing by cycles: " not in said)


@pytest.mark.skipif(Path("/dev/gpiochip0").exists(), reason="this machine has GPIO lines, which a test may not drive")
def test_a_trigger_that_was_asked_for_must_be_there_and_one_that_was_not_may_be_missing(start, line):
    refused = start("--port", line.path, "--trigger-line", 17)
    assert refused.wait(60) == 1
    assert "agent: no trigger: no GPIO chip is labelled as a Raspberry Pi's header" in refused.stderr.read()
    process = start("--port", line.path)
    assert line.ask([raw.STATE])[7] == ""
    process.terminate()
    assert "agent: no trigger: " in process.stderr.read()
