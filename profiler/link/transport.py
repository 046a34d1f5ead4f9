"""Frames over a port: opening it with useful errors, sending, receiving until a deadline, counting."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import select
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import serial
from serial.tools import list_ports

from profiler.devices.access import Denied, denied
from profiler.devices.boards import known_ports
from profiler.errors import UserError
from profiler.link import frames, ports
from profiler.link.errors import PortError
from profiler.link.frames import Frame, FrameStatus
from profiler.link.link_log import LinkLog
from profiler.link.port_lock import PortLock, find_holder, in_use, no_serial_port
from profiler.link.ports import network

#: Bits a second of a serial port where nothing else is asked for: what the firmware of every board sets its UART to
#: (LINK_BAUD in firmware/boards/common/stm32/usart.h).
BAUD = 921_600
#: pySerial hands the kernel a signed number of 32 bits.
MOST_BAUD = 2**31 - 1
#: Longest time that reading a port without a file descriptor (rfc2217://, Windows) goes past a deadline.
_SLICE_S = 0.05
_LARGEST_READ_BYTES = 65_536
#: How many such reads are thrown away at once.
_MOST_DISCARDS = 16


@dataclass
class LinkStatistics:
    """What happened on one link since it was opened.

    Attributes:
        frames_sent: Requests, those sent again included.
        frames_received: Whole frames with a right CRC.
        bad_crc: Frames with a wrong CRC.
        bad_frames: Frames damaged otherwise, too long ones included.
        bad_replies: Whole frames that hold no reply of the protocol.
        stale_replies: Replies to requests that had been answered already.
        retries: Requests sent again.
        resets: Restarts of the device.
        power_cycles: How often its power was cycled because it stayed silent.
        bytes_sent: Bytes on the wire towards the device.
        bytes_received: Bytes on the wire from it.
    """

    frames_sent: int = 0
    frames_received: int = 0
    bad_crc: int = 0
    bad_frames: int = 0
    bad_replies: int = 0
    stale_replies: int = 0
    retries: int = 0
    resets: int = 0
    power_cycles: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def wire_bytes(self) -> int:
        """Bytes in both directions."""
        return self.bytes_sent + self.bytes_received

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)


class Transport:
    """An open port that carries frames.

    Args:
        url: What :func:`serial.serial_for_url` takes: a device's path, or a URL such as ``qemu://stm32f405``.
        baud: Bits a second, where the port has such a thing.
        link_log: File that every byte is logged to (see :mod:`profiler.link.link_log`); None: none.

    Raises:
        PortError: the port is missing, in use, or may not be opened.
        UserError: from the port's own handler, for example an unknown board; or the log cannot be written.
    """

    def __init__(self, url: str, *, baud: int = BAUD, link_log: Path | None = None) -> None:
        self.url = url
        self.baud = baud
        self.statistics = LinkStatistics()
        self._decoder = frames.Decoder()
        self._received: deque[Frame] = deque()
        self._log = LinkLog(link_log, url) if link_log is not None else None
        self._lock = PortLock(url)
        try:
            with self._logged():
                self._lock.check()
                self._port = _open(url, baud)
                self._begin()
        except BaseException:
            if self._log:
                self._log.close()
            raise

    @property
    def port(self) -> serial.SerialBase:
        """The port itself, for tests."""
        return self._port

    def close(self) -> None:
        """Close port and log; others may have the port until :meth:`reopen`. Closing twice does nothing."""
        if self._log and self._port.is_open:
            self._log.closed()
        self._lock.release()
        self._port.close()

    def reopen(self) -> None:
        """Close the port and open it again, as after an unplugged cable."""
        self.close()
        self._decoder.reset()
        self._received.clear()
        with self._logged():
            self._lock.check()
            try:
                self._port.open()
            except OSError as error:
                raise _cannot_open(self.url, error) from None
            self._begin()

    def _begin(self) -> None:
        """The port was opened."""
        self._descriptor = _descriptor(self._port)
        if self._descriptor is None:
            self._port.timeout = _SLICE_S
        else:
            try:
                self._lock.take(self._descriptor)
            except PortError:
                self._port.close()
                raise
        if self._log:
            self._log.opened(self.baud)

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        """What goes wrong with the port inside stands in the log."""
        try:
            yield
        except UserError as error:
            if self._log:
                self._log.error(error.args[0])
            raise

    def release(self) -> None:
        """Close for good: what is reserved for the port, as a place of labgrid's is, is given back."""
        self.close()
        if isinstance(self._port, ports.Reserved):
            self._port.release()

    def transfer_s(self, byte_count: int) -> float:
        """How long so many bytes take on a wire of this baud rate."""
        return byte_count * 10 / self.baud  # start and stop bit

    def send(self, data: bytes) -> None:
        """Write one frame, with whatever delimiters stand before it.

        Raises:
            PortError: the port went away.
        """
        if self._log:
            self._log.sent(data)
        with self._logged():
            try:
                self._port.write(data)
            except OSError as error:
                raise _went_away(self.url, error) from None
        self.statistics.frames_sent += 1
        self.statistics.bytes_sent += len(data)

    def receive(self, deadline_s: float) -> Frame | None:
        """The next frame, good or bad; None where ``time.monotonic()`` reaches ``deadline_s`` before one ends.

        Raises:
            PortError: the port went away.
        """
        begin_s = time.monotonic()
        while not self._received:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                if self._log:
                    self._log.silence(time.monotonic() - begin_s)
                return None
            self._take_in(left_s)
        return self._received.popleft()

    def _take_in(self, left_s: float) -> None:
        with self._logged():
            try:
                data = self._read(left_s)
            except OSError as error:
                raise _went_away(self.url, error) from None
        self.statistics.bytes_received += len(data)
        if self._log and data:
            self._log.received(data)
        for frame in self._decoder.feed(data):
            self._count(frame)
            if self._log:
                self._log.frame(frame)
            self._received.append(frame)

    def discard_input(self) -> None:
        """Forget what has arrived so far. Of a port that never falls silent, a part: more is coming anyway."""
        with self._logged():
            try:
                for _ in range(_MOST_DISCARDS):  # the port's own reset_input_buffer() may go on as long as the device
                    data = self._read(0.0)
                    if not data:
                        break
                    if self._log:
                        self._log.discarded(data)
            except OSError as error:
                raise _went_away(self.url, error) from None
        self._decoder.reset()
        self._received.clear()

    def _read(self, left_s: float) -> bytes:
        """What there is, waiting for the first byte: a blocking wait, so that a reply is seen as it arrives."""
        if self._descriptor is None:
            return self._port.read(min(max(1, self._port.in_waiting), _LARGEST_READ_BYTES))
        if not select.select([self._descriptor], [], [], left_s)[0]:
            return b""
        return self._port.read(_LARGEST_READ_BYTES)  # its time-out is 0; in_waiting of socket:// is never more than 1

    def _count(self, frame: Frame) -> None:
        match frame.status:
            case FrameStatus.OK:
                self.statistics.frames_received += 1
            case FrameStatus.BAD_CRC:
                self.statistics.bad_crc += 1
            case _:
                self.statistics.bad_frames += 1


def _descriptor(port: serial.SerialBase) -> int | None:
    """What select() can wait for; None where the port has no such thing."""
    try:
        return port.fileno() if os.name == "posix" else None
    except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
        return None


def _open(url: str, baud: int) -> serial.SerialBase:
    ports.register()
    exclusive = None if "://" in url else True
    settings = {"baudrate": baud, "timeout": 0, "write_timeout": 5.0, "exclusive": exclusive}
    opened = url
    if url.startswith(network.SCHEMES):
        opened, own = network.prepared(url)
        settings |= own
    try:
        return serial.serial_for_url(opened, **settings)
    except ValueError as error:  # pySerial's word for an unknown scheme
        known = ", ".join(name for name, _ in known_ports())
        raise PortError(
            f"{url!r} is no port: {error}",
            hint=f"take a path, socket://, rfc2217://, labgrid://, or {known}",
            exit_status=2,
        ) from None
    except OSError as error:
        raise _cannot_open(url, error) from None


def _cannot_open(url: str, error: OSError) -> PortError:
    if url.startswith(network.SCHEMES):
        return network.cannot_open(url, error)
    if not url:
        return PortError("the name of the port is empty", hint="`profile devices` lists ports", exit_status=2)
    if not Path(url).exists() and "://" not in url:
        there = ", ".join(sorted(p.device for p in list_ports.comports())) or "none"
        return PortError(
            f"there is no port {url}",
            hint=f"serial ports here: {there}; without hardware take {known_ports()[0][0]} or native://",
        )
    code = error.errno
    if code == errno.EACCES or "Permission" in str(error):
        why = denied(url) or Denied(f"{url} may not be opened", "see `profile doctor --for board`")
        return PortError(why.reason, hint=why.fix)
    if code in (errno.EBUSY, errno.EAGAIN) or "lock" in str(error):
        return in_use(url, find_holder(url))
    # pySerial tells a device that has no settings of a line only in words.
    if "://" not in url and (not Path(url).is_char_device() or os.strerror(errno.ENOTTY) in str(error)):
        return no_serial_port(url)
    return PortError(f"{url} cannot be opened: {error}", hint="check cable, name and that it is a serial port")


def _went_away(url: str, error: OSError) -> PortError:
    return PortError(f"{url} went away: {error}", hint="check cable and power, then run the command again")
