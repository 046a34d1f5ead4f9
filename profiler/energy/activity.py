"""What a device that is no hardware did, and when: for the emulated instrument.

An emulated board's plugin writes down every change of the trigger pin with the instructions and the memory accesses
up to there; the Linux agent writes down its own with the time. Between two changes power is what :class:`PowerModel`
makes of that, and nothing of it was measured.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.devices import boards
from profiler.devices.build import FIRMWARE_ROOT, artifact, build
from profiler.energy.emulated import Segment
from profiler.errors import UserError

_PLUGIN = FIRMWARE_ROOT / "boards" / "qemu-common" / "trigger_edges.c"
_PROBE = "trigger_set"
#: That much of what lies between two windows is kept.
_BETWEEN_S = 1e-3


@dataclass(frozen=True)
class PowerModel:
    """Power of a made-up microcontroller: so much at rest, so much more for each instruction and memory access.

    Attributes:
        idle_w: While it waits.
        instruction_j: Energy of an instruction.
        access_j: Energy of a load or store, on top.
    """

    idle_w: float = 0.020
    instruction_j: float = 0.15e-9
    access_j: float = 0.25e-9

    def power_w(self, instructions: float, accesses: float, duration_s: float) -> float:
        """Mean power over ``duration_s``."""
        return self.idle_w + (instructions * self.instruction_j + accesses * self.access_j) / duration_s


@dataclass(frozen=True)
class Edge:
    """A change of the trigger: when, and the instructions and memory accesses up to there."""

    time_s: float
    instructions: float
    accesses: float


def segments(edges: Sequence[Edge], model: PowerModel, *, high: bool, before: Edge | None) -> list[Segment]:
    """What happened between successive edges, ``high`` after the first of them, low stretches cut short: nobody has to
    watch a host think."""
    found = []
    level = not high
    for edge in edges:
        if before is not None and edge.time_s > before.time_s:
            duration_s = edge.time_s - before.time_s
            instructions, accesses = edge.instructions - before.instructions, edge.accesses - before.accesses
            power_w = model.power_w(instructions, accesses, duration_s)
            found.append(Segment(duration_s if level else min(duration_s, _BETWEEN_S), power_w, level))
        before, level = edge, not level
    return found


class EdgeFile:
    """Edges from a file that grows, a line each."""

    def __init__(self, path: Path, parse: Callable[[str], Edge], model: PowerModel) -> None:
        self._path, self._parse, self._model = path, parse, model
        self._read = 0
        self._count = 0
        self._last: Edge | None = None

    def __call__(self) -> list[Segment]:
        """What happened since the last call, up to the last edge."""
        with self._path.open() as stream:
            stream.seek(self._read)
            lines = stream.readlines()
        whole = [line for line in lines if line.endswith("\n")]
        self._read += sum(map(len, whole))
        edges = [self._parse(line) for line in whole]
        found = segments(edges, self._model, high=self._count % 2 == 0, before=self._last)
        self._count += len(edges)
        self._last = edges[-1] if edges else self._last
        return found


@contextlib.contextmanager
def emulated_board(name: str, model: PowerModel) -> Iterator[EdgeFile]:
    """Ports opened inside start the emulator of this board with the plugin; gives what it wrote down.

    Raises:
        UserError: the host has no C compiler.
    """
    from profiler.link.ports.protocol_qemu import emulator_arguments  # noqa: PLC0415 - registers with pySerial

    board = boards.EMULATED[name]
    if shutil.which("cc") is None:
        raise UserError("emulating an energy meter needs a C compiler for this machine", hint="apt-get install gcc")
    build(board.preset)
    with tempfile.TemporaryDirectory(prefix="edges-") as folder:
        plugin, out = Path(folder) / "trigger_edges.so", Path(folder) / "edges.txt"
        out.touch()
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", plugin, _PLUGIN], check=True)
        first, end = _code_of(artifact(board.preset), _PROBE)
        arguments = f"{plugin},trigger={board.trigger_register:#x},code={first:#x}-{end:#x},out={out}"
        instruction_s = 2**board.icount_shift * 1e-9

        def parse(line: str) -> Edge:
            instructions, accesses = map(int, line.split())
            return Edge(instructions * instruction_s, instructions, accesses)

        with emulator_arguments("-plugin", arguments):
            yield EdgeFile(out, parse, model)


@contextlib.contextmanager
def native_agent(model: PowerModel) -> Iterator[EdgeFile]:
    """Ports opened inside start the Linux agent so that it writes its trigger's changes down; gives those."""
    from profiler.link.ports.protocol_native import agent_arguments  # noqa: PLC0415 - registers with pySerial

    with tempfile.TemporaryDirectory(prefix="edges-") as folder:
        out = Path(folder) / "edges.txt"
        out.touch()
        with agent_arguments("--trigger-log", str(out)):
            yield EdgeFile(out, _parse_native, model)


def _parse_native(line: str) -> Edge:
    """A Linux host does not tell instructions: as many as a core of 1 GHz would take at one a cycle."""
    time_ns = int(line.split(maxsplit=1)[0])
    return Edge(time_ns * 1e-9, time_ns, 0)


def _code_of(elf: Path, function: str) -> tuple[int, int]:
    """First address of a function, and the one behind it."""
    listing = subprocess.run(
        ["arm-none-eabi-nm", "--print-size", str(elf)], capture_output=True, text=True, check=True
    ).stdout
    for line in listing.splitlines():
        address, *size, _, name = line.split()
        if name == function and size:
            return int(address, 16) & ~1, (int(address, 16) & ~1) + int(size[0], 16)
    raise ValueError(f"{elf} has no function {function}")
