"""Windows of the trigger, long enough for an energy meter: what is timed runs in loops."""

import numpy as np
import pytest
import raw_device as raw
from raw_device import emulated

from profiler.ops import Conv2d, Empty, Op, Pass

CONV = Op(Conv2d(8, 8, 8, 8, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD)


def windows(answer):
    """(count, ticks) at the end of `done`."""
    assert answer[0] == raw.DONE and len(answer[-1]) == 2, answer
    return answer[-1]


def test_ticks_are_the_sums_of_the_loops(device):
    once = device.run(raw.program(CONV), 3, loops=1)[5]
    many = device.run(raw.program(CONV), 3, loops=50)[5]
    if emulated(device):
        # A tick need not be a whole number of instructions: a reading is up to one off.
        assert np.abs(np.array(many) - 50 * np.array(once)).max() <= 50
    else:
        assert min(many) > 10 * min(once)


def test_all_repetitions_are_one_window_that_holds_their_ticks_and_little_else(device):
    answer = device.run(raw.program(CONV), 4, loops=25)
    count, ticks = windows(answer)
    assert count == 1
    assert ticks >= sum(answer[5])
    if emulated(device):
        empty = device.run(raw.program(Op(Empty(), Pass.FORWARD)), 4, loops=25)
        _, empty_ticks = windows(empty)
        harness = ticks - sum(answer[5])
        # What lies between two calls depends on the number of buffers a little, on the op not at all.
        assert harness == pytest.approx(empty_ticks - sum(empty[5]), rel=0.3)


def test_images_that_are_filled_make_a_window_each(device):
    header, entries = raw.program(CONV, images=3)
    if header[2] == header[3]:  # the fills of the setup become the images' own
        header = [header[0], 3, 0, *header[3:]]
    answer = device.run((header, entries), 2, loops=5)
    count, ticks = windows(answer)
    assert count == 2 * 3
    assert ticks >= sum(answer[5])


def test_without_loops_nothing_is_told_of_windows(device):
    for options in ({}, {"loops": 0}):
        assert len(device.run(raw.program(CONV), 2, **options)) == 6


def test_a_limit_stops_loops_too(device):
    if not emulated(device):
        pytest.skip("how long a host takes is up to its other programs")
    op_ms = 1e3 * device.ticks(raw.program(CONV))[0] / device.identity[6][1]
    device.identify(77, run_limit_ms=20)
    answer = device.run(raw.program(CONV), 1, loops=round(40 / op_ms))
    device.identify(78)
    assert answer[0] == raw.DONE and len(answer[6]) == 3
    assert answer[6][0] == 0 and 20 <= answer[6][2] <= 21 + op_ms
