"""The general op space: every op that a device can run, over the geometries of small vision and audio networks.

A :class:`Family` is what shares a kernel's loops: kind, pass, dtype, variant, and for gradients of weights what trains
and the optimiser. Of each family ops are drawn one by one, always the same for the same seed: the first ten of a
hundred are the first ten. Draws are stratified over their size and mix what networks have (channels grow as maps
shrink) with what they might have (any map, any channels, any kernel). Channel counts modulo 8 are even in half of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from profiler.devices.identity import Identity
from profiler.ops import (
    GEOMETRIES,
    WORD_BYTES,
    Access,
    Depthwise,
    FusedConv2d,
    Geometry,
    Op,
    Optimizer,
    Pass,
    PointwiseDepthwise,
)
from profiler.workloads.combined_s8 import overwrites_input
from profiler.workloads.entries import DeviceMemory
from profiler.workloads.op_space_geometries import geometry_of
from profiler.workloads.traits import buffers_of

#: The most that one op may work, in multiply-accumulates and words moved: about 0.1 s on an emulated board and on a
#: Cortex-M4 of 168 MHz. Larger ones cost time and tell no more: kernels are loops.
MOST_UNITS = 4_000_000
#: Smaller ops take hardly longer than the timer's call, and steps of networks have no more than a few.
_LEAST_UNITS = 64
#: Ops that are tried for one draw: the first whose size is near to the draw's stratum (in logarithms), or else the
#: nearest, is taken.
_TRIES, _NEAR = 14, 0.6
#: How often in a row a draw may fail until the family is taken to be exhausted.
_BARREN = 200
#: Sums that are checked against PyTorch are at least so many, or short ones and at least so many: of a single one that
#: happens to be near 0 the relative error is nothing but rounding, and of two the more, the longer they are.
_LEAST_SUMS, _LEAST_SHORT_SUMS = 4, 2
#: Products of a short sum.
_SHORT_SUM = 64
#: What trains in an op, see :class:`Family`.
Trains = Literal["", "out", "in", "bias"]
#: Optimisers whose updates have kernels; fused ones are SGD.
_OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam")
#: Variants that are deployed; ``reference`` kernels stand beside them for comparison.
_DEPLOYED = ("blocked", "in_place")


@dataclass(frozen=True, order=True)
class Family:
    """Ops that share a kernel's loops.

    Attributes:
        kind, pass_, dtype, variant: As of :class:`~profiler.ops.Op`.
        trains: Of ``grad_weight`` and ``update``: weights of ``out`` or ``in`` channels, or the ``bias`` alone.
        optimizer: Of ``update``; else ``sgd``.
    """

    kind: str
    pass_: Pass
    dtype: str
    variant: str = "blocked"
    trains: Trains = ""
    optimizer: Optimizer = "sgd"

    @classmethod
    def of(cls, op: Op) -> Family:
        """The family that an op belongs to."""
        trains: Trains = ""
        if op.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            trains = op.trained_axis if op.trained_channels else "bias"
        return cls(op.kind, op.pass_, op.dtype, op.variant, trains, op.optimizer)

    @property
    def name(self) -> str:
        """For example ``conv2d/update/f32/in/adam``."""
        parts = [self.kind, str(self.pass_), self.dtype]
        if self.variant != "blocked":
            parts.append(self.variant)
        if self.trains:
            parts.append(self.trains)
        if self.pass_ is Pass.UPDATE:
            parts.append(self.optimizer)
        return "/".join(parts)


#: What an error in ops of a kind counts: convolutions, depthwise ones and linear layers are nearly all of a network's
#: time and, with the weights that can train of them, nine in ten of its ops.
_MAIN_KINDS = frozenset({"conv2d", "depthwise", "linear", FusedConv2d.kind, PointwiseDepthwise.kind})
_OTHER_WEIGHT = 0.3


def weight_of(family: Family) -> float:
    """What a family's errors count beside those of others."""
    return 1.0 if family.kind in _MAIN_KINDS and family.trains != "bias" else _OTHER_WEIGHT


class Space(Protocol):
    """What a design chooses from."""

    @property
    def families(self) -> tuple[Family, ...]: ...

    def draw(self, family: Family, stream: str) -> Iterator[Op]:
        """Ops of one family, each once, at random; the same for the same stream."""


def families_of(
    supported: Iterable[tuple[str, str, str]],
    *,
    passes: Sequence[Pass] = tuple(Pass),
    dtypes: Sequence[str] = ("f32", "s8"),
) -> tuple[Family, ...]:
    """Every family of the (kind, pass, dtype) triples that a device can run, in a fixed order."""
    from profiler.kernels import supported as kernels  # noqa: PLC0415 - builds the kernels' library

    variants: dict[tuple[str, str, str], list[str]] = {}
    for kind, pass_, dtype, variant in sorted(kernels()):
        variants.setdefault((kind, pass_, dtype), []).append(variant)
    found = []
    for kind, name, dtype in sorted(supported):
        pass_ = Pass(name)
        if kind == "empty" or pass_ not in passes or dtype not in dtypes:
            continue
        trains = pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE)
        what: tuple[Trains, ...] = ("",)
        if trains:
            what = ("out", "in", "bias") if kind in _TWO_AXES else ("out", "bias")
        fused = kind == FusedConv2d.kind
        optimizers = _OPTIMIZERS if pass_ is Pass.UPDATE and not fused else ("sgd",)
        for variant in _DEPLOYED:
            if variant in variants.get((kind, name, dtype), ()):
                found += [Family(kind, pass_, dtype, variant, part, o) for part in what for o in optimizers]
    return tuple(found)


_TWO_AXES = ("conv2d", "linear", FusedConv2d.kind)


class OpSpace:
    """Every op that a device can run and has memory for, of at most ``most_units`` of work.

    Args:
        families: What is covered.
        memory: The device's, for what fits.
        seed: Of the draws.
        most_units: See :data:`MOST_UNITS`.
    """

    def __init__(
        self, families: Sequence[Family], memory: DeviceMemory, seed: int, *, most_units: int = MOST_UNITS
    ) -> None:
        self.families = tuple(families)
        self.memory = memory
        self.seed = seed
        self.most_units = most_units

    @classmethod
    def of_device(
        cls,
        identity: Identity,
        memory: DeviceMemory,
        seed: int,
        *,
        passes: Sequence[Pass] = tuple(Pass),
        dtypes: Sequence[str] = ("f32", "s8"),
    ) -> OpSpace:
        """Everything that a device's identity says it can run."""
        return cls(families_of(identity.supported(), passes=passes, dtypes=dtypes), memory, seed)

    def draw(self, family: Family, stream: str) -> Iterator[Op]:
        """Ops of one family, each once; ends where the family has no more."""
        rng = random.Random(f"{self.seed}/{stream}/{family.name}")
        seen: set[Op] = set()
        barren = index = 0
        while barren < _BARREN:
            op = self._nearest(family, _stratum(index), rng)
            index += 1
            if op is None or op in seen:
                barren += 1
                continue
            barren = 0
            seen.add(op)
            yield op

    def _nearest(self, family: Family, share: float, rng: random.Random) -> Op | None:
        """Of some ops that can be measured the one whose size is nearest to a share of the range, in logarithms."""
        wanted = math.log(_LEAST_UNITS) + share * math.log(self.most_units / _LEAST_UNITS)
        best: tuple[float, Op] | None = None
        for _ in range(_TRIES):
            op = draw_op(family, rng)
            if op is None or not _LEAST_UNITS <= work_units(op) <= self.most_units:
                continue
            distance = abs(math.log(work_units(op)) - wanted)
            if (best is None or distance < best[0]) and self._takes(op):
                best = (distance, op)
                if distance < _NEAR:
                    break
        return best and best[1]

    def _takes(self, op: Op) -> bool:
        """Whether an op has a kernel that takes its geometry, can be checked, and probably fits the memory."""
        from profiler.kernels import scratch_bytes  # noqa: PLC0415

        if op.macs and op.pass_ in (Pass.FORWARD, Pass.GRAD_INPUT) and not _tell(op.outputs[0].elements, op.macs):
            return False
        try:
            scratch = scratch_bytes(op)
        except ValueError:
            return False
        buffers = buffers_of(op)
        weights = sum(b.byte_count for b in buffers if b.access is Access.READ and b.role.endswith("weight"))
        rest = sum(b.byte_count for b in buffers) - min(weights, self.memory.blob_bytes)
        return rest + scratch <= self.memory.arena_bytes


class ListedSpace:
    """Given ops as a space: those of a network, say.

    Args:
        ops: Which.
        seed: Of the draws' order.
    """

    def __init__(self, ops: Iterable[Op], seed: int) -> None:
        self._ops: dict[Family, list[Op]] = {}
        for op in dict.fromkeys(ops):
            self._ops.setdefault(Family.of(op), []).append(op)
        self.families = tuple(self._ops)
        self.seed = seed

    def draw(self, family: Family, stream: str) -> Iterator[Op]:
        ops = list(self._ops[family])
        random.Random(f"{self.seed}/{stream}/{family.name}").shuffle(ops)
        return iter(ops)


def _tell(sums: int, macs: int) -> bool:
    """Whether so many sums of so many products in all tell right from wrong."""
    return sums >= _LEAST_SUMS or (sums >= _LEAST_SHORT_SUMS and macs <= _SHORT_SUM * sums)


def work_units(op: Op) -> int:
    """A coarse size, at least 1: multiply-accumulates and words touched."""
    return op.macs + sum(b.byte_count for b in buffers_of(op)) // WORD_BYTES + 1


def _stratum(index: int) -> float:
    """Van der Corput's sequence in base 2: evenly over 0 to 1, however many are taken."""
    result, weight = 0.0, 0.5
    while index:
        index, bit = divmod(index, 2)
        result += bit * weight
        weight /= 2
    return result


def draw_op(family: Family, rng: random.Random) -> Op | None:
    """One op of a family at random; None where the geometry that was drawn has no such op."""
    g = geometry_of(GEOMETRIES[family.kind], rng)
    settings: dict = {"variant": family.variant, "optimizer": family.optimizer}
    if family.variant == "in_place" and not overwrites_input(g):
        return None
    if family.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        trained = _trained(g, family, rng)
        if trained is None:
            return None
        settings |= trained
    elif family.dtype == "s8" and g.trainable and getattr(g, "groups", 1) == 1 and rng.random() < 0.3:
        axis = "out" if isinstance(g, Depthwise) else rng.choice(("out", "in"))
        settings |= {"trained_channels": _count(g.channels(axis), rng), "trained_axis": axis}  # type: ignore[attr-defined]
    try:
        return Op(g, family.pass_, family.dtype, **settings)
    except ValueError:
        return None


def _trained(g: Geometry, family: Family, rng: random.Random) -> dict | None:
    """What trains; None where nothing of this geometry can in this family."""
    has_bias = bool(g.bias_elements)  # type: ignore[attr-defined]
    if family.trains == "bias":
        return {"trained_channels": 0, "trains_bias": True} if has_bias else None
    if family.dtype == "s8" and getattr(g, "groups", 1) > 1:  # int8 weights of a grouped convolution are fixed
        return None
    return {
        "trained_channels": _count(g.channels(family.trains), rng),  # type: ignore[attr-defined]
        "trained_axis": family.trains,
        "trains_bias": has_bias and rng.random() < 0.85,
    }


def _count(channels: int, rng: random.Random) -> int:
    """How many of so many channels: all, a usual share, or any number."""
    choice = rng.random()
    if choice < 0.2:
        return channels
    if choice < 0.5:
        return max(1, round(channels * rng.choice((1 / 8, 1 / 4, 1 / 2))))
    return rng.randint(1, channels)
