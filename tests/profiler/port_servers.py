"""A device's port shared over TCP as ser2net does: ``socket://`` and ``rfc2217://``.

The device stays on while clients come and go. As a program it serves until it is killed, and prints the URL first:
``python port_servers.py rfc2217 qemu://stm32f405``. With a TCP port, a file and a number (``... 4000 trials.jsonl 3``)
it dies with the device at the first request that comes when the file has so many lines.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import serial.rfc2217
from tcp_peers import Relay

SCHEMES = ("socket", "rfc2217")


class PortServer(Relay):
    """Serves the device at ``url`` to one client at a time.

    Args:
        scheme: ``socket`` for plain bytes, ``rfc2217`` for Telnet with pySerial's own negotiation.
        url: The device's port.
        tcp_port: Where to listen on this host; any free one by default.
        on_request: Called in the server's thread whenever the device has been given something.
    """

    def __init__(
        self, scheme: str, url: str, tcp_port: int = 0, *, on_request: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(url, scheme=scheme, tcp_port=tcp_port)
        self._scheme = scheme
        self._on_request = on_request
        self._telnet: _Telnet | None = None
        self.baud_rates: list[int] = []

    def _carry(self, client: socket.socket) -> None:
        self._telnet = _Telnet(client, self.baud_rates) if self._scheme == "rfc2217" else None
        super()._carry(client)

    def _outgoing(self, said: bytes) -> bytes:
        return self._telnet.outgoing(said) if self._telnet else said

    def _forward(self, data: bytes) -> None:
        super()._forward(self._telnet.incoming(data) if self._telnet else data)
        self._on_request()


def lines_in(path: str | Path) -> int:
    """How many whole lines a file has; 0 where there is none."""
    try:
        return Path(path).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


class _Manager(serial.rfc2217.PortManager):
    """As ser2net on a port without modem lines: it does not answer what it is told about those."""

    def _telnet_process_subnegotiation(self, suboption: bytes) -> None:
        if suboption[1:2] != serial.rfc2217.SET_CONTROL:
            super()._telnet_process_subnegotiation(suboption)


class _Telnet:
    """The server's side of RFC 2217 on one connection."""

    # Lines and settings of the port that the negotiation speaks of.
    cts = dsr = cd = True
    ri = False
    bytesize, parity, stopbits = 8, "N", 1
    rts = dtr = True

    def __init__(self, client: socket.socket, baud_rates: list[int]) -> None:
        self._client = client
        self._baud_rates = baud_rates
        self._manager = _Manager(self, self)

    @property
    def baudrate(self) -> int:
        return self._baud_rates[-1] if self._baud_rates else 9600

    @baudrate.setter
    def baudrate(self, baud: int) -> None:
        self._baud_rates.append(baud)

    def reset_input_buffer(self) -> None: ...
    def reset_output_buffer(self) -> None: ...

    def write(self, data: bytes) -> None:
        self._client.sendall(data)

    def incoming(self, data: bytes) -> bytes:
        return b"".join(self._manager.filter(data))

    def outgoing(self, data: bytes) -> bytes:
        return b"".join(self._manager.escape(data))


def _serve(scheme: str, url: str, tcp_port: str = "0", file: str = os.devnull, lines: str = "1") -> None:
    def die_in_time() -> None:
        if lines_in(file) >= int(lines):
            os._exit(1)  # and Linux kills the device's process, whose parent this is

    with PortServer(scheme, url, int(tcp_port), on_request=die_in_time) as served:
        print(served.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
