"""What programs are made of: entries, fills, references; and what of a device they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from profiler.buffers import Element
from profiler.errors import UserError
from profiler.ops import AXIS_CODES, DTYPE_CODES, OPTIMIZER_CODES, PASS_CODES, VARIANT_CODES, Op, Quantization
from profiler.prng import FillMode
from profiler.workloads.blocks import ALIGNMENT_BYTES

if TYPE_CHECKING:
    from profiler.devices.identity import Identity

#: The low bits of a reference.
ARENA_REGION, BLOB_REGION = 0, 1
_REGION_MASK = 0xF
#: One tick count of one timed entry.
TICK_BYTES = 8
#: One channel of a list of those that train, as the device stores it; lists begin at multiples of a word.
_CHANNEL_BYTES, _LIST_ALIGNMENT_BYTES = 2, 4
#: The channels' bitmap has at most this many bytes.
_LARGEST_BITMAP_BYTES = 256


class DoesNotFit(UserError):  # noqa: N818 - reads as the sentence it is
    """The device has not enough memory for a program.

    Attributes:
        bytes_wanted: What the program needs: arena, stored entries and ticks (or the number of its entries, where
            those are too many).
        bytes_available: What the device has of it.
    """

    def __init__(self, what: str, bytes_wanted: int, bytes_available: int, unit: str = "bytes of memory") -> None:
        super().__init__(
            f"{what} wants {bytes_wanted:,} {unit} and the device has {bytes_available:,}",
            hint="take a device with more memory, a smaller input, or train less",
        )
        self.bytes_wanted = bytes_wanted
        self.bytes_available = bytes_available


@dataclass(frozen=True)
class DeviceMemory:
    """What the planner must know of a device.

    Attributes:
        arena_bytes: The region that the arena lies in: buffers from the bottom; in region 0 the stored program and its
            ticks from the top.
        blob_bytes: Read-only weights in region 1.
        blob_seed: Seed of those.
        blob_segments: What each of the blob's equal segments holds, see :func:`profiler.prng.segment_kind`.
        entry_bytes: What one stored entry takes.
        largest_program: Entries of the longest program.
        arena_region: Number of the arena's region.
        store_bytes: Region 0, where the arena lies elsewhere.
        line_bytes: See :class:`~profiler.devices.identity.Identity`.
    """

    arena_bytes: int
    blob_bytes: int
    blob_seed: int
    blob_segments: tuple[int, ...]
    entry_bytes: int
    largest_program: int = 0xFFFF
    arena_region: int = ARENA_REGION
    store_bytes: int = 0
    line_bytes: int = ALIGNMENT_BYTES

    @classmethod
    def of(cls, identity: Identity, region: str | None = None) -> DeviceMemory:
        """Read it off a device's identity.

        Args:
            identity: The device's.
            region: Name of the region that the arena is to lie in; by default region 0.

        Raises:
            UserError: there is no such region, or nothing may be written there.
        """
        arena = identity.arena_region(region)
        return cls(
            arena_bytes=arena.byte_count,
            arena_region=arena.region,
            store_bytes=identity.region(ARENA_REGION).byte_count,
            blob_bytes=identity.blob_bytes,
            blob_seed=identity.blob_seed,
            blob_segments=tuple(identity.blob_segments),
            entry_bytes=identity.entry_bytes,
            largest_program=identity.largest_program,
            line_bytes=identity.line_bytes,
        )


class Slice(NamedTuple):
    """A tensor's part of a fill.

    Attributes:
        name: The tensor.
        first: The fill's element that is the tensor's first.
        elements: How many are the tensor's.
    """

    name: str
    first: int
    elements: int


@dataclass(frozen=True)
class Fill:
    """Writes one stretch of memory from the seed.

    Attributes:
        elements: Length of the stretch: words, or bytes for a fill of bytes.
        mode: See :class:`profiler.prng.FillMode`.
        parameter: See :func:`profiler.prng.fill`.
        stream: Its own stream of the run's seed.
        slices: The tensors that lie in the stretch.
    """

    elements: int
    mode: FillMode
    parameter: int
    stream: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Entry:
    """One entry of a program: an op or a fill.

    Attributes:
        layer: The layer's name; empty for fills.
        op: The op, or None.
        fill: The fill, or None.
        references: Its buffers' places, in order, scratch last.
        tensors: The same buffers' names, without scratch.
        channels: Which channels train; None for the first.
        quantization: Scalars of an op of dtype ``s8``.
    """

    layer: str
    op: Op | None
    fill: Fill | None
    references: tuple[int, ...]
    tensors: tuple[str, ...] = ()
    channels: tuple[int, ...] | None = None
    quantization: Quantization | None = None

    def wire(self) -> list:
        """The positional list that travels as CBOR."""
        if self.fill is not None:
            f = self.fill
            return [0, 0, 0, 0, [f.elements, int(f.mode), f.parameter, f.stream], [], list(self.references)]
        op = self.op
        assert op is not None
        trained = []
        if op.trained_channels or op.trains_bias:
            axis, optimizer = AXIS_CODES[op.trained_axis], OPTIMIZER_CODES[op.optimizer]
            trained = [op.trained_channels, axis, int(op.trains_bias), optimizer]
        record = [
            op.geometry.code,
            PASS_CODES[op.pass_],
            DTYPE_CODES[op.dtype],
            VARIANT_CODES[op.variant],
            list(op.geometry.values()),
            trained,
            list(self.references),
        ]
        if self.channels is not None:
            record.append(_bitmap(self.layer, self.channels))
        if self.quantization is not None:
            record.append(list(self.quantization.values()))
        return record

    def store_bytes(self, entry_bytes: int) -> int:
        """What it takes in the device's program store: the entry, and the list of its channels where it has one."""
        return entry_bytes + (0 if self.channels is None else channel_list_bytes(len(self.channels)))


def channel_list_bytes(count: int) -> int:
    """What a list of so many channels takes in the device's program store."""
    return -(-_CHANNEL_BYTES * count // _LIST_ALIGNMENT_BYTES) * _LIST_ALIGNMENT_BYTES


def _bitmap(layer: str, channels: tuple[int, ...]) -> bytes:
    if channels[-1] >= 8 * _LARGEST_BITMAP_BYTES:
        raise UserError(
            f"the plan picks channel {channels[-1]} of layer {layer!r}, and single channels can be picked below "
            f"{8 * _LARGEST_BITMAP_BYTES}",
            hint="train the first so many channels of this layer, or all",
        )
    bits = np.zeros(8 * (channels[-1] // 8 + 1), np.uint8)
    bits[list(channels)] = 1
    return np.packbits(bits, bitorder="little").tobytes()


@dataclass(frozen=True)
class StepConstants:
    """Constants of the optimiser, the same for every update of a program; for Adam's first step by default."""

    learning_rate: float
    gradient_scale: float = 1.0
    bias_correction1: float = 1 - 0.9
    bias_correction2: float = 1 - 0.999

    def wire(self) -> list[float]:
        """As float32, which is what travels."""
        values = (self.learning_rate, self.gradient_scale, self.bias_correction1, self.bias_correction2)
        return [float(np.float32(v)) for v in values]


class Output(NamedTuple):
    """A result of a program that is checked against the reference.

    Attributes:
        name: The tensor.
        reference: Its place.
        elements: How many it has.
        entry_index: The entry that writes it.
        element: Their type.
    """

    name: str
    reference: int
    elements: int
    entry_index: int
    element: Element = "f32"


def region_of(reference: int) -> int:
    """A reference's region."""
    return reference & _REGION_MASK


def offset_of(reference: int) -> int:
    """A reference's byte offset."""
    return reference & ~_REGION_MASK
