"""Who a device says it is: the first thing that is read, and part of every manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from profiler.errors import UserError
from profiler.ops import DTYPE_CODES, GEOMETRIES, PASS_CODES

#: What the timer counts where it counts instructions instead of time; goes into every table and plot.
INSTRUCTIONS = "instructions"


def capability_codes(numbers: Iterable[int]) -> tuple[int, ...]:
    """A code ``kind << 8 | pass << 4 | dtype`` an op, from what travels: ``kind << 8 | dtype << 4 | bit a pass``."""
    return tuple(
        n & 0xFF00 | pass_ << 4 | n >> 4 & 15 for n in numbers for pass_ in PASS_CODES.values() if n >> pass_ & 1
    )


#: Numbers of regions with a meaning: the stored program and the arena by default, the blob, no place for buffers.
STORE, BLOB, NOT_FOR_PROGRAMS = 0, 1, 15


@dataclass(frozen=True)
class MemoryRegion:
    """One memory that buffers can lie in.

    Attributes:
        name: As in the board's reference manual, for example ``DTCM``.
        byte_count: How much of it programs may use.
        region: Its number in references (0: the arena by default, 1: the blob).
        cached: Whether a data cache lies between it and the core.
    """

    name: str
    byte_count: int
    region: int
    cached: bool

    @property
    def takes_arena(self) -> bool:
        """Whether a program's arena may lie in it."""
        return self.region not in (BLOB, NOT_FOR_PROGRAMS)

    @property
    def holds(self) -> str:
        """What lies there, in words."""
        return {
            STORE: "arena by default, stored program, ticks",
            BLOB: "frozen weights (read-only)",
            NOT_FOR_PROGRAMS: "nothing of programs",
        }.get(self.region, "an arena, where asked for")


class ResetCause(StrEnum):
    """Why a device last started."""

    UNKNOWN = "unknown"
    POWER = "power"
    PIN = "pin"
    SOFTWARE = "software"
    WATCHDOG = "watchdog"
    FAULT = "fault"

    @classmethod
    def of(cls, code: int) -> ResetCause:
        """By its number in ``firmware/link/messages.cddl``; one that this host does not know is unknown."""
        causes = list(cls)
        return causes[code] if code < len(causes) else cls.UNKNOWN


#: What a fault's registers are, by how many there are: on a Cortex-M and on Linux.
_REGISTERS = {
    8: ("exception", "CFSR", "HFSR", "MMFAR", "BFAR", "PC", "LR", "xPSR"),
    6: ("signal", "code", "address", "address (high)", "PC", "PC (high)"),
}


@dataclass(frozen=True)
class Reset:
    """How the last life of a device ended.

    Attributes:
        cause: Why it started anew.
        running: Which entry of a program ran then, its index + 1; 0: none.
        registers: Of a fault, in the order of ``firmware/link/messages.cddl``; else empty.
    """

    cause: ResetCause = ResetCause.UNKNOWN
    running: int = 0
    registers: tuple[int, ...] = ()

    @property
    def in_words(self) -> str:
        """For example ``fault in entry 3 of the program (exception 0x3, ..., PC 0x8001234, ...)``."""
        words = str(self.cause) + (f" in entry {self.running - 1} of the program" if self.running else "")
        names = _REGISTERS.get(len(self.registers), [f"register {i}" for i in range(len(self.registers))])
        values = ", ".join(f"{name} {value:#x}" for name, value in zip(names, self.registers, strict=True))
        return f"{words} ({values})" if values else words

    @classmethod
    def from_dict(cls, record: dict) -> Reset:
        """Read :func:`dataclasses.asdict`'s record, also after a trip through JSON."""
        return cls(ResetCause(record["cause"]), record["running"], tuple(record["registers"]))


#: Of Linux machines, and of most else that has caches.
LINE_BYTES = 64


def is_linux_board(board: str) -> bool:
    """Whether a board of that name is a Linux host."""
    return "linux" in board.lower() or "native" in board.lower()


@dataclass(frozen=True)
class Identity:
    """What a device tells about itself, field by field as in ``firmware/link/messages.cddl``; the last is the host's.

    Attributes:
        protocol: Version of the protocol it speaks.
        board: Name of the board, as in ``qemu://BOARD``.
        core: For example ``cortex-m4f``.
        unique_id: Serial number of the chip, hexadecimal; empty where there is none.
        clock_hz: Core clock.
        timer: Which timer the ticks come from.
        timer_hz: Its ticks per second (of virtual time, where the device is emulated).
        timer_bits: Its width; ticks are already unwrapped.
        ticks_per_instruction: (numerator, denominator) where the timer counts instructions, (0, any) where unknown.
        caches: Caches and their state, in words.
        flash_wait_states: Wait states of the flash.
        fpu: Mode of the floating-point unit, in words.
        memory: All regions.
        blob_bytes: Size of the read-only weights in region 1.
        blob_seed: Seed they were made from.
        blob_segments: What each of the blob's equal segments holds, see :func:`profiler.prng.segment_kind`.
        largest_frame_bytes: The longest frame it takes, delimiter included.
        largest_program: Entries of the longest program it stores.
        entry_bytes: What a stored entry takes from the arena region.
        capabilities: Codes ``kind << 8 | pass << 4 | dtype`` of the ops it can run.
        firmware_version: Version of the firmware.
        build_hash: Hash over everything that went into the firmware: trials of two builds are never mixed.
        compiler: Compiler and version.
        flags: Compiler flags.
        cold_runs: Whether it can empty its caches before each timed op.
        watchdog_ms: The longest that one op may take until its watchdog resets it; 0: it has none.
        reset: Why it last started.
        line_bytes: What buffers of an op's own program begin on: a cache line where its loops are made wide vectors of,
            which take a third longer across two lines.
    """

    protocol: int
    board: str
    core: str
    unique_id: str
    clock_hz: int
    timer: str
    timer_hz: int
    timer_bits: int
    ticks_per_instruction: tuple[int, int]
    caches: str
    flash_wait_states: int
    fpu: str
    memory: tuple[MemoryRegion, ...]
    blob_bytes: int
    blob_seed: int
    blob_segments: tuple[int, ...]
    largest_frame_bytes: int
    largest_program: int
    entry_bytes: int
    capabilities: tuple[int, ...]
    firmware_version: str
    build_hash: str
    compiler: str
    flags: str
    cold_runs: bool = False
    watchdog_ms: int = 0
    reset: Reset = Reset()
    line_bytes: int = 16

    @property
    def counts_instructions(self) -> bool:
        """Whether ticks are instructions (an emulated device) rather than time."""
        return self.ticks_per_instruction[0] != 0

    @property
    def timer_label(self) -> str:
        """What tables and plots call the timer: ``instructions`` for emulated devices, else the timer's name."""
        return INSTRUCTIONS if self.counts_instructions else self.timer

    def ticks_to_us(self, ticks):
        """Microseconds (virtual ones on an emulated device) of a number or array of ticks."""
        return ticks * (1e6 / self.timer_hz)

    def region(self, number: int) -> MemoryRegion:
        """The region with this number.

        Raises:
            KeyError: there is none.
        """
        for region in self.memory:
            if region.region == number:
                return region
        raise KeyError(number)

    def arena_region(self, name: str | None = None) -> MemoryRegion:
        """The region of this name for an arena; without a name region 0.

        Raises:
            UserError: there is none, or nothing may be written there; the sentence lists those there are.
        """
        for region in self.memory:
            if region.takes_arena and (region.region == STORE if name is None else region.name == name):
                return region
        usable = ", ".join(
            f"{r.name} ({r.byte_count:,} bytes, {'cached' if r.cached else 'not cached'})"
            for r in self.memory
            if r.takes_arena
        )
        raise UserError(
            f"{self.board} has no memory region {name!r} for an arena", hint=f"there are {usable}", exit_status=2
        )

    def supported(self) -> frozenset[tuple[str, str, str]]:
        """The (kind, pass, dtype) triples that it can run; codes this host does not know are left out."""
        kinds = {cls.code: kind for kind, cls in GEOMETRIES.items()}
        passes = {code: str(pass_) for pass_, code in PASS_CODES.items()}
        dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
        triples = ((kinds.get(c >> 8), passes.get(c >> 4 & 15), dtypes.get(c & 15)) for c in self.capabilities)
        return frozenset(t for t in triples if None not in t)  # type: ignore[misc]

    def to_dict(self) -> dict[str, object]:
        """JSON-ready record; :meth:`from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, record: dict) -> Identity:
        """Read :meth:`to_dict`'s record, also after a trip through JSON.

        Raises:
            ValueError: fields are missing or unknown.
        """
        record = dict(record)
        # Runs of before the blob held int8 weights have exponents, which are the codes of float32 segments.
        segments = record.pop("blob_exponents", None)
        try:
            return cls(
                **record
                | {
                    "memory": tuple(MemoryRegion(**r) for r in record["memory"]),
                    "ticks_per_instruction": tuple(record["ticks_per_instruction"]),
                    "blob_segments": tuple(segments or record["blob_segments"]),
                    "capabilities": tuple(record["capabilities"]),
                    "reset": Reset.from_dict(record["reset"]) if "reset" in record else Reset(),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not an identity record: {error}") from None
