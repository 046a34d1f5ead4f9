"""Frames: one table of cases, also read by the C decoder's tests, and random streams."""

import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.link import frames
from profiler.link.frames import Decoder, FrameStatus

CASES = json.loads((Path(__file__).parents[1] / "frame_cases.json").read_text())


def outcome(frame):
    return {"status": frame.status.value, "payload": frame.payload.hex()}


#: Cuts of a stream, as parts of its length.
cuts = st.lists(st.floats(0, 1), max_size=6).map(sorted)


def cut(stream, at):
    """``stream`` in the pieces between the cuts."""
    edges = [0, *(round(part * len(stream)) for part in at), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@settings(max_examples=25)
@given(at=cuts)
def test_the_table_of_cases_decodes_as_written_however_it_is_cut(case, at):
    decoder = Decoder(case["capacity"])
    found = [outcome(f) for piece in cut(bytes.fromhex(case["stream"]), at) for f in decoder.feed(piece)]
    assert found == case["frames"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("piece", [None, 1, 3], ids=["whole", "byte by byte", "three bytes at a time"])
def test_the_table_of_cases_decodes_as_written_in_any_pieces(case, piece):
    stream = bytes.fromhex(case["stream"])
    decoder = Decoder(case["capacity"])
    size = piece or max(1, len(stream))
    found = [outcome(f) for i in range(0, len(stream), size) for f in decoder.feed(stream[i : i + size])]
    assert found == case["frames"]


def test_the_table_has_every_status():
    assert {f["status"] for case in CASES for f in case["frames"]} == {s.value for s in FrameStatus}


@given(st.lists(st.binary(max_size=600), max_size=5))
def test_what_is_encoded_comes_out_again_and_the_wire_has_no_other_zero(payloads):
    coded = [frames.encode(p) for p in payloads]
    assert all(c.count(b"\0") == 1 and c.endswith(b"\0") for c in coded)
    assert all(len(c) <= frames.encoded_bytes(len(p)) for c, p in zip(coded, payloads, strict=True))
    assert [f.payload for f in Decoder().feed(b"".join(coded))] == payloads


@given(st.lists(st.binary(max_size=300)), st.integers(8, 100))
def test_random_streams_give_the_same_frames_in_any_pieces_and_hold_bounded_memory(pieces, room):
    apart, together = Decoder(room), Decoder(room)
    found = []
    for piece in pieces:
        found += apart.feed(piece)
        assert apart.pending_bytes <= room + 2
    assert found == list(together.feed(b"".join(pieces)))


@given(st.binary(max_size=400), st.binary(max_size=40))
def test_after_any_noise_a_delimiter_and_a_frame_the_frame_arrives(noise, payload):
    *_, last = Decoder().feed(noise + b"\0" + frames.encode(payload))
    assert last == frames.Frame(FrameStatus.OK, payload)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_flipped_bit_never_passes(payload, data):
    coded = bytearray(frames.encode(payload))
    position = data.draw(st.integers(0, len(coded) - 1))
    coded[position] ^= 1 << data.draw(st.integers(0, 7))
    assert not any(f.status is FrameStatus.OK and f.payload == payload for f in Decoder().feed(bytes(coded)))
    assert not any(f.status is FrameStatus.OK for f in Decoder().feed(bytes(coded)))


def test_endless_noise_without_a_delimiter_takes_no_memory():
    decoder, noise = Decoder(), b"\x55" * 100_000
    list(decoder.feed(noise))
    tracemalloc.start()
    for _ in range(100):
        list(decoder.feed(noise))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoder.pending_bytes == 0 and peak_bytes < 1_000_000
