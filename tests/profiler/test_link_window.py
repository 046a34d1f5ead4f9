"""The host never sends what a device has no room for: one request at a time, and little while the device is busy."""

import contextlib
import select
import socket
import threading
import time

import cbor2
import pytest
import serial
from peers import IDENTITY, long_program, reply

from profiler.link import channel, frames, ports
from profiler.link.errors import NoAnswer
from profiler.link.patience import Patience
from profiler.link.session import open_device
from profiler.ops import Empty, Op, Pass
from profiler.workloads.program import microbenchmark

#: The smallest buffer that an op with many buffers still fits into.
SMALL_FRAME_BYTES = 128


class Recorder:
    """Stands between host and a real device and notes when bytes came: (time, ``>`` or ``<``, bytes)."""

    def __init__(self, url):
        ports.register()
        self._device = serial.serial_for_url(url, timeout=0)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self.events = []
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(5.0)
        self._server.close()
        self._device.close()

    def _carry(self):
        connection, _ = self._server.accept()
        with connection, contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([connection, self._device], [], [], 1.0)
                if self._device in ready and (said := self._device.read(4096)):
                    self.events.append((time.monotonic(), "<", said))
                    connection.sendall(said)
                if connection in ready:
                    if not (asked := connection.recv(4096)):
                        return
                    self.events.append((time.monotonic(), ">", asked))
                    self._device.write(asked)


def outstanding(events):
    """After each arrival from the host: (bytes that came since the device's last whole frame, requests among them)."""
    asked, decoder = b"", frames.Decoder()
    for _, way, data in events:
        if way == ">":
            asked += data
            yield len(asked), sum(frame.status is frames.FrameStatus.OK for frame in frames.Decoder().feed(asked))
        elif list(decoder.feed(data)):
            asked = b""


@pytest.mark.parametrize("url", ["native://", "qemu://stm32f405"])
def test_one_request_that_fits_the_devices_buffer_is_on_its_way_at_a_time(url):
    with Recorder(url) as line:
        with open_device(line.url) as device:
            largest = device.identity.largest_frame_bytes
            program = long_program(device.memory, copies=60)
            identified = len(line.events)
            assert device.run(program, repetitions=3).ticks.shape == (3, 60)
            device.run(microbenchmark(Op(Empty(), Pass.FORWARD), device.memory), repetitions=20)
            device.peek(0, 2000)
            device.digest(0, 1000)
            retries = device.statistics.retries  # of a busy host
        found = list(outstanding(line.events[identified:]))
    assert max(requests for _, requests in found) <= 1 + retries
    assert 100 < max(sent for sent, _ in found) <= largest


class BusyDevice:
    """Takes a run and then looks at its receiver no more: what the host sends stays there, and is counted.

    Args:
        busy_s: For how long; then it says what the run gave. None: for ever.
    """

    def __init__(self, busy_s):
        self._busy_s = busy_s
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self.waiting_bytes = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.close()
        self._thread.join(5.0)

    def _serve(self):
        connection, _ = self._server.accept()
        decoder, boot_id = frames.Decoder(), 0
        identity = [*IDENTITY[:12], SMALL_FRAME_BYTES, *IDENTITY[13:]]
        with connection:
            while data := connection.recv(4096):
                for frame in decoder.feed(data):
                    if frame.status is not frames.FrameStatus.OK:
                        continue
                    request_id, command = cbor2.loads(frame.payload)
                    boot_id = boot_id or command[1]
                    if command[0] != 4:
                        answer = {0: identity, 7: [6, b""]}.get(command[0], [0])
                        connection.sendall(reply(request_id, answer, boot_id))
                        continue
                    connection.sendall(reply(request_id, [1], boot_id))
                    if self._count_what_comes(connection):
                        return
                    connection.sendall(reply(request_id, [3, 64, 0, 100, 1, [5]], boot_id))

    def _count_what_comes(self, connection):
        """Whether the host gave up."""
        end_s = time.monotonic() + (self._busy_s or 60.0)
        while (left_s := end_s - time.monotonic()) > 0:
            if select.select([connection], [], [], left_s)[0]:
                data = connection.recv(4096)
                if not data:
                    return True
                self.waiting_bytes += len(data)
        return False


@pytest.mark.parametrize("busy_s", [2.5, None])
def test_what_a_busy_device_is_asked_meanwhile_fits_its_buffer_too(busy_s, monkeypatch):
    quick = Patience(first_wait_s=0.05, longest_wait_s=0.2)  # as often as by default, in less time
    monkeypatch.setattr(channel, "PATIENCE", quick)
    with BusyDevice(busy_s) as peer, open_device(peer.url) as device:
        program = microbenchmark(Op(Empty(), Pass.FORWARD), device.memory)
        if busy_s is None:
            with pytest.raises(NoAnswer):
                device.run(program, repetitions=1, expected_s=0.01)
        else:
            assert device.run(program, repetitions=1, expected_s=0.01).ticks.tolist() == [[5]]
            assert device.statistics.retries > 3
        assert 0 < peer.waiting_bytes <= SMALL_FRAME_BYTES
