"""Stack that ops take, as measured: the same calls, the same frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from costmodels.features import WorkFunction, group_key
from profiler.ops import Op

#: Of a stack frame, in bytes: 8 on Arm's 32-bit cores, 16 on 64-bit ones.
STACK_ALIGNMENT = 16
#: Ops of a group from which on it is believed that all that enter the same loops take the same stack.
LEAST_STEADY = 3


class StackPeaks:
    """Largest stack seen, by group of ops (a kernel) and by the loops that they enter (:func:`loops`).

    Args:
        peaks: Group key to loops to bytes.
        steady: Groups of whose ops all that entered the same loops took the same stack, to the byte.
    """

    def __init__(self, peaks: Mapping[str, Mapping[str, int]], steady: Iterable[str] = ()) -> None:
        self.peaks = {key: dict(of_group) for key, of_group in peaks.items()}
        self.steady = frozenset(steady)
        self._beside: dict[str, dict[str, int]] = {}

    @classmethod
    def measured(cls, ops: Sequence[Op], stack_bytes: Sequence[float], work: WorkFunction) -> StackPeaks:
        """Learn from ops and the stack that each took."""
        found: dict[str, dict[str, list[int]]] = {}
        for op, seen in zip(ops, stack_bytes, strict=True):
            found.setdefault(group_key(op), {}).setdefault(loops(work(op).values()), []).append(int(seen))
        steady = (
            key
            for key, of_group in found.items()
            if sum(map(len, of_group.values())) >= LEAST_STEADY
            and all(min(seen) == max(seen) for seen in of_group.values())
        )
        peaks = {key: {entered: max(seen) for entered, seen in of_group.items()} for key, of_group in found.items()}
        return cls(peaks, steady)

    def of(self, op: Op, work: WorkFunction) -> int:
        """Bytes that ``op`` takes; of an unknown group the largest of all groups.

        Frames are aligned, but their last words are not always written, and painting sees what is written: hence the
        rounding up, but of loops where that never differed, and of kernels that took the same in whichever loops.
        """
        of_group = self.peaks.get(key := group_key(op))
        if of_group is None:
            seen = max((max(of.values()) for of in self.peaks.values()), default=0)
        else:
            entered = loops(work(op).values())
            if key in self.steady and (entered in of_group or len(set(of_group.values())) == 1):
                return of_group.get(entered, next(iter(of_group.values())))
            if entered not in of_group:
                of_group = self._beside.setdefault(key, {})
                if entered not in of_group:
                    of_group[entered] = _together(entered, self.peaks[key])
            seen = of_group[entered]
        return -(-seen // STACK_ALIGNMENT) * STACK_ALIGNMENT


def _together(entered: str, peaks: Mapping[str, int]) -> int:
    """Bytes of loops that were never entered together, and alone: the largest that one of them takes.

    That is at most what any op took that entered it. Of a loop that none entered nothing is known: the largest of all.
    """
    largest = 0
    for i in (i for i, bit in enumerate(entered) if bit == "1"):
        with_it = [seen for other, seen in peaks.items() if other[i : i + 1] == "1"]
        if not with_it:
            return max(peaks.values())
        largest = max(largest, min(with_it))
    return largest


def loops(counts: Iterable[int]) -> str:
    """Which loops an op enters: a 1 for each work term that is not zero."""
    return "".join("1" if count else "0" for count in counts)
