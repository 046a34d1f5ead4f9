"""Named features of an op.

*Work terms* are the kernels' own counts (``…_work`` of the firmware, through ``profiler.kernels``): blocks, remainders,
clipped taps, bytes moved; latency is close to a non-negative combination of them. The others need no kernel:

- *plain terms* (:data:`PLAIN_TERMS`) serve where a kind and pass was never measured,
- *geometry terms* (:data:`GEOMETRY_TERMS`) stand in for work terms where the kernels are unknown, as those of an
  imported table are,
- *geometry features* (:data:`GEOMETRY_FEATURES`) are what corrections of the terms look at,
- *remainders* (:data:`REMAINDER_FEATURES`) stand beside those where the kernels are unknown: blocked loops do the last
  few channels or positions otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from profiler.geometry import Window
from profiler.ops import WORD_BYTES, Access, Op, Pass

#: Returns an op's work counts by name, in the kernel's own order, ``calls`` first.
WorkFunction = Callable[[Op], dict[str, int]]

#: Name and meaning of every geometry feature; logarithms are natural and of 1 + x.
GEOMETRY_FEATURES: dict[str, str] = {
    "log_out_positions": "positions of the output map",
    "log_in_positions": "positions of the input map",
    "log_in_channels": "input channels or features",
    "log_out_channels": "output channels or features",
    "log_kernel_h": "kernel height",
    "log_kernel_w": "kernel width",
    "log_stride": "product of the strides",
    "log_groups": "groups of a convolution",
    "log_trained_channels": "channels that train, 0 where none",
    "trained_axis_in": "1 where input channels train",
    "trains_bias": "1 where the bias trains",
    "in_channels_mod_4": "input channels modulo 4, over 4",
    "out_channels_mod_4": "output channels modulo 4, over 4",
    "trained_channels_mod_4": "trained channels modulo 4, over 4",
}

#: Name and meaning of the terms that every op has without asking a kernel.
PLAIN_TERMS: dict[str, str] = {
    "calls": "1",
    "macs": "textbook multiply-accumulates",
    "words_read": "words (four bytes) of buffers that are read",
    "words_written": "words (four bytes) of buffers that are written",
}

#: Name and meaning of the terms that stand for the loops of kernels that nobody knows: of plain loops, and of loops
#: that do four at a time and then the rest one by one.
GEOMETRY_TERMS: dict[str, str] = {
    **PLAIN_TERMS,
    "inner_macs": "multiply-accumulates whose input lies inside the map, not in its padding",
    "positions": "positions of the output map, of each group",
    "rows": "rows of the output map",
    "outputs": "elements of the output",
    "inputs": "elements of the input",
    "weights": "weights, of gradients and updates those that train",
    "out_channels": "output channels or features",
    "taps": "taps of the window inside the map, over all positions, of each group",
    "tap_outputs": "the same, of each output channel",
    "tap_inputs": "the same, of each input channel: what is copied before a matrix product",
    "runs": "rows of the window inside the map, over all positions, of each group",
    "run_outputs": "the same, of each output channel",
    "position_blocks_4": "positions times blocks of four output channels",
    "tap_blocks_4": "taps times blocks of four output channels",
    "run_blocks_4": "runs times blocks of four output channels",
    "rest_in_4": "inner multiply-accumulates of the input channels that are left over from blocks of four",
    "rest_out_4": "the same of output channels",
    "rest_width_4": "the same of output columns",
    "rest_run_4": "the same of a row of the window",
    "rest_positions_4": "the same of output positions",
}

#: What :data:`REMAINDER_FEATURES` divide, and by what.
_DIVIDED = {
    "in_channels": "input channels or features",
    "out_channels": "output channels or features",
    "out_width": "columns of the output map",
    "out_positions": "positions of the output map",
    "trained_channels": "channels that train",
}
_DIVISORS = (2, 4, 8, 16)
#: Name and meaning of the remainders.
REMAINDER_FEATURES: dict[str, str] = {
    f"{name}_mod_{divisor}": f"{meaning} modulo {divisor}, over {divisor}"
    for name, meaning in _DIVIDED.items()
    for divisor in _DIVISORS
}


def geometry_key(op: Op) -> str:
    """Kind and geometry as text, without the pass and what trains: what no fold of a cross-validation divides."""
    return "/".join((op.kind, "x".join(map(str, op.geometry.values()))))


def kernel_work(op: Op) -> dict[str, int]:
    """The firmware kernel's own work counts of ``op``."""
    from profiler.kernels import work  # noqa: PLC0415  (loads the compiled host library: only when really asked)

    return work(op)


def group_key(op: Op) -> str:
    """Ops of one group share an estimator: kind, pass, dtype, kernel variant and, for updates, the optimiser.

    Which axis trains belongs to it too: the kernels for the two axes are different loops.
    """
    parts = [op.kind, str(op.pass_), op.dtype, op.variant]
    if op.pass_ is Pass.UPDATE:
        parts.append(op.optimizer)
    if op.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        parts.append(op.trained_axis)
    return "/".join(parts)


def loops_key(op: Op) -> str:
    """Groups of one such key run the same loops, but for which axis trains: their terms go by the same names."""
    key = group_key(op)
    return key.rpartition("/")[0] if op.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE) else key


def work_terms(ops: Sequence[Op], work: WorkFunction) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the work terms of one group's ops, and their counts.

    Returns:
        The names and a float64 array of shape (n_ops, n_terms).

    Raises:
        ValueError: ``ops`` have different terms, so they are not of one group.
    """
    if work is kernel_work:
        from profiler.work_counts import work_counts  # noqa: PLC0415  (loads the kernels' library)

        return work_counts(ops)
    counts = [work(op) for op in ops]
    names = tuple(counts[0])
    for op, count in zip(ops, counts, strict=True):
        if tuple(count) != names:
            raise ValueError(f"{op.key} counts {tuple(count)}, not {names}")
    return names, np.array([list(count.values()) for count in counts], dtype=np.float64)


def plain_terms(ops: Sequence[Op]) -> np.ndarray:
    """:data:`PLAIN_TERMS` of any ops, float64 of shape (n_ops, 4)."""
    rows = np.empty((len(ops), len(PLAIN_TERMS)))
    for row, op in zip(rows, ops, strict=True):
        buffers = op.buffers()
        row[:] = (
            1,
            op.macs,
            sum(b.byte_count for b in buffers if b.access is not Access.WRITE) / WORD_BYTES,
            sum(b.byte_count for b in buffers if b.access is not Access.READ) / WORD_BYTES,
        )
    return rows


def geometry_terms(ops: Sequence[Op]) -> np.ndarray:
    """:data:`GEOMETRY_TERMS` of any ops, float64 of shape (n_ops, n_terms)."""
    return np.hstack([plain_terms(ops), np.array([_loops_of(op) for op in ops], dtype=np.float64)])


def remainder_features(ops: Sequence[Op]) -> np.ndarray:
    """:data:`REMAINDER_FEATURES` of any ops, float64 of shape (n_ops, n_features)."""
    divided = np.empty((len(ops), len(_DIVIDED)))
    for row, op in zip(divided, ops, strict=True):
        shape = op.geometry.output_shape
        channels = _channels(op.geometry.input_shape), _channels(shape)
        row[:] = (*channels, shape[-2] if len(shape) > 1 else 1, _positions(shape), op.trained_channels)
    return np.concatenate([divided[:, :, None] % divisor / divisor for divisor in _DIVISORS], axis=2).reshape(
        len(ops), -1
    )


def geometry_features(ops: Sequence[Op]) -> np.ndarray:
    """:data:`GEOMETRY_FEATURES` of any ops, float64 of shape (n_ops, n_features)."""
    rows = np.array([_geometry_row(op) for op in ops], dtype=np.float64).reshape(len(ops), len(GEOMETRY_FEATURES))
    rows[:, :_LOGARITHMS] = np.log1p(rows[:, :_LOGARITHMS])
    return rows


#: How many of the geometry features are logarithms, which come first.
_LOGARITHMS = sum(name.startswith("log_") for name in GEOMETRY_FEATURES)


def _geometry_row(op: Op) -> tuple[float, ...]:
    """The features, logarithms not yet taken."""
    g = op.geometry
    shape_in, shape_out = g.input_shape, g.output_shape
    channels_in, channels_out = _channels(shape_in), _channels(shape_out)
    return (
        _positions(shape_out),
        _positions(shape_in),
        channels_in,
        channels_out,
        getattr(g, "kernel_h", 1),
        getattr(g, "kernel_w", 1),
        getattr(g, "stride_h", 1) * getattr(g, "stride_w", 1),
        getattr(g, "groups", 1),
        op.trained_channels,
        op.trained_axis == "in",
        op.trains_bias,
        channels_in % 4 / 4,
        channels_out % 4 / 4,
        op.trained_channels % 4 / 4,
    )


def _positions(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1]) if len(shape) > 1 else 1


def _channels(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 0


def _loops_of(op: Op) -> list[float]:
    """The geometry terms that follow the plain ones."""
    g = op.geometry
    shape_in, shape_out = g.input_shape, g.output_shape
    groups = getattr(g, "groups", 1)
    channels_in, channels_out = _channels(shape_in) / groups, _channels(shape_out) / groups
    positions, width = _positions(shape_out), shape_out[-2] if len(shape_out) > 1 else 1
    taps = runs = positions
    window = run = 1
    if isinstance(g, Window):
        inside_h, inside_w = (
            _taps_inside(shape_in[i], shape_out[i], *(getattr(g, f"{n}_{axis}") for n in ("kernel", "stride", "pad")))
            for i, axis in enumerate("hw")
        )
        taps, runs = inside_h * inside_w, inside_h * width
        run = g.kernel_w  # type: ignore[attr-defined]
        window = run * g.kernel_h  # type: ignore[attr-defined]
    inner = op.macs * taps / (positions * window)
    trains = op.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE)
    blocks = groups * -(-channels_out // 4)
    return [
        inner,
        groups * positions,
        shape_out[0] if len(shape_out) > 1 else 1,
        math.prod(shape_out),
        math.prod(shape_in),
        op.trained_weights if trains else math.prod(getattr(g, "weight_shape", (0,))),
        _channels(shape_out),
        groups * taps,
        groups * taps * channels_out,
        groups * taps * channels_in,
        groups * runs,
        groups * runs * channels_out,
        positions * blocks,
        taps * blocks,
        runs * blocks,
        *(inner * _rest(n) for n in (channels_in, channels_out, width, run * channels_in, positions)),
    ]


def _rest(n: float) -> float:
    """Share of ``n`` that blocks of four leave over."""
    return n % 4 / n if n else 0.0


def _taps_inside(size_in: int, size_out: int, kernel: int, stride: int, pad: int) -> int:
    """Along one axis, over all output positions: taps of the window that lie inside the map."""
    starts = np.arange(size_out) * stride - pad
    return int((np.minimum(starts + kernel, size_in) - np.maximum(starts, 0)).clip(0).sum())
