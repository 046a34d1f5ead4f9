"""Whether a device computes what PyTorch does. An op whose result is wrong is not timed.

The reference (float64) of the next ops is computed in a second thread while the device is busy with this one.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from profiler import prng
from profiler.buffers import ELEMENT_TYPES, Element
from profiler.link.errors import DeviceReset, Stopped
from profiler.measure.trials import overrun
from profiler.ops import FusedConv2d, Op, Pass

T = TypeVar("T")

#: Relative error up to which an op's float32 result is right.
OP_TOLERANCE = 1e-5
#: How often an op's outputs are looked at before a device that restarts over it is given up.
MOST_LOOKS = 3
#: How many references are computed ahead.
AHEAD = 6
#: Integers that may come out one apart, since their change in float32 lay on the other side of a half: the root of
#: their share, with room.
ROUNDED_OTHERWISE = 0.03
#: The largest of four random projections of a difference reaches up to about three times its norm.
PROJECTION_REACH = 3


@dataclass(frozen=True)
class Verdict:
    """What a verification found.

    Attributes:
        relative_error: Largest over the outputs.
        worst: Name of that output.
        tolerance: What it was held against.
        memory: What the device measured to be other than planned, in words; empty where all is as planned.
    """

    relative_error: float
    worst: str
    tolerance: float = OP_TOLERANCE
    memory: str = ""

    @property
    def right(self) -> bool:
        return self.relative_error <= self.tolerance and not self.memory  # NaN is wrong

    @property
    def sentence(self) -> str:
        if self.relative_error <= self.tolerance and self.memory:
            return self.memory
        return (
            f"{self.worst} is {self.relative_error:.2g} away from PyTorch's (relative, at most {self.tolerance:g} "
            "is right)"
        )


@dataclass(frozen=True)
class Expected:
    """What a digest is compared with: the reference's own digest and norm, not its tensors.

    Attributes:
        digest: Of the reference.
        norm: ‖reference‖; of the difference of two vectors, the larger of that and of their own norm.
        crc32: Of its bytes, where its elements are integers: those must be exact.
        apart: How far projections of integers may be from the reference's all the same: those rounded from sums in
            float32 may come out one apart, where the sum lay within float32's rounding of a half, and 32-bit ones as
            far as float32 is exact.
    """

    digest: tuple[float, ...]
    norm: float
    crc32: int | None = None
    apart: float = 0.0

    @classmethod
    def of(
        cls, values: np.ndarray, element: Element = "f32", *, rounded_sums: bool = False, cancelled: float = 0.0
    ) -> Expected:
        values = np.asarray(values, dtype=np.float64)
        crc32 = None if element == "f32" else zlib.crc32(values.astype(ELEMENT_TYPES[element]).tobytes())
        norm, apart = max(float(np.linalg.norm(values)), cancelled), 0.0
        if rounded_sums:
            apart = max(PROJECTION_REACH * max(1.0, ROUNDED_OTHERWISE * values.size**0.5), OP_TOLERANCE * norm)
        return cls(prng.digest(values), norm, crc32, apart)

    def error(self, measured: Iterable[float]) -> float:
        """max over projections of |difference| / ‖reference‖; the absolute difference where the norm is 0."""
        difference = digest_difference(measured, self.digest)
        return difference / self.norm if self.norm else difference


def output_error(device: Any, output: Any, expected: Expected) -> float:
    """How far a device's output is from the reference, relative to it; of integers at least 1 where any is wrong."""
    if expected.crc32 is None:
        return expected.error(device.digest(output.reference, output.elements))
    projections, crc32 = device.digest_integers(output.reference, output.elements, output.element)
    if crc32 == expected.crc32:
        return 0.0
    if expected.apart and digest_difference(projections, expected.digest) <= expected.apart:
        return 0.0
    return max(1.0, expected.error(projections))


def digest_difference(measured: Iterable[float], expected: Iterable[float]) -> float:
    """Largest difference of any projection; infinite where one is no number."""
    difference = float(np.max(np.abs(np.subtract(tuple(measured), tuple(expected)))))  # max() would pass over a NaN
    return difference if np.isfinite(difference) else float("inf")


def expected_outputs(program: Any, seed: int, memory: Any) -> dict[str, Expected]:
    """The reference of every output of ``program``."""
    from profiler import reference  # noqa: PLC0415 - torch takes seconds to import and not every command verifies

    outputs = {output.name: output for output in program.outputs}
    found = reference.expected(program, seed, memory)
    cancelled = reference.cancelled_norms(program, seed, memory)
    expected = {}
    for name, values in found.items():
        output = outputs[name]
        op = program.entries[output.entry_index].op
        rounded_sums = output.element != "f32" and op is not None and _rounds(op)
        expected[name] = Expected.of(
            values, output.element, rounded_sums=rounded_sums, cancelled=cancelled.get(name, 0.0)
        )
    return expected


def _rounds(op: Op) -> bool:
    """Whether an op's integers are rounded from sums, or roots, that float32 does not give to the last bit. Others come
    of integers, or of a gradient that the device is given."""
    return op.pass_ is Pass.UPDATE and (isinstance(op.geometry, FusedConv2d) or op.optimizer == "adam")


def run_and_look(device: Any, program: Any, seed: int, look: Callable[[Any], T]) -> T:
    """Run ``program`` once without timing, then ``look`` at its result and at what it left in the device's memory.

    Where the device restarts between the two, nothing is left: both are done again, a few times at most.

    Raises:
        DeviceReset: it restarted every time.
        Stopped: it took longer than a run may.
    """
    for _ in range(MOST_LOOKS - 1):
        result = _run_once(device, program, seed)
        with contextlib.suppress(DeviceReset):
            return look(result)
    return look(_run_once(device, program, seed))


def _run_once(device: Any, program: Any, seed: int) -> Any:
    result = device.run(program, repetitions=0, warmups=1, seed=seed)
    if result.stop is not None:  # what lies in memory is of no use
        raise Stopped(overrun(result, 0), hint="take a smaller op")
    return result


def memory_mismatch(program: Any, result: Any) -> str:
    """How the memory that a run with warm-ups touched differs from what was planned, in words; empty: not at all."""
    for what, measured, planned in (
        ("of the arena", result.arena_peak_bytes, program.arena_bytes),
        ("of scratch", result.scratch_peak_bytes, program.scratch_bytes),
    ):
        if measured != planned:
            return f"it touches {measured:,} bytes {what} where {planned:,} are planned"
    return ""


def verify(device: Any, program: Any, expected: dict[str, Expected], seed: int) -> Verdict:
    """Run ``program`` once without timing; compare every output with the reference, and the memory with the plan."""

    def compare(result: Any) -> Verdict:
        worst, error = "nothing", 0.0
        for output in program.outputs:
            found = output_error(device, output, expected[output.name])
            if not found <= error:
                worst, error = output.name, found
        return Verdict(error, worst, memory=memory_mismatch(program, result))

    return run_and_look(device, program, seed, compare)


class Ahead:
    """References computed in a second thread, in the order in which they will be wanted."""

    def __init__(
        self, programs: Iterable[tuple[str, Any]], compute: Callable[[Any], Any], *, ahead: int = AHEAD
    ) -> None:
        """
        Args:
            programs: (key, program) in the order of use.
            compute: Gives a program's reference.
            ahead: How many references may wait; fewer where each is large. 0: each is computed when it is wanted, for
                devices whose times a second thread of this host would disturb.
        """
        self._queue = deque(programs)
        self._compute = compute
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reference")
        self._futures: dict[str, Future] = {}

    def get(self, key: str, program: Any) -> Any:
        """The reference of ``program``; waits for it where it is not there yet."""
        self._fill()
        future = self._futures.pop(key, None)
        if future is None:
            # Out of the foreseen order; the thread's own turn would come too late.
            return self._compute(program)
        result = future.result()
        self._fill()
        return result

    def _fill(self) -> None:
        while self._queue and len(self._futures) < self._ahead:
            key, program = self._queue.popleft()
            self._futures[key] = self._pool.submit(self._compute, program)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
