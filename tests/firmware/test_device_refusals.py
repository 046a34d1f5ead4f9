"""What the firmware refuses: programs that would leave their memory or make no sense, whole and with the reason."""

import zlib

import cbor2
import pytest
import raw_device as raw
from raw_device import (
    BAD_FILL,
    BAD_RANGE,
    BAD_REGION,
    BOUNDS,
    BUFFER_COUNT,
    CHANNELS,
    GEOMETRY,
    MISPLACED,
    NO_MEMORY,
    NO_OPTIMIZER,
    OVERLAP,
    READ_ONLY,
    SECTIONS,
    UNKNOWN_KERNEL,
)

from profiler.ops import Add, Empty, Linear, Op, Pass, Relu

LINEAR = Op(Linear(40, 12), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)


def change(path, value):
    """A program like LINEAR's with one thing replaced: path into (header, entries)."""
    place = program = list(raw.program(LINEAR))
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value(place[path[-1]]) if callable(value) else value
    return program


OP = (1, -1)
REFUSALS = {
    "sections out of order": (change((0, 2), 5), SECTIONS, 0),
    "sections beyond the end": (change((0, 4), 99), SECTIONS, 0),
    "no image": (change((0, 1), 0), SECTIONS, 0),
    "an arena larger than memory": (change((0, 0), 0xFFFFFFF0), NO_MEMORY, 0),
    "an unknown kind": (change((*OP, 0), 200), UNKNOWN_KERNEL, 4),
    "a pass that is none": (change((*OP, 1), 9), UNKNOWN_KERNEL, 4),
    "a variant that the kind has no kernel for": (change((*OP, 3), 2), UNKNOWN_KERNEL, 4),
    "a data type that is none": (change((*OP, 2), 7), UNKNOWN_KERNEL, 4),
    "too few geometry values": (change((*OP, 4), [40]), GEOMETRY, 4),
    "a zero extent": (change((*OP, 4), [0, 12, 1]), GEOMETRY, 4),
    "an extent that does not fit its field": (change((*OP, 4), [70000, 12, 1]), GEOMETRY, 4),
    "a buffer too few": (change((*OP, 6), lambda b: b[:-1]), BUFFER_COUNT, 4),
    "a buffer too many": (change((*OP, 6), lambda b: [*b, 0]), BUFFER_COUNT, 4),
    "no buffer where one is wanted": (change((*OP, 6, 0), 15), BUFFER_COUNT, 4),
    "a region that does not exist": (change((*OP, 6, 0), 7), BAD_REGION, 4),
    "an input beyond the arena": (change((*OP, 6, 0), lambda b: 1 << 20 << 4), BOUNDS, 4),
    "an output that ends beyond the arena": (change((0, 0), lambda a: a - 16), BOUNDS, 3),
    "an output in the blob": (change((*OP, 6, 3), 1), READ_ONLY, 4),
    "weights beyond the blob": (change((*OP, 6, 1), 0x7FFFFFF0 | 1), BOUNDS, 4),
    "an output over its input": (change((*OP, 6, 3), 0), OVERLAP, 4),
    "an output over the end of the weights": (change((*OP, 6, 3), lambda b: b - 64), OVERLAP, 4),
    "an unknown fill": (change((1, 0, 4, 1), 9), BAD_FILL, 0),
    "a fill whose scale is no float32": (change((1, 0, 4, 2), 255), BAD_FILL, 0),
    "labels of no class": (change((1, 0, 4), [4, 2, 0, 1]), BAD_FILL, 0),
    "a fill of nothing": (change((1, 0, 4, 0), 0), BAD_FILL, 0),
    "a fill larger than the address space": (change((1, 0, 4, 0), 0x40000001), BOUNDS, 0),
    "a fill with two buffers": (change((1, 0, 6), [0, 16]), BUFFER_COUNT, 0),
    "a fill with a buffer behind none": (change((1, 0, 6), [0, 15, 16]), BUFFER_COUNT, 0),
    "a fill into the blob": (change((1, 0, 6), [1]), READ_ONLY, 0),
    "image fills that end before the setup does": (change((0, 3), 2), SECTIONS, 0),
    "an op among the fills": (change((0,), [2176, 1, 5, 5, 5]), MISPLACED, 4),
    "a fill among the timed entries": (change((0,), [2176, 1, 3, 3, 5]), MISPLACED, 3),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_bad_program_is_refused_whole_with_the_entry_and_the_reason(agent, case):
    program, reason, index = REFUSALS[case]
    answer = agent.run(program)
    assert answer[:3] == [raw.REFUSED, reason, index]


def test_every_device_refuses_likewise(device):
    for program, reason, index in REFUSALS.values():
        assert device.run(program)[:3] == [raw.REFUSED, reason, index]


def test_every_op_that_writes_a_read_only_region_is_refused(agent):
    update = Op(Linear(8, 8), Pass.UPDATE, trained_channels=2)
    header, entries = raw.program(update)
    entries[-1][6][0] = 1
    assert agent.run((header, entries))[:2] == [raw.REFUSED, READ_ONLY]


def test_an_update_without_an_optimizer_is_refused(agent):
    header, entries = raw.program(Op(Linear(8, 8), Pass.UPDATE, trained_channels=2))
    assert agent.run((header, entries))[0] == raw.DONE
    assert agent.run((header[:5], entries))[:2] == [raw.REFUSED, NO_OPTIMIZER]


@pytest.mark.parametrize(
    ("bitmap", "channels", "answer"),
    [
        (b"\x22", 2, [raw.DONE]),
        (b"\x80", 1, [raw.DONE]),  # channel 7 of 8
        (b"\x22", 3, [raw.REFUSED, CHANNELS]),
        (b"\x00", 2, [raw.REFUSED, CHANNELS]),
        (b"\x01\x01", 2, [raw.REFUSED, GEOMETRY]),  # channel 8 of 8
    ],
)
def test_a_bitmap_must_name_as_many_channels_as_train_and_none_that_is_not_there(agent, bitmap, channels, answer):
    header, entries = raw.program(Op(Linear(8, 8), Pass.GRAD_WEIGHT, trained_channels=channels))
    entries[-1].append(bitmap)
    assert agent.run((header, entries))[: len(answer)] == answer


def test_in_place_is_allowed_where_the_kernel_says_so_and_only_from_the_same_byte(agent):
    header, entries = raw.program(Op(Relu(64, 6), Pass.FORWARD))
    entries[-1][6] = [0, 0]
    assert agent.run((header, entries))[0] == raw.DONE
    entries[-1][6] = [16, 0]
    entries[0] = raw.fill(68, 0)
    assert agent.run((header, entries))[:2] == [raw.REFUSED, OVERLAP]
    header, entries = raw.program(Op(Add(64), Pass.FORWARD))
    entries[-1][6] = [0, 0, 512]  # two inputs may be one
    assert agent.run((header, entries))[0] == raw.DONE


def test_arena_entries_lists_and_ticks_share_region_0_to_the_last_byte(device):
    region = region_0_bytes(device)
    header, entries = raw.program(Op(Linear(16, 64), Pass.GRAD_WEIGHT, trained_channels=5))
    entries[-1].append(b"\x1f")
    repetitions = 7
    header[0] = region - len(entries) * device.identity[14] - 12 - 8 * repetitions
    assert device.run((header, entries), repetitions)[0] == raw.DONE
    assert device.run((header, entries), repetitions + 1) == [raw.REFUSED, NO_MEMORY, 0, region + 8]
    header[0] += 1
    assert device.run((header, entries), repetitions) == [raw.REFUSED, NO_MEMORY, 0, region + 1]
    assert device.run((header, entries), 65535)[:2] == [raw.REFUSED, NO_MEMORY]


def region_0_bytes(device):
    """Of region 0, what arena, entries, lists and ticks share."""
    return next(size for _, size, number, _ in device.identity[10] if number == 0) & ~7


def test_a_program_has_one_entry_at_least_and_the_most_that_fit_at_most(device):
    entry_bytes, most = device.identity[14], 1024
    header = [0, 1, 0, 0, 0]
    assert device.ask([raw.BEGIN, header, 0]) == [raw.REFUSED, raw.TOO_LONG, 0, most]
    assert device.ask([raw.BEGIN, header, most + 1]) == [raw.REFUSED, raw.TOO_LONG, 0, most]
    for count in (1, min(most, region_0_bytes(device) // entry_bytes)):
        header[0] = min(region_0_bytes(device) - count * entry_bytes, 2**32 - 1)
        assert device.ask([raw.BEGIN, header, count]) == [raw.OK]
        wanted = region_0_bytes(device) + 1
        assert device.ask([raw.BEGIN, [header[0] + 1, *header[1:]], count]) == [raw.REFUSED, NO_MEMORY, 0, wanted]


def test_only_a_program_whose_every_entry_arrived_is_sealed(device):
    _, [entry] = raw.program(EMPTY)
    header = [0, 1, 0, 0, 3]
    crcs = [zlib.crc32(cbor2.dumps(entry) * count) for count in range(4)]
    assert device.ask([raw.BEGIN, header, 3]) == [raw.OK]
    for count in range(3):
        assert device.ask([raw.SEAL, crcs[count]]) == [raw.REFUSED, raw.INCOMPLETE, count, count]
        too_many = [entry] * (4 - count)
        assert device.ask([raw.APPEND, count, too_many]) == [raw.REFUSED, raw.TOO_LONG, count, 3]
        assert device.ask([raw.APPEND, count, [entry]]) == [raw.OK]
    for wrong in (crcs[3] - 1, crcs[3] + 1):
        assert device.ask([raw.SEAL, wrong]) == [raw.REFUSED, raw.WRONG_CRC, 0, crcs[3]]
    assert device.run(None)[:2] == [raw.REFUSED, raw.NO_PROGRAM]
    assert device.ask([raw.SEAL, crcs[3]]) == [raw.OK]
    assert device.ask([raw.APPEND, 3, [entry]]) == [raw.REFUSED, raw.WRONG_INDEX, 3, 3]
    assert device.run(None)[0] == raw.DONE


@pytest.mark.parametrize("bad", range(3))
def test_every_entry_is_checked_before_a_program_is_sealed(device, bad):
    _, [entry] = raw.program(EMPTY)
    entries = [entry] * 3
    entries[bad] = raw.program(LINEAR)[1][-1]  # its buffers lie beyond an arena of nothing
    assert device.ask([raw.BEGIN, [0, 1, 0, 0, 3], 3]) == [raw.OK]
    assert device.ask([raw.APPEND, 0, entries]) == [raw.OK]
    assert device.ask([raw.SEAL, zlib.crc32(b"".join(map(cbor2.dumps, entries)))])[:3] == [raw.REFUSED, BOUNDS, bad]
    assert device.run(None)[:2] == [raw.REFUSED, raw.NO_PROGRAM]


def test_buffers_end_with_their_memory_and_begin_where_others_end_to_the_byte(device):
    header, entries = raw.program(Op(Linear(16, 16), Pass.FORWARD))  # each a multiple of 16 bytes
    assert device.run((header, entries))[0] == raw.DONE
    assert device.run(([header[0] - 1, *header[1:]], entries))[:3] == [raw.REFUSED, BOUNDS, 3]
    references = entries[-1][6]
    entries[-1][6] = [*references[:3], references[3] - 16]
    assert device.run((header, entries))[:3] == [raw.REFUSED, OVERLAP, 4]
    blob_bytes = next(size for _, size, number, _ in device.identity[10] if number == 1)
    weights = (blob_bytes - 4 * 16 * 16) // 16 * 16
    for offset, answer in ((weights, [raw.DONE]), (weights + 16, [raw.REFUSED, BOUNDS, 4])):
        entries[-1][6] = [references[0], offset | 1, *references[2:]]
        assert device.run((header, entries))[: len(answer)] == answer


def test_digest_and_peek_stay_inside_of_a_region(device):
    region = next(size for _, size, number, _ in device.identity[10] if number == 0)
    inside = region // 16 * 16 - 16
    assert device.ask([raw.PEEK, inside, 16])[0] == raw.PEEKED
    assert device.ask([raw.PEEK, inside, 33])[:2] == [raw.REFUSED, BAD_RANGE]
    assert device.ask([raw.PEEK, 0, 769])[:2] == [raw.REFUSED, BAD_RANGE]
    assert device.ask([raw.PEEK, 15, 1])[:2] == [raw.REFUSED, BAD_RANGE]
    assert device.ask([raw.DIGEST, 0, 0xFFFFFFFF])[:2] == [raw.REFUSED, BAD_RANGE]
    assert device.ask([raw.DIGEST, inside, 9])[:2] == [raw.REFUSED, BAD_RANGE]
    for ask in (raw.DIGEST, raw.PEEK):  # not even nothing is there
        assert device.ask([ask, 0xFFFFFFF0, 0]) == [raw.REFUSED, BAD_RANGE, 0, 0]
