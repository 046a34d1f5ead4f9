"""What the tensors of an int8 training step start as."""

from __future__ import annotations

from profiler.ops import BufferSpec, CosineHead, Geometry, Op, Requantize
from profiler.prng import FillMode
from profiler.workloads.entries import DeviceMemory
from profiler.workloads.network import INPUT
from profiler.workloads.step import FIXED, LABEL, PROTOTYPES, Role, TrainingStep
from profiler.workloads.traits import buffers_of
from profiler.workloads.values import (
    BYTES,
    SCALE,
    ZEROS,
    BlobWindows,
    Start,
    gradient_scale_start,
    prototype_exponent,
    start_of_s8,
    uniform_start,
)


def starting_values_s8(step: TrainingStep, memory: DeviceMemory) -> tuple[dict[str, Start], dict[str, int]]:
    """How every tensor in the arena that is filled starts, and the windows of those in the blob (byte offsets).

    Requantisation is drawn for each layer's fan-in, so the int8 values of all layers spread alike however deep they
    are.
    """
    starts: dict[str, Start] = {INPUT: BYTES, LABEL: Start(FillMode.LABEL, step.plan.head.classes)}
    windows: dict[str, int] = {}
    blob = BlobWindows.of(memory)
    geometries: dict[str, Geometry] = {}
    for step_op in step.ops:
        geometries.setdefault(step_op.layer, step_op.op.geometry)  # a layer's forward op comes first
        for name, spec in zip(step_op.tensors, buffers_of(step_op.op), strict=True):
            tensor = step.tensors[name]
            if tensor.role not in FIXED or name in starts or name in windows:
                continue
            start = fixed_start_s8(step_op.op, spec, geometries[step_op.layer])
            if tensor.trained or not blob.fits(tensor.byte_count, start):
                starts[name] = start
            else:
                windows[name] = blob.take(tensor.byte_count, start)[0]
        if isinstance(step_op.op.geometry, CosineHead) and PROTOTYPES not in starts:
            starts[PROTOTYPES] = uniform_start(prototype_exponent(step_op.op.geometry.features))
    for tensor in step.tensors.values():
        if tensor.role in (Role.ACCUMULATOR, Role.MOMENT, Role.LOSS):
            starts[tensor.name] = ZEROS
    return starts, windows


def fixed_start_s8(op: Op, spec: BufferSpec, layer: Geometry) -> Start:
    """What a weight, bias or scale starts as that this op of a layer is the first to read."""
    if isinstance(op.geometry, Requantize) and spec.role == "scale":
        return gradient_scale_start(layer)
    if spec.role == "scales":  # of real weights; with larger ones nothing would change by a whole integer
        return SCALE
    start = start_of_s8(op, spec)
    assert start is not None
    return start
