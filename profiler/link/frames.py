"""Frames: what travels on the wire around each message.

A frame is ``COBS(payload || CRC-32 of the payload, little endian) || 0x00``. The zero byte occurs nowhere else, so a
receiver finds the next frame after any damage. Its C twin is ``firmware/link/frame.c``; one table of cases,
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
#: Longest frame that a decoder takes by default, delimiter left out: more than any reply in messages.cddl, so that
#: what is longer is noise.
LARGEST_FRAME_BYTES = 2048


class FrameStatus(Enum):
    """What became of one frame. Everything but ``OK`` is dropped and counted, never acted upon."""

    OK = "ok"
    BAD_CODING = "bad coding"  # not COBS: a length byte points past the delimiter
    TOO_SHORT = "too short"  # less than a CRC-32
    TOO_LONG = "too long"  # more than the receiver has room for
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
    body = payload_bytes + CRC_BYTES
    return body + body // 254 + 1 + 1  # COBS: one code byte a started 254 B; delimiter


def decode(coded: bytes) -> Frame:
    """The frame whose bytes between two delimiters are ``coded``."""
    try:
        body = cobs.decode(coded)
    except cobs.DecodeError:
        return Frame(FrameStatus.BAD_CODING)
    if len(body) < CRC_BYTES:
        return Frame(FrameStatus.TOO_SHORT)
    payload, crc = body[:-CRC_BYTES], body[-CRC_BYTES:]
    if zlib.crc32(payload) != int.from_bytes(crc, "little"):
        return Frame(FrameStatus.BAD_CRC)
    return Frame(FrameStatus.OK, payload)


class Decoder:
    """Cuts a stream into frames, however it arrives in pieces.

    Any stream is fine: what is no frame comes out as one with another status than ``OK``. Bytes between two
    delimiters with nothing in between are no frame: senders may put extra delimiters anywhere. Memory is bounded by
    ``largest_frame_bytes`` and what one :meth:`feed` brings.

    Args:
        largest_frame_bytes: Longer frames come out as ``TOO_LONG``, once, when their delimiter arrives.
    """

    def __init__(self, largest_frame_bytes: int = LARGEST_FRAME_BYTES) -> None:
        self._largest_frame_bytes = largest_frame_bytes
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
                frames.append(decode(bytes(self._pending)))
            self.reset()
        self._hold(rest)
        return iter(frames)

    def _hold(self, piece: bytes) -> None:
        if self._overflowed or len(self._pending) + len(piece) > self._largest_frame_bytes:
            self._overflowed = True
            self._pending.clear()
        else:
            self._pending += piece
