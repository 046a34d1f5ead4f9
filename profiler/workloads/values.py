"""What a program's tensors start as: scales that keep long programs finite, and windows into the blob.

Values are uniform with a scale that is a power of two, so that they are exact in float32 on both sides. In a training
step every layer's weights are scaled to give outputs of about unit mean square for the inputs that it will see, as far
as the blob's few segments allow: with rescaling at every layer, errors of one layer's scale do not add up over forty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
    Relu,
    SoftmaxCrossEntropy,
)
from profiler.prng import EXPONENT_BIAS, FillMode
from profiler.workloads.entries import DeviceMemory

#: Biases are small beside outputs of unit mean square.
BIAS_EXPONENT = -4


class Start(NamedTuple):
    """A fill without its place: mode, and exponent + 128 or number of classes."""

    mode: FillMode
    parameter: int

    @property
    def exponent(self) -> int:
        return self.parameter - EXPONENT_BIAS


def uniform_start(exponent: int) -> Start:
    return Start(FillMode.UNIFORM, exponent + EXPONENT_BIAS)


ZEROS = Start(FillMode.ZEROS, 0)


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


@dataclass
class BlobWindows:
    """Hands out windows of the device's read-only blob, one behind the other within a segment.

    Args:
        blob_bytes: Size of the blob.
        exponents: Of its equal segments.
    """

    blob_bytes: int
    exponents: tuple[int, ...]
    _next: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, memory: DeviceMemory) -> BlobWindows:
        return cls(memory.blob_bytes, tuple(e - EXPONENT_BIAS for e in memory.blob_exponents))

    def fits(self, words: int) -> bool:
        return bool(self.exponents) and 4 * words <= self.blob_bytes

    def take(self, words: int, exponent: int) -> tuple[int, float]:
        """A window of ``words`` words whose scale is as near to ``exponent`` as there is.

        Returns:
            Byte offset in the blob, a multiple of 16, and the window's mean square.
        """
        total = self.blob_bytes // 4
        count = len(self.exponents)
        length = total // count
        segment = min(range(count), key=lambda j: (abs(self.exponents[j] - exponent), j))
        begin = -(-segment * length // 4) * 4
        if words > length:
            # Longer than a segment: as much of the wanted one as possible.
            first = max(0, min(begin, (total - words) // 4 * 4))
            return 4 * first, self._mean_square(first, words, total)
        first = self._next.get(segment, begin)
        if first + words > begin + length:
            first = min(begin, (total - words) // 4 * 4)
        self._next[segment] = -(-(first + words) // 4) * 4
        return 4 * first, self._mean_square(first, words, total)

    def _mean_square(self, first: int, words: int, total: int) -> float:
        count = len(self.exponents)
        result = 0.0
        for j, exponent in enumerate(self.exponents):
            overlap = min(first + words, (j + 1) * total / count) - max(first, j * total / count)
            result += max(0.0, overlap) * mean_square(exponent)
        return result / words


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
