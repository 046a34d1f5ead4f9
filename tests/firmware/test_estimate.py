"""The device's estimate of a run: at most what it takes, of every kind, and not far below it where there is an FPU."""

import zlib

import cbor2
import pytest
import raw_device as raw
from op_cases import KINDS_AND_PASSES, VARIANTS, random_op, seeded
from op_cases_s8 import KINDS_AND_PASSES_S8, random_op_s8

from profiler import kernels
from profiler.link.replies import decode_reply
from profiler.ops import Linear, Op, Pass
from profiler.workloads.entries import DeviceMemory
from profiler.workloads.program import DoesNotFit, microbenchmark

#: How far the estimate may lie below the truth where there is an FPU.
MOST_BELOW = 32
OPS_OF_A_KERNEL = 4
MOST = 65535


def sample():
    """Ops of every kernel."""
    for cases, draw, dtype in ((KINDS_AND_PASSES, random_op, "f32"), (KINDS_AND_PASSES_S8, random_op_s8, "s8")):
        for kind, pass_ in cases:
            for variant in (*VARIANTS, "in_place"):
                if (kind, str(pass_), dtype, variant) in kernels.supported():
                    rng = seeded("estimate", kind, pass_, dtype, variant)
                    yield from (draw(kind, pass_, rng, variant) for _ in range(OPS_OF_A_KERNEL))


@pytest.fixture(params=raw.EMULATED_URLS)
def board(request):
    device = raw.RawDevice(request.param)
    yield device
    device.close()


def test_it_is_never_above_the_truth_and_not_far_below(board):
    identity = decode_reply(cbor2.dumps([0, 0, board.identity])).answer
    memory = DeviceMemory.of(identity)
    kinds, nonce, refused = set(), 0, 0
    for op in sample():
        try:
            program = microbenchmark(op, memory)
        except DoesNotFit:
            continue
        program = program.header(), program.wire_entries()
        board.identify(nonce := nonce + 1, 0)
        [ticks] = board.ticks(program, 1)
        true_ms = 1000 * MOST * ticks / identity.timer_hz
        if true_ms < 2 * MOST_BELOW:
            continue  # in whole milliseconds the estimate would say little
        board.identify(nonce := nonce + 1, 1)
        answer = board.run(program, 0, warmups=MOST)
        if len(answer) == 7:
            assert identity.fpu == "none", op.key
            continue  # began, and was stopped
        kind, reason, _, least_ms = answer
        refused += 1
        assert (kind, reason) == (raw.REFUSED, raw.RUNS_TOO_LONG)
        assert least_ms <= true_ms, op.key
        assert least_ms > true_ms / MOST_BELOW - 1 or identity.fpu == "none", op.key
        kinds.add((op.kind, op.pass_, op.dtype))
    assert len(kinds) > 40 and refused > 200


def test_repetitions_images_and_fills_count(board):
    header, entries = raw.program(Op(Linear(100, 100), Pass.FORWARD))

    def estimate(nonce, repetitions, warmups, images):
        board.identify(nonce, 1)
        answer = board.run(([header[0], images, *header[2:]], entries), repetitions, warmups)
        assert answer[:3] == [raw.REFUSED, raw.RUNS_TOO_LONG, 0]
        return answer[3]

    whole = estimate(1, 0, 60_000, 1)
    assert estimate(2, 0, 30_000, 2) == pytest.approx(whole, abs=1)
    assert estimate(3, 1000, 59_000, 1) == pytest.approx(whole, abs=1)
    assert estimate(4, 0, 60_000, 60_000) == pytest.approx(60_000 * whole, rel=0.01)
    fills = [raw.fill(4096, 0)] * 4
    board.identify(5, 100)
    answer = board.run(([16384, 65535, 0, 4, 4], fills), 0, 60)
    assert answer[:2] == [raw.REFUSED, raw.RUNS_TOO_LONG] and answer[3] > 100


#: Instructions that the estimate takes for an element of a fill, and of what an agent does in a tick.
FILL_INSTRUCTIONS, MOST_A_TICK = 4, 256


def test_the_limit_itself_is_allowed_and_one_element_more_is_not(device):
    """To the last element of a fill: estimates of whole milliseconds, since limits are whole."""
    _, timer_hz, _, numerator, denominator = device.identity[6]
    per_tick = denominator / numerator if numerator else MOST_A_TICK
    elements, images, warmups = 1000, 1600, 5
    instructions = FILL_INSTRUCTIONS * elements * images
    repetitions = warmups * (1 if numerator else 5 * MOST_A_TICK)  # enough for an agent's estimate to be milliseconds
    exact_ms = 1000 * instructions * repetitions / per_tick / timer_hz
    assert exact_ms == int(exact_ms) > 10
    header, entries = [4096, images, 0, 1, 1], [raw.fill(elements, 0)]
    more = [4096, images, 1, 2, 2], [raw.fill(1, 0), *entries]  # one element, once

    device.identify(1, int(exact_ms))
    answer = device.run((header, entries), repetitions - warmups, warmups)
    assert answer[0] == raw.DONE and len(answer) == 7  # it began, and was stopped
    assert device.run(more, repetitions - warmups, warmups) == [raw.REFUSED, raw.RUNS_TOO_LONG, 0, exact_ms]
    device.identify(2, int(exact_ms) - 1)
    assert device.run((header, entries), 0, repetitions) == [raw.REFUSED, raw.RUNS_TOO_LONG, 0, exact_ms]
    device.identify(3, 0)


def test_an_estimate_beyond_its_field_is_the_fields_largest(board):
    fills = [raw.fill(25_000, 0)] * 24  # three frames of entries
    assert board.ask([raw.BEGIN, [100_000, MOST, 0, 24, 24], 24]) == [raw.OK]
    for index in range(0, 24, 8):
        assert board.ask([raw.APPEND, index, fills[index : index + 8]]) == [raw.OK]
    assert board.ask([raw.SEAL, zlib.crc32(cbor2.dumps(fills[0]) * 24)]) == [raw.OK]
    board.identify(1, 2**32 - 1)
    assert board.run(None, 0, MOST) == [raw.REFUSED, raw.RUNS_TOO_LONG, 0, 2**32 - 1]
