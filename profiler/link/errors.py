"""What can go wrong between host and device, each with what to do about it."""

# ruff: noqa: N818 - the names say what happened, not that it is an error

from __future__ import annotations

from profiler.devices.identity import Reset
from profiler.errors import UserError


class LinkError(UserError):
    """Base of everything the link raises."""


class PortError(LinkError):
    """The port cannot be opened, is in use, or went away."""


class NoAnswer(LinkError):
    """The device said nothing, or nothing intelligible, within the time it had."""


class WrongProtocol(LinkError):
    """Something answered, but not in the protocol (or the version of it) that this host speaks."""


class DeviceReset(LinkError):
    """The device restarted: what it held (program, buffers, last run) is gone. The link itself is usable again.

    Attributes:
        reset: Why it restarted, as it tells itself; None where the link alone was lost.
    """

    def __init__(self, message: str, *, hint: str, reset: Reset | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reset = reset


class Stopped(LinkError):
    """The limit on a run's time stopped one before it had done what was needed of it."""


class Refused(LinkError):
    """The device looked at a request and will not carry it out.

    Attributes:
        reason: Name of the reason, as in ``firmware/runtime/status.h``.
        entry_index: Which entry of the program it is about (0 where none is).
        detail: A number that belongs to the reason, for example the bytes wanted.
    """

    def __init__(self, message: str, *, hint: str, reason: str, entry_index: int, detail: int) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.entry_index = entry_index
        self.detail = detail
