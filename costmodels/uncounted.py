"""Loops that the kernels' own work counts leave out, from the geometry: terms beside those counts.

- A product of a matrix and a vector reads a bias where there is one.
- Gradients of convolutions' weights go row by row also where a tap of the window meets no column of the map at all:
  windows wider than the map beside their padding.
- A compiler that makes vectors of loops over channels (hosts, not Cortex-M) leaves what fills no vector to slower code,
  row by row: all of a narrow map, little of a wide one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profiler.geometry import Geometry, Window
from profiler.ops import MaskSource, Op, Pass, Requantize

_BLOCK = 4
#: Elements of a vector, of 32 and of 8 bits.
_VECTORS = (4, 16)
_SOURCES = {MaskSource.NONE: "nothing", MaskSource.OUTPUT: "output"}  # single bits make no vectors

#: Name and meaning of the terms.
UNCOUNTED_TERMS: dict[str, str] = {
    "biased_outputs": "outputs of a matrix product that begin at a bias",
    **{f"rows_by_{source}": f"rows of a gradient that {source} clamps" for source in _SOURCES.values()},
    **{
        f"rest_of_{width}_by_{source}": f"elements beyond such a row's last whole vector of {width}"
        for source in _SOURCES.values()
        for width in _VECTORS
    },
    "outside_rows": "rows that taps go over which meet no column of the map, of each block of trained channels",
}


def uncounted_terms(ops: Sequence[Op]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the terms that one group's ops have, and float64 counts of shape (n_ops, n_terms); most have none."""
    first = ops[0]
    if first.kind == "linear" and first.pass_ is Pass.FORWARD:
        return ("biased_outputs",), np.array([[op.geometry.bias_elements] for op in ops], dtype=np.float64)
    if isinstance(first.geometry, Requantize):
        names = tuple(name for name in UNCOUNTED_TERMS if name.startswith(("rows_by_", "rest_of_")))
        return names, np.array([_rows_and_rests(op.geometry) for op in ops], dtype=np.float64)
    gradient = first.pass_ is Pass.GRAD_WEIGHT or first.kind == "fused_conv2d"
    if gradient and first.kind in ("conv2d", "fused_conv2d"):
        return ("outside_rows",), np.array([[_outside_rows(op)] for op in ops], dtype=np.float64)
    return (), np.zeros((len(ops), 0))


def _rows_and_rests(g: Geometry) -> list[int]:
    assert isinstance(g, Requantize)
    rows = [g.positions * (g.mask == mask) for mask in _SOURCES]
    return [*rows, *(n * (g.channels % width) for n in rows for width in _VECTORS)]


def _outside_rows(op: Op) -> int:
    g = op.geometry
    assert isinstance(g, Window)
    columns = _met(g.input_shape[1], g.output_shape[1], g.kernel_w, g.stride_w, g.pad_w)  # type: ignore[attr-defined]
    rows = _met(g.input_shape[0], g.output_shape[0], g.kernel_h, g.stride_h, g.pad_h)  # type: ignore[attr-defined]
    channels, groups = op.trained_channels, g.groups  # type: ignore[attr-defined]
    if op.dtype == "s8" and op.trained_axis == "out":  # blocked by inputs, whichever outputs train
        channels, groups = g.in_channels // groups, 1  # type: ignore[attr-defined]
    blocks = channels // _BLOCK + channels % _BLOCK if groups == 1 else channels
    return blocks * int(rows.sum()) * int((columns == 0).sum())


def _met(size_in: int, size_out: int, kernel: int, stride: int, pad: int) -> np.ndarray:
    """Along one axis: how many positions of the output have each tap inside the map."""
    at = np.arange(size_out)[:, None] * stride - pad + np.arange(kernel)
    return ((at >= 0) & (at < size_in)).sum(axis=0)
