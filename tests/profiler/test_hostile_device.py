"""Devices that lie, rave or never stop talking: the host ends in bounded time and memory, with one sentence."""

import itertools
import os
import resource
import time
import tracemalloc

import pytest
from command_line import NETWORK, profile
from fault_run import measure, small_ops
from peers import Flood, Liar, ScriptedDevice, long_program, reply

from profiler import store
from profiler.errors import UserError
from profiler.link import channel, frames
from profiler.link.errors import NoAnswer, Refused, WrongProtocol
from profiler.link.session import open_device
from profiler.link.transport import Transport
from profiler.measure.sitting import device_name
from profiler.ops import Empty, Linear, Op, Pass
from profiler.workloads.program import microbenchmark

IMPATIENT = channel.Patience(attempts=4, most_attempts=8, first_wait_s=0.02, longest_wait_s=0.05, damaged_wait_s=0.005)
#: What the host may take for it: the largest read, its frames and what they decode to.
MOST_BYTES = 8 << 20
UINT32, UINT64 = (1 << 32) - 1, (1 << 64) - 1
NOISE = os.urandom(1 << 16)


# ---------------------------------------------------------------- that never stop talking


@pytest.mark.parametrize("identifies", [False, True], ids=["from the beginning", "once asked to run"])
@pytest.mark.parametrize(
    "pieces",
    [
        lambda request_id, boot_id: NOISE,
        lambda request_id, boot_id: b"\xff" * 65_536,
        lambda request_id, boot_id: bytes(65_536),
        lambda request_id, boot_id: reply(7, [0], boot_id) * 2000,
        lambda request_id, boot_id: reply(request_id, [1], boot_id) * 2000,
        lambda request_id, boot_id: reply(request_id, [3, 1, 1, 1, UINT32, [UINT64] * 16], boot_id) * 300,
        lambda request_id, boot_id: reply(request_id, [0], boot_id + 1) * 2000,
        lambda request_id, boot_id: frames.encode(b"\x9b" + b"\xff" * 8) * 2000,
    ],
    ids=[
        "noise",
        "a frame without end",
        "delimiters",
        "replies to nothing",
        "accepted",
        "ticks without number",
        "replies of another boot",
        "a list of 2^64 items",
    ],
)
def test_a_device_that_never_stops_talking_is_given_up(pieces, identifies, monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", IMPATIENT)
    with Flood(pieces, identifies=identifies) as peer:
        start_s = time.monotonic()
        tracemalloc.start()
        try:
            timeout_s = 5.0 if identifies else 0.5  # who does must be met
            with (
                pytest.raises((NoAnswer, WrongProtocol)) as caught,
                open_device(peer.url, timeout_s=timeout_s) as device,
            ):
                device.run(microbenchmark(Op(Empty(), Pass.FORWARD), device.memory), repetitions=2)
            assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
        finally:
            tracemalloc.stop()
        assert time.monotonic() - start_s < 300
        assert peer.bytes_sent > 1 << 16
        assert "\n" not in str(caught.value)


def test_what_has_come_is_discarded_also_where_more_comes_all_the_time():
    class Endless:
        timeout = 0.0
        in_waiting = 4096
        is_open = True

        def read(self, size):
            return bytes(min(size, self.in_waiting))

        def reset_input_buffer(self):
            raise AssertionError("would go on as long as bytes come")

    with ScriptedDevice(lambda request_id, command, boot_id: b"") as peer:
        transport = Transport(peer.url)
        real, transport._port, transport._descriptor = transport._port, Endless(), None
        transport.discard_input()
        assert transport.receive(time.monotonic() - 1) is None
        real.close()


# ---------------------------------------------------------------- that contradict themselves


def scripted(answer):
    from peers import IDENTITY  # noqa: PLC0415 - beside what it is changed for

    return lambda request_id, command, boot_id: reply(
        request_id, IDENTITY if command[0] == 0 else answer(command), boot_id
    )


def test_refusals_that_contradict_each_other_end_in_one():
    indices = itertools.cycle([0, 65_535, 3, UINT32])
    answers = {1: lambda: [0], 2: lambda: [2, 4, 0, next(indices)], 3: lambda: [2, 6, 65_535, 0]}
    with ScriptedDevice(scripted(lambda c: answers[c[0]]())) as peer, open_device(peer.url) as device:
        with pytest.raises(Refused) as caught:
            device.run(long_program(device.memory), repetitions=1)
        assert caught.value.reason in ("wrong_index", "incomplete") and len(peer.requests) < 50


def test_pages_that_never_end_are_a_contradiction():
    answers = {1: [0], 2: [0], 3: [0], 4: [3, 64, 0, 100, 40, [1] * 16]}
    pages = lambda c: answers.get(c[0]) or [4, c[1], [1] * 48]  # noqa: E731
    with ScriptedDevice(scripted(pages)) as peer, open_device(peer.url) as device:
        with pytest.raises(WrongProtocol, match="contradicts itself"):
            device.run(long_program(device.memory, copies=20), repetitions=2)
        assert sum(command[0] == 5 for command in peer.requests) == 1


def test_a_request_that_the_device_cannot_receive_is_not_sent():
    with Liar("native://", changed(12, 64)) as peer, open_device(peer.url) as device:
        update = Op(Linear(300, 300), Pass.UPDATE, trained_channels=300, trains_bias=True, optimizer="adam")
        with pytest.raises(Refused, match="does not fit the 64 bytes"):
            device.run(microbenchmark(update, device.memory), repetitions=1)
        assert device.statistics.retries == 0


def test_an_identity_that_cannot_be_is_said_to_be_the_reason():
    with (
        Liar("native://", changed(6, ["timer", 0, 32, 0, 1])) as peer,
        pytest.raises(WrongProtocol, match="a timer that does not count"),
        open_device(peer.url, timeout_s=2.0),
    ):
        pass


# ---------------------------------------------------------------- that lie


def changed(field, value):
    """The real device, but for one field of its identity, as in messages.cddl."""
    return lambda command, answer: (
        [*answer[:field], value, *answer[field + 1 :]] if answer[0] == 7 and not command[0] else answer
    )


def in_done(change):
    return lambda command, answer: change(answer) if answer[0] == 3 else answer


#: What it says, and the status of the trials that come of it; None: none does, but an error.
LIES = {
    "ticks of 64 bits": (in_done(lambda a: [*a[:5], [UINT64] * len(a[5]), *a[6:]]), "ok"),
    "no ticks": (in_done(lambda a: [*a[:4], 0, []]), None),
    "ticks for another run": (in_done(lambda a: [*a[:4], UINT32, *a[5:]]), None),
    "memory that nobody has": (in_done(lambda a: [3, UINT32, UINT32, UINT32, *a[4:]]), "wrong"),
    "digests that are no numbers": (lambda c, a: [5, [float("nan")] * 4] if a[0] == 5 else a, "wrong"),
    "infinite digests": (lambda c, a: [5, [float("inf"), -1e308, 1e308, 0.0]] if a[0] == 5 else a, "wrong"),
    "refused for no reason": (lambda c, a: [2, 255, 65_535, UINT32] if c[0] == 4 and c[5] else a, "refused"),
    "would take for ever": (lambda c, a: [2, 25, 65_535, UINT32] if c[0] == 4 and c[5] else a, "refused"),
    "no clock": (changed(5, 0), "ok"),
    "a timer of 1 Hz": (changed(6, ["timer", 1, 0, 65_535, 65_535]), "ok"),
    "regions of 4 GiB": (changed(10, [["a" * 16, UINT32, 0, 1], ["b", UINT32, 1, 0]]), "ok"),
    "six times the same region": (changed(10, [["a", UINT32, 0, 1]] * 6), "ok"),
    "no region for an arena": (changed(10, [["a", UINT32, 1, 1]]), None),
    "a blob of 4 GiB": (changed(11, [UINT32, UINT32, [255] * 32]), "ok"),
    "a blob of 7 bytes in 3 parts": (changed(11, [7, 0, [1, 2, 3]]), "ok"),
    "no program": (changed(13, 0), None),
    "entries of no bytes": (changed(14, 0), "ok"),
    "entries of 64 KiB": (changed(14, 65_535), "ok"),
    "kernels that nobody knows": (changed(15, [0xFFFF] * 64), None),
    "a watchdog of 49 days": (changed(21, UINT32), "ok"),
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Everything imported and computed once, so that what a lie adds to this process's memory shows."""
    with Liar("native://", lambda command, answer: answer) as peer, open_device(peer.url) as device:
        folder = tmp_path_factory.mktemp("warm") / "run"
        measure(device, folder, small_ops(2))
    store.load(folder)


@pytest.mark.parametrize("lie", LIES)
def test_what_a_device_says_that_cannot_be_true_harms_nothing(lie, tmp_path, warm):
    change, status = LIES[lie]
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.monotonic()
    ops = small_ops(2)
    with Liar("native://", change) as peer:
        try:
            with open_device(peer.url) as device:
                measured = measure(device, tmp_path / "run", ops)
        except (UserError, AssertionError) as error:  # the latter: measure() wants every op placed
            assert status is None or status in str(error)
            assert "\n" not in str(error) or isinstance(error, AssertionError)
        else:
            assert {t["status"] for t in measured.trials if t["type"] == "op"} == {status}
            if status == "ok":
                assert len(store.load(tmp_path / "run")) == len(ops)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 64 << 10
    assert time.monotonic() - start_s < 300


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b[31mred", "line\nbreak", "bell\x07", "\u202eright to left", "nul\x00", "\x9b31m"]
)
def test_text_that_would_act_on_a_terminal_is_no_identity(text):
    with (
        Liar("native://", changed(2, text)) as peer,
        pytest.raises(WrongProtocol, match="board holds control characters") as caught,
        open_device(peer.url, timeout_s=0.5),
    ):
        pass
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["../../../etc/x", "..", "/etc/x", "~root", "-rf", "con: *?", "x" * 32])
def test_text_that_would_act_on_a_file_system_names_no_other_folder(text):
    change = lambda command, answer: changed(2, text)(command, changed(4, b"\xff" * 16)(command, answer))  # noqa: E731
    with Liar("native://", change) as peer, open_device(peer.url) as device:
        name = device_name(device.identity.board, device.identity.unique_id)
    assert name not in ("", ".", "..") and not name.startswith("-") and not set(name) & set("/\\~:*? ")


@pytest.mark.usefixtures("folder")
def test_text_that_would_act_on_tables_comes_out_as_it_is():
    with Liar("native://", changed(2, "[/red][bold]x[/]")) as peer:
        status, out, err = profile("--port", peer.url, *NETWORK, "--repetitions", 1, "--limit", 2)
        assert status == 0 and "[/red][bold]x[/]" in err, err
        assert "\x1b" not in out + err
