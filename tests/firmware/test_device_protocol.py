"""The firmware's side of the protocol and its interpreter, on every device that needs no hardware."""

import copy
import zlib

import cbor2
import numpy as np
import pytest
import raw_device as raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler import prng
from profiler.ops import Add, Conv2d, Depthwise, Empty, Linear, Op, Pass, Relu, SoftmaxCrossEntropy

LINEAR = Op(Linear(40, 12), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)

#: enum status_reason of firmware/runtime/status.h.
BAD_REQUEST, TOO_LONG, NO_PROGRAM, WRONG_INDEX, WRONG_CRC, INCOMPLETE, SECTIONS, NO_MEMORY = range(1, 9)
UNKNOWN_KERNEL, GEOMETRY, CHANNELS, BUFFER_COUNT, BAD_REGION, BOUNDS, READ_ONLY, OVERLAP = range(9, 17)
BAD_FILL, MISPLACED, NO_OPTIMIZER, BAD_RANGE = range(17, 21)


@pytest.fixture(scope="module", params=raw.URLS)
def device(request):
    opened = raw.RawDevice(request.param)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def agent():
    opened = raw.RawDevice("native://")
    yield opened
    opened.close()


def crc(entries):
    return zlib.crc32(b"".join(cbor2.dumps(entry) for entry in entries))


def store(device, program):
    header, entries = program
    assert device.ask([raw.BEGIN, header, len(entries)]) == [raw.OK]
    for index in range(0, len(entries), 3):
        assert device.ask([raw.APPEND, index, entries[index : index + 3]]) == [raw.OK]
    return device.ask([raw.SEAL, crc(entries)])


def emulated(device):
    return device.url.startswith("qemu")


# ---------------------------------------------------------------- identity


def test_the_boot_id_is_the_first_nonce_and_stays(device):
    first = device.boot_id
    device.ask([raw.IDENTIFY, 77])
    assert first not in (0, 77) and device.boot_id == first


def test_the_identity_lists_arena_blob_and_every_kernel(device):
    identity = device.identity
    regions = {number: size for _, size, number, _ in identity[10]}
    assert regions[1] == identity[11][0] and len(identity[11][2]) == 4
    assert regions[0] >= 112 * 1024
    assert identity[12] >= 1024
    codes = set(identity[15])
    assert {1 << 8 | p << 4 for p in range(4)} <= codes and 12 << 8 in codes
    assert len(identity[17]) == 16 and int(identity[17], 16)


def test_the_blob_is_what_the_host_draws(device):
    size, seed, exponents = device.identity[11]
    whole = prng.blob(seed, exponents, size // 4) if hasattr(prng, "blob") else None
    for offset in (0, size // 4 - 16, size // 2, size - 64):
        got = np.frombuffer(device.peek(offset | 1, 64), dtype="<f4")
        index = np.arange(offset // 4, offset // 4 + 16)
        words = prng.mix((prng.key(seed, prng.BLOB_STREAM) + index * prng.GOLDEN) & 0xFFFFFFFF).view(np.int32) >> 8
        scale = np.array([2.0 ** (exponents[i * len(exponents) // (size // 4)] - 128 - 23) for i in index])
        np.testing.assert_array_equal(got, words * scale)
        if whole is not None:
            np.testing.assert_array_equal(got, whole[index])


# ---------------------------------------------------------------- fills, digest, memory


def test_fills_write_the_words_that_the_host_makes(device):
    fills = [raw.fill(64, 0, stream=9), raw.fill(64, 256, 2, 5, 9), raw.fill(64, 512, 3, 130, 9), raw.fill(64, 768, 0)]
    device.run(([1024, 1, 4, 4, 4], fills), 0, seed=42)
    words = prng.mix((prng.key(42, 9) + np.arange(64) * prng.GOLDEN) & 0xFFFFFFFF)
    np.testing.assert_array_equal(np.frombuffer(device.peek(0, 256), "<f4"), (words.view(np.int32) >> 8) * 2.0**-24)
    np.testing.assert_array_equal(np.frombuffer(device.peek(256, 256), "<u4"), words % 5)
    np.testing.assert_array_equal(np.frombuffer(device.peek(512, 256), "<f4"), (words >> 8) * 2.0**-22)
    assert device.peek(768, 256) == bytes(256)


def test_each_image_draws_from_a_stream_of_its_own(device):
    header, entries = [256, 3, 0, 1, 1], [raw.fill(64, 0, stream=9)]
    device.run((header, entries), 1, seed=5)
    words = prng.mix((prng.key(5, 9 + (2 << 16)) + np.arange(64) * prng.GOLDEN) & 0xFFFFFFFF)
    np.testing.assert_array_equal(np.frombuffer(device.peek(0, 256), "<f4"), (words.view(np.int32) >> 8) * 2.0**-24)


def test_the_digest_is_the_hosts(device):
    device.run(([4096, 1, 1, 1, 1], [raw.fill(1000, 0, stream=3)]), 0, seed=8)
    values = np.concatenate([np.frombuffer(device.peek(o, 400), "<f4") for o in range(0, 4000, 400)])
    kind, projections = device.ask([raw.DIGEST, 0, 1000])
    assert kind == raw.DIGESTED
    np.testing.assert_allclose(projections, prng.digest(values), rtol=1e-12)


def test_the_arena_peak_is_the_highest_byte_written(device):
    answer = device.run(([4096, 1, 1, 1, 1], [raw.fill(100, 512)]), 0)
    assert answer[1] == 512 + 400
    assert device.run(([4096, 1, 0, 0, 0], [raw.fill(4, 0)]), 0)[0] == raw.REFUSED  # an op section holds no fill


def test_scratch_and_stack_peaks_are_reported(device):
    header, entries = raw.program(Op(Conv2d(9, 9, 8, 16, 3, 3, pad_h=1, pad_w=1), Pass.GRAD_INPUT))
    answer = device.run((header, entries), 1)
    limit = {number: size for _, size, number, _ in device.identity[10]}.get(15, 1 << 18)
    assert 64 <= answer[3] < 0.75 * limit
    assert answer[2] <= header[0]


# ---------------------------------------------------------------- running and ticks


@pytest.mark.parametrize("pass_", list(Pass))
def test_ticks_grow_with_macs_and_never_fall_below_a_sixteenth_of_them(device, pass_):
    # A vector unit does at most 16 float32 multiply-accumulates at once: a timed region that lost its kernel shows.
    training = {"trained_channels": 16} if pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE) else {}
    ticks = []
    ops = [Op(Conv2d(n, n, 16, 16, 3, 3, pad_h=1, pad_w=1), pass_, **training) for n in (5, 10, 20)]
    for op in ops:
        ticks.append(min(device.ticks(raw.program(op), 9, warmups=2)))
    if pass_ is Pass.UPDATE:  # works on the weights, whose number does not change
        assert min(ticks) > 16 * 144 / 16
        assert not emulated(device) or max(ticks) < 1.01 * min(ticks)
        return
    numerator, denominator = device.identity[6][3:] if emulated(device) else (1, 4)  # at most 4 instructions a tick
    for op, measured in zip(ops, ticks, strict=True):
        assert measured * denominator / numerator > op.macs / 16
    growth = (ticks[1] / ticks[0], ticks[2] / ticks[1])
    if emulated(device):
        assert min(growth) > 2.5 and max(growth) < 6.5
    else:  # wall-clock time on a busy host, of ops whose fixed part weighs more
        assert min(growth) > 1.2 and ticks[2] > 5 * ticks[0]


def test_an_empty_op_costs_next_to_nothing_but_not_nothing(device):
    ticks = device.ticks(raw.program(EMPTY), 5, warmups=1)
    assert all(0 < t < (100 if emulated(device) else 50_000) for t in ticks)


@pytest.mark.parametrize("url", raw.EMULATED_URLS)
def test_emulated_ticks_are_the_same_in_every_repetition_run_and_boot(url):
    op = Op(Depthwise(7, 9, 13, 3, 3, 2, 2, 1, 1), Pass.FORWARD)
    boots = []
    for _ in range(2):
        device = raw.RawDevice(url)
        boots.append([device.ticks(raw.program(op), 4, warmups=warmups) for warmups in (0, 2)])
        device.close()
    assert boots[0] == boots[1]
    # Where an instruction is not a whole number of ticks, the same instructions read as one of two neighbours.
    seen = np.array(boots)
    assert seen.max() - seen.min() <= (0 if url.endswith("stm32f405") else 1)


def test_ticks_of_an_entry_are_summed_over_the_images(device):
    one, many = (min(device.ticks(raw.program(LINEAR, images), 9, warmups=1)) for images in (1, 50))
    assert 35 * one < many < 65 * one if emulated(device) else many > 10 * one


def test_entries_behind_the_body_run_once_a_repetition(device):
    header, entries = raw.program(LINEAR, images=40)
    header[4] -= 1  # the op lies behind the body
    alone = raw.program(LINEAR)
    behind, once = (min(device.ticks(p, 15, warmups=1)) for p in ((header, entries), alone))
    assert behind < 5 * once


def test_the_loss_adds_up_over_repetitions_because_the_setup_is_not_repeated(device):
    header, entries = raw.program(Op(SoftmaxCrossEntropy(5), Pass.FORWARD))
    loss = entries[-1][6][3]
    values = []
    for repetitions, warmups in ((0, 0), (1, 0), (2, 1)):
        device.run((header, entries), repetitions, warmups=warmups)
        values.append(np.frombuffer(device.peek(loss, 4), "<f4")[0])
    assert values[2] - values[0] == pytest.approx(3 * (values[1] - values[0]), rel=1e-4)


def test_all_ticks_can_be_read_in_pages_after_the_run(device):
    entries = raw.program(EMPTY)[1] * 3
    answer = device.run(([0, 1, 0, 0, 2], entries), 40)
    assert answer[4] == 120 and len(answer[5]) == 16
    pages = []
    while len(pages) < 120:
        kind, first, ticks = device.ask([raw.READ, len(pages)])
        assert kind == raw.TICKS and first == len(pages) and ticks
        pages += ticks
    assert pages[:16] == answer[5] and len(pages) == 120 and min(pages) > 0
    assert device.ask([raw.READ, 120]) == [raw.TICKS, 120, []]
    assert device.ask([raw.READ, 121])[:2] == [raw.REFUSED, BAD_RANGE]


# ---------------------------------------------------------------- stored programs, repeated requests


def test_a_stored_program_does_what_the_same_program_inside_a_run_does(device):
    program = raw.program(LINEAR)
    output = program[1][-1][6][-1]
    inline = device.ticks(program, 3)
    expected = device.ask([raw.DIGEST, output, 12])
    assert store(device, program) == [raw.OK]
    stored = device.ticks(None, 3)
    assert device.ask([raw.DIGEST, output, 12]) == expected
    if emulated(device):
        assert np.ptp(inline + stored) <= 1


def test_a_repeated_run_gets_the_stored_reply_and_does_not_run_again(device):
    program = raw.program(LINEAR)
    first = device.run(program, 2, request_id=5)
    assert device.ask([raw.BEGIN, program[0], len(program[1])]) == [
        raw.OK
    ]  # what was there is gone: to run would be refused
    assert device.run(program, 2, request_id=5) == first
    assert device.run(None, 2, request_id=6)[:2] == [raw.REFUSED, NO_PROGRAM]
    assert device.run(program, 1, request_id=6)[:2] == [raw.REFUSED, NO_PROGRAM]
    device.ask([raw.IDENTIFY, 4711])
    device.ask([raw.IDENTIFY, 4712])
    assert device.run(program, 1, request_id=6)[0] == raw.DONE  # a new session may use the id anew


def test_begin_append_and_seal_can_be_sent_again(device):
    header, entries = raw.program(LINEAR)
    for _ in range(2):
        assert device.ask([raw.BEGIN, header, len(entries)]) == [raw.OK]
    for _ in range(2):
        assert device.ask([raw.APPEND, 0, entries[:2]], 900) == [raw.OK]
    assert device.ask([raw.APPEND, 0, entries[:2]], 901) == [raw.REFUSED, WRONG_INDEX, 2, 2]
    assert device.ask([raw.APPEND, 3, entries[3:]]) == [raw.REFUSED, WRONG_INDEX, 2, 2]
    assert device.ask([raw.SEAL, crc(entries)]) == [raw.REFUSED, INCOMPLETE, 2, 2]
    assert device.ask([raw.APPEND, 2, entries[2:]]) == [raw.OK]
    assert device.ask([raw.SEAL, crc(entries) ^ 1]) == [raw.REFUSED, WRONG_CRC, 0, crc(entries)]
    assert device.run(None)[:2] == [raw.REFUSED, NO_PROGRAM]
    for _ in range(2):
        assert device.ask([raw.SEAL, crc(entries)]) == [raw.OK]
    assert device.run(None)[0] == raw.DONE


def test_an_append_from_before_another_program_is_no_repetition_in_it(device):
    header, entries = raw.program(LINEAR)
    assert device.ask([raw.BEGIN, header, len(entries)]) == [raw.OK]
    assert device.ask([raw.APPEND, 0, entries], 77) == [raw.OK]
    assert device.run((header, entries))[0] == raw.DONE
    assert device.ask([raw.APPEND, 0, entries], 77)[:2] == [raw.REFUSED, WRONG_INDEX]


def test_a_refused_append_leaves_the_program_as_it_was(device):
    header, entries = raw.program(LINEAR)
    device.ask([raw.BEGIN, header, len(entries)])
    broken = copy.deepcopy(entries)
    broken[2][4] = [1, 2]
    assert device.ask([raw.APPEND, 0, broken]) == [raw.REFUSED, GEOMETRY, 2, 2]
    assert device.ask([raw.APPEND, 0, entries]) == [raw.OK]
    assert device.ask([raw.SEAL, crc(entries)]) == [raw.OK]


# ---------------------------------------------------------------- refusals


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
    "int8, which has no kernel": (change((*OP, 2), 1), UNKNOWN_KERNEL, 4),
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
    region = next(size for _, size, number, _ in device.identity[10] if number == 0)
    entry_bytes = device.identity[14]
    header, entries = raw.program(Op(Linear(16, 64), Pass.GRAD_WEIGHT, trained_channels=5))
    entries[-1].append(b"\x1f")
    repetitions = 7
    header[0] = ((region & ~7) - len(entries) * entry_bytes - 12 - 8 * repetitions) & ~15
    assert device.run((header, entries), repetitions)[0] == raw.DONE
    header[0] += 16
    answer = device.run((header, entries), repetitions)
    assert answer[:2] == [raw.REFUSED, NO_MEMORY] and region - 16 < answer[3] <= region + 16
    assert device.run((header, entries), 65535)[:2] == [raw.REFUSED, NO_MEMORY]


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


# ---------------------------------------------------------------- damage


def test_whole_frames_that_are_no_request_are_refused_with_their_id(device):
    for command in ([99], [raw.RUN], ["identify"], {}, [raw.APPEND, 0, []], [raw.SEAL, -1], [raw.IDENTIFY, 1, 2]):
        assert device.ask(command)[:2] == [raw.REFUSED, BAD_REQUEST]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=1500))
def test_the_agent_survives_any_bytes(agent, noise):
    agent.port.write(noise + b"\0")
    assert agent.ask([raw.IDENTIFY, 1])[0] == raw.IDENTITY


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_agent_survives_any_cbor_and_any_change_to_a_program(agent, data):
    numbers = st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1))
    header, entries = copy.deepcopy(raw.program(LINEAR))
    for _ in range(data.draw(st.integers(1, 4))):
        entry = data.draw(st.sampled_from(entries))
        place = data.draw(st.sampled_from([entry, entry[4], entry[6], header]))
        position = data.draw(st.integers(0, len(place) - 1))
        if isinstance(place[position], int):
            place[position] = data.draw(numbers)
    answer = agent.run((header, entries), data.draw(st.integers(0, 2)), warmups=data.draw(st.integers(0, 1)))
    assert answer[0] in (raw.DONE, raw.REFUSED)
    agent.ask([data.draw(st.integers(0, 8)), *data.draw(st.lists(numbers, max_size=4))])
