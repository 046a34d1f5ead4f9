"""pySerial URL handlers of ours: ``qemu://BOARD`` and ``native://[HOST]``.

pySerial looks for ``protocol_<scheme>`` modules in every package named in ``serial.protocol_handler_packages``;
:func:`register` adds this one.
"""

from __future__ import annotations

import serial


def register() -> None:
    """Let :func:`serial.serial_for_url` find the handlers of this package."""
    if __name__ not in serial.protocol_handler_packages:
        serial.protocol_handler_packages.append(__name__)
