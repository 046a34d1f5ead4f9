"""How long a device should take for what it is asked, before anything of the kind was measured on it.

The policy: an expectation is a guess at the slowest device of its kind, and no limit. A host that waits too short a
time sends a probe of some 15 bytes, sees that the device is busy, and waits again, longer each time, until about 70
times the expectation (:class:`profiler.link.patience.Patience`): one that is too short costs a few retries. One that is
too long delays the discovery of a device that has died, which takes about as many times the expectation, unless the
session has a limit for its runs and the device a watchdog: together they end the wait. So guesses stay short, and who
knows better (the trial loop, from earlier rounds) says so.
"""

from __future__ import annotations

from typing import Protocol

from profiler.devices.identity import Identity
from profiler.ops import Pass

#: Work units (:func:`work_units`) a second: 150 million instructions a second emulated, 15 instructions a
#: multiply-accumulate, two emulators on a core.
UNITS_PER_SECOND = 5e6
#: How much longer float32 takes without an FPU: an emulated Cortex-M3 on a busy host does 1e6 units a second.
SOFT_FLOAT = 10
#: Words a second in a digest or fill, likewise.
WORDS_PER_SECOND = 2e5
#: To empty the caches once: an emulator's host takes 0.6 ms for 36 MiB of last-level cache, a Raspberry Pi's is smaller
#: and its memory slower.
COLD_S = 0.005


class ProgramLike(Protocol):
    """What the session needs of :class:`profiler.workloads.program.Program`."""

    def header(self) -> list: ...
    def wire_entries(self) -> list: ...


def work_units(program: ProgramLike, *, soft_float: bool = False) -> float:
    """A coarse size of one repetition: multiply-accumulates and words touched, times the images in the batch.

    Args:
        program: What runs.
        soft_float: Whether float32 ops count :data:`SOFT_FLOAT` times; of dtype s8 only the forward pass has none.
    """
    units = 0.0
    for _, op in getattr(program, "timed", ()):
        floats = op.dtype != "s8" or op.pass_ is not Pass.FORWARD
        units += (op.macs + op.bytes_touched // 4) * (SOFT_FLOAT if soft_float and floats else 1)
    return units * int(program.header()[1])


def run_s(program: ProgramLike, entries: list, executions: int, identity: Identity, *, cold: bool) -> float:
    """Seconds for filling the buffers of a program and executing it so many times.

    Args:
        program: What runs.
        entries: Its :meth:`wire_entries`.
        executions: Warm-ups and repetitions together.
        identity: Of the device.
        cold: Whether caches are emptied before each timed entry.
    """
    _, images, setup_end, image_end, *_ = program.header()
    soft_float = identity.fpu.casefold() in ("", "none")
    seconds = executions * work_units(program, soft_float=soft_float) / UNITS_PER_SECOND
    filled = _filled_words(entries[:setup_end]) + executions * images * _filled_words(entries[setup_end:image_end])
    seconds += filled / WORDS_PER_SECOND
    if cold:
        seconds += executions * images * (len(entries) - image_end) * COLD_S
    return seconds


def _filled_words(fills: list) -> int:
    return sum(entry[4][0] for entry in fills)


def digest_s(elements: int) -> float:
    """Seconds for a digest: in double precision, which no microcontroller here has an FPU for."""
    return elements / WORDS_PER_SECOND
