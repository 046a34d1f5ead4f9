"""What kernels do on hosts and do not count, or do otherwise than it is counted.

The kernels' own counts are those of their loops as a microcontroller runs them. On a core with vector registers the
compiler makes vectors of loops over elements (:mod:`costmodels.host_vectors`); float32 convolutions lay their weights
out for them (:mod:`costmodels.host_panels`); what is gone over again and again comes from the next cache where the
first does not hold it (:mod:`costmodels.host_caches`); and sums of which each waits for the last take as long as they
wait, unless the core looks far enough ahead to begin the next ones meanwhile. These terms stand beside the others in
models of hosts: what a core does not do costs nothing there. Counts of loops that they stand for are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodels.control_terms import MASKED_TERMS
from costmodels.host_caches import CACHES, LINE, STREAMED, share_beyond, streamed
from costmodels.host_panels import PANELLED, panels
from costmodels.host_vectors import (
    ELEMENTWISE,
    FLOATS,
    LOOPS,
    OF_CALLS,
    ROWS,
    TAPS,
    of_elements,
    of_loops,
    of_rows,
    taps,
)
from profiler.ops import MaskSource, Op, Pass, Requantize

#: Iterations of four multiplications each, one waiting for the other, that fit into what a core looks ahead (224
#: instructions on Skylake and its successors): of longer sums, one is begun when the last is nearly done.
_AHEAD = 16
_WAITING = {
    "waiting_quads": "iterations of sums of four positions, or four channels, beyond those that a core looks ahead",
    "waiting_singles": "the same of single positions or channels",
}

#: Sums over positions, by the blocks that are summed at once: those of few are begun while the last block's still wait,
#: those of more wait themselves. From how many on depends on how far a core looks ahead, and on what lies between two
#: blocks: some numbers, of which a core's own is pieced together.
_KNEES = (4, 12, 24)
_BLOCKS = ("4x4", "1x4")
_LATE = {
    f"late_{block}_from_{knee}": f"positions beyond {knee} of sums of blocks of {block}"
    for block in _BLOCKS
    for knee in _KNEES
}

#: Name and meaning of the terms.
HOST_TERMS: dict[str, str] = {
    **{name: meaning for loop in LOOPS.values() for name, meaning in loop.items()},
    **ROWS,
    **OF_CALLS,
    **STREAMED,
    **{f"masked_{name}": f"{meaning}; of masked gradients" for name, meaning in STREAMED.items()},
    **PANELLED,
    **TAPS,
    **_WAITING,
    **_LATE,
}

#: Counts, by kind, pass and dtype, of what is not there on hosts, or takes too little to be told from the rest: loops
#: that these terms stand for, what stands around the three loops of masked gradients.
_REPLACED: dict[tuple[str, Pass, str], frozenset[str]] = {
    **{kernel: frozenset({"iterations"}) for kernel, lengths in ELEMENTWISE.items() if lengths},
    ("global_avg_pool", Pass.GRAD_INPUT, "f32"): frozenset({"iterations"}),
    ("requantize", Pass.GRAD_INPUT, "s8"): frozenset({"by_nothing", "by_output"} | MASKED_TERMS.keys()),
    ("depthwise", Pass.FORWARD, "s8"): frozenset({"output_loops", "output_pairs", "output_singles"}),
    ("pointwise_depthwise", Pass.FORWARD, "s8"): frozenset({"output_pairs", "output_taps"}),
}


def host_terms(ops: Sequence[Op], names: Sequence[str], counts: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the terms that one group's ops may have on hosts, and their counts; most groups have none.

    Args:
        ops: At least one, all of one group.
        names: Of the kernel's own counts.
        counts: Of shape (n_ops, n_counts).

    Returns:
        The names and a float64 array of shape (n_ops, n_terms).
    """
    first = ops[0]
    of = dict(zip(names, counts.T, strict=True))
    kernel = (first.kind, first.pass_, first.dtype)
    if kernel in ELEMENTWISE:
        terms = of_elements(ops) | streamed(of)
    elif isinstance(first.geometry, Requantize):
        terms = of_rows(ops) | _streamed_rows(ops, of)
    elif kernel == ("conv2d", Pass.FORWARD, "f32"):
        terms = panels(ops, of)
    elif kernel == ("conv2d", Pass.GRAD_INPUT, "f32"):
        terms = _waiting(of, "quad_blocks", "single_blocks")
    elif first.kind == "fused_conv2d" or (first.kind == "conv2d" and first.pass_ is Pass.GRAD_WEIGHT):
        sums = {
            block: (4 * of[f"iterations_{block}"] + of[f"tails_{block}"], of[f"blocks_{block}"]) for block in _BLOCKS
        }
        terms = _late(sums)
    elif kernel == ("conv2d", Pass.GRAD_INPUT, "s8"):
        terms = _waiting(of, "quads", "singles")
    elif kernel == ("global_avg_pool", Pass.GRAD_INPUT, "f32"):
        channels = np.array([op.geometry.input_shape[2] for op in ops])
        terms = {name: of["positions"] * each for name, each in of_loops(channels, FLOATS).items()} | streamed(of)
    elif kernel == ("global_avg_pool", Pass.FORWARD, "f32"):
        terms = _pooled(ops, of)
    elif first.kind == "linear" and first.pass_ is Pass.GRAD_WEIGHT:
        terms = streamed(of)
    elif first.kind == "group_norm" and first.pass_ in (Pass.FORWARD, Pass.GRAD_INPUT):
        terms = _normed(ops, of)
    elif first.kind in ("depthwise", "pointwise_depthwise") and kernel[1:] == (Pass.FORWARD, "s8"):
        terms = taps(ops)
    else:
        return (), np.zeros((len(ops), 0))
    return tuple(terms), np.column_stack(list(terms.values())).astype(np.float64)


def happens_on_hosts(op: Op, names: Sequence[str]) -> np.ndarray:
    """Which of these counts are of something that hosts do as well: bool of shape (n_counts,)."""
    replaced = _REPLACED.get((op.kind, op.pass_, op.dtype), frozenset())
    return np.array([name not in replaced for name in names])


def prior_names(ops: Sequence[Op], names: Sequence[str]) -> tuple[str, ...]:
    """What the terms of one group's ops go by where other groups tell what they cost.

    A call of a plain loop takes a nanosecond or two, one of a convolution's many loops tens of them: only plain loops
    are each other's namesakes in that.
    """
    first = ops[0]
    if (first.kind, first.pass_, first.dtype) in ELEMENTWISE:
        return tuple("calls_of_plain_loops" if name == "calls" else name for name in names)
    return tuple(names)


def _streamed_rows(ops: Sequence[Op], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of gradients, by whether they are masked: asking for each costs more than what a next cache sends meanwhile."""
    plain = np.array([op.geometry.mask == MaskSource.NONE for op in ops])  # type: ignore[attr-defined]
    lines = streamed(of)
    return {name: plain * n for name, n in lines.items()} | {f"masked_{name}": ~plain * n for name, n in lines.items()}


def _waiting(of: dict[str, np.ndarray], *blocks: str) -> dict[str, np.ndarray]:
    """:data:`_WAITING` of sums that go over all taps of a window, by their mean length.

    ``blocks`` count those of fours and single ones.
    """
    iterations = of["quad_iterations"], of["single_iterations"]
    beyond = [np.maximum(n - _AHEAD * of[name], 0) for n, name in zip(iterations, blocks, strict=True)]
    return dict(zip(_WAITING, beyond, strict=True))


def _late(sums: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """:data:`_LATE` by the positions that are summed, all together, and how many blocks they are summed in."""
    return {
        f"late_{block}_from_{knee}": np.maximum(positions - knee * blocks, 0)
        for block, (positions, blocks) in sums.items()
        for knee in _KNEES
    }


def _pooled(ops: Sequence[Op], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of means, whose every sum is over all positions."""
    sums = zip(_BLOCKS, ((of["iterations"], of["blocks"]), (of["single_iterations"], of["singles"])), strict=True)
    return _gone_over(ops, of, maps=1) | _late(dict(sums))


def _gone_over(ops: Sequence[Op], of: dict[str, np.ndarray], maps: int) -> dict[str, np.ndarray]:
    """Lines from later caches where all positions of so many maps are gone over for a block of four channels, or one.

    A block is part of a line of each position, or of a line of several positions where these have few channels.
    """
    shapes = np.array([op.geometry.input_shape for op in ops])
    lines_each = np.minimum(1, shapes[:, 2] * 4 / LINE)
    lines = shapes[:, 0] * shapes[:, 1] * lines_each
    touched = (of["iterations"] + of["single_iterations"]) * lines_each
    return {f"lines_beyond_{name}": touched * share_beyond(maps * LINE * lines, name) for name in CACHES}


def _normed(ops: Sequence[Op], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of normalisations, which sum row by row."""
    maps = 1 if ops[0].pass_ is Pass.FORWARD else 2  # gradients are gone over beside the inputs
    pairs = (("iterations", "rows"), ("single_iterations", "single_rows"))
    beyond = [np.maximum(of[n] - _AHEAD * of[rows], 0) for n, rows in pairs]
    return _gone_over(ops, of, maps) | dict(zip(_WAITING, beyond, strict=True))
