"""pySerial URL handlers of ours: ``qemu://BOARD``, ``native://[HOST]`` and ``labgrid://PLACE``.

pySerial looks for ``protocol_<scheme>`` modules in every package named in ``serial.protocol_handler_packages``;
:func:`register` adds this one.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import serial


@runtime_checkable
class Reserved(Protocol):
    """A port that holds more than itself: closing keeps it, so that the port can be opened again."""

    def release(self) -> None:
        """Give back what is held; the port is closed and not opened again."""


def register() -> None:
    """Let :func:`serial.serial_for_url` find the handlers of this package."""
    if __name__ not in serial.protocol_handler_packages:
        serial.protocol_handler_packages.append(__name__)
