"""The raw log of a link: every byte in both directions, and what it meant, as JSON lines.

Every line is an object with ``at`` (UTC), ``monotonic_s``, ``port`` and ``event``, then what belongs to the event:

==============  ==================================================================================================
``open``        the port was opened: ``baud``, ``process``, ``protocol`` (the version that the host speaks)
``sent``        bytes as they were handed to the port: ``hex``
``request``     a frame among them: ``request_id``, ``message``, ``content`` (the command as in messages.cddl)
``received``    bytes as they came: ``hex``
``reply``       a frame that ended among them: ``status``, and where that is ``ok`` ``request_id``, ``boot_id``,
                ``message`` and ``content`` (the answer), or ``problem`` where it is no reply of the protocol
``discarded``   bytes that had come and were dropped before an identify: ``hex``
``silence``     a wait that ended without the awaited frame: ``waited_s``
``error``       what the port reported: ``error``
``closed``      the port was closed
==============  ==================================================================================================

In ``content`` byte strings are hexadecimal. Lines are written whole and appended, so several sessions may share a file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2

from profiler.errors import UserError
from profiler.link import frames, messages, replies
from profiler.link.frames import Frame, FrameStatus

#: Names of requests and answers in messages.cddl, by their code there.
REQUESTS = ("identify", "begin", "append", "seal", "run", "read", "digest", "peek", "state", "counters")
ANSWERS = ("ok", "accepted", "refused", "done", "ticks_page", "digest", "peek", "identity", "state", "counters")

#: What is held back at most, and for how long.
_BUFFER_BYTES = 65_536
_BUFFER_S = 1.0


class LinkLogWarning(UserWarning):
    """The log of a link is not complete."""


class LinkLog:
    """Appends what happens at one port to a file.

    Lines are held back for a second at most; a silence, an error and :meth:`close` write them at once. A file that can
    no longer be written (a full disk) ends the log with a :class:`LinkLogWarning`: measuring goes on.

    Args:
        path: The file; it is made, or appended to.
        port: Name of the port.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path | str, port: str) -> None:
        self.path, self._port = Path(path), port
        self._pending = bytearray()
        self._written_s = time.monotonic()
        self._descriptor: int | None = None
        self._broken = False
        try:
            self._open()
        except OSError as error:
            raise UserError(
                f"cannot write the link log {self.path}: {error.strerror}",
                hint="give --link-log a file in a folder that exists and may be written",
                exit_status=2,
            ) from None

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        if _torn(self._descriptor):
            self._pending += b"\n"

    # ------------------------------------------------------------ events

    def opened(self, baud: int) -> None:
        self._add("open", baud=baud, process=os.getpid(), protocol=messages.PROTOCOL)
        self.flush()

    def sent(self, data: bytes) -> None:
        self._add("sent", hex=data.hex())
        for frame in frames.Decoder().feed(data):
            self._add("request", **_request(frame))

    def received(self, data: bytes) -> None:
        self._add("received", hex=data.hex())

    def frame(self, frame: Frame) -> None:
        """A frame that ended in the bytes received last."""
        self._add("reply", status=str(frame.status.value), **_reply(frame))

    def discarded(self, data: bytes) -> None:
        if data:
            self._add("discarded", hex=data.hex())

    def silence(self, waited_s: float) -> None:
        self._add("silence", waited_s=round(waited_s, 6))
        self.flush()

    def error(self, error: object) -> None:
        self._add("error", error=str(error))
        self.flush()

    # ------------------------------------------------------------ the file

    def flush(self) -> None:
        """Write what is held back."""
        self._written_s = time.monotonic()
        with self._ending():
            while self._pending and self._descriptor is not None:
                # Should Ctrl-C come between the two, lines are there twice: better than not at all.
                written = os.write(self._descriptor, self._pending)
                del self._pending[:written]

    def closed(self) -> None:
        self._add("closed")
        self.close()

    def close(self) -> None:
        """Write what is held back and close the file, until the next event."""
        self.flush()
        self._close()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """A file that cannot be written ends the log and nothing else."""
        try:
            yield
        except OSError as error:
            self._broken = True
            self._pending.clear()
            self._close()
            warnings.warn(
                f"the link log {self.path} ends here: {error.strerror}; measuring goes on", LinkLogWarning, stacklevel=2
            )

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _add(self, event: str, **fields: Any) -> None:
        if self._descriptor is None and not self._broken:
            with self._ending():
                self._open()
        if self._broken:
            return
        now_s = time.monotonic()
        at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="microseconds")
        line = {"at": at, "monotonic_s": round(now_s, 6), "port": self._port, "event": event} | fields
        self._pending += json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if len(self._pending) > _BUFFER_BYTES or now_s - self._written_s > _BUFFER_S:
            self.flush()


def _torn(descriptor: int) -> bool:
    """Whether the file ends in the middle of a line, as where a disk was full."""
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"


def _request(frame: Frame) -> dict[str, Any]:
    """What a frame that this host sent says."""
    request_id, command = cbor2.loads(frame.payload)
    return {"request_id": request_id, "message": REQUESTS[command[0]], "content": _plain(command)}


def _reply(frame: Frame) -> dict[str, Any]:
    """What a frame that came says; it may hold anything."""
    if frame.status is not FrameStatus.OK:
        return {}
    try:
        reply = replies.decode_reply(frame.payload)
    except replies.BadReply as error:
        return {"problem": str(error)}
    answer = cbor2.loads(frame.payload)[2]
    return {
        "request_id": reply.request_id,
        "boot_id": reply.boot_id,
        "message": ANSWERS[answer[0]],
        "content": _plain(answer),
    }


def _plain(value: Any) -> Any:
    """``value`` as JSON has it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read_log(path: Path | str, damage: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """The lines of a log, one by one.

    Args:
        path: The file.
        damage: Where the numbers of lines that are none of a link log go: torn ones, of a host that was killed.

    Raises:
        UserError: there is no such file, or it is no link log.
    """
    found = False
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, 1):
                try:
                    line = json.loads(text)
                    whole = isinstance(line, dict) and {"at", "monotonic_s", "port", "event"} <= line.keys()
                except ValueError:
                    whole = False
                if whole:
                    found = True
                    yield line
                elif damage is not None:
                    damage.append(number)
    except OSError as error:
        raise UserError(
            f"cannot read the link log {path}: {error.strerror}", hint="give the FILE of --link-log", exit_status=2
        ) from None
    if not found:
        raise UserError(f"{path} holds no line of a link log", hint="give the FILE of --link-log", exit_status=2)
