"""What kernels do around the loops that their own work counts tell of, from the geometry: terms beside those counts.

Counts that every kernel states are those of its inner loops. What stands around these takes a few instructions each
time, which is most of a small op: whether there is a bias to train at all, what is done for each channel or tap even
where it meets nothing of the map, blocks that are stored whole and those of which a part is, what an unrolled loop
leaves over. Names say what is counted; :data:`CONTROL_TERMS` what it means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from profiler.ops import MaskSource, Op, Pass

if TYPE_CHECKING:
    from profiler.geometry import Window

#: Of passes that train, whatever the kind.
_TRAINING = {
    "bias_calls": "1 where a bias trains",
    "weight_calls": "1 where weights train",
    "trained_biases": "biases that train",
    "listed_biases": "of these, those of channels that train: which they are is looked up",
}
#: Of gradients of a convolution's weights: channels are copied four at a time, left over by four singly, and multiplied
#: with blocks of four of the other tensor's.
_BLOCKS = {
    "blocks_of_4": "blocks of four channels that are copied",
    "blocks_of_1": "channels that are copied singly",
    "row_chunks": "trips over rows of positions, of each tap that meets the map, of each block",
    "whole_blocks_4x4": "products of a block of four channels and four whole others, of each chunk of positions",
    "whole_blocks_1x4": "the same of single channels",
    "few_blocks_4": "products of a block of four channels and fewer than four others, where there are no more",
    "taps_with_rows": "taps that meet rows of the map, of each block",
}
_GRADIENT = {"met_taps": "taps that meet a position of the map, of each block"}
#: Of those that are applied at once, for some outputs at a time.
_FUSED = {
    "few_blocks_1": "products of a single channel and fewer than four others, where there are no more",
    "taps_of_4": "taps, of each block of four channels",
    "taps_of_1": "taps, of each channel that is copied singly",
    "cleared_blocks": "blocks of four sums that are cleared",
}
#: Of int8 depthwise convolutions: four channels at a time are widened, rows in pairs are packed.
_DEPTHWISE = {
    "unrolled_rest": "pixels and taps that are widened beyond whole fours of a row",
    "inside_rows": "rows of the input that windows see inside the map, of each block of channels",
    "packed_rows": "pairs of rows that are packed, of each block of channels",
    "rest_pixels": "input pixels of each channel that blocks of four leave over",
    "rest_taps": "taps of each such channel",
}

#: Of maps that are enlarged: their sides are walked apart, and rows between them.
_ENLARGED = {
    "tall_calls": "1 where a map has several rows",
    "wide_calls": "1 where it has several columns",
    "wide_rows": "rows but one, where it has several columns",
    "upright_pairs": "neighbours one above the other, along the left and the right side",
}
#: Of int8 gradients that may be masked, each way by a loop of its own.
MASKED_TERMS = {
    "output_calls": "1 where the output masks",
    "bit_calls": "1 where bits mask",
    "output_rows": "positions, where the output masks",
    "bit_rows": "positions, where bits mask",
}

#: Name and meaning of the terms.
CONTROL_TERMS: dict[str, str] = _TRAINING | _BLOCKS | _GRADIENT | _FUSED | _DEPTHWISE | _ENLARGED | MASKED_TERMS

#: Positions that are copied at a time, of blocks with four others and with fewer.
_CHUNK, _CHUNK_OF_FEW = 64, 32
#: Float32 maps of more positions are gone over row by row though the kernel is pointwise.
_JOINED_POSITIONS = 4096
#: Outputs whose sums are applied at a time, while more than the second are left.
_SUMMED, _MOST_SUMMED = 32, 35


def control_terms(ops: Sequence[Op]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the terms that one group's ops have, and float64 counts of shape (n_ops, n_terms); some have none."""
    first = ops[0]
    parts: list[tuple[dict[str, str], Callable[[Op], list[int]]]] = []
    if first.kind == "fused_conv2d":
        parts.append((_BLOCKS | _FUSED, _fused_blocks))
    elif first.kind == "conv2d" and first.pass_ is Pass.GRAD_WEIGHT:
        parts.append((_BLOCKS | _GRADIENT, _gradient_blocks))
    elif first.kind == "depthwise" and first.pass_ is Pass.FORWARD and first.dtype == "s8":
        parts.append((_DEPTHWISE, _depthwise_rows))
    elif first.kind == "upsample_bilinear2d":
        parts.append((_ENLARGED, _enlarged))
    elif first.kind == "requantize":
        parts.append((MASKED_TERMS, _masked))
    if first.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        parts.append((_TRAINING, _training))
    names = tuple(name for part, _ in parts for name in part)
    counts = [[count for _, count_of in parts for count in count_of(op)] for op in ops]
    return names, np.array(counts, dtype=np.float64).reshape(len(ops), len(names))


def _training(op: Op) -> list[int]:
    trains, listed = op.trained_channels > 0, op.trained_channels > 0 and op.trained_axis == "out"
    outputs = op.trained_channels if listed else op.geometry.channels("out")  # type: ignore[attr-defined]
    biases = outputs if op.trains_bias else 0
    return [op.trains_bias, trains, biases, listed * biases]


class _Blocks:
    """How the channels of a convolution's weight gradient are taken, and what its taps meet."""

    def __init__(self, op: Op) -> None:
        g = op.geometry
        out, channels = op.trained_axis == "out", op.trained_channels
        if op.dtype == "s8":  # inputs are copied, whichever axis trains
            copied = (g.in_channels if out else channels) if channels else 0  # type: ignore[attr-defined]
            self.others = channels if out else g.out_channels  # type: ignore[attr-defined]
            self.fours, self.ones = divmod(copied, 4)
        else:
            groups = g.groups  # type: ignore[attr-defined]
            self.others = (g.in_channels if out else g.out_channels) // groups  # type: ignore[attr-defined]
            self.fours, self.ones = divmod(channels, 4) if groups == 1 else (0, channels)
        self.blocks = self.fours + self.ones
        self.rows, self.columns = _taps_met(g, op.dtype)  # type: ignore[arg-type]

    def chunks(self, others: int) -> tuple[int, int]:
        """Of all taps together: chunks of positions, and trips over rows, where so many others are summed."""
        at_most = _CHUNK if others >= 4 else _CHUNK_OF_FEW
        rows, columns = Counter(n for n in self.rows if n), Counter(n for n in self.columns if n)
        chunks = trips = 0
        for across, of_columns in columns.items():
            at_once = at_most // min(across, at_most)
            down = of_columns * sum(of_rows * -(-n // at_once) for n, of_rows in rows.items())
            trips += down
            chunks += down * -(-across // at_most)
        return chunks, trips

    def counts(self, others: int) -> list[int]:
        """:data:`_BLOCKS` where so many others are summed at a time, in order."""
        chunks, trips = self.chunks(others)
        return [
            self.fours,
            self.ones,
            self.blocks * trips,
            self.fours * chunks * (others // 4),
            self.ones * chunks * (others // 4),
            self.fours * chunks * (others < 4),
            self.blocks * sum(n > 0 for n in self.rows) * len(self.columns),
        ]


def _gradient_blocks(op: Op) -> list[int]:
    of = _Blocks(op)
    met = sum(n > 0 for n in of.rows) * sum(n > 0 for n in of.columns)
    return [*of.counts(of.others), of.blocks * met]


def _fused_blocks(op: Op) -> list[int]:
    of = _Blocks(op)
    at_once, left = [], of.others
    while left > 0:
        at_once.append(_SUMMED if left > _MOST_SUMMED else left)
        left -= at_once[-1]
    each = {others: of.counts(others) for others in at_once}
    counts = [sum(each[others][i] for others in at_once) for i in range(len(_BLOCKS))]
    counts[:2] = [of.fours, of.ones]
    few = [others for others in at_once if others < 4]
    taps = len(of.rows) * len(of.columns)
    return [
        *counts,
        of.ones * sum(of.chunks(others)[0] for others in few),
        of.fours * taps,
        of.ones * taps,
        of.blocks * taps * sum(-(-others // 4) for others in at_once),
    ]


def _taps_met(g: Window, dtype: str) -> tuple[list[int], list[int]]:
    """Along either axis: how many positions of the output have each tap inside the map."""
    pointwise = (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_h, g.pad_w) == (1, 1, 1, 1, 0, 0)  # type: ignore[attr-defined]
    if pointwise and (dtype == "s8" or g.out_h * g.out_w <= _JOINED_POSITIONS):
        return [1], [g.out_h * g.out_w]
    rows = _met(g.in_h, g.out_h, g.kernel_h, g.stride_h, g.pad_h)  # type: ignore[attr-defined]
    return rows, _met(g.in_w, g.out_w, g.kernel_w, g.stride_w, g.pad_w)  # type: ignore[attr-defined]


def _met(size_in: int, size_out: int, kernel: int, stride: int, pad: int) -> list[int]:
    firsts = (max(0, -(-(pad - tap) // stride)) for tap in range(kernel))
    ends = (min(size_out, (size_in - 1 + pad - tap) // stride + 1) for tap in range(kernel))
    return [max(0, end - first) for first, end in zip(firsts, ends, strict=True)]


def _depthwise_rows(op: Op) -> list[int]:
    g = op.geometry
    in_h, in_w, channels = g.input_shape
    kernel_h, kernel_w, stride = g.kernel_h, g.kernel_w, g.stride_h  # type: ignore[attr-defined]
    out_h, out_w, pad = g.out_h, g.out_w, g.pad_h  # type: ignore[attr-defined]
    whole, rest = divmod(channels, 4)
    blocks = whole + (rest > 0)
    pairs, single = divmod(kernel_h, 2)
    seen = (out_w - 1) * g.stride_w + kernel_w  # type: ignore[attr-defined]  # columns, of all windows of a row
    inside = min(in_w, seen - min(g.pad_w, seen))  # type: ignore[attr-defined]
    # In place, rows are read before outputs lie over them, those that no window sees, too.
    read = min(in_h, max((out_h - 1) * stride - pad + kernel_h, -(-out_h * out_w // in_w)))
    met = _met(in_h, out_h, kernel_h, stride, pad)
    taps = 2 * pairs * kernel_w
    return [
        whole * (read * (inside % 4) + taps % 4 + single * (kernel_w % 4)),
        blocks * (sum(met[: 2 * pairs]) * (inside > 0) + met[-1]),
        blocks * pairs * out_h * (inside > 0),
        rest * read * inside,
        rest * (taps + single * kernel_w),
    ]


def _enlarged(op: Op) -> list[int]:
    rows, columns, _ = op.geometry.input_shape
    return [rows > 1, columns > 1, (rows - 1) * (columns > 1), 2 * (rows - 1)]


def _masked(op: Op) -> list[int]:
    g = op.geometry
    by_output, by_bits = (g.mask == source for source in (MaskSource.OUTPUT, MaskSource.BITS))  # type: ignore[attr-defined]
    return [by_output, by_bits, by_output * g.positions, by_bits * g.positions]  # type: ignore[attr-defined]
