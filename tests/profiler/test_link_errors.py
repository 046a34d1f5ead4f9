"""What a session cannot do ends in one sentence: refusals, ports that are not there, hostile devices."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peers import IDENTITY, ScriptedDevice, long_program, pseudo_terminal, reply

from profiler.errors import UserError
from profiler.link import channel, frames, messages
from profiler.link.errors import DeviceReset, NoAnswer, PortError, Refused, WrongProtocol
from profiler.link.refusals import REASONS
from profiler.link.session import open_device
from profiler.ops import Conv2d, Empty, Op, Pass
from profiler.workloads.program import microbenchmark

CONV = Op(Conv2d(8, 8, 8, 8, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)


@pytest.fixture(scope="module", params=["native://", "qemu://stm32f405", "qemu://mps2-an500"])
def device(request):
    with open_device(request.param) as device:
        yield device


@pytest.fixture(scope="module")
def native():
    with open_device("native://") as device:
        yield device


def one_sentence(error):
    text = str(error)
    assert "\n" not in text and not text.endswith(".") and ". " not in text
    return text


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
        ("", "the name of the port is empty"),
        (__file__, "is no serial port"),
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


def test_a_port_that_nobody_answers_on_ends_in_time_with_one_sentence():
    with pseudo_terminal() as (_, path):
        start_s = time.monotonic()
        with pytest.raises(NoAnswer) as caught, open_device(path, timeout_s=0.5):
            pass
        assert time.monotonic() - start_s < 60
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
        with pytest.raises(WrongProtocol) as caught, open_device(peer.url):
            pass
        assert "version 9" in one_sentence(caught.value) and f"version {messages.PROTOCOL}" in str(caught.value)


def test_something_else_that_talks_is_no_device():
    with ScriptedDevice(lambda i, c, b: b"login: \r\n") as peer:
        with pytest.raises(WrongProtocol) as caught, open_device(peer.url, timeout_s=2.0):
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
        (hostile(lambda i, c, b: reply(i ^ 1, DONE, b)), NoAnswer),
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
    if error is NoAnswer:  # the others end with what the device says, however long it takes
        monkeypatch.setattr(channel, "PATIENCE", IMPATIENT)
    with ScriptedDevice(script) as peer, open_device(peer.url) as device:
        start_s = time.monotonic()
        program = microbenchmark(Op(Empty(), Pass.FORWARD), device.memory)
        with pytest.raises(error) as caught:
            device.run(program, repetitions=2)
        assert time.monotonic() - start_s < 120
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
