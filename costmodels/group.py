"""What a cost model has learned about the ops of one kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from costmodels.estimators import WorkRegressor
from costmodels.features import WorkFunction
from profiler.errors import UserError
from profiler.ops import Op

#: Of a stack frame, in bytes: 8 on Arm's 32-bit cores, 16 on 64-bit ones.
STACK_ALIGNMENT = 16


@dataclass
class Group:
    """What was learned about the ops that share a kernel.

    Attributes:
        terms: Names of its work terms, in order.
        regressor: Latency in microseconds from work terms and geometry features.
        stack_bytes: Largest stack seen, by the loops that ops enter (:func:`loops`): the same calls, the same frames.
        probe: One of the fitted ops, and its work counts.
    """

    terms: tuple[str, ...]
    regressor: WorkRegressor
    stack_bytes: dict[str, int]
    probe: tuple[Op, tuple[int, ...]]

    @property
    def largest_stack_bytes(self) -> int:
        return max(self.stack_bytes.values(), default=0)

    def stack_of(self, counts: Iterable[int]) -> int:
        """Stack of an op with these work counts; the group's largest where none entered just these loops.

        Frames are aligned, but their last words are not always written, and painting sees what is written: hence the
        rounding up.
        """
        seen = self.stack_bytes.get(loops(counts), self.largest_stack_bytes)
        return -(-seen // STACK_ALIGNMENT) * STACK_ALIGNMENT

    def check(self, key: str, work: WorkFunction) -> None:
        """Raise UserError unless the kernels still count as they did when the group was measured."""
        op, counts = self.probe
        now = work(op)
        if tuple(now) == self.terms and tuple(now.values()) == counts:
            return
        changed = sorted(set(now.items()) ^ set(zip(self.terms, counts, strict=True)))
        raise UserError(
            f"the cost model was fitted to kernels that do other work for {key} than these "
            f"({', '.join(dict.fromkeys(name for name, _ in changed))})",
            hint="measure and fit again with this firmware",
        )


def loops(counts: Iterable[int]) -> str:
    """Which loops an op enters: a 1 for each work term that is not zero."""
    return "".join("1" if count else "0" for count in counts)


def typical_error_percent(groups: Iterable[Group]) -> float:
    """Median of the groups' cross-validated errors; 0 where no group has one."""
    errors = [group.regressor.cv_error_percent_ for group in groups]
    known = [error for error in errors if not np.isnan(error)]
    return float(np.median(known)) if known else 0.0
