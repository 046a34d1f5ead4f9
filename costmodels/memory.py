"""Peak memory from the arena planner: what the programs that a device runs will take of its arena."""

from __future__ import annotations

import dataclasses

from profiler.devices.identity import Identity
from profiler.ops import Op
from profiler.workloads.arena import place
from profiler.workloads.program import DeviceMemory, DoesNotFit, microbenchmark, step_program
from profiler.workloads.step import TrainingStep


class ArenaMemory:
    """Arena bytes of ops and steps on one device; the planner's own figures, not a fit.

    Args:
        identity: The device's identity record. Without one (a bare table), or where it tells of no memory (an imported
            run), weights are taken to lie outside the arena and nothing is known of the device's limits.
    """

    def __init__(self, identity: dict) -> None:
        self._memory = DeviceMemory.of(Identity.from_dict(identity)) if identity.get("memory") else None
        # A step that does not fit has a cost too, so that selection can see by how much: plan without limits.
        self._roomy = self._memory and dataclasses.replace(self._memory, arena_bytes=1 << 40, largest_program=1 << 20)
        self._ops: dict[Op, int] = {}

    def op_bytes(self, op: Op, scratch_bytes: int) -> int:
        """Arena of the microbenchmark of one op: its buffers and scratch, frozen weights in the blob left out."""
        if op not in self._ops:
            self._ops[op] = self._op_bytes(op, scratch_bytes)
        return self._ops[op]

    def step_bytes(self, step: TrainingStep) -> int:
        """Arena of the program of a training step."""
        if self._roomy is None:
            return place(step).peak_bytes
        return step_program(step, self._roomy).arena_bytes

    def _op_bytes(self, op: Op, scratch_bytes: int) -> int:
        if self._memory is None:
            return op.bytes_touched + scratch_bytes
        try:
            return microbenchmark(op, self._memory).arena_bytes
        except DoesNotFit:
            return microbenchmark(op, self._roomy).arena_bytes
