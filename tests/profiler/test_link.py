"""Sessions with real devices: the Linux agent and the emulated boards, over good and bad lines."""

import contextlib
import dataclasses
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
import tty
from pathlib import Path

import numpy as np
import pytest
from peers import IDENTITY, BadLine, PowerSwitch, ScriptedDevice, reply

from profiler import prng
from profiler.devices import build
from profiler.errors import UserError
from profiler.link import channel, frames, messages, transport
from profiler.link.errors import DeviceReset, NoAnswer, PortError, Refused, WrongProtocol
from profiler.link.refusals import REASONS
from profiler.link.session import open_device
from profiler.ops import Conv2d, Empty, Linear, Op, Pass, Relu
from profiler.workloads.program import microbenchmark

BOARDS = ["qemu://stm32f405", "qemu://mps2-an500"]
PORTS = ["native://", "native://aarch64", *BOARDS]
CONV = Op(Conv2d(8, 8, 8, 8, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)


@pytest.fixture(scope="module", params=PORTS)
def device(request):
    with open_device(request.param) as device:
        yield device


@pytest.fixture(scope="module")
def native():
    with open_device("native://") as device:
        yield device


def long_program(memory, copies=20):
    """The same op many times over: more entries than a request takes."""
    program = microbenchmark(Op(Relu(64), Pass.FORWARD), memory)
    *fills, op = program.entries
    entries = (*fills, *[op] * copies)
    return dataclasses.replace(program, entries=entries, body_end=len(entries))


def same_ticks(device, found, wanted):
    """Emulated ticks repeat exactly; where a tick is no whole instruction, up to the phase between the two."""
    numerator, denominator = device.identity.ticks_per_instruction
    difference = np.abs(found.astype(np.int64) - wanted.astype(np.int64))
    return found.shape == wanted.shape and (numerator == 0 or difference.max() <= (numerator % denominator > 0))


def one_sentence(error):
    text = str(error)
    assert "\n" not in text and not text.endswith(".") and ". " not in text
    return text


# ---------------------------------------------------------------- what works


def test_every_port_identifies_itself(device):
    identity = device.identity
    assert identity.protocol == messages.PROTOCOL
    assert device.boot_id != 0
    assert (
        identity.board
        == {
            "native://": "linux-native",
            "native://aarch64": "linux-aarch64",
            "qemu://stm32f405": "qemu-stm32f405",
            "qemu://mps2-an500": "qemu-mps2-an500",
        }[device.url]
    )
    assert (identity.timer_label == "instructions") == (device.url in BOARDS)
    assert ("conv2d", "grad_weight", "f32") in identity.supported()


def test_an_op_runs_and_every_repetition_has_its_ticks(device):
    result = device.run(microbenchmark(CONV, device.memory), repetitions=5, warmups=1)
    assert result.ticks.shape == (5, 1) and result.ticks.dtype == np.uint64 and (result.ticks > 0).all()
    assert 0 < result.arena_peak_bytes <= microbenchmark(CONV, device.memory).arena_bytes
    assert result.stack_peak_bytes > 0 and result.duration_s > 0


@pytest.mark.parametrize("url", BOARDS)
def test_emulated_boards_count_the_same_ticks_in_every_boot(url):
    ticks = []
    for _ in range(2):
        with open_device(url) as device:
            ticks.append(device.run(microbenchmark(CONV, device.memory), repetitions=3).ticks)
    assert (ticks[0] == ticks[1]).all()


def test_fills_and_digests_agree_with_the_hosts_own(device):
    program = microbenchmark(Op(Relu(1000), Pass.FORWARD), device.memory)
    device.run(program, repetitions=0, seed=42)
    fill = program.entries[0].fill
    values = prng.fill(fill.mode, fill.parameter, 42, fill.stream, fill.words)
    assert device.peek(program.entries[0].references[0], 4 * fill.words) == values.astype("<f4").tobytes()
    assert device.digest(program.entries[0].references[0], fill.words) == pytest.approx(prng.digest(values), rel=1e-12)


def test_a_long_program_is_stored_in_pieces_and_its_ticks_are_read_in_pages(device):
    program = long_program(device.memory, copies=20)
    result = device.run(program, repetitions=4)
    assert result.ticks.shape == (4, 20) and (result.ticks > 0).all()


def test_a_stored_program_is_not_sent_again_unless_something_took_its_place(native):
    program = long_program(native.memory)
    first = native.run(program, repetitions=1).wire_bytes
    again = native.run(program, repetitions=1).wire_bytes
    native.run(microbenchmark(CONV, native.memory), repetitions=1)
    after_another = native.run(program, repetitions=1).wire_bytes
    assert again < first / 2 < after_another


def test_a_trial_of_one_op_takes_at_most_200_bytes_on_the_wire(native):
    geometry = Conv2d(2, 2, 576, 160, 1, 1)
    largest = Op(geometry, Pass.UPDATE, trained_channels=576, trained_axis="in", trains_bias=True, optimizer="adam")
    assert native.run(microbenchmark(largest, native.memory), repetitions=4).wire_bytes <= 200
    assert native.run(microbenchmark(CONV, native.memory), repetitions=4).wire_bytes <= 150


# ---------------------------------------------------------------- requests sent again


def answers(device, request_id, command, count):
    """Send a request as it is and take ``count`` replies."""
    link = device.channel.transport
    link.send(frames.encode(messages.encode_request(request_id, command)))
    received = [link.receive(time.monotonic() + 10) for _ in range(count)]
    return [messages.decode_reply(frame.payload).answer for frame in received]


def test_the_same_request_id_gets_the_stored_reply_and_does_not_run_again(native):
    program = microbenchmark(CONV, native.memory)
    encoded = messages.EncodedProgram.of(program.header(), program.wire_entries())
    command = messages.run(8, 0, 1, encoded)
    first = answers(native, 1000, command, 2)
    again = answers(native, 1000, command, 2)
    other = answers(native, 1001, command, 2)
    assert again == first
    assert other[1].first_ticks != first[1].first_ticks  # real ticks scatter


def test_a_new_session_never_gets_an_older_sessions_reply():
    with PowerSwitch("native://") as switch, open_device(switch.url) as device:
        command = messages.run(8, 0, 1, encoded_conv(device))
        first = answers(device, 5, command, 2)
        device.channel._identify()
        device.channel._identify()
        assert answers(device, 5, command, 2)[1] != first[1]


def encoded_conv(device):
    program = microbenchmark(CONV, device.memory)
    return messages.EncodedProgram.of(program.header(), program.wire_entries())


def test_a_wrong_index_is_put_right_by_the_one_the_device_expects(native, monkeypatch):
    ask, disturbed = native.channel.ask, []

    def ask_and_disturb(command, expected, **more):
        if command[0] == 2 and not disturbed:  # before the first append: somebody has stored three entries already
            disturbed.append(ask([2, 0, command[2][:3]], messages.Ok))
        return ask(command, expected, **more)

    monkeypatch.setattr(native.channel, "ask", ask_and_disturb)
    result = native.run(long_program(native.memory, copies=21), repetitions=2)
    assert disturbed and result.ticks.shape == (2, 21)


@pytest.fixture
def bad_line(monkeypatch):
    """Makes every port opened from here on a bad line; returns the lines."""
    lines, open_port = [], transport._open

    def open_badly(url, baud):
        lines.append(BadLine(open_port(url, baud), seed=7, rate=0.0))
        return lines[-1]

    monkeypatch.setattr(transport, "_open", open_badly)
    return lines


@pytest.mark.parametrize("url", ["native://", *BOARDS])
def test_a_bad_line_costs_retries_and_nothing_else(url, bad_line):
    with open_device(url) as device:
        program, long = microbenchmark(CONV, device.memory), long_program(device.memory)
        wanted = device.run(program, 4).ticks
        bad_line[0].rate = 0.004
        for _ in range(15):
            assert same_ticks(device, device.run(program, 4).ticks, wanted)
        assert device.run(long, 3).ticks.shape == (3, 20)
        statistics = device.statistics
    assert bad_line[0].faults > 5
    assert statistics.retries > 0 and statistics.bad_crc + statistics.bad_frames > 0 and statistics.resets == 0


# ---------------------------------------------------------------- restarts


def test_a_restart_between_run_and_digest_is_seen():
    with PowerSwitch("native://") as switch, open_device(switch.url) as device:
        program = microbenchmark(CONV, device.memory)
        device.run(program, repetitions=1)
        switch.cycle()
        with pytest.raises(DeviceReset, match="restarted"):
            device.digest(0, 16)
        assert device.statistics.resets == 1
        assert device.run(program, repetitions=3).ticks.shape == (3, 1)


def test_a_run_that_a_restart_interrupts_is_repeated_as_a_whole():
    with PowerSwitch("qemu://stm32f405") as switch, open_device(switch.url) as device:
        program = long_program(device.memory, copies=40)
        wanted = device.run(program, repetitions=6).ticks
        device.run(microbenchmark(CONV, device.memory), repetitions=1)
        switch.cut_after_bytes = 300  # in the middle of storing the program
        assert same_ticks(device, device.run(program, repetitions=6).ticks, wanted)
        assert device.statistics.resets == 1


def test_an_emulator_that_dies_is_started_again_and_the_run_repeated():
    with open_device("qemu://mps2-an500") as device:
        program = microbenchmark(CONV, device.memory)
        wanted = device.run(program, repetitions=3).ticks
        os.kill(device.channel.transport.port.process_id, signal.SIGKILL)
        assert same_ticks(device, device.run(program, repetitions=3).ticks, wanted)
        assert device.statistics.resets == 1


# ---------------------------------------------------------------- processes


def test_closing_a_port_leaves_no_process():
    with open_device("qemu://stm32f405") as device:
        process_id = device.channel.transport.port.process_id
        os.kill(process_id, 0)
    with pytest.raises(ProcessLookupError):  # a zombie would still be there
        os.kill(process_id, 0)


@pytest.mark.parametrize("url", ["native://", "qemu://stm32f405"])
def test_a_killed_host_leaves_no_process(url):
    script = f"""
        import sys, time
        from profiler.link.session import open_device
        with open_device({url!r}) as device:
            print(device.channel.transport.port.process_id, flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE) as host:
        process_id = int(host.stdout.readline())
        host.kill()
    status = Path(f"/proc/{process_id}/stat")
    deadline_s = time.monotonic() + 5
    while status.exists() and " Z " not in status.read_text() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not status.exists() or " Z " in status.read_text()  # whoever inherited it may be slow to collect it


# ---------------------------------------------------------------- what is refused


def refusal(device, op, **changes):
    program = microbenchmark(op, device.memory)
    *fills, entry = program.entries
    program = dataclasses.replace(program, entries=(*fills, dataclasses.replace(entry, **changes)))
    with pytest.raises(Refused) as caught:
        device.run(program, repetitions=1)
    return caught.value


def test_a_refused_program_names_board_op_and_reason(device):
    references = microbenchmark(CONV, device.memory).entries[-1].references
    error = refusal(device, CONV, references=(*references[:-1], references[0]))
    assert error.reason == "overlap"
    assert device.identity.board in str(error) and CONV.key in str(error) and "overlaps" in one_sentence(error)


def test_a_program_too_large_for_the_board_is_refused_with_the_bytes_it_wants(native):
    program = dataclasses.replace(microbenchmark(CONV, native.memory), arena_bytes=0xFFFF_0000)
    with pytest.raises(Refused, match="bytes") as caught:
        native.run(program, repetitions=1)
    assert caught.value.reason == "no_memory" and caught.value.detail >= 0xFFFF_0000


def test_after_a_refusal_the_next_program_runs(device):
    refusal(device, CONV, references=())
    assert device.run(microbenchmark(CONV, device.memory), repetitions=2).ticks.shape == (2, 1)


def test_the_reasons_are_those_of_the_firmware():
    header = (Path(__file__).parents[2] / "firmware" / "runtime" / "status.h").read_text()
    enum = [line.split("/*")[0].split() for line in header.splitlines() if line.strip().startswith("STATUS_")]
    theirs = {int(value.rstrip(",")): name.removeprefix("STATUS_").lower() for name, _, value in enum}
    assert theirs.pop(0) == "ok"
    assert {code: name for code, (name, _, _) in REASONS.items()} == theirs


# ---------------------------------------------------------------- what cannot be reached


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("qemu://olimex", "known are qemu://stm32f405, qemu://mps2-an500"),
        ("native://riscv", "known are native://"),
        ("/dev/ttyNOWHERE0", "no port /dev/ttyNOWHERE0"),
        ("wrong://thing", "'wrong://thing' is no port"),
        ("socket://127.0.0.1:1", "cannot be opened"),
    ],
)
def test_a_port_that_is_not_there_is_one_sentence(url, found):
    with pytest.raises(UserError) as caught, open_device(url):
        pass
    assert found in one_sentence(caught.value)


@pytest.mark.parametrize(
    ("url", "package"), [("qemu://stm32f405", "qemu-system-arm"), ("native://aarch64", "qemu-user-static")]
)
def test_a_missing_emulator_is_named_with_its_package(url, package, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError) as caught, open_device(url):
        pass
    assert f"apt-get install {package}" in one_sentence(caught.value)


@contextlib.contextmanager
def pseudo_terminal():
    ours, theirs = pty.openpty()
    try:
        yield ours, os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_port_that_nobody_answers_on_ends_in_time_with_one_sentence():
    with pseudo_terminal() as (_, path):
        start_s = time.monotonic()
        with pytest.raises(NoAnswer) as caught, open_device(path, timeout_s=0.5):
            pass
        assert time.monotonic() - start_s < 2
        assert path in one_sentence(caught.value)


def test_a_port_in_use_names_who_holds_it():
    with pseudo_terminal() as (_, path):
        script = "import sys, time, serial; port = serial.Serial(sys.argv[1], exclusive=True); print(1, flush=True); "
        with subprocess.Popen([sys.executable, "-c", script + "time.sleep(60)", path], stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            with pytest.raises(PortError) as caught, open_device(path, timeout_s=0.5):
                pass
            assert f"process {other.pid}" in one_sentence(caught.value)
            other.kill()


def identifies(request_id, command, boot_id):
    return reply(request_id, IDENTITY, boot_id) if command[0] == 0 else b""


def test_another_version_of_the_protocol_is_said_with_both_versions():
    with ScriptedDevice(lambda i, c, b: reply(i, [7, 9, "from the future"], b)) as peer:
        with pytest.raises(WrongProtocol) as caught, open_device(peer.url, timeout_s=1):
            pass
        assert "version 9" in one_sentence(caught.value) and "version 1" in str(caught.value)


def test_something_else_that_talks_is_no_device():
    with ScriptedDevice(lambda i, c, b: b"login: \r\n") as peer:
        with pytest.raises(WrongProtocol) as caught, open_device(peer.url, timeout_s=0.5):
            pass
        assert "no answer in this protocol" in one_sentence(caught.value)


# ---------------------------------------------------------------- hostile devices

IMPATIENT = channel.Patience(attempts=4, most_attempts=8, first_wait_s=0.02, longest_wait_s=0.05, damaged_wait_s=0.005)
DONE = [3, 64, 0, 100, 2, [5, 6]]


def hostile(answer):
    """A script that identifies itself and then sends what ``answer`` makes of a request."""
    return lambda i, c, b: identifies(i, c, b) if c[0] == 0 else answer(i, c, b)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (hostile(lambda i, c, b: b""), NoAnswer),
        (hostile(lambda i, c, b: b"\xff" * 100_000), NoAnswer),
        (hostile(lambda i, c, b: os.urandom(5000)), NoAnswer),
        (hostile(lambda i, c, b: reply((i + 12) % channel.SMALL, DONE, b)), NoAnswer),
        (hostile(lambda i, c, b: reply(i, [0], b)), NoAnswer),
        (hostile(lambda i, c, b: reply(i, [1], b)), NoAnswer),
        (hostile(lambda i, c, b: reply(i, [6, b""], b) if c[0] == 7 else b""), NoAnswer),
        (hostile(lambda i, c, b: reply(i, [3, 64, 0, 100, 3, [5, 6, 7]], b)), WrongProtocol),
        (hostile(lambda i, c, b: reply(i, [3, 64, 0, 100, 2, [5, 6, 7]], b)), WrongProtocol),
        (
            hostile(lambda i, c, b: reply(i, [3, 64, 0, 100, 2, []], b) if c[0] == 4 else reply(i, [4, 9, [1]], b)),
            WrongProtocol,
        ),
        (
            hostile(lambda i, c, b: reply(i, [3, 64, 0, 100, 2, []], b) if c[0] == 4 else reply(i, [4, 0, []], b)),
            WrongProtocol,
        ),
        (hostile(lambda i, c, b: reply(i, DONE, b ^ 1)), DeviceReset),
        (hostile(lambda i, c, b: reply(i, [2, 99, 0, 0], b)), Refused),
    ],
    ids=[
        "silence",
        "endless noise",
        "random bytes",
        "another id",
        "another answer",
        "accepted and nothing more",
        "probes answered only",
        "too many ticks",
        "more ticks than said",
        "another page",
        "empty pages",
        "a restart in every reply",
        "an unknown reason",
    ],
)
def test_a_hostile_device_ends_in_an_error_soon(script, error, monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", IMPATIENT)
    with ScriptedDevice(script) as peer, open_device(peer.url) as device:
        start_s = time.monotonic()
        program = microbenchmark(Op(Empty(), Pass.FORWARD), device.memory)
        with pytest.raises(error) as caught:
            device.run(program, repetitions=2)
        assert time.monotonic() - start_s < 8
        assert peer.requests and one_sentence(caught.value)


def test_a_device_that_wants_another_index_for_ever_is_given_up():
    answer = lambda i, c, b: reply(i, [2, 4, 0, 0], b) if c[0] == 2 else reply(i, [0], b)  # noqa: E731
    with ScriptedDevice(hostile(answer)) as peer, open_device(peer.url) as device:
        with pytest.raises(Refused) as caught:
            device.run(long_program(device.memory), repetitions=1)
        assert caught.value.reason == "wrong_index"


def test_requests_fit_the_frame_that_a_small_device_takes():
    small = [*IDENTITY[:12], 100, *IDENTITY[13:]]
    sizes = []

    def script(request_id, command, boot_id):
        sizes.append(frames.encoded_bytes(len(messages.encode_request(request_id, command))))
        if command[0] == 4:
            ticks = [9] * 20
            return reply(request_id, [3, 64, 0, 100, 20, ticks[:16]], boot_id)
        answer = {0: small, 5: [4, 16, [9] * 4]}.get(command[0], [0])
        return reply(request_id, answer, boot_id)

    with ScriptedDevice(script) as peer, open_device(peer.url) as device:
        assert device.run(long_program(device.memory), repetitions=1).ticks.tolist() == [[9] * 20]
    assert max(sizes) <= 100 and sum(c[0] == 2 for c in peer.requests) > 3


@pytest.mark.parametrize("baud", [115_200, 921_600])
def test_a_serial_ports_path_works_as_any_port(baud):
    agent = build.build("linux-native") / "agent"
    with pseudo_terminal() as (ours, path):
        tty.setraw(ours)
        with subprocess.Popen([agent, "--stdio"], stdin=ours, stdout=ours) as process:
            with open_device(path, baud=baud) as device:
                program = long_program(device.memory)
                assert device.run(program, repetitions=20).ticks.shape == (20, 20)
                assert device.statistics.retries == 0
            process.kill()


def test_a_device_reached_over_tcp_works_as_any_port():
    with PowerSwitch("native://") as switch, open_device(switch.url) as device:
        program = microbenchmark(Op(Linear(64, 10), Pass.FORWARD), device.memory)
        assert device.run(program, repetitions=20).ticks.shape == (20, 1)
