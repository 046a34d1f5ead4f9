"""A session limits its runs: what a stopped one measured is kept, and a restart is told with its reason and op."""

from collections import deque

import cbor2
import numpy as np
import pytest
from peers import IDENTITY, ScriptedDevice, long_program, reply

from profiler.link import channel, expectation, frames
from profiler.link.errors import DeviceReset, NoAnswer, Refused, WrongProtocol
from profiler.link.patience import Patience
from profiler.link.session import open_device
from profiler.link.transport import LinkStatistics
from profiler.ops import Conv2d, Empty, Op, Pass, Relu
from profiler.workloads.program import microbenchmark

CONV = Op(Conv2d(8, 8, 8, 8, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)

#: Watchdog and reset stand at the end of an identity.
BEFORE_WATCHDOG = IDENTITY[:-2]


def identity(watchdog_ms=0, reset=(0, 0, [])):
    return [*BEFORE_WATCHDOG, watchdog_ms, list(reset)]


# ---------------------------------------------------------------- limits


def test_a_run_that_passes_the_limit_keeps_its_whole_repetitions_and_the_row_begun():
    with open_device("qemu://stm32f405") as device:
        program = long_program(device.memory, copies=12)
        wanted = device.run(program, repetitions=400)
        assert wanted.stop is None and wanted.partial_ticks.size == 0
        limit_s = wanted.ticks.sum() / device.identity.timer_hz / 2
    with open_device("qemu://stm32f405", run_limit_s=limit_s) as device:
        result = device.run(program, repetitions=400)
        whole, partial = result.stop.whole_repetitions, result.partial_ticks
        assert result.ticks.shape == (whole, 12) and 50 < whole < 250
        assert (result.ticks == wanted.ticks[:whole]).all()
        assert 0 <= partial.size < 12 and (partial == wanted.ticks[whole][: partial.size]).all()
        assert result.stop.entry == len(program.wire_entries()) - 12 + partial.size
        assert limit_s * 1e3 - 1 <= result.stop.elapsed_ms <= limit_s * 1e3 + 2
        again = device.run(program, repetitions=10)  # the limit is for each run
        assert again.stop is None and again.ticks.shape == (10, 12)


def test_the_limit_holds_after_a_restart_too():
    identified = []

    def script(request_id, command, boot_id):
        if command[0] == 0:
            identified.append(command)
            return reply(request_id, IDENTITY, boot_id)
        return reply(request_id, [0], boot_id ^ 1)

    with (
        ScriptedDevice(script) as peer,
        open_device(peer.url, run_limit_s=1.5) as device,
        pytest.raises(DeviceReset),
    ):
        device.counters()
    assert len(identified) >= 3 and {command[2] for command in identified} == {1500}


@pytest.mark.parametrize(("limit_s", "limit_ms"), [(None, 0), (0.0001, 1), (2, 2000)])
def test_a_limit_is_stated_in_milliseconds_and_never_rounded_to_none(limit_s, limit_ms):
    with ScriptedDevice(lambda i, c, b: reply(i, IDENTITY, b)) as peer, open_device(peer.url, run_limit_s=limit_s):
        assert peer.requests[0][2] == limit_ms


def run_of(answer, repetitions=4, **options):
    """What a session makes of ``answer`` to a run of an empty op."""
    script = lambda i, c, b: reply(i, IDENTITY if c[0] == 0 else answer, b)  # noqa: E731
    with ScriptedDevice(script) as peer, open_device(peer.url, **options) as device:
        return device.run(microbenchmark(EMPTY, device.memory), repetitions=repetitions)


def test_a_run_stopped_after_its_repetitions_has_them_all():
    result = run_of([3, 64, 0, 100, 4, [5, 6, 7, 8], [4, 0, 900]])
    assert result.ticks.tolist() == [[5], [6], [7], [8]] and result.stop is not None


def test_a_run_stopped_before_its_first_repetition_has_none():
    result = run_of([3, 64, 0, 100, 0, [], [0, 0, 900]])
    assert result.ticks.shape == (0, 1) and result.stop.elapsed_ms == 900


@pytest.mark.parametrize(
    "answer",
    [
        [3, 64, 0, 100, 3, [5, 6, 7], [2, 0, 900]],  # more ticks than two repetitions and no whole one
        [3, 64, 0, 100, 1, [5], [2, 0, 900]],  # fewer
        [3, 64, 0, 100, 5, [5, 6, 7, 8, 9], [5, 0, 900]],  # more repetitions than were asked for
        [3, 64, 0, 100, 2, [5, 6], [2, 9, 900]],  # no such entry
        [3, 64, 0, 100, 2, [5, 6]],  # not stopped, and too few
    ],
    ids=["too many ticks", "too few ticks", "too many repetitions", "no such entry", "no stop"],
)
def test_a_stop_that_contradicts_itself_is_no_result(answer):
    with pytest.raises(WrongProtocol, match="contradicts itself"):
        run_of(answer)


def test_a_program_that_is_certain_to_take_too_long_is_refused_with_the_estimate_and_what_to_do():
    with pytest.raises(Refused) as caught:
        run_of([2, 25, 0, 4321], run_limit_s=1.0)
    assert caught.value.reason == "too_long"
    assert "4321 ms" in str(caught.value) and "--trial-limit" in str(caught.value)


# ---------------------------------------------------------------- restarts


def restarting(reset):
    """A device that restarts over every run and then tells why."""
    state = {"boot": 0, "down": False}

    def script(request_id, command, boot_id):
        state["boot"] = state["boot"] or command[1]
        if command[0] == 0:
            record = reset if state["down"] else (1, 0, [])
            return reply(request_id, identity(reset=record), state["boot"])
        if command[0] == 4:
            state["boot"] = state["boot"] % 20 + 1
            state["down"] = True
        return reply(request_id, [0], state["boot"])

    return script


@pytest.mark.parametrize(
    ("reset", "says"),
    [
        ((4, 2, []), "watchdog in entry 1 of the program, "),
        (
            (5, 2, [3, 0x8200, 0, 4, 0x20000000, 0x08001234, 0x08000000, 0x21000000]),
            "fault in entry 1 of the program, ",
        ),
        ((1, 0, []), ": power"),
    ],
    ids=["watchdog", "fault", "power"],
)
def test_a_restart_is_told_with_its_reason_and_the_op(reset, says):
    with ScriptedDevice(restarting(reset)) as peer, open_device(peer.url) as device:
        program = microbenchmark(Op(Relu(64), Pass.FORWARD), device.memory)
        assert len(program.wire_entries()) == 2
        with pytest.raises(DeviceReset) as caught:
            device.run(program, repetitions=1)
        sentence = caught.value.args[0]
        assert says in sentence and "\n" not in sentence
        if reset[1]:
            assert Op(Relu(64), Pass.FORWARD).key in sentence
        if reset[0] == 5:
            assert "PC 0x8001234" in sentence and "CFSR 0x8200" in sentence
        assert caught.value.reset.cause == {4: "watchdog", 5: "fault", 1: "power"}[reset[0]]
        assert len(device.restarts) == device.statistics.resets == 3
        assert all(restart in sentence for restart in device.restarts)


def test_a_restart_without_a_reason_is_told_without_one():
    with ScriptedDevice(restarting((0, 0, []))) as peer, open_device(peer.url) as device:
        with pytest.raises(DeviceReset) as caught:
            device.run(microbenchmark(EMPTY, device.memory), repetitions=1)
        assert caught.value.args[0].endswith("lost what it was doing")
        assert device.restarts == ("unknown",) * 3


# ---------------------------------------------------------------- how long is waited


class VirtualLine:
    """Instead of a port and its clock: replies come at once, and silence takes as long as was to be waited.

    Args:
        script: As of :class:`peers.ScriptedDevice`.
    """

    url = "virtual"

    def __init__(self, script):
        self.now_s = 0.0
        self.statistics = LinkStatistics()
        self._script, self._requests, self._replies, self._boot_id = script, frames.Decoder(), frames.Decoder(), 0
        self._received = deque()

    def monotonic(self):
        return self.now_s

    def transfer_s(self, byte_count):
        return 0.0

    def send(self, data):
        for request in self._requests.feed(data):
            if request.payload:
                request_id, command = cbor2.loads(request.payload)
                self._boot_id = self._boot_id or command[1]
                answer = self._script(request_id, command, self._boot_id)
                self.statistics.bytes_received += len(answer)
                self._received += self._replies.feed(answer)

    def receive(self, deadline_s):
        if self._received:
            return self._received.popleft()
        self.now_s = max(self.now_s, deadline_s)
        return None

    def discard_input(self):
        self._received.clear()


def silent_after_accepted(watchdog_ms):
    def script(request_id, command, boot_id):
        if command[0] == 0:
            return reply(request_id, identity(watchdog_ms), boot_id)
        return reply(request_id, [1], boot_id) if command[0] == 4 else b""

    return script


@pytest.mark.parametrize(("watchdog_ms", "limit_ms"), [(200, 200), (200, 0), (0, 200)])
def test_with_a_watchdog_a_device_that_is_silent_beyond_its_limit_is_dead(watchdog_ms, limit_ms, monkeypatch):
    line = VirtualLine(silent_after_accepted(watchdog_ms))
    monkeypatch.setattr(channel, "time", line)
    patience = Patience(attempts=4, first_wait_s=0.1, longest_wait_s=0.4)
    asked = channel.Channel(line, timeout_s=2.0, patience=patience, run_limit_ms=limit_ms)
    line.now_s = 0.0
    with pytest.raises(NoAnswer):
        asked.ask_run([4, 1], expected_s=10.0)
    if watchdog_ms and limit_ms:
        end_s = 1.5 * 0.4 + 2.0  # both limits with room, and the time of a start
        assert end_s <= line.now_s <= end_s + 2 * patience.longest_wait_s
    else:  # who knows of no end waits 2, then 4, then 8 times the expectation, and so on
        assert line.now_s > (2 + 4 + 8) * 10.0


def expected(device, program, executions=1, **options):
    entries = program.wire_entries()
    return expectation.run_s(program, entries, executions, device.identity, cold=options.get("cold", False))


@pytest.mark.parametrize("url", ["qemu://stm32f405", "qemu://stm32f205", "native://aarch64"])
@pytest.mark.parametrize(
    "op",
    [
        Op(Conv2d(12, 12, 16, 16, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD),
        Op(Conv2d(12, 12, 16, 16, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD, dtype="s8"),
        Op(Conv2d(8, 8, 16, 32, 1, 1), Pass.GRAD_WEIGHT, trained_channels=32),
        Op(Relu(8000), Pass.FORWARD),
    ],
    ids=lambda op: op.key,
)
def test_what_is_expected_is_not_far_from_what_a_run_takes(url, op):
    with open_device(url) as device:
        program = microbenchmark(op, device.memory)
        device.run(program, repetitions=1)
        taken_s = min(device.run(program, repetitions=10).duration_s for _ in range(3))
        # Busy hosts make it slower; the wait is 70 times the expectation at most.
        assert taken_s / 20 < expected(device, program, 10) + 0.05 and expected(device, program, 10) < 200 * taken_s


def test_more_is_expected_of_more_repetitions_images_soft_float_and_cold_caches():
    with open_device("native://") as device:
        program = microbenchmark(CONV, device.memory)
        once, often = expected(device, program), expected(device, program, 100)
        assert expected(device, program, 100, cold=True) - often == pytest.approx(100 * expectation.COLD_S)
        units = expectation.work_units(program)
        assert often - once == pytest.approx(99 * units / expectation.UNITS_PER_SECOND)
        assert expectation.work_units(program, soft_float=True) == expectation.SOFT_FLOAT * units
        integers = microbenchmark(Op(CONV.geometry, Pass.FORWARD, dtype="s8"), device.memory)
        assert expectation.work_units(integers, soft_float=True) == expectation.work_units(integers)
        assert np.isclose(expectation.digest_s(400_000), 2.0)


def test_the_devices_counters_are_what_its_receiver_saw():
    with open_device("native://") as device:
        before = device.counters()
        device.channel.transport.send(b"\x05not COBS\x00")
        device.channel.transport.send(b"\x03ab\x00")
        after = device.counters()
        damaged = lambda c: c.truncated + c.too_short + c.too_long + c.bad_crc  # noqa: E731
        assert damaged(after) == damaged(before) + 2 and after.ok == before.ok + 1
