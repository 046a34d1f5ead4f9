"""What the programs of training steps take of a device's memory beside the arena, known without making them.

A stored program is an entry an op and an entry a fill, lists of single channels that train, and the ticks of one
repetition. All of that adds up over the ops but the fills: buffers that start alike are filled together, so that there
are as many fills as ways to start, and two for every image.
"""

from __future__ import annotations

from functools import lru_cache

from profiler.ops import BufferSpec, GroupNorm, Layer, Op, Pass
from profiler.workloads.entries import ARENA_REGION, TICK_BYTES, DeviceMemory, channel_list_bytes
from profiler.workloads.network import INPUT, Network
from profiler.workloads.starts_s8 import fixed_start_s8
from profiler.workloads.step import FIXED, TRANSIENT, Part, Role, StepOp, StepTensor, TrainingStep
from profiler.workloads.traits import buffers_of
from profiler.workloads.values import (
    BIAS_EXPONENT,
    ZEROS,
    BlobWindows,
    Start,
    mean_square,
    output_mean_square,
    prototype_exponent,
    uniform_start,
    weight_exponent,
)

#: Filled anew for every image, each by a fill of its own: the image and its label.
_OF_AN_IMAGE = 2


class ProgramSizes:
    """Bytes that steps' programs take of the region of the arena, beside it.

    They are exact but for two things, of which each is the most that it can be, so that what a plan takes depends on
    how many channels of which layers train and on nothing else: where single channels may train, the first so many are
    taken to need a list, as others do; and float32 weights, whose scales follow from all that comes before them, are
    taken to start in every way that they may.

    Args:
        memory: The device's. Where the arena lies in another region than the stored program, that takes nothing of it.
    """

    def __init__(self, memory: DeviceMemory) -> None:
        self._memory = memory
        self._shared = memory.arena_region == ARENA_REGION
        self._blob = BlobWindows.of(memory)

    def op_bytes(self, op: Op) -> int:
        """An op's entry, its list of channels and its ticks."""
        if not self._shared:
            return 0
        return self._memory.entry_bytes + TICK_BYTES + (channel_list_bytes(op.trained_channels) if _lists(op) else 0)

    def fills_bytes(self, starts: int) -> int:
        """Entries of all fills of a step, of so many ways to start."""
        return (_OF_AN_IMAGE + starts) * self._memory.entry_bytes if self._shared else 0

    def starts(self, network: Network, step: TrainingStep | Part) -> dict[str, frozenset[Start]]:
        """How tensors may start that are filled once a run, by their names, the first op that reads each deciding.

        Args:
            network: What is trained.
            step: Its step, or one part of it.
        """
        found: dict[str, frozenset[Start]] = {}
        for item in step.ops:
            for name, spec in zip(item.tensors, buffers_of(item.op), strict=True):
                tensor = step.tensors[name]
                if name in found or tensor.role in TRANSIENT or tensor.role is Role.LABEL:
                    continue
                if tensor.role is Role.PROTOTYPES:
                    features = item.op.geometry.features  # type: ignore[attr-defined]
                    found[name] = frozenset([uniform_start(prototype_exponent(features))])
                elif tensor.role not in FIXED:
                    found[name] = frozenset([ZEROS])
                else:
                    starts = self._fixed(network, item, spec, tensor)
                    if tensor.trained or not self._blob.fits(tensor.byte_count, min(starts)):
                        found[name] = starts
        return found

    def _fixed(self, network: Network, item: StepOp, spec: BufferSpec, tensor: StepTensor) -> frozenset[Start]:
        """How a weight, bias or scale may start."""
        if item.op.dtype == "s8":
            layer = network.by_name.get(item.layer)
            return frozenset([fixed_start_s8(item.op, spec, item.op.geometry if layer is None else layer.geometry)])
        if tensor.role is Role.WEIGHT:
            return weight_starts(network, self._memory)[item.layer]
        return frozenset([uniform_start(BIAS_EXPONENT)])

    def step_bytes(self, network: Network, step: TrainingStep) -> int:
        """Of a whole step."""
        ways = frozenset().union(*self.starts(network, step).values())
        return sum(self.op_bytes(item.op) for item in step.ops) + self.fills_bytes(len(ways))


def _lists(op: Op) -> bool:
    """Whether single channels may train, which travel as a list: int8 weights that train are always the first."""
    if op.dtype != "f32" or not op.trained_channels:
        return False
    return op.trained_channels < op.geometry.channels(op.trained_axis)  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def weight_starts(network: Network, memory: DeviceMemory) -> dict[str, frozenset[Start]]:
    """How each layer's float32 weights may start, by the layer's name, whichever layers train.

    Their scale follows the mean square of what reaches the layer, and that depends on which weights before it are drawn
    at just the scale they should have and which are windows of the blob. So the mean squares are followed through the
    network as intervals.
    """
    blob = BlobWindows.of(memory)
    spans = {INPUT: (mean_square(0), mean_square(0))}
    found: dict[str, frozenset[Start]] = {}
    for layer in network.layers:
        lows, highs = zip(*(spans[name] for name in layer.inputs), strict=True)
        if layer.geometry.trainable:
            found[layer.name], spans[layer.name] = _weighted(layer, lows[0], highs[0], blob)
        else:
            spans[layer.name] = (
                output_mean_square(layer.geometry, list(lows)),
                output_mean_square(layer.geometry, list(highs)),
            )
    return found


def _weighted(layer: Layer, low: float, high: float, blob: BlobWindows) -> tuple[frozenset[Start], tuple[float, float]]:
    """How a layer's weights may start for inputs between two mean squares, and between which its outputs lie then."""
    g = layer.geometry
    byte_count = buffers_of(Op(g, Pass.FORWARD))[1].byte_count
    starts, ends = [], []
    for exponent in range(weight_exponent(g, high), weight_exponent(g, low) + 1):
        start = uniform_start(exponent)
        starts.append(start)
        inputs = low, high
        if not isinstance(g, GroupNorm):  # whose weights are the same for all inputs
            # Of the mean squares for which it is the nearest exponent: half a power of two to either side.
            nearest = 1 / (g.fan_in * mean_square(exponent))  # type: ignore[attr-defined]
            inputs = max(low, nearest / 2), min(high, nearest * 2)
        weights = [mean_square(exponent)]
        if blob.fits(byte_count, start):
            weights += blob.mean_squares(byte_count, start)
        ends.append(output_mean_square(g, [inputs[0]], min(weights)))
        ends.append(output_mean_square(g, [inputs[1]], max(weights)))
    return frozenset(starts), (min(ends), max(ends))
