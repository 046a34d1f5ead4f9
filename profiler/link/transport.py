"""Frames over a port: opening it with useful errors, sending, receiving until a deadline, counting."""

from __future__ import annotations

import dataclasses
import errno
import os
import select
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import serial
from serial.tools import list_ports

from profiler.devices.boards import known_ports
from profiler.link import frames, ports
from profiler.link.errors import PortError
from profiler.link.frames import Frame, FrameStatus

#: Bits a second of a serial port where nothing else is asked for: what the firmware of every board sets its UART to
#: (LINK_BAUD in firmware/boards/common/stm32/usart.h).
BAUD = 921_600
#: Longest time that reading a port without a file descriptor (rfc2217://, Windows) goes past a deadline.
_SLICE_S = 0.05
_LARGEST_READ_BYTES = 65_536
#: pySerial's URLs of a port behind a network.
_NETWORK = ("socket://", "rfc2217://")


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

    Raises:
        PortError: the port is missing, in use, or may not be opened.
        UserError: from the port's own handler, for example an unknown board.
    """

    def __init__(self, url: str, *, baud: int = BAUD) -> None:
        self.url = url
        self.baud = baud
        self.statistics = LinkStatistics()
        self._decoder = frames.Decoder()
        self._received: deque[Frame] = deque()
        self._port = _open(url, baud)
        self._descriptor = _descriptor(self._port)
        if self._descriptor is None:
            self._port.timeout = _SLICE_S

    @property
    def port(self) -> serial.SerialBase:
        """The port itself, for tests."""
        return self._port

    def close(self) -> None:
        self._port.close()

    def reopen(self) -> None:
        """Close the port and open it again, as after an unplugged cable."""
        self.close()
        self._decoder.reset()
        self._received.clear()
        try:
            self._port.open()
        except OSError as error:
            raise _cannot_open(self.url, error) from None
        self._descriptor = _descriptor(self._port)

    def transfer_s(self, byte_count: int) -> float:
        """How long so many bytes take on a wire of this baud rate."""
        return byte_count * 10 / self.baud  # start and stop bit

    def send(self, data: bytes) -> None:
        """Write one frame, with whatever delimiters stand before it.

        Raises:
            PortError: the port went away.
        """
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
        while not self._received:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return None
            try:
                data = self._read(left_s)
            except OSError as error:
                raise _went_away(self.url, error) from None
            self.statistics.bytes_received += len(data)
            for frame in self._decoder.feed(data):
                self._count(frame)
                self._received.append(frame)
        return self._received.popleft()

    def discard_input(self) -> None:
        """Forget what has arrived so far."""
        try:
            self._port.reset_input_buffer()
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
    if url.startswith(_NETWORK):
        _check_address(url)
    local = "://" not in url
    # pySerial's rfc2217:// takes no limit for writing; its socket has one of 5 s.
    write_timeout = None if url.startswith("rfc2217://") else 5.0
    try:
        return serial.serial_for_url(
            url, baudrate=baud, timeout=0, write_timeout=write_timeout, exclusive=True if local else None
        )
    except ValueError as error:  # pySerial's word for an unknown scheme
        known = ", ".join(name for name, _ in known_ports())
        raise PortError(
            f"{url!r} is no port: {error}", hint=f"take a path, socket://, rfc2217://, or {known}", exit_status=2
        ) from None
    except OSError as error:
        raise _cannot_open(url, error) from None


def _check_address(url: str) -> None:
    try:
        address = urlsplit(url)
        complete = bool(address.hostname and address.port)
    except ValueError:
        complete = False
    if not complete:
        raise PortError(
            f"{url!r} names no host and TCP port", hint="give both, as in rfc2217://lab-pc:4000", exit_status=2
        )


def _cannot_open(url: str, error: OSError) -> PortError:
    if url.startswith(_NETWORK):
        reason = str(error).removeprefix(f"Could not open port {url}: ")
        return PortError(
            f"{url} cannot be opened: {reason}",
            hint="check host and port, and that the serial server there runs and serves nobody else",
        )
    if not Path(url).exists() and "://" not in url:
        there = ", ".join(sorted(p.device for p in list_ports.comports())) or "none"
        return PortError(
            f"there is no port {url}",
            hint=f"serial ports here: {there}; without hardware take {known_ports()[0][0]} or native://",
        )
    code = error.errno
    if code == errno.EACCES or "Permission" in str(error):
        return PortError(f"{url} may not be opened", hint="add your user to the group dialout and log in again")
    if code in (errno.EBUSY, errno.EAGAIN) or "lock" in str(error):
        holder = _holder(url)
        return PortError(f"{url} is in use" + (f" by {holder}" if holder else ""), hint="close that program first")
    return PortError(f"{url} cannot be opened: {error}", hint="check cable, name and that it is a serial port")


def _holder(path: str) -> str:
    """Name and id of a process that has ``path`` open, as far as this user may see it."""
    target = os.path.realpath(path)
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(descriptor) == target and int(descriptor.parts[2]) != os.getpid():
                name = (descriptor.parents[1] / "comm").read_text().strip()
                return f"{name} (process {descriptor.parts[2]})"
        except OSError:
            continue
    return ""


def _went_away(url: str, error: OSError) -> PortError:
    return PortError(f"{url} went away: {error}", hint="check cable and power, then run the command again")
