"""What kernels do on hosts and do not count: whole vectors, weights laid out for them, and what caches do not hold.

The kernels' own counts are those of their loops as a microcontroller runs them. On a core with vector registers the
compiler makes vectors of loops over elements, the longest first, then half of that, and so on down to single ones;
float32 convolutions transpose their weights into panels of sixteen outputs (``firmware/kernels/panel_f32.h``), one or
some vectors each; and what is gone over again and again comes from the next cache where the first does not hold it.
These terms stand beside the others in models of hosts: what a core does not do costs nothing there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from profiler.geometry import Window
from profiler.ops import MaskSource, Op, Pass, Requantize

#: Elements of the vectors that loops are finished in, and least trips of loops that are begun in them.
_RESTS, _SHORT = (16, 8, 4), (4, 16)
#: Of every loop that may be made vectors of.
_LOOP = {
    **{f"loops_from_{n}": f"loops of {n} trips or more, which may be made vectors of" for n in _SHORT},
    **{f"rest_of_{n}": f"vectors of {n} that fill half of one twice as long" for n in _RESTS},
    "rest_of_1": "trips beyond whole vectors of four",
}
#: Sources of a mask whose loops compilers make vectors of; single bits make none.
_MASKS = {MaskSource.NONE: "unmasked", MaskSource.OUTPUT: "masked"}

#: Caches by name: bytes up to which a footprint is held, and from which on no line is still there when it is asked for
#: again. A first cache, which is indexed by virtual addresses, runs over set by set at once; later ones hold pages that
#: fall on their sets by chance.
_CACHES = {"32k": (32 << 10, 36 << 10), "256k": (218 << 10, 436 << 10), "1m": (870 << 10, 1740 << 10)}
_LINE = 64
_STREAMED = {f"lines_beyond_{name}": f"lines of all buffers that a cache of {name} does not hold" for name in _CACHES}

#: As in ``panel_f32.h``: outputs of a panel, panels at once, weights of an output up to which there are panels, weights
#: of them at most, positions of a map from which on they pay off.
_PANEL, _PANELS, _PANEL_WEIGHTS, _PANEL_POSITIONS = 16, 16, 1024, 4
_FIRST_CACHE = "32k"
#: Of convolutions whose weights lie in panels, and of those whose weights do not.
_PANELLED = {
    "panel_passes": "times that the window slides, each for as many panels as there is room for",
    "passed_rows": "rows of the map, of each",
    "passed_quads": "blocks of four positions, of each",
    "passed_singles": "single positions, of each",
    "packed_fours": "squares of four outputs by four weights that are transposed into panels",
    "packed_rests": "the same of single weights",
    "packed_fours_far": "such squares where weights and panels are more than the first cache holds",
    "panel_quads": "blocks of four positions, of each panel",
    "panel_quad_rows": "rows of their windows",
    "panel_quad_runs": "runs of inputs there that lie one behind the other",
    "panel_quad_pairs": "pairs of inputs",
    "panel_quad_odds": "inputs that pairs leave over",
    "panel_quad_halves": "inputs, of each half of a panel that has outputs",
    "panel_quads_far": "inputs where the panels are more than the first cache holds",
    "panel_singles": "single positions, of each panel",
    "panel_single_rows": "rows of their windows",
    "panel_single_runs": "runs of inputs there that lie one behind the other",
    "panel_single_fours": "fours of inputs",
    "panel_single_odds": "inputs that fours leave over",
    "panel_single_halves": "inputs, of each half of a panel that has outputs",
    "panel_singles_far": "inputs where the panels are more than the first cache holds",
    "stored_fours": "blocks of four outputs that are stored by themselves, as they do not fill a panel",
    "stored_ones": "single ones",
    "unpanelled_quads": "blocks of four positions and four outputs where weights stay as they are",
    "unpanelled_quad_inputs": "inputs of these",
    "unpanelled_singles": "single positions and four outputs there",
    "unpanelled_single_inputs": "inputs of these",
}
#: Of gradients of a convolution's inputs: weights stay as they are, and every block of positions goes over all of them.
_SWEPT = {
    "swept_quads_far": "inputs of blocks of four positions where the weights are more than the first cache holds",
    "swept_singles_far": "the same of single positions",
    "swept_narrow_far": "the same of single positions and single outputs",
}

#: Name and meaning of the terms.
HOST_TERMS: dict[str, str] = {
    **_LOOP,
    **{
        f"{mask}_{name}": f"{meaning}; rows of {mask} gradients"
        for mask in _MASKS.values()
        for name, meaning in _LOOP.items()
    },
    **_STREAMED,
    **_PANELLED,
    **_SWEPT,
}

#: Kind, pass and dtype of what goes over its elements in one plain loop.
_ELEMENTWISE = {
    ("add", Pass.FORWARD, "f32"),
    ("add", Pass.GRAD_INPUT, "f32"),
    ("dequantize", Pass.FORWARD, "s8"),
    ("dequantize", Pass.GRAD_INPUT, "s8"),
    ("relu", Pass.FORWARD, "f32"),
    ("relu", Pass.GRAD_INPUT, "f32"),
    ("saturation_mask", Pass.FORWARD, "s8"),
    ("softmax_cross_entropy", Pass.GRAD_INPUT, "f32"),
}
#: Bits of a byte: what a trip of a saturation mask's loop makes.
_BITS = 8


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
    if kernel in _ELEMENTWISE:
        trips = np.array([op.geometry.input_shape[0] for op in ops])
        trips = trips // _BITS if first.kind == "saturation_mask" else trips
        terms = dict(zip(_LOOP, _of_loops(trips), strict=True)) | _streamed(of)
    elif isinstance(first.geometry, Requantize):
        terms = _of_rows(ops) | _streamed(of)
    elif kernel == ("conv2d", Pass.FORWARD, "f32"):
        terms = _panels(ops, of)
    elif kernel == ("conv2d", Pass.GRAD_INPUT, "f32"):
        terms = _swept(ops, of)
    else:
        return (), np.zeros((len(ops), 0))
    return tuple(terms), np.column_stack(list(terms.values())).astype(np.float64)


def prior_names(ops: Sequence[Op], names: Sequence[str]) -> tuple[str, ...]:
    """What the terms of one group's ops go by where other groups tell what they cost.

    A call of a plain loop takes a nanosecond or two, one of a convolution's many loops tens of them: only plain loops
    are each other's namesakes in that.
    """
    first = ops[0]
    if (first.kind, first.pass_, first.dtype) in _ELEMENTWISE:
        return tuple("calls_of_plain_loops" if name == "calls" else name for name in names)
    return tuple(names)


def _of_loops(trips: np.ndarray) -> list[np.ndarray]:
    """:data:`_LOOP` of one loop of so many trips, in order."""
    return [
        *(trips >= n for n in _SHORT),
        *(trips % (2 * n) >= n for n in _RESTS),
        trips % _RESTS[-1],
    ]


def _of_rows(ops: Sequence[Op]) -> dict[str, np.ndarray]:
    """The same of each row, by what masks it."""
    rows, channels, mask = np.array([(g.positions, g.channels, g.mask) for g in (op.geometry for op in ops)]).T  # type: ignore[attr-defined]
    return {
        f"{label}_{name}": rows * (mask == source) * each
        for source, label in _MASKS.items()
        for name, each in zip(_LOOP, _of_loops(channels), strict=True)
    }


def _streamed(of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """:data:`_STREAMED` of ops that go over all their buffers once, run again and again."""
    footprint = of["bytes_read"] + of["bytes_written"]
    return {f"lines_beyond_{name}": footprint / _LINE * share_beyond(footprint, name) for name in _CACHES}


def share_beyond(footprint: np.ndarray, cache: str) -> np.ndarray:
    """Share of the lines of a footprint in bytes, gone over again and again, that have left a cache by then.

    Under least-recently-used replacement a set with one line more than it has ways misses all of them.
    """
    held, lost = _CACHES[cache]
    return np.clip((1 - held / np.maximum(footprint, 1)) / (1 - held / lost), 0, 1)


def _panels(ops: Sequence[Op], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """:data:`_PANELLED`, from the counts of blocks of four outputs and of what they read."""
    groups, outputs, weights, positions = np.array([_layout(op) for op in ops]).T
    panelled = (weights <= _PANEL_WEIGHTS) & (positions >= _PANEL_POSITIONS)
    room = np.minimum(_PANELS, np.maximum(_PANEL_WEIGHTS // weights, 1)) * _PANEL  # outputs
    passes = panelled * -(-outputs // room)
    fours = groups * -(-outputs // 4)
    panels = panelled * -(-outputs // _PANEL) / -(-outputs // 4)  # for each block of four outputs that is counted
    halves = panelled * -(-outputs // (_PANEL // 2)) / -(-outputs // 4)
    panel_bytes = 4 * weights * np.minimum(room, -(-outputs // _PANEL) * _PANEL)
    swept = np.where(panelled, panel_bytes, 4 * weights * outputs)
    far = share_beyond(swept, _FIRST_CACHE)
    packed_far = share_beyond(panel_bytes + 4 * weights * outputs, _FIRST_CACHE)
    quad_inputs, single_inputs = (4 * of[f"{n}_iterations"] + of[f"{n}_tails"] for n in ("quad", "single"))
    runs = np.maximum(of["quad_runs"], 1)
    odds = of["quad_runs"] * (np.round(of["quad_tails"] / runs) % 2)  # all runs of quads are equally long
    pixels, part = panelled * (4 * of["quads"] + of["singles"]), outputs % _PANEL
    packed = panelled * fours
    values = [
        groups * passes,
        of["rows"] * passes,
        of["quads"] * passes,
        of["singles"] * passes,
        packed * (weights // 4),
        packed * (weights % 4),
        packed * (weights // 4) * packed_far,
        panels * of["quad_blocks"],
        panels * of["quad_rows"],
        panels * of["quad_runs"],
        panels * (quad_inputs - odds) / 2,
        panels * odds,
        halves * quad_inputs,
        panels * quad_inputs * far,
        panels * of["single_blocks"],
        panels * of["single_rows"],
        panels * of["single_runs"],
        panels * of["single_iterations"],
        panels * of["single_tails"],
        halves * single_inputs,
        panels * single_inputs * far,
        pixels * (part // 4),
        pixels * (part % 4),
        *(~panelled * n for n in (of["quad_blocks"], quad_inputs, of["single_blocks"], single_inputs)),
    ]
    return dict(zip(_PANELLED, values, strict=True))


def _swept(ops: Sequence[Op], of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """:data:`_SWEPT`; what is summed over are the outputs of the forward pass, its inputs here."""
    weight_bytes = np.array([4 * math.prod(op.geometry.weight_shape) / op.geometry.groups for op in ops])  # type: ignore[attr-defined]
    far = share_beyond(weight_bytes, _FIRST_CACHE)
    values = [far * (4 * of[f"{n}_iterations"] + of[f"{n}_tails"]) for n in ("quad", "single")]
    return dict(zip(_SWEPT, [*values, far * of["narrow_iterations"]], strict=True))


def _layout(op: Op) -> tuple[int, int, int, int]:
    """Groups, outputs of one, weights of an output, positions of the output map."""
    g = op.geometry
    assert isinstance(g, Window)
    groups = g.groups  # type: ignore[attr-defined]
    inputs, outputs = g.input_shape[2] // groups, g.output_shape[2] // groups
    return groups, outputs, g.kernel_h * g.kernel_w * inputs, g.out_h * g.out_w  # type: ignore[attr-defined]
