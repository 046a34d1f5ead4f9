"""Frames: what travels on the wire around each message.

A frame is ``COBS(payload || CRC-32 of the payload, little endian) || 0x00``. The zero byte occurs nowhere else, so a
receiver finds the next frame after any damage. Its C twin is ``firmware/link/cobs.c``; one table of cases,
``tests/frame_cases.json``, drives the tests of both.

>>> decoder = Decoder()
>>> [frame.payload for frame in decoder.feed(encode(b"hello"))]
[b'hello']
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from cobs import cobs

DELIMITER = b"\x00"
CRC_BYTES = 4
#: Most content (payload and CRC-32) that a decoder takes by default: more than any reply in messages.cddl, so that what
#: is longer is noise.
LARGEST_CONTENT_BYTES = 2048


class FrameStatus(Enum):
    """What became of one frame. Everything but ``OK`` is dropped and counted, never acted upon."""

    OK = "ok"
    TRUNCATED = "truncated"  # a delimiter inside of a COBS block: bytes were lost or damaged
    TOO_SHORT = "too short"  # less than a CRC-32
    TOO_LONG = "too long"  # more than the receiver has room for, whole or cut off
    BAD_CRC = "bad CRC"


@dataclass(frozen=True)
class Frame:
    """A frame as it was received. ``payload`` is empty unless ``status`` is ``OK``."""

    status: FrameStatus
    payload: bytes = b""


def encode(payload: bytes) -> bytes:
    """The frame around ``payload``, delimiter included."""
    return cobs.encode(payload + zlib.crc32(payload).to_bytes(CRC_BYTES, "little")) + DELIMITER


def encoded_bytes(payload_bytes: int) -> int:
    """The longest that a frame around so many bytes gets."""
    return _coded_bytes(payload_bytes + CRC_BYTES) + len(DELIMITER)


def _coded_bytes(content_bytes: int) -> int:
    return content_bytes + content_bytes // 254 + 1  # one code byte a started block of 254 B


def decode(coded: bytes, largest_content_bytes: int = LARGEST_CONTENT_BYTES) -> Frame:
    """The frame whose bytes between two delimiters are ``coded``."""
    try:
        body = cobs.decode(coded)
    except cobs.DecodeError:
        too_long = _content_bytes(coded) > largest_content_bytes
        return Frame(FrameStatus.TOO_LONG if too_long else FrameStatus.TRUNCATED)
    if len(body) > largest_content_bytes:
        return Frame(FrameStatus.TOO_LONG)
    if len(body) < CRC_BYTES:
        return Frame(FrameStatus.TOO_SHORT)
    payload, crc = body[:-CRC_BYTES], body[-CRC_BYTES:]
    if zlib.crc32(payload) != int.from_bytes(crc, "little"):
        return Frame(FrameStatus.BAD_CRC)
    return Frame(FrameStatus.OK, payload)


def _content_bytes(coded: bytes) -> int:
    """Content that came before ``coded`` was cut off inside of a block."""
    count = position = 0
    while position < len(coded):
        code = coded[position]
        position += code
        count += min(code, len(coded) - position + code) - 1
        count += code < 255 and position < len(coded)  # the zero that the block stands for
    return count


class Decoder:
    """Cuts a stream into frames, however it arrives in pieces.

    Any stream is fine: what is no frame comes out as one with another status than ``OK``. Bytes between two
    delimiters with nothing in between are no frame: senders may put extra delimiters anywhere. Memory is bounded by
    ``largest_content_bytes`` and what one :meth:`feed` brings.

    Args:
        largest_content_bytes: Frames with more content than that come out as ``TOO_LONG``, once, when their delimiter
            arrives.
    """

    def __init__(self, largest_content_bytes: int = LARGEST_CONTENT_BYTES) -> None:
        self._largest_content_bytes = largest_content_bytes
        self._pending = bytearray()
        self._overflowed = False

    @property
    def pending_bytes(self) -> int:
        """Bytes held of a frame that is not complete yet."""
        return len(self._pending)

    def reset(self) -> None:
        """Forget a frame that was begun."""
        self._pending.clear()
        self._overflowed = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Frames that end in ``data``, in order. All of ``data`` is taken in, even if the caller stops early."""
        *ends, rest = data.split(DELIMITER)
        frames = []
        for end in ends:
            self._hold(end)
            if self._overflowed:
                frames.append(Frame(FrameStatus.TOO_LONG))
            elif self._pending:
                frames.append(decode(bytes(self._pending), self._largest_content_bytes))
            self.reset()
        self._hold(rest)
        return iter(frames)

    def _hold(self, piece: bytes) -> None:
        if self._overflowed or len(self._pending) + len(piece) > _coded_bytes(self._largest_content_bytes):
            self._overflowed = True
            self._pending.clear()
        else:
            self._pending += piece
