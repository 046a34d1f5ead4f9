"""Named features of an op.

Two sets. *Work terms* are the kernels' own counts (``…_work`` of the firmware, through ``profiler.kernels``): blocks,
remainders, clipped taps, bytes moved; latency is close to a non-negative combination of them. *Geometry features* are
what the residual model looks at: logarithms of extents and remainders of channel counts, defined in
:data:`GEOMETRY_FEATURES`. *Plain terms* need no kernel and serve where a kind and pass was never measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

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


def work_terms(ops: Sequence[Op], work: WorkFunction) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the work terms of one group's ops, and their counts.

    Returns:
        The names and a float64 array of shape (n_ops, n_terms).

    Raises:
        ValueError: ``ops`` have different terms, so they are not of one group.
    """
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


def geometry_features(ops: Sequence[Op]) -> np.ndarray:
    """:data:`GEOMETRY_FEATURES` of any ops, float64 of shape (n_ops, n_features)."""
    return np.array([_geometry_row(op) for op in ops], dtype=np.float64).reshape(len(ops), len(GEOMETRY_FEATURES))


def _geometry_row(op: Op) -> list[float]:
    g = op.geometry
    shape_in, shape_out = g.input_shape, g.output_shape
    channels_in = shape_in[-1] if shape_in else 0
    channels_out = shape_out[-1] if shape_out else 0

    def extent(name: str) -> int:
        return getattr(g, name, 1)

    logs = [
        _positions(shape_out),
        _positions(shape_in),
        channels_in,
        channels_out,
        extent("kernel_h"),
        extent("kernel_w"),
        extent("stride_h") * extent("stride_w"),
        extent("groups"),
        op.trained_channels,
    ]
    return [
        *np.log1p(logs),
        float(op.trained_axis == "in"),
        float(op.trains_bias),
        channels_in % 4 / 4,
        channels_out % 4 / 4,
        op.trained_channels % 4 / 4,
    ]


def _positions(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-1])) if len(shape) > 1 else 1
