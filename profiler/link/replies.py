"""Replies, checked item by item against ``firmware/link/messages.cddl``.

A reply is untrusted: :func:`decode_reply` accepts exactly what the definition allows and raises :class:`BadReply` for
everything else, so that nothing past this module has to doubt a type or a range. :func:`_check_items` walks the bytes
before the CBOR library sees them: only definite-length integers, strings, lists and floats get through, so no reply
can make the host allocate, recurse or build more than its own length.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cbor2

from profiler.devices.identity import (
    LINE_BYTES,
    Identity,
    MemoryRegion,
    Reset,
    ResetCause,
    capability_codes,
    is_linux_board,
)
from profiler.devices.state import MachineState
from profiler.link.messages import (
    PROTOCOL,
    Accepted,
    Counters,
    DigestReply,
    Done,
    Ok,
    OtherProtocol,
    PeekReply,
    RefusedReply,
    Reply,
    Stop,
    TicksPage,
    Windows,
)

#: 0 degrees Celsius in kelvin.
KELVIN = 273.15


class BadReply(ValueError):  # noqa: N818 - the name says what happened
    """A frame that arrived whole but holds no reply of this protocol."""


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
    *peaks, tick_count, ticks = _list(fields[:5], "done", 5, 5)
    arena, scratch, stack = (_uint(p, 32, "peak") for p in peaks)
    more = [_list(field, "the end of done", 2, 3) for field in _list(fields[5:], "the end of done", 0, 2)]
    if [len(field) for field in more] not in ([], [3], [2], [3, 2]):
        raise BadReply("done ends in something else than a stop and windows")
    stop = next((_stop(field) for field in more if len(field) == 3), None)
    windows = next((_windows(field) for field in more if len(field) == 2), None)
    tick_count, ticks = _uint(tick_count, 32, "tick count"), _uints(ticks, 64, "ticks", 0, 16)
    return Done(arena, scratch, stack, tick_count, ticks, stop, windows)


def _windows(value: list) -> Windows:
    return Windows(_uint(value[0], 32, "windows"), _uint(value[1], 64, "ticks of windows"))


def _stop(value: object) -> Stop:
    whole, entry, elapsed_ms = _list(value, "stop", 3, 3)
    return Stop(_uint(whole, 16, "repetitions"), _uint(entry, 16, "entry"), _uint(elapsed_ms, 32, "elapsed time"))


def _counters(fields: list) -> Counters:
    return Counters(*(_uint(f, 32, "counter") for f in _fields(fields, 6, "counters")))


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


def _reset(value: object) -> Reset:
    cause, running, registers = _list(value, "reset", 3, 3)
    return Reset(
        cause=ResetCause.of(_uint(cause, 8, "cause of the reset")),
        running=_uint(running, 16, "what ran before the reset"),
        registers=_uints(registers, 32, "registers", 0, 8),
    )


def _identity(fields: list) -> Identity | OtherProtocol:
    if not fields:
        raise BadReply("an identity without a protocol version")
    protocol = _uint(fields[0], 8, "protocol version")
    if protocol != PROTOCOL:
        return OtherProtocol(protocol)
    _fields(fields, 22, "identity")
    _, board, core, unique_id, clock_hz, timer, caches, wait_states, fpu, memory, blob = fields[:11]
    frame, program, entry, capabilities, version, build_hash, compiler, flags = fields[11:19]
    cold_runs, watchdog_ms, reset = fields[19:]
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
        cold_runs=bool(_uint(cold_runs, 1, "cold runs")),
        watchdog_ms=_uint(watchdog_ms, 32, "watchdog's limit"),
        reset=_reset(reset),
    )
    if is_linux_board(identity.board):
        identity = replace(identity, line_bytes=LINE_BYTES)
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


_ANSWERS = (_ok, _accepted, _refused, _done, _ticks_page, _digest, _peek, _identity, _state, _counters)
