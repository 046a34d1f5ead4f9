"""A device in miniature: runs a program's entries on the host build of the kernels, in one flat arena."""

import numpy as np

from profiler import kernels, prng
from profiler.buffers import ELEMENT_TYPES
from profiler.workloads.program import offset_of, region_of


class HostDevice:
    """Memory of the sizes that a DeviceMemory states, and the interpreter's loop over a program.

    Args:
        memory: What the program was placed for.
    """

    def __init__(self, memory):
        self.memory = memory
        self.arena = np.zeros(0, np.uint8)
        self.blob = (
            prng.blob_window(memory.blob_seed, memory.blob_segments, memory.blob_bytes, 0, memory.blob_bytes // 4).view(
                np.uint8
            )
            if memory.blob_bytes
            else np.zeros(0, np.uint8)
        )

    def view(self, reference, elements, dtype=np.float32):
        region = {0: self.arena, 1: self.blob}[region_of(reference)]
        offset, size = offset_of(reference), elements * np.dtype(dtype).itemsize
        assert offset + size <= region.size, "a buffer leaves its region"
        return region[offset : offset + size].view(dtype)

    def run(self, program, seed, executions=1):
        """Fill, then execute so many times; returns every output."""
        # Not zero: whatever is read before it is written shows.
        self.arena = np.full(program.arena_bytes, 0xA5, np.uint8)
        for entry in program.entries[: program.setup_end]:
            self._fill(entry, seed, 0)
        for _ in range(executions):
            for image in range(program.image_count):
                for entry in program.entries[program.setup_end : program.image_end]:
                    self._fill(entry, seed, image)
                for entry in program.entries[program.image_end : program.body_end]:
                    self._execute(entry, program)
            for entry in program.entries[program.body_end :]:
                self._execute(entry, program)
        return {o.name: self.view(o.reference, o.elements, ELEMENT_TYPES[o.element]).copy() for o in program.outputs}

    def _fill(self, entry, seed, image):
        f = entry.fill
        values = prng.fill(f.mode, f.parameter, seed, f.stream + (image << 16), f.elements)
        self.view(entry.references[0], f.elements, values.dtype)[:] = values

    def _execute(self, entry, program):
        op = entry.op
        buffers = [
            self.view(reference, spec.elements, ELEMENT_TYPES[spec.element])
            for reference, spec in zip(entry.references, op.buffers(), strict=False)
        ]
        channels = None if entry.channels is None else np.asarray(entry.channels, np.uint16)
        constants = program.constants and kernels.StepConstants(*program.constants.wire())
        kernels.run(op, buffers, constants=constants, channels=channels, quantization=entry.quantization)
