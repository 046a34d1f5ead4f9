"""The limit on a run's time: what passes it is stopped at an op's border, with what it has measured so far."""

import pytest
import raw_device as raw
from raw_device import emulated

from profiler.ops import Empty, Linear, Op, Pass

OP = Op(Linear(200, 100), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)
#: Repetitions that take some 50 ms of device time on every device that counts instructions.
REPETITIONS = 600
SETUP, COPIES = 4, 3


def three_at_a_time(images=1):
    """The fills of an op, the op three times, and an empty one that runs once a repetition."""
    header, entries = raw.program(OP, images)
    assert header[2] == SETUP
    entries = [*entries, entries[-1], entries[-1], *raw.program(EMPTY)[1]]
    return [*header[:4], SETUP + COPIES, *header[5:]], entries


def all_ticks(device, count):
    ticks = []
    while len(ticks) < count:
        kind, first, page = device.ask([raw.READ, len(ticks)])
        assert kind == raw.TICKS and first == len(ticks) and page
        ticks += page
    return ticks


@pytest.fixture(params=raw.EMULATED_URLS)
def board(request):
    device = raw.RawDevice(request.param)
    yield device
    device.close()


def test_a_run_is_stopped_at_a_border_and_what_it_measured_is_an_unlimited_runs(board):
    program = three_at_a_time()
    timer_hz = board.identity[6][1]
    whole = board.run(program, REPETITIONS)
    assert len(whole) == 6 and whole[4] == REPETITIONS * (COPIES + 1)
    expected = all_ticks(board, whole[4])
    limit_ms = round(1000 * sum(expected) / timer_hz * 0.8)
    board.identify(7, limit_ms)
    answer = board.run(program, REPETITIONS)
    repetitions, entry, elapsed_ms = answer[6]
    assert REPETITIONS / 2 < repetitions < 0.8 * REPETITIONS  # painting and borders take their time too
    assert SETUP <= entry < SETUP + COPIES + 1 and limit_ms <= elapsed_ms <= limit_ms + 1
    assert answer[4] == repetitions * (COPIES + 1) + entry - SETUP
    measured = all_ticks(board, answer[4])
    assert board.ask([raw.READ, answer[4] + 1])[:2] == [raw.REFUSED, raw.BAD_RANGE]
    slack = 0 if board.url.endswith("f405") else 1  # where a tick is not a whole instruction
    assert max(abs(a - b) for a, b in zip(measured, expected, strict=False)) <= slack
    board.identify(8, 0)
    assert board.run(program, 10)[4:] == [10 * (COPIES + 1), expected[:16]] or slack


def test_entries_of_an_interrupted_repetition_count_once_all_its_images_have_run(board):
    images = 50
    program = three_at_a_time(images)
    ticks = sum(board.ticks(program, 1)[:COPIES])
    limit_ms = max(1, round(1000 * ticks / board.identity[6][1] * 1.5))
    board.identify(9, limit_ms)
    answer = board.run(program, 2)
    repetitions, entry, _ = answer[6]
    assert repetitions in (0, 1) and answer[4] == repetitions * (COPIES + 1) and entry >= SETUP


def test_one_that_is_stopped_while_warming_up_has_no_ticks(board):
    ticks = sum(board.ticks(three_at_a_time(), 1))
    board.identify(10, round(1000 * REPETITIONS * ticks / board.identity[6][1] * 0.8))
    answer = board.run(three_at_a_time(), 5, warmups=REPETITIONS)
    assert answer[4:6] == [0, []] and answer[6][0] == 0


def test_one_that_is_stopped_while_memory_is_measured_has_all_its_ticks(board):
    header, entries = three_at_a_time()
    header[0] += 16  # untouched: so all is run once more
    ticks = sum(board.ticks((header, entries), 100)[:16]) * 100 / 4
    board.identify(11, round(1000 * ticks / board.identity[6][1] * 1.5))
    answer = board.run((header, entries), 100)
    assert answer[4] == 100 * (COPIES + 1) and answer[6][0] == 100
    board.identify(12, 0)
    assert len(board.run((header, entries), 100)) == 6


def test_the_limit_ends_with_its_session(device):
    """On every device: a limit far above what it takes changes nothing, one below stops it, none lets it run."""
    program = three_at_a_time()
    repetitions, part = (REPETITIONS, 0.8) if emulated(device) else (3000, 0.3)
    ticks = sum(device.ticks(program, 4)) / 4
    some_ms = max(1, round(1000 * repetitions * ticks / device.identity[6][1] * part))
    for nonce, limit_ms, stopped in ((21, 600_000, False), (22, some_ms, True), (23, 0, False)):
        device.identify(nonce, limit_ms)
        answer = device.run(program, repetitions)
        assert answer[0] == raw.DONE and (len(answer) == 7) == stopped


def test_fills_count_too_and_a_run_may_stop_before_one(board):
    header = [16384, 1000, 0, 4, 5]
    _, timer_hz, _, numerator, denominator = board.identity[6]
    limit_ms = round(1000 * 1000 * 4 * 4096 * 6 * numerator / denominator / timer_hz)  # 6 instructions a word
    board.identify(13, limit_ms)
    answer = board.run((header, [*[raw.fill(4096, 0)] * 4, *raw.program(EMPTY)[1]]), 1)
    assert answer[4:6] == [0, []] and answer[6][:2] in [[0, i] for i in range(5)]  # 4: in the last fill
    assert limit_ms <= answer[6][2] <= 1.01 * limit_ms
