"""The firmware's side of the protocol, on every device that needs no hardware: identity, storing, repeating, damage."""

import copy
import os
import zlib

import cbor2
import numpy as np
import raw_device as raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_device import (
    BAD_REQUEST,
    GEOMETRY,
    INCOMPLETE,
    NO_PROGRAM,
    WRONG_CRC,
    WRONG_INDEX,
    emulated,
)

from profiler import kernels, prng
from profiler.link import frames
from profiler.ops import DTYPE_CODES, GEOMETRIES, PASS_CODES, Empty, Linear, Op, Pass

LINEAR = Op(Linear(40, 12), Pass.FORWARD)
EMPTY = Op(Empty(), Pass.FORWARD)


def crc(entries):
    return zlib.crc32(b"".join(cbor2.dumps(entry) for entry in entries))


def store(device, program):
    header, entries = program
    assert device.ask([raw.BEGIN, header, len(entries)]) == [raw.OK]
    for index in range(0, len(entries), 3):
        assert device.ask([raw.APPEND, index, entries[index : index + 3]]) == [raw.OK]
    return device.ask([raw.SEAL, crc(entries)])


def test_the_boot_id_is_the_first_nonce_and_stays(device):
    first = device.boot_id
    device.identify(77)
    assert first not in (0, 77) and device.boot_id == first


def test_the_identity_lists_arena_blob_and_every_kernel(device):
    identity = device.identity
    regions = {number: size for _, size, number, _ in identity[10]}
    assert regions[1] == identity[11][0] and len(identity[11][2]) == 32
    assert regions[0] >= 112 * 1024
    assert identity[12] >= 1024
    wanted: dict[int, int] = {}
    for kind, pass_, dtype, _ in kernels.supported():
        what = GEOMETRIES[kind].code << 8 | DTYPE_CODES[dtype] << 4
        wanted[what] = wanted.get(what, 0) | 1 << PASS_CODES[Pass(pass_)]
    assert sorted(identity[15]) == sorted(what | passes for what, passes in wanted.items())
    assert len(identity[17]) == 16 and int(identity[17], 16)


def test_the_blob_is_what_the_host_draws(device):
    size, seed, segments = device.identity[11]
    length = size // len(segments)
    for j, code in enumerate(segments):
        offset = j * length
        got = np.frombuffer(device.peek(offset | 1, 64), dtype="<u4")
        np.testing.assert_array_equal(got, prng.blob_window(seed, segments, size, offset, 16).view(np.uint32))
        drawn = prng.mix((prng.key(seed, prng.BLOB_STREAM) + offset // 4 * prng.GOLDEN) & 0xFFFFFFFF)
        if 32 <= code < 208:
            assert got.view(np.float32)[0] == (int(drawn.view(np.int32)) >> 8) * 2.0 ** (code - 128 - 23)
    last = np.frombuffer(device.peek(size - 64 | 1, 64), dtype="<u4")
    np.testing.assert_array_equal(last, prng.blob_window(seed, segments, size, size - 64, 16).view(np.uint32))


def test_a_linux_machine_tells_its_state_and_a_microcontroller_refuses(device):
    answer = device.ask([raw.STATE])
    if emulated(device):
        assert answer == [raw.REFUSED, raw.NO_STATE, 0, 0]
        return
    kind, cpu, sharing, _, _, _, throttled, trigger = answer
    assert kind == raw.STATE_TOLD and cpu in os.sched_getaffinity(0)
    assert sharing.split(",")[0] in ("shared", "isolated") and len(throttled) <= 1
    assert trigger == ""  # no pin is driven unasked


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
    device.identify(4711)
    device.identify(4712)
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


def test_whole_frames_that_are_no_request_are_refused_with_their_id(device):
    identifies = [raw.IDENTIFY, 1], [raw.IDENTIFY, 1, 2, 3]
    for command in ([99], [raw.RUN], ["identify"], {}, [raw.APPEND, 0, []], [raw.SEAL, -1], *identifies):
        assert device.ask(command)[:2] == [raw.REFUSED, BAD_REQUEST]


def test_the_receiver_counts_every_frame_by_what_became_of_it(device):
    def counted():
        kind, *counts = device.ask([raw.COUNTERS])
        assert kind == raw.COUNTED
        return np.array(counts)

    whole = frames.encode(cbor2.dumps([1, [raw.PEEK, 0, 4]]))
    flipped = whole[:-2] + bytes([whole[-2] ^ 1 or 2]) + b"\0"
    truncated = whole[:-2] + b"\0"
    too_long = b"\xff" * 5 * device.identity[12] + b"\0"
    before = counted()
    assert before[0] > 0
    for frame in [flipped] * 7 + [truncated] * 5 + [b"\x03ab\0"] * 3 + [too_long] * 2 + [b"\0"] * 20:
        device.port.write(frame)
    # ok is of the counters' own request; delimiters alone are no frame; the emulators' lines lose nothing
    assert (counted() - before).tolist() == [1, 5, 3, 2, 7, 0]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=1500))
def test_the_agent_survives_any_bytes(agent, noise):
    agent.port.write(noise + b"\0")
    assert agent.identify(1)[0] == raw.IDENTITY


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
    agent.ask([data.draw(st.integers(0, 9)), *data.draw(st.lists(numbers, max_size=4))])
