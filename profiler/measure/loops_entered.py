"""Which of a kernel's loops ops enter: what is never entered is never known, neither its time nor its stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profiler.ops import Op
from profiler.workloads.op_space import work_units


def covering(ops: Sequence[Op], beside: Sequence[Op] = ()) -> list[Op]:
    """Few and small ones of the ops with which every loop of their kernel is entered, and left out while another is.

    Two loops that are never entered apart cannot be told apart, and the stack that one takes hides what the other does.
    Which loops an op enters is told by its kernel's work counts. Taken is, one after the other, the op that adds most
    pairs of a loop entered and one that is not (greedy set cover: Chvátal, Math. Oper. Res. 4, 1979); of such as add
    the same the smallest.

    Args:
        ops: Of one kernel.
        beside: Some of them that are taken anyway: what is missing beside these.

    Raises:
        ValueError: the ops are of different kernels, or the firmware has none for them.
    """
    if not ops:
        return []
    from profiler.work_counts import work_counts  # noqa: PLC0415 - builds the kernels' library

    ops = sorted(ops, key=work_units)
    entered = work_counts(ops)[1] > 0
    apart = entered[:, :, None] & ~entered[:, None, :]
    adds = np.hstack([entered, apart.reshape(len(ops), -1)])
    taken = np.isin([op.key for op in ops], [op.key for op in beside])
    missing = adds.any(axis=0) & ~adds[taken].any(axis=0)
    chosen = []
    while missing.any():
        best = int(np.argmax(adds[:, missing].sum(axis=1)))
        chosen.append(ops[best])
        missing &= ~adds[best]
    return chosen
