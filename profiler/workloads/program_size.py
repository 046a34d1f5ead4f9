"""What the programs of training steps take of a device's memory beside the arena, known without making them.

A stored program is an entry an op and an entry a fill, lists of single channels that train, and the ticks of one
repetition. All of that adds up over the ops but the fills: buffers that start alike are filled together, so that there
are as many fills as ways to start, and two for every image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from profiler.ops import GroupNorm, Layer, Op, Pass
from profiler.workloads.entries import ARENA_REGION, TICK_BYTES, DeviceMemory, channel_list_bytes
from profiler.workloads.network import INPUT, Network
from profiler.workloads.program import starting_values
from profiler.workloads.step import Role, StepOp, TrainingStep
from profiler.workloads.traits import buffers_of
from profiler.workloads.values import (
    BlobWindows,
    Start,
    mean_square,
    output_mean_square,
    uniform_start,
    weight_exponent,
)

#: Filled anew for every image, each by a fill of its own.
_OF_AN_IMAGE = (Role.IMAGE, Role.LABEL)


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

    def op_bytes(self, op: Op) -> int:
        """An op's entry, its list of channels and its ticks."""
        if not self._shared:
            return 0
        return self._memory.entry_bytes + TICK_BYTES + (channel_list_bytes(op.trained_channels) if _lists(op) else 0)

    def fills_bytes(self, starts: int) -> int:
        """Entries of all fills of a step, of so many ways to start."""
        return (len(_OF_AN_IMAGE) + starts) * self._memory.entry_bytes if self._shared else 0

    def starts(self, network: Network, step: TrainingStep) -> dict[str, frozenset[Start]]:
        """How tensors may start that are filled once a run, by their names.

        Args:
            network: What is trained.
            step: Its step. Another that trains the same of a tensor's layer starts the tensor in one of the same ways.
        """
        found, _ = starting_values(step, self._memory)
        of_weights = weight_starts(network, self._memory) if step.plan.dtype == "f32" else {}
        return {
            name: of_weights[_layer_of(name)] if step.tensors[name].role is Role.WEIGHT and of_weights else {start}
            for name, start in found.items()
            if step.tensors[name].role not in _OF_AN_IMAGE
        }

    def step_bytes(self, network: Network, step: TrainingStep) -> int:
        """Of a whole step."""
        starts = self.starts(network, step)
        return sum(self.op_bytes(item.op) for item in step.ops) + self.fills_bytes(len(starts_of(step.ops, starts)))


def starts_of(ops: Iterable[StepOp], starts: dict[str, Collection[Start]]) -> frozenset[Start]:
    """In how many ways the tensors of these ops start together, by the ways of each."""
    return frozenset().union(*(starts.get(name, ()) for item in ops for name in item.tensors))


def _lists(op: Op) -> bool:
    """Whether single channels may train, which travel as a list: int8 weights that train are always the first."""
    if op.dtype != "f32" or not op.trained_channels:
        return False
    return op.trained_channels < op.geometry.channels(op.trained_axis)  # type: ignore[attr-defined]


def _layer_of(tensor: str) -> str:
    return tensor.rpartition("/")[0]


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
