"""What a cost model has learned about the ops of one kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from costmodels.estimators import WorkRegressor
from costmodels.features import WorkFunction
from profiler.errors import UserError
from profiler.ops import Op


@dataclass
class Group:
    """What was learned about the ops that share a kernel.

    Attributes:
        terms: Names of its work terms, in order.
        regressor: Cost in the target's unit from work terms and geometry features.
        probe: One of the fitted ops, and its work counts.
    """

    terms: tuple[str, ...]
    regressor: WorkRegressor
    probe: tuple[Op, tuple[int, ...]]

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


def typical_error_percent(groups: Iterable[Group]) -> float:
    """Median of the groups' cross-validated errors; 0 where no group has one."""
    errors = [group.regressor.cv_error_percent_ for group in groups]
    known = [error for error in errors if not np.isnan(error)]
    return float(np.median(known)) if known else 0.0
