"""Messages: requests as CBOR, replies checked item by item against ``firmware/link/messages.cddl``.

A reply is untrusted: :func:`decode_reply` accepts exactly what the definition allows and raises :class:`BadReply` for
everything else, so that nothing past this module has to doubt a type or a range. :func:`_check_items` walks the bytes
before the CBOR library sees them: only definite-length integers, strings, lists and floats get through, so no reply
can make the host allocate, recurse or build more than its own length.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cbor2

from profiler.devices.identity import Identity, MemoryRegion, capability_codes
from profiler.devices.state import MachineState

#: Version of messages.cddl that this host speaks.
PROTOCOL = 2

ENTRIES_PER_REQUEST = 8

#: 0 degrees Celsius in kelvin.
KELVIN = 273.15

#: One entry of a program, positional as in messages.cddl.
WireEntry = Sequence[object]
#: A program's header, positional as in messages.cddl.
WireHeader = Sequence[object]


class BadReply(ValueError):  # noqa: N818 - the name says what happened
    """A frame that arrived whole but holds no reply of this protocol."""


# ---------------------------------------------------------------- requests


@dataclass(frozen=True)
class _Raw:
    """CBOR that is encoded already."""

    content: bytes


def _encode_special(encoder: cbor2.CBOREncoder, value: object) -> None:
    if not isinstance(value, _Raw):
        raise TypeError(f"{type(value).__name__} does not travel in a request")
    encoder.write(value.content)


def _dumps(value: object) -> bytes:
    return cbor2.dumps(value, default=_encode_special)


def _narrowed(value: object) -> object:
    """``value`` with floats as float32, which is what the device computes in, or shorter where that says the same."""
    if isinstance(value, float):
        single = struct.pack(">f", value)
        with contextlib.suppress(OverflowError):
            half = struct.pack(">e", value)
            if struct.unpack(">e", half) == struct.unpack(">f", single):
                return _Raw(b"\xf9" + half)
        return _Raw(b"\xfa" + single)
    if isinstance(value, list | tuple):
        return [_narrowed(v) for v in value]
    return value


def encode_entry(entry: WireEntry) -> bytes:
    """CBOR of one entry of a program."""
    return cbor2.dumps(list(entry))


def encode_header(header: WireHeader) -> bytes:
    """CBOR of a program's header."""
    return _dumps(_narrowed(header))


@dataclass(frozen=True)
class EncodedProgram:
    """A program as it travels.

    Attributes:
        header: CBOR of its header.
        entries: CBOR of each entry.
        timed: How many of its entries are timed: those from ``image_end`` on.
    """

    header: bytes
    entries: tuple[bytes, ...]
    timed: int

    @classmethod
    def of(cls, header: WireHeader, entries: Sequence[WireEntry]) -> EncodedProgram:
        """Encode what :meth:`Program.header` and :meth:`Program.wire_entries` return."""
        image_end = header[3]
        assert isinstance(image_end, int)
        return cls(encode_header(header), tuple(encode_entry(e) for e in entries), len(entries) - image_end)

    @property
    def crc32(self) -> int:
        """CRC-32 over all entries in order, as ``seal`` states it."""
        return zlib.crc32(b"".join(self.entries))

    @property
    def byte_count(self) -> int:
        return len(self.header) + sum(map(len, self.entries))


def _raw(items: Sequence[bytes]) -> list[_Raw]:
    return [_Raw(item) for item in items]


def identify(nonce: int) -> list:
    return [0, nonce]


def begin(program: EncodedProgram) -> list:
    return [1, _Raw(program.header), len(program.entries)]


def append(program: EncodedProgram, index: int, count: int) -> list:
    return [2, index, _raw(program.entries[index : index + count])]


def seal(program: EncodedProgram) -> list:
    return [3, program.crc32]


def run(
    repetitions: int, warmups: int, seed: int, program: EncodedProgram | None = None, *, cold: bool = False
) -> list:
    """Run ``program`` inline, or the sealed one; ``cold``: with caches emptied before each timed entry."""
    carried = [None, []] if program is None else [_Raw(program.header), _raw(program.entries)]
    return [4, repetitions, warmups, seed, *carried, *([1] if cold else [])]


def read(first: int) -> list:
    return [5, first]


#: Codes of elements in a digest.
_DIGEST_TYPES = {"f32": 0, "s8": 1, "s32": 2, "u8": 3}


def digest(reference: int, elements: int, element: str = "f32") -> list:
    code = _DIGEST_TYPES[element]
    return [6, reference, elements, *([code] if code else [])]


def peek(reference: int, byte_count: int) -> list:
    return [7, reference, byte_count]


def state() -> list:
    return [8]


def encode_request(request_id: int, command: list) -> bytes:
    """CBOR of a request; ``command`` comes from one of the functions above."""
    return _dumps([request_id, command])


# ---------------------------------------------------------------- replies


@dataclass(frozen=True)
class Ok:
    pass


@dataclass(frozen=True)
class Accepted:
    pass


@dataclass(frozen=True)
class RefusedReply:
    """Why not: ``reason`` is a code of ``firmware/runtime/status.h``, ``detail`` a number that belongs to it."""

    reason: int
    entry_index: int
    detail: int


@dataclass(frozen=True)
class Done:
    arena_peak_bytes: int
    scratch_peak_bytes: int
    stack_peak_bytes: int
    tick_count: int
    first_ticks: tuple[int, ...]


@dataclass(frozen=True)
class TicksPage:
    first: int
    ticks: tuple[int, ...]


@dataclass(frozen=True)
class DigestReply:
    projections: tuple[float, float, float, float]
    crc32: int | None = None  # of integers


@dataclass(frozen=True)
class PeekReply:
    content: bytes


@dataclass(frozen=True)
class OtherProtocol:
    """An identity in another version of the protocol; nothing else of it is understood."""

    version: int


Answer = (
    Ok | Accepted | RefusedReply | Done | TicksPage | DigestReply | PeekReply | MachineState | Identity | OtherProtocol
)


@dataclass(frozen=True)
class Reply:
    request_id: int
    boot_id: int
    answer: Answer


def decode_reply(payload: bytes) -> Reply:
    """The reply in a frame's payload.

    Raises:
        BadReply: it is none, for whatever reason.
    """
    _check_items(payload)
    try:
        value = cbor2.loads(payload)
    except Exception as error:  # the library has several ways to reject bytes; to a host they are all one
        raise BadReply(f"not CBOR: {error}") from None
    items = _list(value, "reply", 3, 3)
    fields = _list(items[2], "answer", 1, 64)
    tag = _uint(fields[0], 8, "answer's tag")
    if tag >= len(_ANSWERS):
        raise BadReply(f"unknown answer {tag}")
    return Reply(_uint(items[0], 32, "request id"), _uint(items[1], 32, "boot id"), _ANSWERS[tag](fields[1:]))


def _check_items(payload: bytes) -> None:
    """Raise BadReply unless ``payload`` is one well-formed item of the kinds that replies consist of."""
    position, size = 0, len(payload)
    open_items = [1]  # items still to come on each level
    while open_items:
        if not open_items[-1]:
            open_items.pop()
            continue
        open_items[-1] -= 1
        if position >= size:
            raise BadReply("it ends early")
        major, info = payload[position] >> 5, payload[position] & 31
        width = 0 if info < 24 else 1 << (info - 24) if info < 28 else -1
        if width < 0 or major not in (0, 2, 3, 4, 7):
            raise BadReply(f"byte 0x{payload[position]:02x} does not belong in a reply")
        if major == 7 and info not in (25, 26, 27):
            raise BadReply("a simple value where a number belongs")
        argument = int.from_bytes(payload[position + 1 : position + 1 + width], "big") if width else info
        position += 1 + width
        if major in (2, 3):
            position += argument
        elif major == 4:
            if argument > size - position or len(open_items) > 4:
                raise BadReply("a list longer or deeper than the frame")
            open_items.append(argument)
        if position > size:
            raise BadReply("it ends early")
    if position != size:
        raise BadReply(f"{size - position} bytes follow it")


def _list(value: object, name: str, least: int, most: int) -> list:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise BadReply(f"{name} must be a list of {least} to {most} items")
    return value


def _uint(value: object, bits: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise BadReply(f"{name} must be an unsigned integer of {bits} bits")
    return value


def _uints(value: object, bits: int, name: str, least: int, most: int) -> tuple[int, ...]:
    return tuple(_uint(v, bits, name) for v in _list(value, name, least, most))


def _text(value: object, name: str, least: int, most: int) -> str:
    if not isinstance(value, str) or not least <= len(value.encode()) <= most:
        raise BadReply(f"{name} must be a text of {least} to {most} bytes")
    if not value.isprintable():  # it ends up on terminals and in files
        raise BadReply(f"{name} holds control characters")
    return value


def _bytes(value: object, name: str, least: int, most: int) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise BadReply(f"{name} must be a byte string of {least} to {most} bytes")
    return value


def _fields(fields: list, count: int, name: str) -> list:
    if len(fields) != count:
        raise BadReply(f"{name} must have {count} fields, it has {len(fields)}")
    return fields


def _ok(fields: list) -> Ok:
    _fields(fields, 0, "ok")
    return Ok()


def _accepted(fields: list) -> Accepted:
    _fields(fields, 0, "accepted")
    return Accepted()


def _refused(fields: list) -> RefusedReply:
    reason, entry_index, detail = _fields(fields, 3, "refused")
    return RefusedReply(_uint(reason, 8, "reason"), _uint(entry_index, 16, "entry index"), _uint(detail, 32, "detail"))


def _done(fields: list) -> Done:
    *peaks, tick_count, ticks = _fields(fields, 5, "done")
    arena, scratch, stack = (_uint(p, 32, "peak") for p in peaks)
    return Done(arena, scratch, stack, _uint(tick_count, 32, "tick count"), _uints(ticks, 64, "ticks", 0, 16))


def _ticks_page(fields: list) -> TicksPage:
    first, ticks = _fields(fields, 2, "page of ticks")
    return TicksPage(_uint(first, 32, "first tick"), _uints(ticks, 64, "ticks", 0, 48))


def _digest(fields: list) -> DigestReply:
    fields = _list(fields, "digest", 1, 2)
    projections = _list(fields[0], "projections", 4, 4)
    if not all(isinstance(p, float) for p in projections):
        raise BadReply("projections must be floats")
    return DigestReply(tuple(projections), _uint(fields[1], 32, "CRC-32") if len(fields) > 1 else None)


def _peek(fields: list) -> PeekReply:
    return PeekReply(_bytes(_fields(fields, 1, "peek")[0], "content", 0, 768))


def _memory_region(value: object) -> MemoryRegion:
    name, byte_count, region, cached = _list(value, "memory region", 4, 4)
    return MemoryRegion(
        name=_text(name, "region's name", 1, 16),
        byte_count=_uint(byte_count, 32, "region's size"),
        region=_uint(region, 4, "region's number"),
        cached=bool(_uint(cached, 1, "region's cached")),
    )


def _identity(fields: list) -> Identity | OtherProtocol:
    if not fields:
        raise BadReply("an identity without a protocol version")
    protocol = _uint(fields[0], 8, "protocol version")
    if protocol != PROTOCOL:
        return OtherProtocol(protocol)
    cold_runs = _uint(fields.pop(), 1, "cold runs") if len(fields) == 20 else 0  # older firmware has none
    _fields(fields, 19, "identity")
    _, board, core, unique_id, clock_hz, timer, caches, wait_states, fpu, memory, blob = fields[:11]
    frame, program, entry, capabilities, version, build_hash, compiler, flags = fields[11:]
    timer_name, timer_hz, timer_bits, numerator, denominator = _list(timer, "timer", 5, 5)
    blob_bytes, blob_seed, blob_segments = _list(blob, "blob", 3, 3)
    identity = Identity(
        protocol=protocol,
        board=_text(board, "board", 1, 32),
        core=_text(core, "core", 1, 32),
        unique_id=_bytes(unique_id, "unique id", 0, 16).hex(),
        clock_hz=_uint(clock_hz, 32, "clock"),
        timer=_text(timer_name, "timer's name", 1, 32),
        timer_hz=_uint(timer_hz, 32, "timer's frequency"),
        timer_bits=_uint(timer_bits, 8, "timer's width"),
        ticks_per_instruction=(
            _uint(numerator, 16, "ticks per instruction"),
            _uint(denominator, 16, "ticks per instruction"),
        ),
        caches=_text(caches, "caches", 0, 64),
        flash_wait_states=_uint(wait_states, 8, "flash wait states"),
        fpu=_text(fpu, "fpu", 0, 32),
        memory=tuple(_memory_region(r) for r in _list(memory, "memory", 1, 6)),
        blob_bytes=_uint(blob_bytes, 32, "blob's size"),
        blob_seed=_uint(blob_seed, 32, "blob's seed"),
        blob_segments=_uints(blob_segments, 8, "blob's segments", 1, 32),
        largest_frame_bytes=_uint(frame, 16, "largest frame"),
        largest_program=_uint(program, 16, "largest program"),
        entry_bytes=_uint(entry, 16, "entry's size"),
        capabilities=capability_codes(_uints(capabilities, 16, "capabilities", 1, 64)),
        firmware_version=_text(version, "firmware version", 1, 16),
        build_hash=_text(build_hash, "build hash", 1, 16),
        compiler=_text(compiler, "compiler", 1, 48),
        flags=_text(flags, "flags", 0, 160),
        cold_runs=bool(cold_runs),
    )
    if not identity.timer_hz or (identity.ticks_per_instruction[0] and not identity.ticks_per_instruction[1]):
        raise BadReply("a timer that does not count")
    if identity.largest_frame_bytes < 64 or math.prod(r.byte_count for r in identity.memory) == 0:
        raise BadReply("a device without room for a request")
    return identity


def _state(fields: list) -> MachineState:
    cpu, scheduling, governor, frequency_khz, millikelvin, throttled, trigger = _fields(fields, 7, "state")
    temperature = _uint(millikelvin, 32, "temperature")
    flags = _uints(throttled, 32, "throttled flags", 0, 1)
    return MachineState(
        cpu=_uint(cpu, 16, "cpu"),
        scheduling=_text(scheduling, "scheduling", 0, 32),
        governor=_text(governor, "governor", 0, 16),
        frequency_khz=_uint(frequency_khz, 32, "frequency") or None,
        temperature_c=round(temperature / 1000 - KELVIN, 3) if temperature else None,
        throttled=flags[0] if flags else None,
        trigger=_text(trigger, "trigger", 0, 48),
    )


_ANSWERS = (_ok, _accepted, _refused, _done, _ticks_page, _digest, _peek, _identity, _state)
