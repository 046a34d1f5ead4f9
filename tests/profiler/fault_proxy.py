"""A serial line that fails on schedule: a pseudo-terminal towards the host, a real device on its other side.

>>> with FaultyLine("qemu://stm32f405", folder, seed=1) as line, open_device(line.path) as device:  # doctest: +SKIP
...     device.run(program, repetitions=4)
...     line.hits

Faults are drawn from a seed: which frame of a direction gets which, and at which of its bytes. The line keeps the order
of what it carries, as serial lines do; towards the host it may also deliver old replies once more, as a driver does
that reads its ring buffer twice.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import random
import select
import threading
import time
import tty
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import serial

from profiler.link import ports


class Fault(StrEnum):
    """What happens to a frame, at one of its bytes where not said otherwise."""

    DROP = "drop"  # some bytes are lost
    DROP_FRAME = "drop frame"
    DUPLICATE = "duplicate"  # the last bytes come twice
    DUPLICATE_FRAME = "duplicate frame"
    FLIP = "flip"  # one bit
    INSERT = "insert"  # random bytes, zeros among them
    DELIMITERS = "delimiters"  # zeros
    STALE_FRAME = "stale frame"  # an older frame of this direction comes before it once more
    ECHO = "echo"  # the other direction's last frame comes before it
    DELAY = "delay"
    SPLIT = "split"  # the rest comes in pieces, with pauses
    BURST = "burst"  # many bytes in a row are noise
    HANG_UP = "hang up"  # the port goes away and comes back under the same path; what is under way is lost


TO_DEVICE, TO_HOST = "to device", "to host"

#: How frequent each is, and the least and the most of it: bytes, or milliseconds of a delay and an absence.
_MIX: dict[Fault, tuple[int, int, int]] = {
    Fault.DROP: (16, 1, 6),
    Fault.DROP_FRAME: (6, 1, 1),
    Fault.DUPLICATE: (12, 1, 6),
    Fault.DUPLICATE_FRAME: (10, 1, 1),
    Fault.FLIP: (18, 0, 7),
    Fault.INSERT: (12, 1, 12),
    Fault.DELIMITERS: (6, 1, 3),
    Fault.STALE_FRAME: (12, 1, 100),
    Fault.ECHO: (4, 1, 1),
    Fault.DELAY: (10, 1, 300),
    Fault.SPLIT: (6, 1, 8),
    Fault.BURST: (5, 8, 60),
    Fault.HANG_UP: (2, 20, 600),
}
#: A line does not send the device what the host sent long ago, nor the device's own words.
_TO_HOST_ONLY = frozenset({Fault.STALE_FRAME, Fault.ECHO})
_AT_THE_BEGINNING = frozenset({Fault.DROP_FRAME, Fault.STALE_FRAME, Fault.ECHO})
_AT_THE_END = 1 << 30


@dataclass(frozen=True)
class Event:
    """One fault to come.

    Attributes:
        frame: To which frame of its direction, from 0; those sent again count.
        offset: At which of its bytes; the last where it has fewer.
        fault: Which.
        amount: Of it: bytes, the bit, how many frames ago, or milliseconds.
    """

    frame: int
    offset: int
    fault: Fault
    amount: int


def schedule(
    seed: int, direction: str, rate: float, *, mix: dict[Fault, tuple[int, int, int]] | None = None
) -> Iterator[Event]:
    """Faults for ever: a frame has one with probability ``rate``. None where that is 0."""
    mix = mix or _MIX
    source = random.Random(f"{seed}/{direction}")
    kinds = [fault for fault in mix if direction == TO_HOST or fault not in _TO_HOST_ONLY]
    weights = [mix[fault][0] for fault in kinds]
    for frame in itertools.count() if rate else ():
        if source.random() < rate:
            fault = source.choices(kinds, weights)[0]
            offset = 0 if fault in _AT_THE_BEGINNING else source.randrange(80)
            if fault is Fault.DUPLICATE_FRAME:
                offset = _AT_THE_END
            yield Event(frame, offset, fault, source.randint(*mix[fault][1:]))


@dataclass(frozen=True)
class Pause:
    """Nothing comes for so long."""

    seconds: float


@dataclass(frozen=True)
class HangUp:
    """The port is away for so long; the device may lose its power meanwhile."""

    seconds: float
    restart: bool = False


class Direction:
    """Does to a stream of frames what a schedule says.

    Args:
        events: The schedule, in the order of frames.
        seed: Of the noise.

    Attributes:
        hits: How often each fault was done to bytes that travelled.
        frames: The last frames that came in, as they came.
        byte_count: What came in.
    """

    def __init__(self, events: Iterable[Event], seed: int) -> None:
        self.hits: Counter[Fault] = Counter()
        self.frames: deque[bytes] = deque(maxlen=100)
        self.byte_count = 0
        self.other: Direction | None = None
        self._events = iter(events)
        self._event = next(self._events, None)
        self._noise = random.Random(seed)
        self._frame_count = 0
        self._content = bytearray()  # of the frame that is coming in, as it came
        self._swallow = self._garble = self._piece = 0
        self._out: list[bytes | Pause | HangUp] = []

    def feed(self, data: bytes) -> list[bytes | Pause | HangUp]:
        """What becomes of ``data``, in order."""
        self._out = []
        self.byte_count += len(data)
        for byte in data:
            self._take(byte)
        return self._out

    def _take(self, byte: int) -> None:
        if not byte and not self._content:  # a delimiter more than needed
            self._put(b"\0")
            return
        self._content.append(byte)
        after = b""
        event = self._event
        if event and event.frame <= self._frame_count and (len(self._content) > event.offset or not byte):
            self._event = next(self._events, None)
            byte, after = self._do(event, byte)
        if self._swallow:
            self._swallow -= 1
        elif self._garble:
            self._garble -= 1
            self._put(self._noise.randbytes(1))
        else:
            self._put(bytes([byte]))
        if self._piece and len(self._content) % self._piece == 0:
            self._out.append(Pause(0.002))
        self._put(after)
        if not self._content[-1]:
            self._end_frame()

    def _do(self, event: Event, byte: int) -> tuple[int, bytes]:
        """Do it; the byte itself as it is now, and what comes after it."""
        after = b""
        match event.fault:
            case Fault.DROP:
                self._swallow = event.amount
            case Fault.DROP_FRAME:
                self._swallow = _AT_THE_END
            case Fault.DUPLICATE:
                after = bytes(self._content[-event.amount :])
            case Fault.DUPLICATE_FRAME:
                after = bytes(self._content)
            case Fault.FLIP:
                byte ^= 1 << event.amount
            case Fault.INSERT:
                self._put(self._noise.randbytes(event.amount))
            case Fault.DELIMITERS:
                self._put(bytes(event.amount))
            case Fault.STALE_FRAME if self.frames:
                self._put(self.frames[-min(event.amount, len(self.frames))])
            case Fault.ECHO if self.other and self.other.frames:
                self._put(self.other.frames[-1])
            case Fault.DELAY:
                self._out.append(Pause(event.amount / 1e3))
            case Fault.SPLIT:
                self._piece = event.amount
            case Fault.BURST:
                self._garble = event.amount
            case Fault.HANG_UP:
                self._out.append(HangUp(event.amount / 1e3))
            case _:  # there is no frame yet that could come again
                return byte, after
        self.hits[event.fault] += 1
        return byte, after

    def _end_frame(self) -> None:
        self.frames.append(bytes(self._content))
        self._content.clear()
        self._frame_count += 1
        self._piece = 0
        if self._swallow > _AT_THE_END // 2:
            self._swallow = 0

    def _put(self, data: bytes) -> None:
        if self._out and isinstance(self._out[-1], bytes):
            self._out[-1] += data
        elif data:
            self._out.append(data)


class FaultyLine:
    """A device behind a bad serial line, which the host opens by :attr:`path`, a link as udev's by-id ones.

    Args:
        url: The device's own port.
        folder: Where the path is made.
        seed: Of both directions' schedules.
        rate: How likely a frame has a fault; 0 for a good line.
        mix: Which faults, as :data:`_MIX`; the usual ones by default.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        seed: int,
        rate: float,
        mix: dict[Fault, tuple[int, int, int]] | None = None,
    ) -> None:
        ports.register()
        self.device = serial.serial_for_url(url)
        (folder / "by-id").mkdir(parents=True, exist_ok=True)
        self.path = str(folder / "by-id" / "usb-board")
        self.to_device = Direction(schedule(seed, TO_DEVICE, rate, mix=mix), seed)
        self.to_host = Direction(schedule(seed, TO_HOST, rate, mix=mix), seed + 1)
        self.to_device.other, self.to_host.other = self.to_host, self.to_device
        self._under_way: dict[str, deque[tuple[float, bytes]]] = {TO_DEVICE: deque(), TO_HOST: deque()}
        self._free_s = {TO_DEVICE: 0.0, TO_HOST: 0.0}
        self._terminal: tuple[int, int] | None = None  # our end and the host's
        self._back_s = 0.0
        self._asked: HangUp | None = None
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._problem: BaseException | None = None

    @property
    def hits(self) -> Counter[Fault]:
        """Faults of both directions."""
        return self.to_device.hits + self.to_host.hits

    def __enter__(self) -> FaultyLine:
        self._plug_in()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join(5.0)
        self._unplug()
        self.device.close()
        if self._problem:
            raise self._problem

    def hang_up(self, seconds: float, *, restart: bool = False) -> None:
        """Take the port away now, for so long; with ``restart`` the device loses its power meanwhile."""
        self._asked = HangUp(seconds, restart)
        while self._asked:
            time.sleep(0.001)

    # ------------------------------------------------------------ the host's end

    def _plug_in(self) -> None:
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        self._terminal = ours, theirs
        os.symlink(os.ttyname(theirs), self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def _unplug(self) -> None:
        if self._terminal:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            for descriptor in self._terminal:
                os.close(descriptor)
            self._terminal = None

    # ------------------------------------------------------------ carrying

    def _serve(self) -> None:
        try:
            while self._open:
                self._carry()
        except BaseException as error:  # the test that uses the line has to fail
            self._problem = error

    def _carry(self) -> None:
        if self._asked:
            self._send(TO_HOST, [self._asked])
            self._asked = None
        now_s = time.monotonic()
        if self._terminal is None and now_s >= self._back_s:
            self._plug_in()
        ours = self._terminal[0] if self._terminal else None
        dues = [queue[0][0] for queue in self._under_way.values() if queue]
        wait_s = max(0.0, min([0.02, *(due - now_s for due in dues)]))
        if ours is not None and dues and wait_s == 0.0 and not self._deliver(ours, now_s):
            wait_s = 0.001  # the host does not read
        sources = [self.device, ours] if ours is not None else [self.device]
        ready, _, _ = select.select(sources, [], [], wait_s)
        if self.device in ready:
            data = self.device.read(self.device.in_waiting or 1)
            if ours is not None:  # what a device says to nobody is lost
                self._send(TO_HOST, self.to_host.feed(data))
        if ours in ready and self._terminal:
            self._send(TO_DEVICE, self.to_device.feed(os.read(ours, 4096)))

    def _send(self, direction: str, pieces: list[bytes | Pause | HangUp]) -> None:
        now_s = time.monotonic()
        for piece in pieces:
            if isinstance(piece, HangUp):
                self._unplug()
                self._back_s = now_s + piece.seconds
                if piece.restart:
                    self.device.close()
                    self.device.open()
                for queue in self._under_way.values():
                    queue.clear()
                return
            free_s = max(now_s, self._free_s[direction])
            if isinstance(piece, Pause):
                self._free_s[direction] = free_s + piece.seconds
            else:
                self._under_way[direction].append((free_s, piece))

    def _deliver(self, ours: int, now_s: float) -> bool:
        """Hand over what is due; whether anything was."""
        delivered = False
        for direction, queue in self._under_way.items():
            while queue and queue[0][0] <= now_s:
                due_s, data = queue.popleft()
                if direction == TO_DEVICE:
                    self.device.write(data)
                else:
                    try:
                        written = os.write(ours, data)
                    except BlockingIOError:
                        written = 0
                    if written < len(data):
                        queue.appendleft((due_s, data[written:]))
                        break
                delivered = True
        return delivered
