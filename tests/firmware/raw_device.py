"""A device spoken to request by request, without the session's retries and checks: for tests of the firmware itself."""

import itertools
import os
import time

import cbor2
import serial

from profiler import kernels, prng
from profiler.link import frames, ports
from profiler.ops import AXIS_CODES, OPTIMIZER_CODES, PASS_CODES, VARIANT_CODES, WORD_BYTES, Pass

IDENTIFY, BEGIN, APPEND, SEAL, RUN, READ, DIGEST, PEEK, STATE, COUNTERS = range(10)
OK, ACCEPTED, REFUSED, DONE, TICKS, DIGESTED, PEEKED, IDENTITY, STATE_TOLD, COUNTED = range(10)

#: enum status_reason of firmware/runtime/status.h.
BAD_REQUEST, TOO_LONG, NO_PROGRAM, WRONG_INDEX, WRONG_CRC, INCOMPLETE, SECTIONS, NO_MEMORY = range(1, 9)
UNKNOWN_KERNEL, GEOMETRY, CHANNELS, BUFFER_COUNT, BAD_REGION, BOUNDS, READ_ONLY, OVERLAP = range(9, 17)
BAD_FILL, MISPLACED, NO_OPTIMIZER, BAD_RANGE, TIMER_STOPPED, NO_STATE, NO_COLD_RUNS, NO_ARENA = range(17, 25)
RUNS_TOO_LONG = 25

#: Every device that needs no hardware.
URLS = ("native://", "qemu://stm32f405", "qemu://stm32f205", "qemu://mps2-an500", "native://aarch64")
#: Those whose timer counts instructions.
EMULATED_URLS = URLS[1:4]

OPTIMIZER = [0.01, 1.0, 0.1, 0.001]


def emulated(device):
    return device.url.startswith("qemu")


class RawDevice:
    """Requests out, replies in, nothing in between."""

    def __init__(self, url):
        ports.register()
        self.url = url
        self.port = serial.serial_for_url(url, timeout=0.01)
        self.decoder = frames.Decoder()
        self.waiting = []
        self.ids = itertools.count(1000)
        self.boot_id = None
        self.identity = self._identify(int.from_bytes(os.urandom(4), "little") | 1)

    def _identify(self, nonce):
        """What arrives before the UART is set up is lost, on the emulator as on hardware: asked until answered."""
        for _ in range(100):
            self.send(0, [IDENTIFY, nonce, 0])
            try:
                identity = self.reply(0.3)[1]
            except TimeoutError:
                continue
            while True:  # answers to what was asked again too early
                try:
                    self.reply(0.05)
                except TimeoutError:
                    return identity
        raise TimeoutError(f"{self.url} does not identify itself")

    def close(self):
        self.port.close()

    def send(self, request_id, command):
        self.port.write(frames.encode(cbor2.dumps([request_id, command])))

    def reply(self, timeout_s=60.0):
        """The next reply: (request id, answer)."""
        end = time.monotonic() + timeout_s
        while not self.waiting:
            self.waiting = [
                f.payload for f in self.decoder.feed(self.port.read(self.port.in_waiting or 1)) if f.payload
            ]
            if not self.waiting and time.monotonic() > end:
                raise TimeoutError(f"{self.url} does not answer")
        request_id, self.boot_id, answer = cbor2.loads(self.waiting.pop(0))
        return request_id, answer

    def ask(self, command, request_id=None):
        """The answer to a request."""
        request_id = next(self.ids) if request_id is None else request_id
        self.send(request_id, command)
        answered, answer = self.reply()
        while answered == 0:  # late, to an `identify` that was sent again too early
            answered, answer = self.reply()
        assert answered == request_id
        return answer

    def identify(self, nonce, run_limit_ms=0):
        """The answer to another `identify`."""
        return self.ask([IDENTIFY, nonce, run_limit_ms])

    def run(self, program, repetitions=1, warmups=0, seed=1, *, request_id=None, caches=None, loops=None):
        """The last answer to a `run` of (header, entries), None: the sealed program."""
        request_id = next(self.ids) if request_id is None else request_id
        header, entries = program or (None, [])
        optional = [caches or 0, loops] if loops is not None else [] if caches is None else [caches]
        answer = self.ask([RUN, repetitions, warmups, seed, header, entries, *optional], request_id)
        if answer != [ACCEPTED]:
            return answer
        answered, answer = self.reply()
        assert answered == request_id
        return answer

    def ticks(self, program, repetitions=1, **options):
        """First ticks of a run that must succeed."""
        answer = self.run(program, repetitions, **options)
        assert answer[0] == DONE, answer
        return answer[5]

    def peek(self, reference, byte_count):
        kind, content = self.ask([PEEK, reference, byte_count])
        assert kind == PEEKED
        return content


def fill(words, reference, mode=1, parameter=127, stream=1):
    """A fill as it travels."""
    return [0, 0, 0, 0, [words, mode, parameter, stream], [], [reference]]


def program(op, images=1):
    """(header, entries) of one op, its buffers one after the other, each filled."""
    offset, fills, references = 0, [], []
    sizes = [(spec.role, spec.elements) for spec in op.buffers()]
    scratch_words = kernels.scratch_bytes(op) // WORD_BYTES
    for role, words in [*sizes, *([("scratch", scratch_words)] if scratch_words else [])]:
        if role == "label":
            fills.append(fill(words, offset, prng.FillMode.LABEL, 2, offset))
        elif "moment2" in role:
            fills.append(fill(words, offset, prng.FillMode.POSITIVE, 127, offset))
        elif role != "scratch":
            fills.append(fill(words, offset, stream=offset))
        references.append(offset)
        offset = (offset + WORD_BYTES * words + 15) // 16 * 16
    trained = []
    if op.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        trained = [op.trained_channels, AXIS_CODES[op.trained_axis], int(op.trains_bias), OPTIMIZER_CODES[op.optimizer]]
    geometry = list(op.geometry.values())
    entry = [op.geometry.code, PASS_CODES[op.pass_], 0, VARIANT_CODES[op.variant], geometry, trained, references]
    header = [offset, images, len(fills), len(fills), len(fills) + 1, OPTIMIZER]
    return header, [*fills, entry]
