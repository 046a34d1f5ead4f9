"""A session with one device: programs go up, ticks, peaks and digests come back.

>>> with open_device("native://") as device:  # doctest: +SKIP
...     result = device.run(program, repetitions=10)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from profiler.devices.identity import Identity
from profiler.devices.state import MachineState
from profiler.link import messages
from profiler.link.channel import Channel
from profiler.link.errors import DeviceReset, Refused, WrongProtocol
from profiler.link.expectation import ProgramLike, digest_s, run_s
from profiler.link.messages import EncodedProgram
from profiler.link.power import PowerCycle, TargetSupply
from profiler.link.refusals import refused
from profiler.link.transport import BAUD, LinkStatistics, Transport

if TYPE_CHECKING:
    from profiler.workloads.program import DeviceMemory

LARGEST_PEEK_BYTES = 768
#: How often a run that a restart interrupted is begun.
MOST_RUNS = 3
#: Wrong indices in a row after which storing a program is given up.
MOST_CORRECTIONS = 10


@dataclass(frozen=True)
class RunResult:
    """What one run of a program gave.

    Attributes:
        ticks: uint64 array [repetitions, timed entries]: of the whole repetitions.
        arena_peak_bytes: Highest byte of the arena that was written, plus one.
        scratch_peak_bytes: Largest scratch of any op.
        stack_peak_bytes: Stack that the program used.
        wire_bytes: Bytes on the wire for it, both directions, retries and upload included.
        duration_s: Wall-clock time from request to last answer.
        windows: How often and for how long the trigger was high; None where no loops were asked for.
        stop: Where the session's limit on a run's time stopped it; None: it ran to its end.
        partial_ticks: uint64 array [entries of the interrupted repetition that are complete].
    """

    ticks: np.ndarray
    arena_peak_bytes: int
    scratch_peak_bytes: int
    stack_peak_bytes: int
    wire_bytes: int
    duration_s: float
    windows: messages.Windows | None = None
    stop: messages.Stop | None = None
    partial_ticks: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))


def _entry_names(program: ProgramLike, timed: int, count: int) -> list[str]:
    """What to call each entry in a refusal: fills by their kind, ops by layer and key."""
    names = ["fill"] * (count - timed)
    for layer, op in getattr(program, "timed", ()):
        names.append(f"{layer}: {op.key}" if layer else op.key)
    return names


@contextmanager
def open_device(
    url: str,
    *,
    timeout_s: float = 5.0,
    baud: int = BAUD,
    power_cycle: PowerCycle | TargetSupply | None = None,
    region: str | None = None,
    link_log: Path | None = None,
    run_limit_s: float | None = None,
) -> Iterator[Device]:
    """The device at a port, for a ``with`` statement; it has identified itself when the block begins.

    Args:
        url: A serial port's path or a pySerial URL: ``/dev/ttyACM0``, ``socket://host:port``, ``qemu://stm32f405``,
            ``native://``.
        timeout_s: How long it may take until the device identifies itself.
        baud: Bits a second of a real serial port.
        power_cycle: What brings the device back where it stays silent, now or later.
        region: Name of the memory region that programs' arenas lie in; by default region 0.
        link_log: File that every byte on the link is appended to (see :mod:`profiler.link.link_log`).
        run_limit_s: How long one run may take in the device's own time; None: as long as it wants, since who calls
            :meth:`Device.run` counts on every repetition.

    Raises:
        PortError: the port cannot be opened.
        NoAnswer: nothing answers there.
        WrongProtocol: what answers speaks something else.
        UserError: the device has no such region, or the log cannot be written.
    """
    device = Device(
        url,
        timeout_s=timeout_s,
        baud=baud,
        power_cycle=power_cycle,
        region=region,
        link_log=link_log,
        run_limit_s=run_limit_s,
    )
    try:
        yield device
    finally:
        device.close()


class Device:
    """A device that has identified itself. Use :func:`open_device`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        baud: int = BAUD,
        power_cycle: PowerCycle | TargetSupply | None = None,
        region: str | None = None,
        link_log: Path | None = None,
        run_limit_s: float | None = None,
    ) -> None:
        self._sealed: tuple[int, EncodedProgram] | None = None
        self._tells_state = True
        limit_ms = 0 if run_limit_s is None else max(1, round(1e3 * run_limit_s))
        transport = Transport(url, baud=baud, link_log=link_log)
        try:
            self._channel = Channel(transport, timeout_s=timeout_s, power_cycle=power_cycle, run_limit_ms=limit_ms)
            self._arena_region = self._channel.identity.arena_region(region).name
        except BaseException:
            transport.release()
            raise

    def close(self) -> None:
        """Close the port; an emulator or agent behind it stops."""
        self._channel.close()

    @property
    def url(self) -> str:
        return self._channel.url

    @property
    def identity(self) -> Identity:
        """Who the device is."""
        return self._channel.identity

    @property
    def boot_id(self) -> int:
        """Changes with every restart."""
        return self._channel.boot_id

    @property
    def statistics(self) -> LinkStatistics:
        """What happened on the link so far."""
        return self._channel.statistics

    @property
    def restarts(self) -> tuple[str, ...]:
        """Why the device restarted, in words: the last restarts, where there were many."""
        return tuple(self._channel.restarts)

    @property
    def channel(self) -> Channel:
        """Single requests and answers, for tests and benchmarks."""
        return self._channel

    @property
    def arena_region(self) -> str:
        """Name of the memory region that programs' arenas lie in."""
        return self._arena_region

    @cached_property
    def memory(self) -> DeviceMemory:
        """Where programs for this device may place their buffers."""
        from profiler.workloads.program import DeviceMemory  # noqa: PLC0415 - workloads need torch, a link does not

        return DeviceMemory.of(self.identity, self._arena_region)

    # ------------------------------------------------------------ requests

    def run(
        self,
        program: ProgramLike,
        repetitions: int,
        warmups: int = 0,
        seed: int = 1,
        *,
        cold: bool = False,
        loops: int = 0,
        expected_s: float | None = None,
    ) -> RunResult:
        """Run a program ``warmups`` times untimed, then ``repetitions`` times with every repetition's ticks recorded.

        A program of up to 8 entries travels inside the request; a longer one is stored on the device first, unless it
        is there already. Where the device restarts meanwhile (or is power cycled), the whole run is repeated, a few
        times at most: nothing of the one before it is kept.

        Args:
            program: What to run.
            repetitions: How often to time it; 0 with ``warmups`` 0 fills the buffers only.
            warmups: How often to run it before.
            seed: Seed of the fills.
            cold: Whether caches are emptied before each timed op.
            loops: How often each repetition runs what it times, so that the trigger is high for long; ticks are then
                sums over the loops. 0: once, and the result does not tell of the trigger's windows.
            expected_s: Wall-clock time that it should take, if known: decides how long silence is no bad sign.

        Raises:
            Refused: the device will not run it, with the op and the reason.
            DeviceReset: it restarted every time that the program ran. The link works again.
            NoAnswer: it fell silent.
            PortError: the port went away and did not come back.
        """
        start_s, start_bytes = time.monotonic(), self.statistics.wire_bytes
        entries = program.wire_entries()
        encoded = EncodedProgram.of(program.header(), entries)
        names = _entry_names(program, encoded.timed, len(encoded.entries))
        self._channel.entry_names = names
        if expected_s is None:
            executions = repetitions * max(loops, 1) + warmups
            expected_s = run_s(program, entries, executions, self.identity, cold=cold)
        request = partial(messages.run, repetitions, warmups, seed, cold=cold, loops=loops)
        for attempt in range(MOST_RUNS):
            try:
                done, ticks = self._run_once(encoded, names, request, repetitions, expected_s)
                break
            except DeviceReset:
                if attempt == MOST_RUNS - 1:
                    raise
        whole = repetitions if done.stop is None else done.stop.whole_repetitions
        return RunResult(
            ticks=ticks[: whole * encoded.timed].reshape(whole, encoded.timed),
            arena_peak_bytes=done.arena_peak_bytes,
            scratch_peak_bytes=done.scratch_peak_bytes,
            stack_peak_bytes=done.stack_peak_bytes,
            wire_bytes=self.statistics.wire_bytes - start_bytes,
            duration_s=time.monotonic() - start_s,
            windows=done.windows,
            stop=done.stop,
            partial_ticks=ticks[whole * encoded.timed :],
        )

    def _run_once(
        self,
        encoded: EncodedProgram,
        names: list[str],
        request: Callable[..., list],
        repetitions: int,
        expected_s: float,
    ) -> tuple[messages.Done, np.ndarray]:
        what = "the program"
        command = request(encoded)
        if len(encoded.entries) <= messages.ENTRIES_PER_REQUEST and self._channel.fits(command):
            self._sealed = None  # it takes the stored program's place
        else:
            if self._sealed != (self.boot_id, encoded):
                self._store(encoded, names)
            command = request()
        done = self._checked(self._channel.ask_run(command, expected_s), what, names)
        least = most = repetitions * encoded.timed
        if done.stop is not None:
            if done.stop.whole_repetitions > repetitions or done.stop.entry >= len(encoded.entries):
                raise self._contradiction(f"{done.stop.whole_repetitions} of {repetitions} repetitions")
            least = done.stop.whole_repetitions * encoded.timed
            most = min(most, least + encoded.timed - 1)
        return done, self._collect_ticks(done, least, most)

    def digest(self, reference: int, elements: int, element: str = "f32") -> tuple[float, float, float, float]:
        """Four random projections of ``elements`` elements at ``reference``, as :func:`profiler.prng.digest`.

        Raises:
            Refused: they do not lie in one region.
        """
        return self._digest(reference, elements, element).projections

    def digest_integers(self, reference: int, elements: int, element: str) -> tuple[tuple[float, ...], int]:
        """The same of integers, and the CRC-32 of their bytes.

        Args:
            reference: Where they are.
            elements: How many.
            element: Their type: ``s8``, ``s32`` or ``u8``.

        Raises:
            Refused: they do not lie in one region.
        """
        reply = self._digest(reference, elements, element)
        return reply.projections, reply.crc32 or 0

    def _digest(self, reference: int, elements: int, element: str) -> messages.DigestReply:
        command = messages.digest(reference, elements, element)
        return self._ask(command, messages.DigestReply, "a digest", wait_s=digest_s(elements))

    def peek(self, reference: int, byte_count: int) -> bytes:
        """``byte_count`` bytes at ``reference``, fetched piece by piece.

        Raises:
            Refused: they do not lie in one region.
        """
        content = bytearray()
        while len(content) < byte_count:
            # References keep the region in their low four bits: pieces are multiples of 16 bytes.
            piece = min(LARGEST_PEEK_BYTES, byte_count - len(content))
            reply = self._ask(messages.peek(reference + len(content), piece), messages.PeekReply, "a peek")
            if len(reply.content) != piece:
                raise self._contradiction(f"{len(reply.content)} bytes where {piece} were asked for")
            content += reply.content
        return bytes(content)

    def state(self) -> MachineState | None:
        """What moves the device's speed, as it is now; None where it does not tell, as no microcontroller does."""
        if not self._tells_state:
            return None
        for attempt in range(MOST_RUNS):
            try:
                answer = self._channel.ask(messages.state(), MachineState)
                break
            except DeviceReset:
                if attempt == MOST_RUNS - 1:
                    raise
        self._tells_state = not isinstance(answer, messages.RefusedReply)
        return answer if self._tells_state else None

    def counters(self) -> messages.Counters:
        """What the device's receiver has seen since it started."""
        return self._ask(messages.counters(), messages.Counters, "its counters")

    # ------------------------------------------------------------ storing a program

    def _store(self, program: EncodedProgram, names: list[str]) -> None:
        """Send a program with begin, append and seal; a wrong index is put right by the one that the device expects."""
        self._sealed = None
        what = "the program"
        self._ask(messages.begin(program), messages.Ok, what, names=names)
        index, corrections = 0, 0
        while index < len(program.entries):
            count = self._append_count(program, index)
            try:
                self._ask(messages.append(program, index, count), messages.Ok, what, names=names)
                index += count
            except Refused as error:
                corrections += 1
                if error.reason != "wrong_index" or corrections > MOST_CORRECTIONS:
                    raise
                index = error.detail
        self._ask(messages.seal(program), messages.Ok, what, names=names)
        self._sealed = (self.boot_id, program)

    def _append_count(self, program: EncodedProgram, index: int) -> int:
        for count in range(messages.ENTRIES_PER_REQUEST, 1, -1):
            if index + count <= len(program.entries) and self._channel.fits(messages.append(program, index, count)):
                return count
        return 1

    def _collect_ticks(self, done: messages.Done, least: int, most: int) -> np.ndarray:
        ticks, expected = list(done.first_ticks), done.tick_count
        if not least <= expected <= most or len(ticks) > expected:
            raise self._contradiction(f"{expected} ticks where {most} were asked for")
        while len(ticks) < expected:
            page = self._ask(messages.read(len(ticks)), messages.TicksPage, "a page of ticks")
            if page.first != len(ticks) or not 0 < len(page.ticks) <= expected - len(ticks):
                raise self._contradiction(f"a page of ticks from {page.first} where {len(ticks)} was asked for")
            ticks += page.ticks
        return np.array(ticks, dtype=np.uint64)

    def _contradiction(self, found: str) -> WrongProtocol:
        return WrongProtocol(
            f"{self.identity.board} at {self.url} contradicts itself: {found}",
            hint="host and firmware disagree: build and load the firmware",
        )

    def _ask(self, command: list, expected: type, what: str, *, names: Sequence[str] = (), wait_s: float = 0.0):
        return self._checked(self._channel.ask(command, expected, wait_s=wait_s), what, names)

    def _checked(self, answer, what: str, names: Sequence[str]):
        if isinstance(answer, messages.RefusedReply):
            raise refused(self.identity.board, answer, what, names)
        return answer
