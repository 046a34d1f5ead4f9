"""Terms for the loops of convolutions and matrix products whose kernels nobody knows, and how those loops are found.

Kernels compute some neighbouring positions times some outputs at a time, and shorten the sum over inputs by taking some
of them at once; what is left over, and what a border clips, they do otherwise. A :class:`Blocking` says by how many;
:func:`loop_terms` counts the trips of every loop that kernels of that blocking have, and :func:`found_blocking` takes
the blocking that foretells measured ops best. Where windows are gathered before a matrix product (im2col), where they
slide over neighbouring positions, and how depthwise kernels go channel block by channel block is among the terms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from costmodels.estimators import NonNegativeTerms, folds_by
from profiler.geometry import Window
from profiler.ops import Op, Pass

#: Kinds whose forward and grad_input are such loops.
LOOPED_KINDS = frozenset({"conv2d", "depthwise", "linear", "cosine_head"})
#: Errors in the search count as this much at most: one odd op is not to decide about all loops.
_LARGEST_ERROR = 0.5
#: Parts into which ops are split to judge a blocking.
_FOLDS = 5
#: At most this many ops judge blockings: more find the same and take longer.
_MOST_JUDGES = 240


@dataclass(frozen=True)
class Blocking:
    """How a kernel's loops are blocked.

    Attributes:
        walk: ``row``: blocks are neighbours in a row whose windows lie inside the map, and windows that a border clips
            are taken singly and clipped. ``map``: blocks go on from row to row, and all windows are taken whole.
        shifted: Two or more positions left over are taken by a block that begins earlier, and not singly.
        positions: Of a block.
        outputs: Output channels of a block, of ``single_outputs`` where positions are taken singly.
        reduction: Inputs that are taken at once.
        slides: Whether depthwise windows that are three wide and one apart have loops of their own.
    """

    walk: str = "row"
    shifted: bool = False
    positions: int = 4
    outputs: int = 4
    single_outputs: int = 4
    reduction: int = 4
    slides: bool = False


#: Where the search begins: what is usual for floats, for bytes, and for depthwise kernels of either.
_STARTS = (
    Blocking(),
    Blocking("map", shifted=True),
    Blocking("map", positions=1, reduction=2),
    Blocking(shifted=True, reduction=1, slides=True),
)
_SIZES = (1, 2, 4, 8, 16)
#: What the search tries, one after the other.
_TRIED: tuple[tuple[dict[str, object], ...], ...] = (
    tuple({"walk": walk, "shifted": shifted} for walk in ("row", "map") for shifted in (False, True)),
    tuple({"outputs": n, "single_outputs": n} for n in _SIZES),
    tuple({"reduction": n} for n in _SIZES),
    tuple({"positions": n} for n in (1, 2, 4, 8)),
    tuple({"slides": slides} for slides in (False, True)),
    tuple({"outputs": n} for n in _SIZES),
    tuple({"single_outputs": n} for n in _SIZES),
)

#: Terms of positions that are taken in blocks and, again, of those that are taken singly; see :data:`LOOP_TERMS`.
_TAKEN = {
    "positions": "trips over positions, of each group",
    "segments": "the same, of each further segment that the outputs' weights lie in",
    "outputs": "the same, of each block of outputs",
    "runs": "the same, of each run of the reduction: inputs that lie one behind the other",
    "long": "the same, of each stretch of a run that is four times what is taken at once",
    "short": "the same, of each further stretch that is taken at once",
    "rest": "the same, of each further input",
    "few": "trips over positions times outputs, where those are fewer than a block",
    "few_macs": "multiply-accumulates of these",
    "rest_macs": "multiply-accumulates of outputs that blocks leave over",
}

#: Name and meaning of the terms.
LOOP_TERMS: dict[str, str] = {
    "calls": "1",
    "rows": "rows of the output map, of each group",
    **{f"block_{name}": f"{meaning}; by blocks of positions" for name, meaning in _TAKEN.items()},
    **{f"single_{name}": f"{meaning}; single positions" for name, meaning in _TAKEN.items()},
    **{f"sliding_block_{name}": f"{meaning}; by blocks of windows that slide" for name, meaning in _TAKEN.items()},
    **{f"sliding_single_{name}": f"{meaning}; single ones of these" for name, meaning in _TAKEN.items()},
    "gathers": "windows that are gathered: those of convolutions that are not pointwise",
    "gathered_rows": "their rows inside the map",
    "gathered_runs": "runs of inputs inside the map that are gathered",
    "gathered_long": "stretches of these that are four times what is taken at once",
    "gathered_short": "further stretches that are taken at once",
    "gathered_rest": "further inputs",
    "whole_runs": "whole windows' segments of inputs, where blocks go on from row to row",
    "whole_long": "stretches of these that are four times what is taken at once",
    "whole_short": "further stretches that are taken at once",
    "whole_rest": "further inputs",
    "padding": "inputs that windows see outside the map, of each block of channels where kernels are depthwise",
    "channel_blocks": "blocks of a depthwise kernel's channels; so are those that follow",
    "channel_block_rows": "the same, of each row of the output",
    "channel_block_input_rows": "the same, of each row of the input",
    "channel_block_inputs": "the same, of each position of the input",
    "channel_block_positions": "the same, of each position of the output",
    "row_pairs": "blocks of channels times output rows times pairs of the window's rows",
    "row_pair_columns": "the same, of each column that windows see",
    "rest_positions": "positions, where blocks of channels leave some over",
    "rest_channels": "positions of each channel that is left over",
    "output_elements": "elements of the output",
    "input_elements": "elements of the input",
    "weight_elements": "weights",
}
_SLIDING = tuple(name for name in LOOP_TERMS if name.startswith("sliding_"))


def has_loops(op: Op) -> bool:
    """Whether an op's kernel may be described by :func:`loop_terms`."""
    return op.kind in LOOPED_KINDS and op.pass_ in (Pass.FORWARD, Pass.GRAD_INPUT)


def loop_names(blocking: Blocking) -> tuple[str, ...]:
    """Names of the columns of :func:`loop_terms`."""
    return tuple(name for name in LOOP_TERMS if blocking.slides or name not in _SLIDING)


def loop_terms(ops: Sequence[LoopNest], blocking: Blocking) -> np.ndarray:
    """:data:`LOOP_TERMS` of ops, float64 of shape (n_ops, n_terms); without those of sliding windows unless the
    blocking has them.
    """
    return np.array([nest.terms(blocking) for nest in ops], dtype=np.float64).reshape(len(ops), -1)


def found_blocking(ops: Sequence[LoopNest], cost: np.ndarray, groups: np.ndarray, *, random_state: int = 0) -> Blocking:
    """The blocking whose terms foretell ops best from the others: a search one attribute after the other.

    Args:
        ops: Of one kernel.
        cost: What they cost, positive, of shape (n_ops,).
        groups: Their geometries: no fold of the cross-validation divides one.
        random_state: Deals out the folds.
    """
    if len(np.unique(groups)) < 2 * _FOLDS:
        return _STARTS[0]
    if len(ops) > _MOST_JUDGES:
        chosen = np.sort(np.random.default_rng(random_state).permutation(len(ops))[:_MOST_JUDGES])
        ops, cost, groups = [ops[i] for i in chosen], cost[chosen], groups[chosen]
    folds = list(folds_by(groups, _FOLDS, random_state))
    known: dict[Blocking, float] = {}

    def error(blocking: Blocking) -> float:
        if blocking not in known:
            X = loop_terms(ops, blocking)
            relative = np.empty(len(cost))
            for train, test in folds:
                relative[test] = NonNegativeTerms(reweightings=1).fit(X[train], cost[train]).predict(X[test])
            known[blocking] = float(np.minimum(np.abs(relative / cost - 1), _LARGEST_ERROR).mean())
        return known[blocking]

    def improved(blocking: Blocking) -> Blocking:
        for _ in range(2):
            before = blocking
            for changes in _TRIED:
                blocking = min((dataclasses.replace(blocking, **change) for change in changes), key=error)
            if blocking == before:
                break
        return blocking

    return min(map(improved, _STARTS), key=error)


class LoopNest:
    """What the loops of one op run over, by whatever blocking.

    Args:
        op: One of which :func:`has_loops` holds.
    """

    def __init__(self, op: Op) -> None:
        g = op.geometry
        self._op = op
        self._backward = op.pass_ is Pass.GRAD_INPUT
        self._depthwise = op.kind == "depthwise"
        self._groups = 1 if self._depthwise else getattr(g, "groups", 1)
        # Backwards the sum is over outputs, and what is written is the gradient of the input.
        written, read = (g.input_shape, g.output_shape) if self._backward else (g.output_shape, g.input_shape)
        self._inputs = [1] if self._depthwise else _segments(op, read[-1] // self._groups, reads=True)
        self._outputs = [written[-1]] if self._depthwise else _segments(op, written[-1] // self._groups, reads=False)
        self._map = read[:2] if len(read) == 3 else (1, 1)
        self._kernel, self._strides = (1, 1), (1, 1)
        rows = columns = np.ones(1, dtype=int)
        if isinstance(g, Window):
            kernel, strides = (g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w)
            rows, columns = (
                _taps(g.input_shape[i], g.output_shape[i], kernel[i], strides[i], pad, backward=self._backward)
                for i, pad in enumerate((g.pad_h, g.pad_w))
            )
            self._kernel, self._strides = kernel, strides
            if self._backward:
                # Positions of the input meet every stride-th tap only.
                self._kernel, self._strides = (-(-kernel[0] // strides[0]), -(-kernel[1] // strides[1])), (1, 1)
            if not self._depthwise and kernel == strides == (1, 1) and rows.all() and columns.all():
                # A matrix product over all positions: nothing ends with a row.
                rows, columns = np.ones(1, dtype=int), np.ones(len(rows) * len(columns), dtype=int)
        self._n_rows, self._row_taps = len(rows), int(rows.sum())
        self._n_columns, self._column_taps = len(columns), int(columns.sum())
        taps, counts = np.unique(columns, return_counts=True)
        self._columns = dict(zip(taps.tolist(), counts.tolist(), strict=True))

    @cached_property
    def _traffic(self) -> list[int]:
        g = self._op.geometry
        elements = [math.prod(g.output_shape), math.prod(g.input_shape)]
        return [*(elements[::-1] if self._backward else elements), math.prod(getattr(g, "weight_shape", (0,)))]

    def terms(self, blocking: Blocking) -> list[int]:
        """The trips, in the order of :func:`loop_names`."""
        channels = sum(self._outputs)
        few = channels < blocking.outputs
        slides = blocking.slides and self._depthwise and not few and self._kernel[1] == 3 and self._strides[1] == 1
        if blocking.walk == "row":
            in_blocks, singly = self._by_rows(blocking, few, slides)
        else:
            in_blocks, singly = self._by_map(blocking)
        taken = []
        for loops, outputs in ((in_blocks, blocking.outputs), (singly, blocking.single_outputs)):
            taken += self._taken(loops, outputs, few, apart=few and self._depthwise and blocking.walk == "row")
        if blocking.slides:
            nothing = [0] * len(taken)
            taken = nothing + taken if slides else taken + nothing
        return [
            1,
            self._n_rows * self._groups,
            *taken,
            *self._gathered(blocking),
            *self._by_channel_blocks(blocking, channels),
            *self._traffic,
        ]

    def _by_rows(self, b: Blocking, few: bool, slides: bool) -> tuple[list[int], list[int]]:
        """Trips, runs, stretches and MACs of an output of blocks and of single positions, where windows are clipped."""
        columns = dict(self._columns)
        width = self._kernel[1]
        inside = columns.pop(width, 0)
        if slides:  # these may reach over the border by one
            inside += columns.pop(width - 1, 0)
        blocks, left = _split(inside, 0 if self._depthwise and few else b.positions, b.shifted)
        if left:
            columns[width] = left
        runs = {taps: self._run(taps, b.reduction) for taps in {*columns, width}}
        n, rows, taps = sum(columns.values()), self._row_taps, sum(k * count for k, count in columns.items())
        of_singles = (sum(count * runs[k][i] for k, count in columns.items()) for i in range(4))
        return (
            [blocks * self._n_rows, *(blocks * rows * v for v in runs[width]), blocks * rows * width * self._reduced],
            [n * self._n_rows, *(rows * v for v in of_singles), rows * taps * self._reduced],
        )

    def _by_map(self, b: Blocking) -> tuple[list[int], list[int]]:
        """The same, where windows are taken whole."""
        blocks, singles = _split(self._n_rows * self._n_columns, b.positions, b.shifted)
        height, width = self._kernel
        if self._depthwise:
            loops = [height, *(width * v for v in _taps_at_once(height, b.reduction))]
        else:
            loops = self._whole(b.reduction)
        macs = height * width * self._reduced
        return [blocks, *(blocks * v for v in loops), blocks * macs], [
            singles,
            *(singles * v for v in loops),
            singles * macs,
        ]

    def _taken(self, loops: list[int], outputs: int, few: bool, apart: bool) -> list[int]:
        """:data:`_TAKEN` of blocks or of single positions; no block is tried where few outputs are taken apart."""
        trips, *reduction, macs = (self._groups * v for v in loops)
        channels = sum(self._outputs)
        blocks = 0 if apart else sum(-(-n // outputs) for n in self._outputs)
        return [
            trips,
            trips * (len(self._outputs) - 1),
            trips * blocks,
            *(v * blocks for v in reduction),
            trips * channels * few,
            macs * channels * few,
            macs * (channels % outputs) * (not few),
        ]

    def _gathered(self, b: Blocking) -> list[int]:
        """What gathering and unpacking windows takes, which is done once for all outputs."""
        positions = self._n_rows * self._n_columns * self._groups
        gathered = [0] * 6
        if not self._depthwise and self._kernel != (1, 1):
            runs = {taps: self._run(taps, b.reduction) for taps in self._columns}
            each = (sum(count * runs[k][i] for k, count in self._columns.items()) for i in range(4))
            gathered = [positions, self._row_taps * self._n_columns * self._groups]
            gathered += [self._groups * self._row_taps * v for v in each]
        whole = [0] * 4
        if b.walk == "map" and not self._depthwise:
            whole = [positions * v for v in self._whole(b.reduction)]
        return gathered + whole

    def _by_channel_blocks(self, b: Blocking, channels: int) -> list[int]:
        height, width = self._kernel
        inside = self._row_taps * self._column_taps
        outside = max(self._n_rows * self._n_columns * height * width - inside, 0)
        if not self._depthwise:
            return [outside * self._groups * self._reduced] + [0] * 9
        blocks = -(-channels // b.outputs)
        positions = self._n_rows * self._n_columns
        whole = b.walk == "map"
        pairs = blocks * self._n_rows * (height // 2)
        seen = (self._n_columns - 1) * self._strides[1] + width
        return [
            outside * blocks,
            blocks,
            blocks * self._n_rows,
            *(whole * blocks * v for v in (self._map[0], math.prod(self._map), positions)),
            *(whole * pairs * v for v in (1, seen)),
            *(whole * positions * v for v in (channels % b.outputs > 0, channels % b.outputs)),
        ]

    @property
    def _reduced(self) -> int:
        """Inputs of each tap."""
        return sum(self._inputs)

    def _run(self, taps: int, reduction: int) -> list[int]:
        """Runs of some taps of a window's row, and their stretches."""
        if self._depthwise:
            return [1, *_taps_at_once(taps, reduction)]
        if self._groups == 1 and len(self._inputs) == 1:  # taps lie one behind the other
            return [1, *_stretches(taps * self._reduced, reduction)]
        stretches = zip(*(_stretches(n, reduction) for n in self._inputs), strict=True)
        return [taps * len(self._inputs), *(taps * sum(v) for v in stretches)]

    def _whole(self, reduction: int) -> list[int]:
        """Segments of a whole window, and their stretches."""
        window = math.prod(self._kernel)
        stretches = zip(*(_stretches(window * n, reduction) for n in self._inputs), strict=True)
        return [len(self._inputs), *map(sum, stretches)]


def loop_nests(ops: Iterable[Op]) -> list[LoopNest]:
    """What the loops of ops run over."""
    return [LoopNest(op) for op in ops]


def _segments(op: Op, channels: int, *, reads: bool) -> list[int]:
    """How the weights of so many input or output channels of a group lie: in one segment, or in two."""
    backward = op.pass_ is Pass.GRAD_INPUT
    of_axis = (op.trained_axis == "in") == (reads != backward)
    if of_axis and 0 < op.trained_channels < channels:
        return [op.trained_channels, channels - op.trained_channels]
    return [channels]


def _taps(size_in: int, size_out: int, kernel: int, stride: int, pad: int, *, backward: bool) -> np.ndarray:
    """Along one axis: how many taps each position of the output meets inside the map; backwards, of the input."""
    starts = np.arange(size_out) * stride - pad
    if not backward:
        return (np.minimum(starts + kernel, size_in) - np.maximum(starts, 0)).clip(0)
    met = (starts[:, None] + np.arange(kernel)).ravel()
    return np.bincount(met[(met >= 0) & (met < size_in)], minlength=size_in)


def _split(n: int, block: int, shifted: bool) -> tuple[int, int]:
    """Blocks, and what is left over to be taken singly; a block of 0 takes nothing."""
    if block == 0:
        return 0, n
    blocks, left = divmod(n, block)
    return (blocks + 1, 0) if shifted and blocks and left > 1 else (blocks, left)


def _taps_at_once(taps: int, reduction: int) -> tuple[int, int, int]:
    """As :func:`_stretches`, of a depthwise window's taps, which are too few for more than pairs."""
    return 0, *divmod(taps, min(reduction, 2))


def _stretches(n: int, reduction: int) -> tuple[int, int, int]:
    """Of n inputs: stretches of four times ``reduction``, further ones of ``reduction``, and the rest."""
    return n // (4 * reduction), n % (4 * reduction) // reduction, n % reduction
