"""Other ends of a port, on TCP ports of this host: what all have in common, and a real device behind one."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Self

import serial

from profiler.link import ports

#: How long nothing may happen until it is looked whether to go on.
_SLICE_S = 0.05


class TcpPeer:
    """Serves one client at a time, in a thread, for a ``with`` statement. A subclass says how: :meth:`_carry`.

    Args:
        scheme: Of the URL that a session reaches it by.
        tcp_port: Where to listen; any free port by default.
    """

    def __init__(self, *, scheme: str = "socket", tcp_port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", tcp_port))
        self.tcp_port = self._server.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.tcp_port}"
        self.connections = 0
        self._client: socket.socket | None = None
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._open = False
        self.go_away()
        self._thread.join(5.0)

    def hang_up(self) -> None:
        """Cut the connection, as a server that was restarted does."""
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def go_away(self) -> None:
        """Cut the connection and take no new one."""
        self._server.close()
        self.hang_up()

    def come_back(self) -> None:
        """Listen again at the same place."""
        self._server = socket.create_server(("127.0.0.1", self.tcp_port))

    def _serve(self) -> None:
        while self._open:
            try:
                if not select.select([self._server], [], [], _SLICE_S)[0]:
                    self._idle()
                    continue
                self._client, _ = self._server.accept()
            except (OSError, ValueError):  # closed
                threading.Event().wait(0.02)
                continue
            self.connections += 1
            with self._client as client, contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._carry(client)
            self._client = None

    def _carry(self, client: socket.socket) -> None:
        """Serve a client until it has gone, or until :attr:`_open` is false; an OSError ends the connection too."""
        raise NotImplementedError

    def _idle(self) -> None:
        """Called now and then while there is no client."""


class Relay(TcpPeer):
    """A real device behind TCP, which stays on while clients come and go.

    Args:
        url: The device's port.
        scheme: As of :class:`TcpPeer`.
        tcp_port: Likewise.
    """

    def __init__(self, url: str, *, scheme: str = "socket", tcp_port: int = 0) -> None:
        ports.register()
        self._device = serial.serial_for_url(url, timeout=0)
        self._lock = threading.Lock()
        super().__init__(scheme=scheme, tcp_port=tcp_port)

    def __exit__(self, *_) -> None:
        super().__exit__()
        self._device.close()

    @property
    def process_id(self) -> int:
        """Of the emulator or agent behind the port."""
        return self._device.process_id

    def power(self, on: bool) -> None:
        """The device's power: on, it starts anew."""
        with self._lock:
            if on and not self._device.is_open:
                self._device.open()
            if not on:
                self._device.close()

    def _carry(self, client: socket.socket) -> None:
        while self._open:
            powered = [self._device] if self._device.is_open else []
            try:
                ready, _, _ = select.select([client, *powered], [], [], _SLICE_S)
            except (OSError, ValueError):  # it was switched off meanwhile
                continue
            with self._lock:
                said = self._read_device() if self._device in ready and self._device.is_open else b""
            if said:
                client.sendall(self._outgoing(said))
            if client in ready:
                data = client.recv(4096)
                if not data:
                    return
                self._forward(data)

    def _read_device(self) -> bytes:
        """What the device has said; called with the lock."""
        return self._device.read(4096)

    def _outgoing(self, said: bytes) -> bytes:
        """What the client gets of what the device said."""
        return said

    def _forward(self, data: bytes) -> None:
        """Pass on to the device what the client sent."""
        with self._lock:
            if self._device.is_open:
                self._device.write(data)
