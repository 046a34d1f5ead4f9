"""Messages of ``firmware/link/messages.cddl``: requests as CBOR, and what replies say, which
:mod:`profiler.link.replies` reads."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cbor2

from profiler.devices.identity import Identity
from profiler.devices.state import MachineState

#: Version of messages.cddl that this host speaks.
PROTOCOL = 3

ENTRIES_PER_REQUEST = 8

#: One entry of a program, positional as in messages.cddl.
WireEntry = Sequence[object]
#: A program's header, positional as in messages.cddl.
WireHeader = Sequence[object]


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


def identify(nonce: int, run_limit_ms: int = 0) -> list:
    """Begin a session in which one ``run`` may take ``run_limit_ms`` of the device's own time (0: any)."""
    return [0, nonce, run_limit_ms]


def begin(program: EncodedProgram) -> list:
    return [1, _Raw(program.header), len(program.entries)]


def append(program: EncodedProgram, index: int, count: int) -> list:
    return [2, index, _raw(program.entries[index : index + count])]


def seal(program: EncodedProgram) -> list:
    return [3, program.crc32]


def run(
    repetitions: int,
    warmups: int,
    seed: int,
    program: EncodedProgram | None = None,
    *,
    cold: bool = False,
    loops: int = 0,
) -> list:
    """Run ``program`` inline, or the sealed one.

    Args:
        repetitions, warmups, seed: As in messages.cddl.
        program: What to run.
        cold: With caches emptied before each timed entry.
        loops: How often each repetition runs its timed entries; 0: once, and nothing is told of the trigger's windows.
    """
    carried = [None, []] if program is None else [_Raw(program.header), _raw(program.entries)]
    options = [int(cold), loops] if loops else [1] if cold else []
    return [4, repetitions, warmups, seed, *carried, *options]


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


def counters() -> list:
    return [9]


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
class Stop:
    """Where the session's limit on a run's time stopped one.

    Attributes:
        whole_repetitions: How many repetitions had ended.
        entry: Index of the entry that did not begin any more.
        elapsed_ms: The device's time up to there.
    """

    whole_repetitions: int
    entry: int
    elapsed_ms: int


@dataclass(frozen=True)
class Windows:
    """How often the trigger was high in a run's repetitions, and for how many ticks all together."""

    count: int
    ticks: int


@dataclass(frozen=True)
class Done:
    """What a run measured.

    Attributes:
        arena_peak_bytes, scratch_peak_bytes, stack_peak_bytes: By painting.
        tick_count: How many ticks there are to read.
        first_ticks: The first of them, up to 16.
        stop: Where it was stopped; None: it ran to its end. The ticks are then those of ``stop.whole_repetitions`` and
            of the interrupted repetition's entries that are complete, the peaks those of what ran.
        windows: Of the trigger; None where no loops were asked for.
    """

    arena_peak_bytes: int
    scratch_peak_bytes: int
    stack_peak_bytes: int
    tick_count: int
    first_ticks: tuple[int, ...]
    stop: Stop | None = None
    windows: Windows | None = None


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
class Counters:
    """What the device's receiver has seen since it started, modulo 2^32.

    Attributes:
        ok, truncated, too_short, too_long, bad_crc: Frames, by what became of them.
        overruns: Bytes that were lost because the one before had not been read yet.
    """

    ok: int
    truncated: int
    too_short: int
    too_long: int
    bad_crc: int
    overruns: int


@dataclass(frozen=True)
class OtherProtocol:
    """An identity in another version of the protocol; nothing else of it is understood."""

    version: int


Answer = (
    Ok
    | Accepted
    | RefusedReply
    | Done
    | TicksPage
    | DigestReply
    | PeekReply
    | MachineState
    | Counters
    | Identity
    | OtherProtocol
)


@dataclass(frozen=True)
class Reply:
    request_id: int
    boot_id: int
    answer: Answer
