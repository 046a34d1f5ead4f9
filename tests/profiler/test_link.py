"""Sessions with real devices: the Linux agent and the emulated boards, over good and bad lines."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import tty
from pathlib import Path

import numpy as np
import pytest
from peers import BadLine, PowerSwitch, long_program, pseudo_terminal

from profiler import prng
from profiler.devices import build
from profiler.link import frames, messages, replies, transport
from profiler.link.errors import DeviceReset
from profiler.link.session import open_device
from profiler.link.transport import Transport
from profiler.ops import Conv2d, Linear, Op, Pass, Relu
from profiler.workloads.lower import load_network
from profiler.workloads.program import microbenchmark, step_program
from profiler.workloads.schemes import published_scheme
from profiler.workloads.step import training_step

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


def same_ticks(device, found, wanted):
    """Emulated ticks repeat exactly; where a tick is no whole instruction, up to the phase between the two."""
    numerator, denominator = device.identity.ticks_per_instruction
    difference = np.abs(found.astype(np.int64) - wanted.astype(np.int64))
    return found.shape == wanted.shape and (numerator == 0 or difference.max() <= (numerator % denominator > 0))


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
    values = prng.fill(fill.mode, fill.parameter, 42, fill.stream, fill.elements)
    assert device.peek(program.entries[0].references[0], 4 * fill.elements) == values.astype("<f4").tobytes()
    assert device.digest(program.entries[0].references[0], fill.elements) == pytest.approx(
        prng.digest(values), rel=1e-12
    )


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


def test_a_step_of_150_ops_and_its_ticks_take_less_than_two_seconds_on_a_slow_wire(native, monkeypatch):
    sent, send = [], Transport.send
    monkeypatch.setattr(Transport, "send", lambda self, data: (sent.append(len(data)), send(self, data)))
    _, network = load_network("mcunet-5fps", (3, 16, 16))
    plan = published_scheme(network, "mcunetv3-99kb", savings=("stream", "in_place", "fused_update"))
    result = native.run(step_program(training_step(network, plan), native.memory), repetitions=10)
    assert result.ticks.shape[0] == 10 and result.ticks.shape[1] >= 150
    assert 10 * result.wire_bytes / 115_200 < 2  # scripts/bench_link says what device and host add
    assert max(sent) <= native.identity.largest_frame_bytes and len(sent) < 70


# ---------------------------------------------------------------- requests sent again


def answers(device, request_id, command, count):
    """Send a request as it is and take ``count`` replies."""
    link = device.channel.transport
    link.send(frames.encode(messages.encode_request(request_id, command)))
    received = [link.receive(time.monotonic() + 60) for _ in range(count)]
    return [replies.decode_reply(frame.payload).answer for frame in received]


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
        while bad_line[0].faults <= 5:  # a fault or so a run
            assert same_ticks(device, device.run(program, 4).ticks, wanted)
        assert device.run(long, 3).ticks.shape == (3, 20)
        statistics = device.statistics
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
    deadline_s = time.monotonic() + 60
    while status.exists() and " Z " not in status.read_text() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not status.exists() or " Z " in status.read_text()  # whoever inherited it may be slow to collect it


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
