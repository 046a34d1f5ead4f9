"""Stack that ops take, as measured: the same calls, the same frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from costmodels.features import WorkFunction, group_key
from profiler.ops import Op

#: Of a stack frame, in bytes: 8 on Arm's 32-bit cores, 16 on 64-bit ones.
STACK_ALIGNMENT = 16


class StackPeaks:
    """Largest stack seen, by group of ops (a kernel) and by the loops that they enter (:func:`loops`).

    Args:
        peaks: Group key to loops to bytes.
    """

    def __init__(self, peaks: Mapping[str, Mapping[str, int]]) -> None:
        self.peaks = {key: dict(of_group) for key, of_group in peaks.items()}

    @classmethod
    def measured(cls, ops: Sequence[Op], stack_bytes: Sequence[float], work: WorkFunction) -> StackPeaks:
        """Learn from ops and the stack that each took."""
        peaks: dict[str, dict[str, int]] = {}
        for op, seen in zip(ops, stack_bytes, strict=True):
            of_group, entered = peaks.setdefault(group_key(op), {}), loops(work(op).values())
            of_group[entered] = max(int(seen), of_group.get(entered, 0))
        return cls(peaks)

    def of(self, op: Op, work: WorkFunction) -> int:
        """Bytes that ``op`` takes: its group's largest where none entered just its loops, of an unknown group all's.

        Frames are aligned, but their last words are not always written, and painting sees what is written: hence the
        rounding up.
        """
        of_group = self.peaks.get(group_key(op))
        if of_group is None:
            seen = max((max(of.values()) for of in self.peaks.values()), default=0)
        else:
            seen = of_group.get(loops(work(op).values()), max(of_group.values()))
        return -(-seen // STACK_ALIGNMENT) * STACK_ALIGNMENT


def loops(counts: Iterable[int]) -> str:
    """Which loops an op enters: a 1 for each work term that is not zero."""
    return "".join("1" if count else "0" for count in counts)
