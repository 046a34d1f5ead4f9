"""Vectors that compilers make on hosts of loops over elements, and of taps of int8 depthwise windows.

As GCC does for x86-64 with 256 bit vectors. What goes four at a time elsewhere, or singly (taps on 64-bit Arm), is sums
of the same terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profiler.geometry import Window
from profiler.ops import MaskSource, Op, Pass

#: Of loops over float32, and of those over bytes that become or make wider numbers: elements of the vectors that they
#: go in, of the one that may follow these, and least trips of those that do so. What is left over goes singly.
FLOATS, BYTES = (8, 4), (32, 16)


def _loop_terms(long: int, short: int) -> dict[str, str]:
    """Name and meaning of the terms of every loop that is made such vectors of."""
    return {
        f"loops_from_{short}": f"loops of {short} trips or more, which are made vectors of",
        f"loops_from_{long}": f"loops of {long} trips or more",
        f"vectors_of_{long}": f"vectors of {long}",
        f"rest_of_{short}": f"vectors of {short} after those of {long}",
        f"singles_beside_{short}": "trips that these vectors leave over",
    }


LOOPS = {lengths: _loop_terms(*lengths) for lengths in (FLOATS, BYTES)}
#: Sources of a mask whose loops compilers make vectors of, and which; single bits make none.
_MASKS = {MaskSource.NONE: ("unmasked", FLOATS), MaskSource.OUTPUT: ("masked", BYTES)}
#: Of rows of gradients, by what masks them.
ROWS = {
    "masked_calls": "1 where gradients are masked",
    **{
        f"{mask}_{name}": f"{meaning}; rows of {mask} gradients"
        for mask, lengths in _MASKS.values()
        for name, meaning in {**LOOPS[lengths], "trips_alone": "trips of rows too short for vectors"}.items()
    },
}

#: Of int8 depthwise convolutions, for each block of four channels of an output: taps of pairs of rows go four at a
#: time, then two, then one; those of a single row sixteen at a time, then eight, then one by one. Halves of words are
#: brought into order for that and sums brought together after it, by shuffles, for which cores have one unit.
TAPS = {
    "tap_shuffles": "shuffles of vectors of four taps of pairs, and of sixteen or eight of a single row",
    "sum_shuffles": "shuffles that bring together what such vectors sum",
    "tap_halves": "vectors of two taps of pairs",
    "single_pairs": "taps of pairs that go singly",
    "single_row_taps": "taps of a single row that go singly",
}
#: Of these shuffles: of a vector, and of its sums; moves of 16 bit between two vectors are two.
_PAIR_SHUFFLES, _LONG_ROW_SHUFFLES, _ROW_SHUFFLES = (16, 16), (24, 12), (24, 8)

#: Kind, pass and dtype of what goes over its elements in one plain loop, and the vectors that it is made of; a mask of
#: bits asks element by element.
ELEMENTWISE = {
    ("add", Pass.FORWARD, "f32"): FLOATS,
    ("add", Pass.GRAD_INPUT, "f32"): FLOATS,
    ("dequantize", Pass.FORWARD, "s8"): BYTES,
    ("dequantize", Pass.GRAD_INPUT, "s8"): FLOATS,
    ("relu", Pass.FORWARD, "f32"): FLOATS,
    ("relu", Pass.GRAD_INPUT, "f32"): None,
    ("saturation_mask", Pass.FORWARD, "s8"): BYTES,
    ("softmax_cross_entropy", Pass.GRAD_INPUT, "f32"): FLOATS,
}
#: Bits of a byte: what a trip of a saturation mask's loop makes.
_BITS = 8
#: Elements of a sum that a core begins with while it still waits for the call.
_EARLY = 64
#: What a call shows that is one loop, where a row among others hides it.
OF_CALLS = {
    "loops_with_rests": "loops over float32 that go on after their vectors of eight",
    "late_sums": "vectors of sums beyond those that a core begins while it still waits for the call",
}


def of_elements(ops: Sequence[Op]) -> dict[str, np.ndarray]:
    """Terms of ops that are one plain loop (:data:`ELEMENTWISE`), without what caches do not hold."""
    first = ops[0]
    trips = np.array([op.geometry.input_shape[0] for op in ops])
    trips = trips // _BITS if first.kind == "saturation_mask" else trips
    lengths = ELEMENTWISE[first.kind, first.pass_, first.dtype]
    if lengths is None:
        return {}
    terms = of_loops(trips, lengths)
    if lengths == FLOATS:
        terms["loops_with_rests"] = (trips % lengths[0] > 0) & (trips >= lengths[1])
    if first.kind == "add":
        terms["late_sums"] = np.maximum(trips - _EARLY, 0) // lengths[0]
    return terms


def of_loops(trips: np.ndarray, lengths: tuple[int, int]) -> dict[str, np.ndarray]:
    """:func:`_loop_terms` of one loop of so many trips."""
    long, short = lengths
    values = [
        trips >= short,
        trips >= long,
        trips // long,
        trips % long >= short,
        trips % short,
    ]
    return dict(zip(LOOPS[lengths], values, strict=True))


def of_rows(ops: Sequence[Op]) -> dict[str, np.ndarray]:
    """:data:`ROWS`; rows of few channels go through a loop of their own."""
    rows, channels, mask = np.array([(g.positions, g.channels, g.mask) for g in (op.geometry for op in ops)]).T  # type: ignore[attr-defined]
    terms = {"masked_calls": mask != MaskSource.NONE}
    for source, (label, lengths) in _MASKS.items():
        here, few = rows * (mask == source), channels < min(lengths)
        of_vectors = of_loops(np.where(few, 0, channels), lengths)
        terms |= {f"{label}_{name}": here * each for name, each in of_vectors.items()}
        terms[f"{label}_trips_alone"] = here * channels * few
    return terms


def taps(ops: Sequence[Op]) -> dict[str, np.ndarray]:
    """:data:`TAPS` of ops, which take kernels two rows at a time, and a last one by itself."""
    return dict(zip(TAPS, np.array([_taps_of(op) for op in ops]).T, strict=True))


def _taps_of(op: Op) -> np.ndarray:
    g = op.geometry
    assert isinstance(g, Window)
    rows = np.full(g.out_h, g.kernel_h)  # type: ignore[attr-defined]
    if op.kind == "pointwise_depthwise":  # rows outside the map are left out
        first = np.arange(g.out_h) * g.stride_h - g.pad_h  # type: ignore[attr-defined]
        rows = (np.minimum(first + g.kernel_h, g.in_h) - np.maximum(first, 0)).clip(0)  # type: ignore[attr-defined]
    pairs, single = rows // 2 * g.kernel_w, rows % 2 * g.kernel_w  # type: ignore[attr-defined]
    vectors = [(_PAIR_SHUFFLES, pairs // 4), (_LONG_ROW_SHUFFLES, single // 16), (_ROW_SHUFFLES, single % 16 // 8)]
    each = [
        sum(shuffles * count for (shuffles, _), count in vectors),
        sum(shuffles * (count > 0) for (_, shuffles), count in vectors),
        pairs % 4 >= 2,
        pairs % 2,
        single % 8,
    ]
    blocks = -(-g.output_shape[2] // 4)
    return blocks * g.out_w * np.sum(each, axis=1)  # type: ignore[attr-defined]
