"""Other ends of a port for tests: scripted ones, real devices that lose their power, hang or lie, and a bad line."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pty
import random
import select
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import serial
from tcp_peers import Relay, TcpPeer

from profiler.link import frames, messages
from profiler.ops import Op, Pass, Relu
from profiler.workloads.program import microbenchmark

IDENTITY = [
    *[7, messages.PROTOCOL, "scripted", "none", b"", 1_000_000, ["TIM2", 10**6, 32, 0, 1], "none", 0, "none"],
    *[[["sram", 1 << 20, 0, 0], ["blob", 1 << 19, 1, 0]], [1 << 19, 77, [127, 126]]],
    *[1280, 1024, 96, [0x103], "0.1.0", "0123456789abcdef", "gcc", "-O2", 0, 0, [1, 0, []]],
]


def reply(request_id: int, answer: list, boot_id: int) -> bytes:
    return frames.encode(cbor2.dumps([request_id, boot_id, answer]))


class ScriptedDevice(TcpPeer):
    """Answers on a TCP port; the session reaches it as ``socket://``.

    Args:
        script: Called with (request id, command, boot id), gives the bytes to send; None: the connection ends.
    """

    def __init__(self, script: Callable[[int, list, int], bytes | None]) -> None:
        super().__init__()
        self._script = script
        self.requests: list[list] = []
        self.boot_id = 0

    def _carry(self, client: socket.socket) -> None:
        decoder = frames.Decoder()
        while data := client.recv(4096):
            for frame in decoder.feed(data):
                request_id, command = cbor2.loads(frame.payload)
                self.requests.append(command)
                if command[0] == 0 and not self.boot_id:
                    self.boot_id = command[1]
                answer = self._script(request_id, command, self.boot_id)
                if answer is None:
                    return
                client.sendall(answer)


class PowerSwitch(Relay):
    """A real device behind TCP, whose power can be cut while the port stays open."""

    cut_after_bytes: int | None = None

    def cycle(self) -> None:
        """Off and on: the device starts anew, whatever it was doing."""
        with self._lock:
            self._device.close()
            self._device.open()

    def _forward(self, data: bytes) -> None:
        super()._forward(data)
        if self.cut_after_bytes is not None:
            self.cut_after_bytes -= len(data)
            if self.cut_after_bytes <= 0:
                self.cut_after_bytes = None
                self.cycle()


class BadLine:
    """Stands between a session and its port and damages both directions from a seed.

    Args:
        port: The real port.
        seed: Of the faults.
        rate: How likely each byte is flipped, lost, doubled or has noise before it.
    """

    def __init__(self, port: serial.SerialBase, seed: int, rate: float) -> None:
        self._port = port
        self._random = random.Random(seed)
        self.rate = rate
        self.faults = 0

    def __getattr__(self, name: str):
        return getattr(self._port, name)

    def write(self, data: bytes) -> None:
        self._port.write(self._damaged(data))

    def read(self, size: int = 1) -> bytes:
        return self._damaged(self._port.read(size))

    def _damaged(self, data: bytes) -> bytes:
        return bytes(b for byte in data for b in self._bytes_for(byte))

    def _bytes_for(self, byte: int) -> Iterator[int]:
        if self._random.random() >= self.rate:
            yield byte
            return
        self.faults += 1
        match self._random.randrange(4):
            case 0:
                yield byte ^ 1 << self._random.randrange(8)
            case 1:
                pass  # lost
            case 2:
                yield from (byte, byte)
            case 3:
                yield from (self._random.randrange(256), byte)


@contextlib.contextmanager
def pseudo_terminal():
    ours, theirs = pty.openpty()
    try:
        yield ours, os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def long_program(memory, copies=20):
    """The same op many times over: more entries than a request takes."""
    program = microbenchmark(Op(Relu(64), Pass.FORWARD), memory)
    *fills, op = program.entries
    entries = (*fills, *[op] * copies)
    return dataclasses.replace(program, entries=entries, body_end=len(entries))


class HangingBoard(Relay):
    """A real device behind TCP that hangs as boards do: it says nothing more, and only a loss of power helps.

    The process is stopped (SIGSTOP) when a request comes that ``hangs``; power is lost by killing the process, which a
    shell command does (:attr:`power_cycle`), and comes back at once: a new process, which knows nothing of before.

    Args:
        url: The device's port.
        folder: Where the process's id stands in a file, for the command.
        hangs: Called with (command, how many requests of its type there were) of every request.

    Attributes:
        hung: Whether a board hangs, of the one there is at a time.
        powered: How often it was switched on.
    """

    hung = threading.Event()

    def __init__(self, url: str, folder: Path, hangs: Callable[[list, int], bool]) -> None:
        super().__init__(url)
        self._hangs = hangs
        self._pid_file = folder / "board.pid"
        self._decoder = frames.Decoder()
        self.requests: Counter[int] = Counter()
        self.powered = 0
        self._power_on()

    def __exit__(self, *_) -> None:
        super().__exit__()
        self.hung.clear()

    @property
    def power_cycle(self) -> str:
        return f"kill -KILL $(cat {self._pid_file}) && echo off and on"

    def _power_on(self) -> None:
        if self.powered:
            self._device.close()
            self._device.open()
        self.powered += 1
        self.hung.clear()
        self._pid_file.write_text(str(self.process_id))

    def _carry(self, client: socket.socket) -> None:
        self._decoder.reset()
        super()._carry(client)

    def _idle(self) -> None:
        if select.select([self._device], [], [], 0)[0]:
            self._read_device()

    def _read_device(self) -> bytes:
        """Where the device has died its power comes back."""
        try:
            return super()._read_device()
        except serial.SerialException:
            self._power_on()
            return b""

    def _forward(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            _, command = cbor2.loads(frame.payload)
            self.requests[command[0]] += 1
            if self._hangs(command, self.requests[command[0]]):
                os.kill(self.process_id, signal.SIGSTOP)
                self.hung.set()
        super()._forward(data)


class Liar(Relay):
    """A real device behind TCP whose replies are changed on the way.

    Args:
        url: The device's port.
        change: Called with (command, answer) of every reply, gives the answer that the host gets, as in messages.cddl.
    """

    def __init__(self, url: str, change: Callable[[list, list], list]) -> None:
        super().__init__(url)
        self._change = change
        self._requests, self._replies = frames.Decoder(), frames.Decoder()
        self._commands: dict[int, list] = {}

    def _carry(self, client: socket.socket) -> None:
        self._requests.reset()
        self._replies.reset()
        super()._carry(client)

    def _forward(self, data: bytes) -> None:
        for frame in self._requests.feed(data):
            request_id, command = cbor2.loads(frame.payload)
            self._commands[request_id] = command
        super()._forward(data)

    def _outgoing(self, said: bytes) -> bytes:
        return b"".join(map(self._changed, self._replies.feed(said)))

    def _changed(self, frame: frames.Frame) -> bytes:
        request_id, boot_id, answer = cbor2.loads(frame.payload)
        return reply(request_id, self._change(self._commands[request_id], answer), boot_id)


class Flood(TcpPeer):
    """Sends for ever on a TCP port, as fast as the host takes it; before that it may identify itself as a device.

    Args:
        pieces: Called with (request id, boot id) of the last request for every piece of the flood.
        identifies: Whether it first answers each identify with its identity.
    """

    def __init__(self, pieces: Callable[[int, int], bytes], *, identifies: bool) -> None:
        super().__init__()
        self._pieces, self._identifies = pieces, identifies
        self.bytes_sent = 0

    def _carry(self, client: socket.socket) -> None:
        client.settimeout(0.2)
        decoder, request_id, boot_id, pouring = frames.Decoder(), 0, 0, not self._identifies
        while self._open:
            if select.select([client], [], [], 0 if pouring else 0.05)[0]:
                data = client.recv(4096)
                if not data:
                    return
                for frame in decoder.feed(data):
                    request_id, command = cbor2.loads(frame.payload)
                    if command[0] == 0 and self._identifies:
                        boot_id = boot_id or command[1]
                        self._send_whole(client, reply(request_id, IDENTITY, boot_id))
                    else:
                        pouring = True
            if pouring:
                with contextlib.suppress(TimeoutError):
                    self.bytes_sent += client.send(self._pieces(request_id, boot_id))

    def _send_whole(self, client: socket.socket, data: bytes) -> None:
        """However slowly it is taken: a peer that gave up would close the connection, which is not to be told from a
        device that restarts."""
        while data and self._open:
            with contextlib.suppress(TimeoutError):
                data = data[client.send(data) :]
