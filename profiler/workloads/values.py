"""What a program's tensors start as: scales that keep long programs finite, and windows into the blob.

Values are uniform with a scale that is a power of two, so that they are exact in float32 on both sides. In a training
step every layer's weights are scaled to give outputs of about unit mean square for the inputs that it will see, as far
as the blob's few segments allow: with rescaling at every layer, errors of one layer's scale do not add up over forty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from profiler.ops import (
    Add,
    BufferSpec,
    CosineHead,
    Geometry,
    GlobalAvgPool,
    GroupNorm,
    L2Normalize,
    MaxPool2d,
    Op,
    Pass,
    PointwiseDepthwise,
    Relu,
    SoftmaxCrossEntropy,
)
from profiler.prng import EXPONENT_BIAS, FillMode, SegmentKind, segment_kind
from profiler.workloads.entries import DeviceMemory

#: Biases are small beside outputs of unit mean square.
BIAS_EXPONENT = -4


class Start(NamedTuple):
    """A fill without its place: mode and parameter, see :func:`profiler.prng.fill`."""

    mode: FillMode
    parameter: int

    @property
    def exponent(self) -> int:
        """Of its values; of pairs: the shift."""
        return -self.parameter if self.mode is FillMode.PAIRS else self.parameter - EXPONENT_BIAS

    @property
    def element_bytes(self) -> int:
        return 1 if self.mode is FillMode.BYTES else 4


def uniform_start(exponent: int) -> Start:
    return Start(FillMode.UNIFORM, exponent + EXPONENT_BIAS)


ZEROS = Start(FillMode.ZEROS, 0)
BYTES = Start(FillMode.BYTES, EXPONENT_BIAS)
#: int32 biases: small beside sums of int8 products.
INTEGER_BIAS = Start(FillMode.INTEGERS, 13 + EXPONENT_BIAS)
#: Scales of int8 tensors and gradients.
SCALE = Start(FillMode.SCALE, -8 + EXPONENT_BIAS)


def gradient_scale_start(g: Geometry) -> Start:
    """Scales with which a layer's gradient keeps its size on the way to the layer's input; of a sum: about 1."""
    if not g.trainable:
        return Start(FillMode.SCALE, EXPONENT_BIAS)
    stride = getattr(g, "stride_h", 1) * getattr(g, "stride_w", 1)
    taps = getattr(g, "kernel_h", 1) * getattr(g, "kernel_w", 1)
    depthwise = g.kind == "depthwise"
    fan_out = max(1, taps // stride) * (1 if depthwise else g.output_shape[-1] // getattr(g, "groups", 1))
    return Start(FillMode.SCALE, EXPONENT_BIAS - round(_PRODUCT_BITS - 0.5 + math.log2(fan_out) / 2))


#: Scales of parameters that change by some integers a step, and not by all that there are.
UPDATE_SCALE = Start(FillMode.SCALE, -3 + EXPONENT_BIAS)
#: Bits that a sum over int8 products of either sign has above int8 values of the wanted spread, for a fan-in of 1.
_PRODUCT_BITS = 6.3


def pairs_start(fan_in: int) -> Start:
    """Requantisation that brings sums of so many int8 products back to int8: most outputs neither clamped nor 0."""
    return Start(FillMode.PAIRS, round(_PRODUCT_BITS + math.log2(fan_in) / 2))


def start_of_s8(op: Op, spec: BufferSpec) -> Start | None:
    """What a buffer of an int8 op's own types starts as; None for the float32 ones that start as everywhere."""
    g = op.geometry
    if spec.element in ("s8", "u8"):
        return BYTES
    if spec.role == "depthwise_requantization":
        return pairs_start(g.depthwise.fan_in)  # type: ignore[attr-defined]
    if spec.role == "requantization":
        if isinstance(g, Add):  # of the terms, which get 20 bits of fraction, and of the sum: together about a half
            return Start(FillMode.PAIRS, 10)
        return pairs_start(g.pointwise.fan_in if isinstance(g, PointwiseDepthwise) else g.fan_in)  # type: ignore[attr-defined]
    if spec.element == "s32":
        return INTEGER_BIAS
    if spec.role in ("scale", "scales"):
        return UPDATE_SCALE if op.pass_ is Pass.UPDATE else SCALE
    return None


def mean_square(exponent: int) -> float:
    """Of values uniform in [-1, 1) * 2^exponent."""
    return 4.0**exponent / 3


def exponent_for(wanted_mean_square: float) -> int:
    """The exponent whose mean square is nearest, by ratio."""
    return round(math.log2(3 * wanted_mean_square) / 2)


def weight_exponent(g: Geometry, input_mean_square: float = 0.5) -> int:
    """Exponent of weights that give outputs of about unit mean square.

    The default input is a ReLU's output of a unit-variance input, which gives He's rule: variance 2 / fan-in. A
    GroupNorm scales what it has normalised, whatever the input was.
    """
    if isinstance(g, GroupNorm):
        input_mean_square = 1.0
    return exponent_for(1 / (g.fan_in * input_mean_square))  # type: ignore[attr-defined]


def prototype_exponent(features: int) -> int:
    """Exponent of vectors of about unit length."""
    return exponent_for(1 / features)


def start_of(op: Op, spec: BufferSpec) -> Start:
    """What one buffer of a microbenchmark starts as. Most inputs share one scale, so that one fill covers them."""
    g, role = op.geometry, spec.role
    update = op.pass_ is Pass.UPDATE
    if op.dtype == "s8" and (start := start_of_s8(op, spec)) is not None:
        return start
    if role == "label":
        return Start(FillMode.LABEL, g.classes)  # type: ignore[attr-defined]
    if role == "probabilities":
        return Start(FillMode.POSITIVE, EXPONENT_BIAS)
    if role == "loss":  # what it is added to is no smaller, or a sure prediction's loss would be all rounding
        return Start(FillMode.POSITIVE, EXPONENT_BIAS + 2)
    if role == "statistics":
        return Start(FillMode.POSITIVE, EXPONENT_BIAS)
    if role.endswith("moment2"):  # a mean of squares
        return Start(FillMode.POSITIVE, EXPONENT_BIAS)
    if (role, op.pass_) == ("grad_output", Pass.GRAD_WEIGHT) or (isinstance(g, GlobalAvgPool) and role == "input"):
        # Sums over thousands of positions of either sign may come out near 0, with nothing but rounding left.
        return Start(FillMode.POSITIVE, EXPONENT_BIAS)
    if role in ("weight", "bias") and not update:
        return uniform_start(weight_exponent(g) if role == "weight" else BIAS_EXPONENT)
    if role == "prototypes":
        return uniform_start(prototype_exponent(g.features))  # type: ignore[attr-defined]
    if isinstance(g, CosineHead) and role == "input":
        return uniform_start(prototype_exponent(g.features))
    if isinstance(g, SoftmaxCrossEntropy) and role == "input":
        return uniform_start(2)  # cosines times the scale spread over a few units
    if isinstance(g, Relu) and role in ("input", "output"):
        return uniform_start(g.maximum.bit_length())  # some below 0, some between, some above the maximum
    return uniform_start(0)


@dataclass(frozen=True)
class _Run:
    """Neighbouring segments of the blob that hold the same: all in words."""

    code: int
    begin: int
    end: int


_SEGMENT_OF = {
    FillMode.BYTES: SegmentKind.BYTES,
    FillMode.PAIRS: SegmentKind.PAIRS,
    FillMode.UNIFORM: SegmentKind.UNIFORM,
    FillMode.SCALE: SegmentKind.SCALE,
    FillMode.INTEGERS: SegmentKind.INTEGERS,
}


class BlobWindows:
    """Hands out windows of the device's read-only blob, one behind the other within a run of like segments.

    A window longer than its run reaches into its neighbours: of float32 weights only those that hold float32 weights of
    another scale; of int8 weights any, since every byte is a weight.
    """

    def __init__(self, blob_bytes: int, segments: Sequence[int]) -> None:
        """
        Args:
            blob_bytes: Size of the blob.
            segments: Codes of its equal segments, see :func:`profiler.prng.segment_kind`.
        """
        self._words = blob_bytes // 4
        length = self._words // max(1, len(segments))
        self._runs: list[_Run] = []
        for index, code in enumerate(segments):
            begin = index * length
            if self._runs and self._runs[-1].code == code:
                begin = self._runs.pop().begin
            self._runs.append(_Run(code, begin, (index + 1) * length))
        self._next: dict[int, int] = {}
        self._kinds = [segment_kind(run.code) for run in self._runs]
        self._of_kind = {
            kind: [run for run, (own, _) in zip(self._runs, self._kinds, strict=True) if own is kind]
            for kind in SegmentKind
        }
        self._exponents = {run.begin: exponent for run, (_, exponent) in zip(self._runs, self._kinds, strict=True)}
        self._zones = {kind: self._zone(kind) for kind in SegmentKind}

    @classmethod
    def of(cls, memory: DeviceMemory) -> BlobWindows:
        return cls(memory.blob_bytes, memory.blob_segments)

    def _zone(self, kind: SegmentKind) -> tuple[int, int]:
        """First and last word but one that a window of this kind may take; nothing where there is no such segment."""
        if kind is SegmentKind.BYTES:
            return 0, self._words
        runs = self._of_kind[kind]
        if not runs:
            return 0, 0
        if kind is not SegmentKind.UNIFORM:  # no scale but one's own
            longest = max(runs, key=lambda r: r.end - r.begin)
            return longest.begin, longest.end
        first = last = self._runs.index(runs[0])
        while last + 1 < len(self._runs) and self._runs[last + 1] in runs:
            last += 1
        return self._runs[first].begin, self._runs[last].end

    def fits(self, byte_count: int, start: Start) -> bool:
        """Whether there is a window of so many bytes that starts as ``start`` says."""
        kind = _SEGMENT_OF.get(start.mode)
        if kind is None or not self._of_kind[kind]:
            return False
        begin, end = self._zones[kind]
        return -(-byte_count // 4) <= end - begin

    def take(self, byte_count: int, start: Start) -> tuple[int, float]:
        """A window whose scale is as near to that of ``start`` as there is.

        Returns:
            Byte offset in the blob, a multiple of 16, and, of float32 weights, the window's mean square.
        """
        words, kind = -(-byte_count // 4), _SEGMENT_OF[start.mode]
        begin, end = self._zones[kind]
        run = self._nearest(words, start)
        if kind is not SegmentKind.UNIFORM and kind is not SegmentKind.BYTES:
            begin, end = run.begin, run.end
        at = self._next.get(run.begin, run.begin)
        if at + words > run.end:
            at = run.begin
        if words > run.end - run.begin:
            at = max(begin, min(run.begin, end - words))
        at = min(-(-at // 4) * 4, (end - words) // 4 * 4)
        self._next[run.begin] = at + words
        return 4 * at, self._mean_square(at, words) if kind is SegmentKind.UNIFORM else 0.0

    def mean_squares(self, byte_count: int, start: Start) -> tuple[float, float]:
        """The least and the largest mean square that :meth:`take` may give for float32 weights, whatever it gave
        before."""
        words = -(-byte_count // 4)
        run = self._nearest(words, start)
        own = mean_square(self._exponents[run.begin])
        every = [mean_square(self._exponents[r.begin]) for r in self._of_kind[SegmentKind.UNIFORM]]
        # A window begins at a multiple of four words, so that up to three may be its neighbour's.
        foreign = 1.0 if words > run.end - run.begin else min(1.0, 3 / words)
        return own + foreign * (min(every) - own), own + foreign * (max(every) - own)

    def _nearest(self, words: int, start: Start) -> _Run:
        """The run whose scale is as near to that of ``start`` as there is."""
        kind = _SEGMENT_OF[start.mode]
        runs = self._of_kind[kind]
        if kind is not SegmentKind.UNIFORM and kind is not SegmentKind.BYTES:
            runs = [r for r in runs if r.end - r.begin >= words]
        return min(runs, key=lambda r: (abs(self._exponents[r.begin] - start.exponent), r.begin))

    def _mean_square(self, first: int, words: int) -> float:
        pairs = zip(self._runs, self._kinds, strict=True)
        overlaps = ((min(first + words, r.end) - max(first, r.begin), exponent) for r, (_, exponent) in pairs)
        return sum(max(0, overlap) * mean_square(exponent) for overlap, exponent in overlaps if overlap > 0) / words


def output_mean_square(g: Geometry, inputs: list[float], weight: float = 0.0) -> float:
    """Estimate of a layer's mean square output from its inputs' and its weights'."""
    if isinstance(g, GroupNorm):
        return weight + mean_square(BIAS_EXPONENT)
    if g.trainable:
        return g.fan_in * inputs[0] * weight + mean_square(BIAS_EXPONENT)  # type: ignore[attr-defined]
    if isinstance(g, Add):
        return sum(inputs)
    if isinstance(g, Relu):
        return inputs[0] / 2
    if isinstance(g, MaxPool2d):
        return inputs[0]
    if isinstance(g, L2Normalize):
        return 1 / g.features
    return inputs[0]  # means of ReLU's outputs, which are positive: little is averaged away
