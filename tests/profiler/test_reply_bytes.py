"""Replies damaged byte by byte: what a device sends is a reply or a bad reply, and takes no more memory than that."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_link_messages import ANSWERS, REPLY, follows, reply

from profiler.link import frames
from profiler.link.messages import OtherProtocol
from profiler.link.replies import BadReply, decode_reply

WHOLE = [reply(answer) for answer in ANSWERS.values()]
#: What a list of the smallest items takes, a pointer and an integer each, with room to spare.
HOST_BYTES_A_BYTE = 200
#: Heads of CBOR items that announce more than there is, nest, or are of kinds that replies do not have.
HEADS = [
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x5a\x7f\xff\xff\xff",
    b"\x7b\x00\x00\x01",
    b"\x9f",
    b"\x81\x81\x81\x81\x81",
    b"\xbf",
    b"\xc2\x5a\x00\x0f\xff\xff",
    b"\xd8\x1d\x00",
    b"\xf9\x7e\x00",
    b"\xfb",
    b"\x1b",
]


@st.composite
def damaged(draw):
    """A whole reply with some of its bytes changed, taken out, doubled, or led by another's."""
    payload = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(payload)))
        match draw(st.integers(0, 5)):
            case 0 if at < len(payload):
                payload[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                payload[at:at] = draw(st.sampled_from(HEADS))
            case 2:
                del payload[at : at + draw(st.integers(1, 20))]
            case 3:
                payload[at:at] = payload[at : at + draw(st.integers(1, 40))]
            case 4:
                payload[at:] = draw(st.sampled_from(WHOLE))[at:]
            case _:
                payload[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(payload)


def understood(payload):
    """What is decoded follows the definition; None: a bad reply."""
    try:
        decoded = decode_reply(payload)
    except BadReply as error:
        assert str(error)
        return None
    assert isinstance(decoded.answer, OtherProtocol) or follows(REPLY, payload)
    return decoded


@given(damaged())
def test_a_damaged_reply_is_a_bad_reply_or_follows_the_definition(payload):
    understood(payload)


@given(st.lists(st.tuples(damaged(), st.integers(0, 3)), min_size=1, max_size=4))
def test_a_stream_of_damaged_replies_in_whole_and_cut_frames_ends_in_bad_replies_alone(parts):
    decoder = frames.Decoder()
    for payload, lost in parts:
        coded = frames.encode(payload)
        for frame in decoder.feed(coded[lost:]):
            if frame.status is frames.FrameStatus.OK:
                understood(frame.payload)


@pytest.mark.parametrize("head", HEADS, ids=bytes.hex)
def test_no_head_of_an_item_makes_the_host_take_memory(head):
    """In the place of each byte, and as many of them as a frame holds."""
    payloads = [whole[:at] + head + whole[at:] for whole in WHOLE for at in range(min(len(whole), 40))]
    payloads.append(b"\x83\x01\x02" + head * (frames.LARGEST_CONTENT_BYTES // len(head)))
    longest = max(map(len, payloads))
    understood(payloads[0])  # what is taken once for good
    tracemalloc.start()
    try:
        for payload in payloads:
            try:
                decode_reply(payload)
            except BadReply:
                continue
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < HOST_BYTES_A_BYTE * longest
