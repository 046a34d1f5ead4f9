"""Bad lines: whatever happens to the bytes between host and device, every trial is there once, complete and right."""

import itertools
import threading
from collections import Counter

import fault_run
import pytest
from fault_proxy import TO_DEVICE, TO_HOST, Direction, Event, Fault, FaultyLine, HangUp, Pause, schedule
from fault_run import clean_run, differences, faulty_run, small_ops
from peers import IDENTITY, ScriptedDevice, reply

from profiler.link import channel
from profiler.link.errors import DeviceReset, WrongProtocol
from profiler.link.session import open_device
from profiler.ops import Conv2d, Empty, Op, Pass
from profiler.workloads.program import microbenchmark

CONV = Op(Conv2d(8, 8, 8, 8, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)


# ---------------------------------------------------------------- the line itself

FRAME = b"\x05abcd\x00"


def through(*events, before=b""):
    """What becomes of a frame, after what came before it, where the events are about it."""
    direction = Direction(events, seed=1)
    direction.feed(before)
    out = direction.feed(FRAME)
    assert sum(direction.hits.values()) == len(events)
    return b"".join(piece for piece in out if isinstance(piece, bytes)), out


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event(0, 2, Fault.DROP, 2), b"\x05acd\x00".replace(b"c", b"")),
        (Event(0, 0, Fault.DROP_FRAME, 1), b""),
        (Event(0, 1, Fault.DUPLICATE, 2), b"\x05a\x05abcd\x00"),
        (Event(0, 9, Fault.DUPLICATE_FRAME, 1), FRAME * 2),
        (Event(0, 1, Fault.FLIP, 1), b"\x05ccd\x00".replace(b"cc", b"cbc")),
        (Event(0, 3, Fault.DELIMITERS, 2), b"\x05ab\x00\x00cd\x00"),
        (Event(0, 99, Fault.FLIP, 0), b"\x05abcd\x01"),
    ],
    ids=lambda value: str(value.fault) if isinstance(value, Event) else "",
)
def test_a_fault_does_what_it_says(event, expected):
    assert through(event)[0] == expected


def test_a_line_without_faults_changes_nothing():
    assert through()[0] == FRAME


def test_noise_is_inserted_and_replaces():
    inserted, _ = through(Event(0, 2, Fault.INSERT, 5))
    assert len(inserted) == len(FRAME) + 5 and inserted[:2] == FRAME[:2] and inserted[-4:] == FRAME[-4:]
    replaced, _ = through(Event(0, 2, Fault.BURST, 3))
    assert len(replaced) == len(FRAME) and replaced[:2] == FRAME[:2] and replaced[2:5] != FRAME[2:5]


def test_pauses_and_absences_stand_where_they_happen():
    _, out = through(Event(0, 2, Fault.DELAY, 50))
    assert out == [b"\x05a", Pause(0.05), b"bcd\x00"]
    _, out = through(Event(0, 3, Fault.HANG_UP, 20))
    assert HangUp(0.02) in out and out[0] == b"\x05ab"
    _, out = through(Event(0, 0, Fault.SPLIT, 2))
    assert [piece for piece in out if isinstance(piece, bytes)] == [b"\x05a", b"bc", b"d\x00"]


def test_an_older_frame_comes_once_more():
    old = b"\x03xy\x00"
    assert through(Event(1, 0, Fault.STALE_FRAME, 1), before=old)[0] == old + FRAME


def test_a_schedule_repeats_and_has_every_fault():
    events = list(itertools.islice(schedule(4, TO_HOST, 0.5), 2000))
    assert events == list(itertools.islice(schedule(4, TO_HOST, 0.5), 2000))
    assert {event.fault for event in events} == set(Fault)
    towards_device = {event.fault for event in itertools.islice(schedule(4, TO_DEVICE, 0.5), 2000)}
    assert towards_device == set(Fault) - {Fault.STALE_FRAME, Fault.ECHO}


# ---------------------------------------------------------------- runs over it


def test_over_a_bad_line_every_trial_is_there_once_with_the_ticks_of_a_good_one(tmp_path):
    ops = small_ops(4)
    clean = clean_run(tmp_path / "clean", ops)
    faulty = faulty_run(tmp_path, ops, seed=11, rate=0.2)
    assert faulty.hits.total() >= 20 and faulty.measured.statistics["retries"] > 5, faulty.report()
    assert differences(faulty.measured, clean) == [], faulty.report()


def test_whole_replies_that_answer_something_else_are_never_taken(tmp_path):
    ops = small_ops(4)
    clean = clean_run(tmp_path / "clean", ops)
    plausible = {Fault.STALE_FRAME: (8, 1, 30), Fault.DUPLICATE_FRAME: (4, 1, 1), Fault.ECHO: (1, 1, 1)}
    faulty = faulty_run(tmp_path, ops, seed=1, rate=0.6, mix=plausible)
    assert faulty.hits[Fault.STALE_FRAME] > 20 and faulty.hits[Fault.DUPLICATE_FRAME] > 20, faulty.report()
    assert differences(faulty.measured, clean) == [], faulty.report()


def test_flipped_bits_alone_change_nothing(tmp_path):
    # Most leave a frame that can be read, with other figures in it: nothing but the checksum tells.
    ops = small_ops(4)
    clean = clean_run(tmp_path / "clean", ops)
    faulty = faulty_run(tmp_path, ops, seed=5, rate=0.2, mix={Fault.FLIP: (1, 0, 7)})
    assert differences(faulty.measured, clean) == [], faulty.report()
    assert faulty.hits[Fault.FLIP] > 15 and faulty.measured.statistics["bad_crc"] > 5, faulty.report()


@pytest.mark.slow
def test_a_thousand_faults_over_200_trials_change_nothing(tmp_path):
    ops = small_ops(230)  # about 1,150 faults: how often requests are sent again varies
    clean = clean_run(tmp_path / "clean", ops)
    faulty = faulty_run(tmp_path, ops, seed=1, rate=0.25)
    print(faulty.report())
    assert len(faulty.measured.trials) >= 200
    assert faulty.hits.total() >= 1000 and set(faulty.hits) == set(Fault), faulty.report()
    assert differences(faulty.measured, clean) == [], faulty.report()


@pytest.mark.slow
def test_ports_that_go_away_and_come_back_change_nothing(tmp_path):
    ops = small_ops(20)
    clean = clean_run(tmp_path / "clean", ops)
    faulty = faulty_run(tmp_path, ops, seed=2, rate=0.15, mix={Fault.HANG_UP: (1, 10, 300)})
    assert faulty.hits[Fault.HANG_UP] >= 20, faulty.report()
    assert faulty.measured.statistics["resets"] == 0, "the device never restarted"
    assert differences(faulty.measured, clean) == [], faulty.report()


def test_a_run_that_lost_repeated_or_changed_a_trial_is_told_from_a_clean_one(tmp_path):
    clean = clean_run(tmp_path / "clean", small_ops(2))
    first, *rest = clean.trials
    wrong = first | {"ticks": [t + 1 for t in first["ticks"]]}
    for trials, word in (
        (rest, "missing"),
        ([first, *clean.trials], "2 times"),
        ([wrong, *rest], "ticks"),
        ([*clean.trials, first | {"slot": "another"}], "nobody's"),
    ):
        (difference,) = differences(fault_run.replace_trials(clean, trials), clean)
        assert word in difference


# ---------------------------------------------------------------- ports that go away


def test_a_port_that_comes_back_with_the_device_as_it_was_costs_nothing(tmp_path):
    with FaultyLine("native://", tmp_path, seed=1, rate=0.0) as line, open_device(line.path) as device:
        program = microbenchmark(CONV, device.memory)
        device.run(program, repetitions=1)
        (output,) = program.outputs
        wanted = device.digest(output.reference, output.elements)
        line.hang_up(0.1)
        assert device.digest(output.reference, output.elements) == wanted
        assert device.statistics.resets == 0


def test_a_port_that_goes_away_while_the_device_identifies_itself_is_opened_again(tmp_path):
    hang_ups = {Fault.HANG_UP: (1, 10, 100)}
    with FaultyLine("native://", tmp_path, seed=3, rate=0.3, mix=hang_ups) as line:
        for _ in range(10):
            with open_device(line.path) as device:
                assert device.identity.board == "linux-native"
        assert line.hits[Fault.HANG_UP] > 5


def test_a_device_that_restarts_while_its_port_is_away_is_seen_every_time(tmp_path):
    with FaultyLine("native://", tmp_path, seed=1, rate=0.0) as line, open_device(line.path) as device:
        for restart in range(3):
            line.hang_up(0.01, restart=True)
            with pytest.raises(DeviceReset, match="opened again"):
                device.digest(0, 16)
            assert device.statistics.resets == restart + 1


def test_a_port_may_go_away_while_the_device_is_busy_for_longer_than_it_may_take_to_answer(tmp_path):
    with (
        FaultyLine("native://", tmp_path, seed=1, rate=0.0) as line,
        open_device(line.path) as device,
    ):
        device.channel._timeout_s = 0.5  # not before: to open it takes as long as this machine needs
        program = microbenchmark(CONV, device.memory)
        once = device.run(program, repetitions=500).duration_s / 500
        repetitions = min(40_000, int(1.5 / once))  # without another port's opening it would take 1.5 s
        timer = threading.Timer(0.2, line.hang_up, [0.05])
        timer.start()
        assert device.run(program, repetitions=repetitions, expected_s=3.0).ticks.shape == (repetitions, 1)
        timer.join()
        assert device.statistics.resets == 0


def test_a_port_that_goes_away_over_every_request_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", channel.Patience(reopen_wait_s=0.01))

    def script(request_id, command, boot_id):
        return reply(request_id, IDENTITY, boot_id) if command[0] == 0 else None

    with ScriptedDevice(script) as peer, open_device(peer.url) as device:
        with pytest.raises(DeviceReset, match="broke"):
            device.digest(0, 16)
        tries = Counter(command[0] for command in peer.requests)[6]
        assert tries == channel.PATIENCE.most_breaks + 1


def test_another_device_behind_the_same_port_is_not_taken_for_the_one_before(monkeypatch):
    monkeypatch.setattr(channel, "PATIENCE", channel.Patience(reopen_wait_s=0.01))
    serial_number = [b"\x01"]

    def script(request_id, command, boot_id):
        if command[0] == 0:
            return reply(request_id, [*IDENTITY[:4], serial_number[0], *IDENTITY[5:]], boot_id)
        serial_number[0] = b"\x02"
        return None

    with (
        ScriptedDevice(script) as peer,
        open_device(peer.url) as device,
        pytest.raises(WrongProtocol, match="serial number 02, before 01"),
    ):
        device.digest(0, 16)


# ---------------------------------------------------------------- ids


def test_an_old_reply_that_comes_once_more_is_never_taken_for_a_new_one():
    replies, runs = [], itertools.count(1)

    def script(request_id, command, boot_id):
        if command[0] == 0:
            return reply(request_id, IDENTITY, boot_id)
        answer = reply(request_id, [1], boot_id) + reply(request_id, [3, 64, 0, 100, 1, [next(runs)]], boot_id)
        old = b"".join(replies[-50:])
        replies.append(answer)
        return old + answer

    with ScriptedDevice(script) as peer, open_device(peer.url) as device:
        program = microbenchmark(EMPTY, device.memory)
        ticks = [int(device.run(program, repetitions=1).ticks[0, 0]) for _ in range(60)]
        assert ticks == list(range(1, 61))
        assert device.statistics.stale_replies > 1000


def test_a_device_that_restarts_never_gets_the_boot_id_that_it_had():
    with ScriptedDevice(lambda i, c, b: reply(i, IDENTITY, b)) as peer, open_device(peer.url) as device:
        for _ in range(60):
            device.channel._identify()
        nonces = [command[1] for command in peer.requests]
        assert peer.boot_id == nonces[0] and peer.boot_id not in nonces[1:]
        assert all(a != b for a, b in itertools.pairwise(nonces))
