"""Programs: ops in order with their buffers placed in memory, as a device runs them.

A program is known on the host in two ways at once: by place (what travels to the device) and by name (what
:mod:`profiler.reference` computes). A mistake of the planner shows as a digest that differs.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby

from profiler.ops import Access, BufferSpec, CosineHead, Op, Pass, Quantization, SoftmaxCrossEntropy
from profiler.prng import FillMode
from profiler.workloads.arena import Placement, place
from profiler.workloads.entries import (
    ARENA_REGION,
    BLOB_REGION,
    TICK_BYTES,
    DeviceMemory,
    DoesNotFit,
    Entry,
    Fill,
    Output,
    Slice,
    StepConstants,
    offset_of,
    region_of,
)
from profiler.workloads.network import INPUT
from profiler.workloads.starts_s8 import starting_values_s8
from profiler.workloads.step import FIXED, LABEL, LOSS, PROTOTYPES, Part, Role, StepOp, StepTensor, TrainingStep
from profiler.workloads.traits import buffers_of, in_place, scratch_bytes
from profiler.workloads.values import (
    BIAS_EXPONENT,
    ZEROS,
    BlobWindows,
    Start,
    mean_square,
    output_mean_square,
    prototype_exponent,
    start_of,
    uniform_start,
    weight_exponent,
)

__all__ = [
    "DeviceMemory",
    "DoesNotFit",
    "Entry",
    "Fill",
    "Output",
    "Program",
    "Slice",
    "StepConstants",
    "microbenchmark",
    "offset_of",
    "region_of",
    "resident_weights",
    "starting_values",
    "step_program",
]

#: Roles of buffers that a microbenchmark reads from the blob.
_FROZEN = frozenset({"weight", "bias"})
_FROZEN_S8 = _FROZEN | {
    "requantization", "depthwise_weight", "depthwise_bias", "depthwise_requantization", "scale",
}  # fmt: skip
#: A rate large enough that an update shows in the weights' digest; all of them two bytes on the wire.
_MICROBENCHMARK_CONSTANTS = StepConstants(0.5, bias_correction1=0.5, bias_correction2=0.125)


@dataclass(frozen=True)
class Program:
    """What a device runs.

    Entries [0, setup_end) fill once a run, [setup_end, image_end) fill once an image, [image_end, body_end) are timed
    once an image, [body_end, end) are timed once.

    Attributes:
        name: What people call it.
        entries: All entries.
        setup_end, image_end, body_end: As above.
        image_count: Images in one execution.
        arena_bytes: First byte of the arena above every buffer.
        outputs: What is checked.
        constants: Of the optimiser, where there is an update.
        arena_region: Number of the region at whose bottom the arena lies.
        placement: Where a training step's tensors lie.
    """

    name: str
    entries: tuple[Entry, ...]
    setup_end: int
    image_end: int
    body_end: int
    image_count: int
    arena_bytes: int
    outputs: tuple[Output, ...]
    constants: StepConstants | None = None
    arena_region: int = ARENA_REGION
    placement: Placement | None = None

    @cached_property
    def timed(self) -> tuple[tuple[str, Op], ...]:
        """(layer, op) of every timed entry, in the order of the ticks."""
        return tuple((e.layer, e.op) for e in self.entries[self.image_end :])  # type: ignore[misc]

    @cached_property
    def scratch_bytes(self) -> int:
        """The most scratch that any op wants."""
        return max((scratch_bytes(op) for _, op in self.timed), default=0)

    def header(self) -> list:
        """The positional list that travels as CBOR; floats have float32 values."""
        record: list = [self.arena_bytes, self.image_count, self.setup_end, self.image_end, self.body_end]
        if self.constants is not None:
            record.append(self.constants.wire())
        return record if self.arena_region == ARENA_REGION else [*record, self.arena_region]

    def wire_entries(self) -> list[list]:
        """The entries' positional lists."""
        return [entry.wire() for entry in self.entries]

    def wanted_bytes(self, memory: DeviceMemory, repetitions: int = 1) -> int:
        """What it takes of the arena's region: buffers, and in region 0 stored entries and ticks."""
        return self.arena_bytes + self.beside_arena_bytes(memory, repetitions)

    def beside_arena_bytes(self, memory: DeviceMemory, repetitions: int = 1) -> int:
        """What stored entries and so many repetitions' ticks take of the arena's region; 0 where they lie elsewhere."""
        return self._stored_bytes(memory, repetitions) if memory.arena_region == ARENA_REGION else 0

    def most_repetitions(self, memory: DeviceMemory) -> int:
        """How many repetitions' ticks the device has room for at once; at least 1 of a program that fits."""
        shared = memory.arena_region == ARENA_REGION
        room = memory.arena_bytes - self.arena_bytes if shared else memory.store_bytes
        return (room - self._stored_bytes(memory, 0)) // max(1, TICK_BYTES * len(self.timed))

    def _stored_bytes(self, memory: DeviceMemory, repetitions: int) -> int:
        store = sum(entry.store_bytes(memory.entry_bytes) for entry in self.entries)
        return store + TICK_BYTES * repetitions * len(self.timed)

    def in_region(self, number: int) -> Program:
        """The same program with its arena in another region."""
        move = lambda reference: offset_of(reference) | number if region_of(reference) == ARENA_REGION else reference  # noqa: E731
        entries = tuple(replace(e, references=tuple(map(move, e.references))) for e in self.entries)
        outputs = tuple(output._replace(reference=move(output.reference)) for output in self.outputs)
        return replace(self, entries=entries, outputs=outputs, arena_region=number)

    def check_fits(self, memory: DeviceMemory, repetitions: int = 1) -> None:
        """Raise DoesNotFit unless the device has room for it with so many repetitions' ticks."""
        wanted = self.wanted_bytes(memory, repetitions)
        if wanted > memory.arena_bytes:
            raise DoesNotFit(self.name, wanted, memory.arena_bytes)
        if memory.arena_region != ARENA_REGION and self._stored_bytes(memory, repetitions) > memory.store_bytes:
            stored = self._stored_bytes(memory, repetitions)
            raise DoesNotFit(self.name, stored, memory.store_bytes, "bytes for entries and ticks")
        if len(self.entries) > memory.largest_program:
            raise DoesNotFit(self.name, len(self.entries), memory.largest_program, "entries")


def microbenchmark(op: Op, memory: DeviceMemory) -> Program:
    """A program of one op.

    Frozen weights are windows of the blob where it is large enough. No two buffers overlap; only where they do not fit
    otherwise does an output overwrite an input, if the kernel declares that to be safe. They begin on lines of the
    device's caches, as most do in a training step: where else they began would be a matter of their neighbour's size.

    Args:
        op: What to measure.
        memory: The device's.

    Raises:
        DoesNotFit: the device has not enough memory.
    """
    shares = in_place(op)
    program = _microbenchmark(op, memory, shares if op.variant == "in_place" else {})
    if shares and program.wanted_bytes(memory) > memory.arena_bytes:
        program = _microbenchmark(op, memory, shares)
    program = program.in_region(memory.arena_region)
    program.check_fits(memory)
    return program


def _microbenchmark(op: Op, memory: DeviceMemory, shares: dict[int, int]) -> Program:
    specs = buffers_of(op)
    windows = BlobWindows.of(memory)
    references: dict[int, int] = {}
    frozen = _FROZEN_S8 if op.dtype == "s8" else _FROZEN if op.pass_ in (Pass.FORWARD, Pass.GRAD_INPUT) else frozenset()
    filled: list[tuple[Start, int, BufferSpec]] = []
    for index, spec in enumerate(specs):
        start = start_of(op, spec)
        if spec.role in frozen and spec.access is Access.READ and windows.fits(spec.byte_count, start):
            references[index] = windows.take(spec.byte_count, start)[0] | BLOB_REGION
        elif spec.access is not Access.WRITE:
            filled.append((start, index, spec))
    top = 0

    def begin(top: int) -> int:
        return -(-top // memory.line_bytes) * memory.line_bytes

    entries: list[Entry] = []
    filled.sort(key=lambda item: item[:2])
    for start, group in groupby(filled, key=lambda item: item[0]):
        members = []
        for _, index, spec in group:
            references[index] = begin(top)
            top = references[index] + spec.byte_count
            members.append((spec.role, references[index], spec.elements))
        entries.append(_fill(start, members, stream=len(entries) + 1))
    for index, spec in enumerate(specs):
        if index in references:
            continue
        source = shares.get(index)
        if source is not None and spec.byte_count <= specs[source].byte_count:
            references[index] = references[source]
            continue
        references[index] = begin(top)
        top = references[index] + spec.byte_count
    places = [references[index] for index in range(len(specs))]
    scratch = scratch_bytes(op)
    if scratch:
        places.append(begin(top))
        top = places[-1] + scratch
    end = len(entries)
    quantization = Quantization() if op.dtype == "s8" else None
    names = tuple(spec.role for spec in specs)
    entries.append(Entry(op.kind, op, None, tuple(places), names, quantization=quantization))
    outputs = tuple(
        Output(spec.role, references[index], spec.elements, end, spec.element)
        for index, spec in enumerate(specs)
        if spec.access is not Access.READ
    )
    constants = _MICROBENCHMARK_CONSTANTS if op.pass_ is Pass.UPDATE else None
    return Program(op.key, tuple(entries), end, end, end + 1, 1, top, outputs, constants)


def _fill(start: Start, members: Sequence[tuple[str, int, int]], stream: int) -> Entry:
    """One fill over neighbouring buffers (name, offset, elements), the padding between them included."""
    first, width = members[0][1], start.element_bytes
    slices = tuple(Slice(name, (offset - first) // width, elements) for name, offset, elements in members)
    fill = Fill(slices[-1].first + slices[-1].elements, start.mode, start.parameter, stream, slices)
    return Entry("", None, fill, (first | ARENA_REGION,), tuple(name for name, _, _ in members))


def step_program(step: TrainingStep, memory: DeviceMemory) -> Program:
    """A program of one training step.

    Args:
        step: The step.
        memory: The device's.

    Raises:
        DoesNotFit: the device has not enough memory.
    """
    starts, windows = starting_values(step, memory)
    placement = place(step, resident=starts.keys(), order=lambda t: starts[t.name])
    references = {name: offset | ARENA_REGION for name, offset in placement.offsets.items()}
    references |= {name: offset | BLOB_REGION for name, offset in windows.items()}
    entries: list[Entry] = []
    persistent = [t for t in step.tensors.values() if t.name in starts and t.role not in (Role.LABEL, Role.IMAGE)]
    persistent.sort(key=lambda t: (starts[t.name], placement.offsets[t.name]))
    for start, group in groupby(persistent, key=lambda t: starts[t.name]):
        members = [(t.name, placement.offsets[t.name], t.elements) for t in group]
        entries.append(_fill(start, members, stream=len(entries) + 1))
    setup_end = len(entries)
    for name in (INPUT, LABEL):
        member = (name, placement.offsets[name], step.tensors[name].elements)
        entries.append(_fill(starts[name], [member], stream=len(entries) + 1))
    image_end = len(entries)
    outputs: list[Output] = []
    updated = {name for step_op in step.update_ops for name in step_op.inputs}
    for index, step_op in enumerate(step.ops):
        places = [references[name] for name in step_op.tensors]
        if index in placement.scratch:
            places.append(placement.scratch[index])
        for name in _checked(step_op, step, updated):
            tensor = step.tensors[name]
            outputs.append(Output(name, references[name], tensor.elements, len(entries), tensor.element))
        what = (step_op.tensors, step_op.channels, step_op.quantization)
        entries.append(Entry(step_op.layer, step_op.op, None, tuple(places), *what))
    images = step.plan.images
    updates = any(step_op.op.pass_ is Pass.UPDATE for step_op in step.ops)
    program = Program(
        name=f"the training step of {step.network}",
        entries=tuple(entries),
        setup_end=setup_end,
        image_end=image_end,
        body_end=image_end + len(step.image_ops),
        image_count=images,
        arena_bytes=placement.peak_bytes,
        outputs=tuple(outputs),
        constants=StepConstants(step.plan.learning_rate, 1 / images) if updates else None,
        placement=placement,
    )
    program = program.in_region(memory.arena_region)
    program.check_fits(memory)
    return program


def resident_weights(step: TrainingStep | Part, memory: DeviceMemory) -> frozenset[str]:
    """Names of a step's frozen weights, biases and scales that lie in the arena, because the blob has no window for
    them."""
    blob = _windows(memory)
    return frozenset(
        tensor.name
        for tensor in step.tensors.values()
        if tensor.role in FIXED and not tensor.trained and not blob.fits(tensor.byte_count, Start(_kind_of(tensor), 0))
    )


_windows = lru_cache(maxsize=8)(BlobWindows.of)


def _kind_of(tensor: StepTensor) -> FillMode:
    """What a frozen tensor holds."""
    if tensor.element == "f32":
        return FillMode.SCALE if tensor.role is Role.CONSTANT else FillMode.UNIFORM
    if tensor.role is Role.CONSTANT:
        return FillMode.PAIRS
    return FillMode.INTEGERS if tensor.element == "s32" else FillMode.BYTES


def starting_values(step: TrainingStep, memory: DeviceMemory) -> tuple[dict[str, Start], dict[str, int]]:
    """How every tensor in the arena that is filled starts, and the windows of those in the blob (byte offsets)."""
    return (starting_values_s8 if step.plan.dtype == "s8" else _starting_values)(step, memory)


def _checked(step_op: StepOp, step: TrainingStep, updated: Container[str]) -> list[str]:
    """Which results of an op of a step are checked: what outlives the step and tells something.

    Args:
        step_op: The op.
        step: Its step.
        updated: Names of the tensors that updates read: of gradients the others are results themselves.
    """
    op, tensors = step_op.op, step_op.tensors
    if isinstance(op.geometry, SoftmaxCrossEntropy) and op.pass_ is Pass.FORWARD:
        return [LOSS]
    if op.pass_ is Pass.GRAD_WEIGHT:
        return [n for n in step_op.outputs if step.tensors[n].role is Role.ACCUMULATOR and n not in updated]
    if op.pass_ is not Pass.UPDATE:
        return []
    # The first moment is the gradient itself, which hardly shows in the weights.
    roles = ("weight", "trained_weight", "bias", "weight_moment1", "bias_moment1")
    return [name for name, spec in zip(tensors, buffers_of(op), strict=True) if spec.role in roles]


def _starting_values(step: TrainingStep, memory: DeviceMemory) -> tuple[dict[str, Start], dict[str, int]]:
    """:func:`starting_values` of float32 steps."""
    starts: dict[str, Start] = {INPUT: uniform_start(0), LABEL: Start(FillMode.LABEL, step.plan.head.classes)}
    windows: dict[str, int] = {}
    blob = BlobWindows.of(memory)
    squares = {INPUT: mean_square(0)}

    def begin(name: str, exponent: int) -> float:
        """Give a weight or bias its place; returns its mean square."""
        tensor, start = step.tensors[name], uniform_start(exponent)
        if tensor.trained or not blob.fits(tensor.byte_count, start):
            starts[name] = start
            return mean_square(exponent)
        windows[name], square = blob.take(tensor.byte_count, start)
        return square

    for step_op in step.ops:
        op, tensors = step_op.op, step_op.tensors
        if op.pass_ is not Pass.FORWARD:
            continue
        g, weight = op.geometry, 0.0
        if g.trainable:
            weight = begin(tensors[1], weight_exponent(g, squares[tensors[0]]))
            if g.bias_elements:  # type: ignore[attr-defined]
                begin(tensors[2], BIAS_EXPONENT)
        elif isinstance(g, CosineHead):
            starts[PROTOTYPES] = uniform_start(prototype_exponent(g.features))
        reads = [squares[name] for name in step_op.inputs if name in squares]
        squares[step_op.outputs[0]] = output_mean_square(g, reads, weight)
    for tensor in step.tensors.values():
        if tensor.role in (Role.ACCUMULATOR, Role.MOMENT, Role.LOSS):
            starts[tensor.name] = ZEROS
    return starts, windows
