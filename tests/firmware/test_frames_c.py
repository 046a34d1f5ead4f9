"""The firmware's COBS, CRC-32 and frames against Python's, byte by byte: tests/frame_cases.json drives both sides."""

import ctypes
import json
import zlib
from pathlib import Path

import pytest
from cobs import cobs
from hypothesis import example, given
from hypothesis import strategies as st

from profiler import kernels
from profiler.link import frames

CASES = json.loads((Path(__file__).parents[1] / "frame_cases.json").read_text())

#: enum frame_status of firmware/link/frame.h, without FRAME_NONE.
STATUSES = {1: "ok", 2: "truncated", 3: "too short", 4: "too long", 5: "bad CRC"}
SEND = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)
GUARD = b"\xa5" * 64

#: Contents where runs without a zero reach and pass COBS's block of 254.
contents = st.one_of(
    st.binary(max_size=600),
    st.lists(st.tuples(st.integers(0, 520), st.integers(0, 3)), max_size=5).map(
        lambda runs: b"".join(b"\x07" * filled + bytes(zeros) for filled, zeros in runs)
    ),
)


class FrameDecoder(ctypes.Structure):
    """``frame_decoder_t``, with its ``cobs_decoder_t`` first."""

    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("capacity", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("block_left", ctypes.c_uint8),
        ("flags", ctypes.c_bool * 4),
        ("counts", ctypes.c_uint32 * 6),
    )


class Receiver:
    """The C decoder on a buffer between two guards."""

    def __init__(self, capacity):
        self.c = kernels.library()
        self.c.frame_decode_byte.restype = ctypes.c_int
        self.memory = ctypes.create_string_buffer(GUARD + bytes(capacity) + GUARD, capacity + 2 * len(GUARD))
        self.capacity = capacity
        self.decoder = FrameDecoder()
        start = ctypes.addressof(self.memory) + len(GUARD)
        self.c.frame_decoder_init(ctypes.byref(self.decoder), ctypes.c_void_p(start), ctypes.c_size_t(capacity))

    def feed(self, stream):
        """What comes out of ``stream``: (status, payload) a frame."""
        size, found = ctypes.c_size_t(), []
        for byte in stream:
            status = self.c.frame_decode_byte(ctypes.byref(self.decoder), ctypes.c_uint8(byte), ctypes.byref(size))
            if status:
                payload = self.memory[len(GUARD) : len(GUARD) + size.value] if status == 1 else b""
                found.append((STATUSES[status], payload))
        return found

    def guards_whole(self):
        return self.memory[: len(GUARD)] == GUARD and self.memory[len(GUARD) + self.capacity :] == GUARD


def c_frame(payload):
    """The frame around ``payload`` as the firmware sends it."""
    sent = bytearray()
    collect = SEND(lambda bytes_, count: sent.extend(bytes_[:count]))
    memory = ctypes.create_string_buffer(payload, len(payload) + frames.CRC_BYTES)
    kernels.library().frame_send(memory, ctypes.c_size_t(len(payload)), collect)
    return bytes(sent)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_each_case_of_the_common_table_comes_out_as_it_says(case):
    receiver = Receiver(case["capacity"])
    expected = [(frame["status"], bytes.fromhex(frame["payload"])) for frame in case["frames"]]
    assert receiver.feed(bytes.fromhex(case["stream"])) == expected
    assert receiver.guards_whole()


@given(payload=contents)
@example(payload=b"")
@example(payload=b"\x01" * 250)  # with its CRC-32, one whole block
@example(payload=b"\x01" * 253 + b"\0" * 3)
def test_frames_are_the_same_bytes_as_pythons(payload):
    assert c_frame(payload) == frames.encode(payload)


@given(payload=contents)
def test_what_one_side_sends_the_other_reads(payload):
    assert Receiver(4096).feed(frames.encode(payload)) == [("ok", payload)]
    assert [frame.payload for frame in frames.Decoder(1 << 16).feed(c_frame(payload))] == [payload]


@given(garbage=st.binary(max_size=300), capacity=st.integers(0, 40), payload=st.binary(max_size=20))
def test_after_any_garbage_the_next_whole_frame_arrives_and_nothing_is_written_outside(garbage, capacity, payload):
    receiver = Receiver(max(capacity, len(payload) + frames.CRC_BYTES))
    receiver.feed(garbage + b"\0")
    assert receiver.feed(frames.encode(payload)) == [("ok", payload)]
    assert receiver.guards_whole()


#: Between delimiters: noise, blocks whose codes are near what follows, frames whole and damaged.
pieces = st.one_of(
    st.binary(max_size=60),
    st.lists(st.integers(1, 6), max_size=80).map(bytes),
    st.integers(1, 600).map(lambda count: b"\xff" + b"\x11" * count),
    contents.map(frames.encode),
    st.tuples(contents.map(frames.encode), st.integers(1, 40)).map(lambda cut: cut[0][: -cut[1]]),
)
streams = st.lists(pieces, max_size=5).map(b"\0".join)


def python_frames(decoder, data):
    return [(frame.status.value, frame.payload) for frame in decoder.feed(data)]


@given(stream=streams, capacity=st.one_of(st.integers(0, 40), st.integers(240, 270), st.just(2048)))
@example(stream=b"\x29" + b"!" * 33 + b"\0", capacity=32)
def test_any_stream_gives_the_statuses_that_python_gives_at_the_very_same_bytes(stream, capacity):
    device, host = Receiver(capacity), frames.Decoder(capacity)
    for at, byte in enumerate(stream):
        assert device.feed([byte]) == python_frames(host, bytes([byte])), at
    assert device.guards_whole()
    assert python_frames(frames.Decoder(capacity), stream) == Receiver(capacity).feed(stream)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_in_each_case_a_frame_ends_on_both_sides_with_the_same_byte(case):
    device, host = Receiver(case["capacity"]), frames.Decoder(case["capacity"])
    stream = bytes.fromhex(case["stream"])
    ends = [(device.feed([byte]), python_frames(host, bytes([byte]))) for byte in stream]
    assert all(ours == theirs for ours, theirs in ends)
    assert all(byte == 0 for (ours, _), byte in zip(ends, stream, strict=True) if ours)


@given(payload=contents, flips=st.lists(st.integers(0, 5000), min_size=1, max_size=2))
def test_a_frame_with_one_or_two_damaged_bits_never_passes_as_another_payload(payload, flips):
    damaged = bytearray(frames.encode(payload))
    for flip in flips:
        damaged[flip // 8 % len(damaged)] ^= 1 << flip % 8
    for status, received in Receiver(4096).feed(bytes(damaged) + b"\0"):
        assert status != "ok" or received == payload


@given(pieces=st.lists(st.binary(max_size=80), max_size=5))
def test_crc32_is_zlibs_also_piece_by_piece(pieces):
    crc32_update = kernels.library().crc32_update
    crc32_update.restype = ctypes.c_uint32
    crc = 0
    for piece in pieces:
        crc = crc32_update(ctypes.c_uint32(crc), piece, ctypes.c_size_t(len(piece)))
    assert crc == zlib.crc32(b"".join(pieces))


@given(content=contents)
def test_the_content_of_a_frame_is_cobs_of_payload_and_crc(content):
    wire = c_frame(content)
    assert wire.endswith(b"\0") and wire.count(b"\0") == 1
    assert cobs.decode(wire[:-1]) == content + zlib.crc32(content).to_bytes(4, "little")
