"""What a program's results should be: every op in PyTorch, in float64, on the inputs that the device makes itself.

Programs are computed by their tensors' names, not by their places, so a mistake of the arena planner shows as a wrong
result of the device. Layouts are those of :mod:`profiler.ops`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from profiler import prng
from profiler.buffers import ELEMENT_TYPES
from profiler.ops import (
    Access,
    GroupNorm,
    L2Normalize,
    Op,
    Pass,
    Quantization,
    Relu,
)
from profiler.reference_f32 import NORMALIZE_EPSILON, op_reference
from profiler.reference_s8 import op_reference_s8
from profiler.workloads.entries import BLOB_REGION, DeviceMemory, Entry, offset_of, region_of
from profiler.workloads.program import Program
from profiler.workloads.traits import buffers_of

#: How near to a ReLU's kink, relative to the activations' root mean square, float32 may take the other side of it than
#: float64: some times the 1e-6 by which a long chain of float32 ops was seen to differ.
KINK_WIDTH = 1e-5
#: Which buffer a pass writes that may be a small difference of large numbers.
_CANCELLING = {
    (L2Normalize, Pass.GRAD_INPUT): "grad_input",
    (GroupNorm, Pass.FORWARD): "output",
    (GroupNorm, Pass.GRAD_INPUT): "grad_input",
}


def expected(program: Program, seed: int, memory: DeviceMemory, *, kink_margin: float = 0.0) -> dict[str, np.ndarray]:
    """Every output after one execution of a program (setup, all images, updates).

    Args:
        program: What runs.
        seed: The run's.
        memory: The device's, for the blob's seed and scales.
        kink_margin: By how much, relative to the activations' root mean square, the range in which a ReLU's gradient
            passes is widened (or narrowed, where negative).

    Returns:
        Output name to float64 array, flat, in memory order.
    """
    tensors = _all_tensors(program, seed, memory, kink_margin)
    return {output.name: tensors[output.name] for output in program.outputs}


def cancelled_norms(program: Program, seed: int, memory: DeviceMemory) -> dict[str, float]:
    """Of each output that is a difference of two vectors, nearly the same perhaps, the norm of either at most.

    What float32 rounds is relative to that, not to what is left: a normalisation's gradient ``(g - y (y · g)) / ‖x‖``
    has next to nothing left where the gradient ``g`` that comes in points along the output ``y``, and neither has
    ``(x - mean) r w`` of a group whose elements are nearly the same, or that has one element only.
    """
    tensors, norms = None, {}
    for output in program.outputs:
        entry = program.entries[output.entry_index]
        role = _CANCELLING.get((type(entry.op.geometry), entry.op.pass_)) if entry.op else None
        if role is None:
            continue
        names = dict(zip((spec.role for spec in buffers_of(entry.op)), entry.tensors, strict=False))
        if names[role] == output.name:
            tensors = tensors or _all_tensors(program, seed, memory)
            values = {role: tensors[name] for role, name in names.items()}
            norms[output.name] = _norm_before_cancelling(entry.op, values)
    return norms


def _norm_before_cancelling(op: Op, values: Mapping[str, np.ndarray]) -> float:
    g = op.geometry
    if isinstance(g, L2Normalize):
        length = max(float(np.linalg.norm(values["input"])), NORMALIZE_EPSILON)
        return float(np.linalg.norm(values["grad_output"])) / length
    assert isinstance(g, GroupNorm)
    factor = values["weight"] * np.repeat(values["statistics"].reshape(-1, 2)[:, 1], g.in_channels // g.groups)
    varying = values["input" if op.pass_ is Pass.FORWARD else "grad_output"].reshape(-1, g.in_channels)
    return float(np.linalg.norm(varying * factor))


def _all_tensors(program: Program, seed: int, memory: DeviceMemory, kink_margin: float = 0.0) -> dict[str, np.ndarray]:
    """By name, as one execution leaves them."""
    tensors: dict[str, np.ndarray] = {}
    for entry in program.entries[: program.setup_end]:
        _run_fill(entry, seed, 0, tensors)
    for image in range(program.image_count):
        for entry in program.entries[program.setup_end : program.image_end]:
            _run_fill(entry, seed, image, tensors)
        for entry in program.entries[program.image_end : program.body_end]:
            _run_op(entry, program, memory, tensors, kink_margin)
    for entry in program.entries[program.body_end :]:
        _run_op(entry, program, memory, tensors, kink_margin)
    return tensors


def kink_effects(program: Program, seed: int, memory: DeviceMemory) -> dict[str, np.ndarray]:
    """How far each output moves with the activations that lie within ``KINK_WIDTH`` of a ReLU's kink.

    There the gradient jumps, and which side float32 takes is a matter of rounding: a right result may differ from
    :func:`expected` by about this much.

    Returns:
        Output name to float64 array: with all of them passed minus with none.
    """
    passed = expected(program, seed, memory, kink_margin=KINK_WIDTH)
    blocked = expected(program, seed, memory, kink_margin=-KINK_WIDTH)
    return {name: values - blocked[name] for name, values in passed.items()}


def _run_fill(entry: Entry, seed: int, image: int, tensors: dict[str, np.ndarray]) -> None:
    f = entry.fill
    assert f is not None
    values = prng.fill(f.mode, f.parameter, seed, f.stream + (image << 16), f.elements).astype(np.float64)
    for name, first, elements in f.slices:
        tensors[name] = values[first : first + elements]


def _run_op(
    entry: Entry, program: Program, memory: DeviceMemory, tensors: dict[str, np.ndarray], kink_margin: float = 0.0
) -> None:
    op = entry.op
    assert op is not None
    inputs: dict[str, np.ndarray] = {}
    specs = buffers_of(op)
    for spec, name, reference in zip(specs, entry.tensors, entry.references, strict=False):
        if spec.access is Access.WRITE:
            continue
        if name not in tensors and region_of(reference) == BLOB_REGION:
            words = -(-spec.byte_count // 4)
            window = prng.blob_window(
                memory.blob_seed, memory.blob_segments, memory.blob_bytes, offset_of(reference), words
            )
            tensors[name] = window.view(ELEMENT_TYPES[spec.element])[: spec.elements].astype(np.float64)
        inputs[spec.role] = tensors[name].reshape(spec.shape)
    if isinstance(op.geometry, Relu):
        _run_relu(entry, tensors, kink_margin)
        return
    if op.dtype == "s8":
        results = op_reference_s8(op, inputs, entry.quantization or Quantization(), program.constants)
    else:
        results = op_reference(op, inputs, channels=entry.channels, constants=program.constants)
    for spec, name in zip(specs, entry.tensors, strict=True):
        if spec.role in results:
            tensors[name] = results[spec.role].reshape(-1)


def _run_relu(entry: Entry, tensors: dict[str, np.ndarray], kink_margin: float) -> None:
    """As :func:`op_reference`, but the gradient looks at the forward pass's input, where a margin has a meaning."""
    op = entry.op
    assert op is not None
    maximum = op.geometry.maximum or np.inf
    if op.pass_ is Pass.FORWARD:
        name, output = entry.tensors
        tensors[f"{output} before"] = tensors[name]
        tensors[output] = tensors[name].clip(0, maximum)
        return
    output, grad_output, grad_input = entry.tensors
    x = tensors.get(f"{output} before", tensors[output])  # a microbenchmark has the output only
    margin = kink_margin * float(np.sqrt(np.mean(x**2)))
    tensors[grad_input] = tensors[grad_output] * ((x > -margin) & (x < maximum + margin))
