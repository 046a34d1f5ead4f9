"""A device's port shared over TCP as ser2net does: ``socket://`` and ``rfc2217://``.

The device stays on while clients come and go. As a program it serves until it is killed, and prints the URL first:
``python port_servers.py rfc2217 qemu://stm32f405``.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading

import serial
import serial.rfc2217

from profiler.link import ports

SCHEMES = ("socket", "rfc2217")


class PortServer:
    """Serves the device at ``url`` to one client at a time.

    Args:
        scheme: ``socket`` for plain bytes, ``rfc2217`` for Telnet with pySerial's own negotiation.
        url: The device's port.
        tcp_port: Where to listen on this host; any free one by default.
    """

    def __init__(self, scheme: str, url: str, tcp_port: int = 0) -> None:
        ports.register()
        self._device = serial.serial_for_url(url, timeout=0)
        self._scheme = scheme
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", tcp_port))
        self.tcp_port = self._server.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.tcp_port}"
        self._client: socket.socket | None = None
        self._open = True
        self.connections = 0
        self.baud_rates: list[int] = []

    def __enter__(self) -> PortServer:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._open = False
        self._server.close()
        self.hang_up()
        self._thread.join(5.0)
        self._device.close()

    @property
    def process_id(self) -> int:
        """Of the emulator or agent behind the server."""
        return self._device.process_id

    def hang_up(self) -> None:
        """Cut the connection, as a server that was restarted does."""
        if self._client is not None:
            self._client.shutdown(socket.SHUT_RDWR)

    def go_away(self) -> None:
        """Cut the connection and take no new one; the device stays as it is."""
        self._server.close()
        self.hang_up()

    def come_back(self) -> None:
        """Listen again at the same place."""
        self._server = socket.create_server(("127.0.0.1", self.tcp_port))

    def power(self, on: bool) -> None:
        """The device's power: on, it starts anew."""
        with self._lock:
            if on and not self._device.is_open:
                self._device.open()
            if not on:
                self._device.close()

    def _serve(self) -> None:
        while self._open:
            try:
                ready, _, _ = select.select([self._server], [], [], 0.05)
                if not ready:
                    continue
                self._client, _ = self._server.accept()
            except (OSError, ValueError):  # closed
                threading.Event().wait(0.02)
                continue
            self.connections += 1
            with self._client as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):
                    self._carry(client)
            self._client = None

    def _carry(self, client: socket.socket) -> None:
        telnet = _Telnet(client, self.baud_rates) if self._scheme == "rfc2217" else None
        while self._open:
            with self._lock:
                powered = [self._device] if self._device.is_open else []
                ready, _, _ = select.select([client, *powered], [], [], 0.05)
                said = self._device.read(4096) if self._device in ready else b""
            if said:
                client.sendall(telnet.outgoing(said) if telnet else said)
            if client in ready:
                data = client.recv(4096)
                if not data:
                    return
                data = telnet.incoming(data) if telnet else data
                with self._lock:
                    if self._device.is_open:
                        self._device.write(data)


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


if __name__ == "__main__":
    with PortServer(*sys.argv[1:3], *map(int, sys.argv[3:])) as served:
        print(served.url, flush=True)
        threading.Event().wait()
