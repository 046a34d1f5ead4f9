"""Seeds of the fuzz targets in firmware/fuzz/, from real requests: ``python tests/firmware/make_fuzz_seeds.py FOLDER``.

Writes ``FOLDER/frames/``, ``FOLDER/checker/`` and ``FOLDER/session/``. Requests are encoded by the host's own
:mod:`profiler.link.messages`, so that seeds follow the protocol. What an input is: ``firmware/fuzz/input.h``.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from op_cases import KINDS_AND_PASSES, VARIANTS, random_op
from op_cases_s8 import KINDS_AND_PASSES_S8, random_op_s8

from profiler.link import messages
from profiler.link.messages import ENTRIES_PER_REQUEST, EncodedProgram, encode_request
from profiler.ops import Op, Pass
from profiler.workloads.program import DeviceMemory, DoesNotFit, Program, microbenchmark

FRAMED, RAW = 0, 1
#: Content that a frame of firmware/link/wire.h's LINK_FRAME_BYTES holds, less its CRC-32.
LARGEST_PAYLOAD_BYTES = 1270
#: The board of firmware/fuzz/session.c; that of checker.c has more.
MEMORY = DeviceMemory(
    arena_bytes=24 << 10, blob_bytes=16 << 10, blob_seed=1, blob_segments=(127, 126, 0, 8), entry_bytes=128
)
CASES_PATH = Path(__file__).parents[1] / "frame_cases.json"


def fuzz_input(setup: int, records: Iterable[tuple[int, bytes]]) -> bytes:
    """One input: its setup, and each record with its kind."""
    return bytes([setup]) + b"".join(
        bytes([kind]) + len(content).to_bytes(2, "little") + content for kind, content in records
    )


def frames_setup(capacity: int) -> int:
    """The setup of firmware/fuzz/frames.c that gives at least so much room, or the most."""
    return min(capacity, 64 + -(-max(0, capacity - 64) // 7), 255)


def frame_seeds() -> Iterator[bytes]:
    for case in json.loads(CASES_PATH.read_text()):
        setup = frames_setup(case["capacity"])
        yield fuzz_input(setup, [(RAW, bytes.fromhex(case["stream"]))])
        yield fuzz_input(setup, [(FRAMED, bytes.fromhex(frame["payload"])) for frame in case["frames"]])


def programs() -> Iterator[Program]:
    """Small ops of every kind, pass, dtype and variant, with their fills."""
    rng = np.random.default_rng(1)
    for make, kinds in ((random_op, KINDS_AND_PASSES), (random_op_s8, KINDS_AND_PASSES_S8)):
        for kind, pass_ in kinds:
            for variant in VARIANTS:
                yield _fitting(lambda k=kind, p=pass_, v=variant, m=make: m(k, p, rng, v))
    yield _fitting(lambda: random_op_s8("depthwise", Pass.FORWARD, rng, "in_place"))


def _fitting(make) -> Program:
    while True:
        op: Op = make()
        try:
            return microbenchmark(op, MEMORY)
        except DoesNotFit:
            continue


def inline(program: EncodedProgram) -> list[list]:
    """A run that carries its program."""
    return [messages.run(2, 1, 7, program), messages.read(0)]


def stored(program: EncodedProgram) -> list[list]:
    """A program that is stored, sealed and run."""
    indices = range(0, len(program.entries), ENTRIES_PER_REQUEST)
    appends = [messages.append(program, i, min(ENTRIES_PER_REQUEST, len(program.entries) - i)) for i in indices]
    limited = messages.identify(9, run_limit_ms=30)
    return [limited, messages.begin(program), *appends, messages.seal(program), messages.run(1, 0, 3, cold=True)]


def request_seeds() -> Iterator[bytes]:
    first = [messages.identify(5), messages.state(), messages.counters()]
    last = [messages.digest(0, 16), messages.digest(1, 8, "s8"), messages.peek(16, 64)]
    yield _session(0, [*first, *last])
    for setup, program in enumerate(programs()):
        encoded = EncodedProgram.of(program.header(), program.wire_entries())
        for commands in (inline(encoded), stored(encoded)):
            if all(len(encode_request(0, command)) <= LARGEST_PAYLOAD_BYTES for command in commands):
                yield _session(setup % 256, commands)


def _session(setup: int, commands: Sequence[list]) -> bytes:
    return fuzz_input(setup, [(FRAMED, encode_request(i, command)) for i, command in enumerate(commands, 1)])


def write(folder: Path) -> None:
    requests = list(request_seeds())
    for target, seeds in (("frames", list(frame_seeds())), ("checker", requests), ("session", requests)):
        (folder / target).mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            (folder / target / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
