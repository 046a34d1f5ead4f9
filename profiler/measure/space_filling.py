"""Ops spread evenly over a space, by their geometry alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profiler.ops import Op
from profiler.workloads.op_space import work_units

#: What a remainder of channels counts beside an extent: kernels handle channels by twos, fours and eights.
_REMAINDER_WEIGHT = 0.5


def features(ops: Sequence[Op]) -> np.ndarray:
    """Logarithms of an op's extents, of what trains and of its size, and remainders modulo 4: a row an op.

    Args:
        ops: Of one kind.
    """
    rows = []
    for op in ops:
        extents = (*op.geometry.values(), op.trained_channels, work_units(op))
        channels = [op.trained_channels, op.geometry.input_shape[-1], op.geometry.output_shape[-1]]
        rows.append([*np.log1p(extents), float(op.trains_bias), *(_REMAINDER_WEIGHT * (c % 4) for c in channels)])
    return np.array(rows)


def spread(candidates: Sequence[Op], measured: Sequence[Op], count: int) -> list[Op]:
    """The candidates farthest from everything measured and from each other, one after the other (greedy maximin:
    Johnson, Moore and Ylvisaker, J. Stat. Plan. Inference 26, 1990), in features scaled to unit variance.

    Args:
        candidates: Of one family.
        measured: Of the same.
        count: How many; fewer where there are no more.
    """
    if not candidates:
        return []
    rows = features([*candidates, *measured])
    deviation = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    own, others = rows[: len(candidates)], rows[len(candidates) :]
    if len(others):
        distance = ((own[:, None, :] - others[None, :, :]) ** 2).sum(axis=2).min(axis=1)
    else:
        distance = -((own**2).sum(axis=1))  # begin in the middle
    chosen = []
    for _ in range(min(count, len(candidates))):
        best = int(np.argmax(distance))
        chosen.append(candidates[best])
        away = ((own - own[best]) ** 2).sum(axis=1)
        distance = away if not len(others) and len(chosen) == 1 else np.minimum(distance, away)
        distance[best] = -np.inf
    return chosen
