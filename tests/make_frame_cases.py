"""Writes tests/frame_cases.json, the one table of cases for the frame decoders of both sides.

Streams are put together here byte by byte from the definition in firmware/link/messages.cddl, with zlib's CRC-32 and a
COBS encoder written out below, so that neither decoder is tested against its own encoder.

A case: ``stream`` (hexadecimal), ``capacity`` (bytes of content, payload and CRC-32, that the decoder has room for),
``frames``: what comes out, in order: ``{"status", "payload"}``. Statuses: ``ok``, ``truncated``, ``too short``,
``too long``, ``bad CRC``.
"""

import json
import zlib
from pathlib import Path

ROOM = 2048


def cobs(content: bytes) -> bytes:
    """Straight from Cheshire and Baker: blocks of up to 254 non-zero bytes, each led by its length plus one."""
    coded, block = bytearray(), bytearray()
    for byte in content:
        if byte:
            block.append(byte)
            if len(block) == 254:
                coded += bytes([255]) + block
                block.clear()
                full = True
                continue
        else:
            coded += bytes([len(block) + 1]) + block
            block.clear()
        full = False
    if block or not content or not full:
        coded += bytes([len(block) + 1]) + block
    return bytes(coded)


def frame(payload: bytes) -> bytes:
    return cobs(payload + zlib.crc32(payload).to_bytes(4, "little")) + b"\0"


def ok(payload: bytes) -> dict:
    return {"status": "ok", "payload": payload.hex()}


def bad(status: str) -> dict:
    return {"status": status, "payload": ""}


def cases():
    hello = frame(b"hello")

    def case(name, stream, frames, capacity=ROOM):
        return {"name": name, "stream": stream.hex(), "capacity": capacity, "frames": frames}

    yield case("nothing", b"", [])
    yield case("delimiters only", b"\0\0\0", [])
    yield case("one frame", hello, [ok(b"hello")])
    yield case("two frames", hello + frame(b"again"), [ok(b"hello"), ok(b"again")])
    yield case(
        "extra delimiters before, between and after", b"\0" + hello + b"\0\0" + hello + b"\0", [ok(b"hello")] * 2
    )
    yield case("an empty payload", frame(b""), [ok(b"")])
    yield case("a payload of zeros", frame(bytes(20)), [ok(bytes(20))])
    yield case("a payload that ends in a zero", frame(b"end\0"), [ok(b"end\0")])
    for count in (249, 250, 251, 253, 254, 255, 508):
        payload = bytes(1 + i % 255 for i in range(count))
        yield case(f"{count} bytes without a zero", frame(payload), [ok(payload)])
    mixed = bytes(i * 7 % 256 for i in range(1200))
    yield case("1200 bytes", frame(mixed), [ok(mixed)])
    yield case("an unfinished frame", hello[:-1], [])
    yield case("a frame cut off, then a whole one", hello[:4] + b"\0" + hello, [bad("truncated"), ok(b"hello")])
    yield case("a code byte that points past the delimiter", b"\x05\x01\0" + hello, [bad("truncated"), ok(b"hello")])
    yield case("a code byte alone", b"\x02\0" + hello, [bad("truncated"), ok(b"hello")])
    yield case("less than a CRC-32", cobs(b"abc") + b"\0" + hello, [bad("too short"), ok(b"hello")])
    yield case("no content at all", b"\x01\0" + hello, [bad("too short"), ok(b"hello")])
    for bit in (0, 7):
        flipped = bytearray(hello)
        flipped[3] ^= 1 << bit
        yield case(f"bit {bit} of a payload byte flipped", bytes(flipped) + hello, [bad("bad CRC"), ok(b"hello")])
    damaged = bytearray(b"hello" + zlib.crc32(b"hello").to_bytes(4, "little"))
    damaged[-1] ^= 0x10
    yield case("a bit of the CRC-32 flipped", cobs(bytes(damaged)) + b"\0" + hello, [bad("bad CRC"), ok(b"hello")])
    big_endian = b"hello" + zlib.crc32(b"hello").to_bytes(4, "big")
    yield case("a CRC-32 with its bytes in the other order", cobs(big_endian) + b"\0", [bad("bad CRC")])
    yield case("a byte lost", hello[:2] + hello[3:] + hello, [bad("truncated"), ok(b"hello")])
    yield case("a byte inserted", hello[:2] + b"x" + hello[2:] + hello, [bad("truncated"), ok(b"hello")])
    yield case("a delimiter lost between two frames", hello[:-1] + hello + hello, [bad("bad CRC"), ok(b"hello")])
    exact = bytes(1 + i % 9 for i in range(28))
    yield case("a frame that fills the room", frame(exact), [ok(exact)], capacity=32)
    yield case("a frame one byte too long", frame(exact + b"!") + hello, [bad("too long"), ok(b"hello")], capacity=32)
    yield case(
        "noise much longer than the room, then a frame",
        bytes([255]) + b"\x11" * 5000 + b"\0" + hello,
        [bad("too long"), ok(b"hello")],
        capacity=32,
    )
    yield case(
        "cut off where the room is full",
        b"\x29" + exact + b"!!!!\0" + hello,
        [bad("truncated"), ok(b"hello")],
        capacity=32,
    )
    yield case(
        "cut off beyond the room",
        b"\x29" + exact + b"!!!!!\0" + hello,
        [bad("too long"), ok(b"hello")],
        capacity=32,
    )
    yield case(
        "zeros beyond the room, then cut off",
        b"\x01" * 33 + b"\x05\x01\0" + hello,
        [bad("too long"), ok(b"hello")],
        capacity=32,
    )
    yield case("no room at all", b"\x01\0\x02\x09\0", [bad("too short"), bad("too long")], capacity=0)
    long_zeros = bytes(296)
    yield case("zeros that fill the room", frame(long_zeros), [ok(long_zeros)], capacity=300)
    yield case("one zero too many", frame(bytes(297)) + hello, [bad("too long"), ok(b"hello")], capacity=300)


if __name__ == "__main__":
    path = Path(__file__).parent / "frame_cases.json"
    path.write_text(json.dumps(list(cases()), indent=1) + "\n")
