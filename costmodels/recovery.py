"""Ops in which a core regains the frequency that it lowered before them.

An agent on an x86-64 host with 512 bit vectors begins every op at the frequency to which dense multiplications of such
vectors lower the core (``firmware/linux/settle.c``). Two thirds of a millisecond after the last of them the core goes
back to the higher one (Schoene et al., arXiv 1905.12468): what int8 kernels, which have none, do after that takes less
time. Costs are fitted as if it stayed at the lower frequency, where they are linear in the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodels.estimators import NonNegativeTerms
from costmodels.features import WorkFunction
from costmodels.group import known_terms
from profiler.devices.identity import is_linux_board
from profiler.ops import Op

#: After how long the frequency rises.
AFTER_US = 2000 / 3
#: Ops shorter than this share of it do not see it rise, ops longer than that run at both frequencies for long enough to
#: tell one from the other. (In between they begin at the higher one where the last repetition ended as it rose.)
_BEFORE, _BEYOND = 0.7, 1.2
#: A kernel's shorter ops foretell what its longer ones would have cost if there are so many of them.
_LEAST_OPS = 8
#: No frequency is more than half as high again as the other.
_LEAST_RATIO = 2 / 3


@dataclass(frozen=True)
class Recovery:
    """How much faster an op goes on once the core has regained its frequency.

    Attributes:
        ratio: The lower frequency over the higher one; 1 where nothing was seen of that.
    """

    ratio: float = 1.0

    @classmethod
    def learned(
        cls, ops: Sequence[Op], latency_us: np.ndarray, rows_of: Mapping[str, Sequence[int]], work: WorkFunction
    ) -> Recovery:
        """From ops on such a host: what long ones took, and what shorter ones of their kernels foretell of them.

        Args:
            ops: Measured.
            latency_us: Of shape (n_ops,).
            rows_of: Numbers of the ops of each group.
            work: The kernels' work counts.
        """
        ratios = [ratio for rows in rows_of.values() for ratio in _ratios(ops, latency_us, rows, work)]
        return cls(float(np.clip(np.median(ratios), _LEAST_RATIO, 1.0))) if ratios else cls()

    def lowered(self, ops: Iterable[Op], latency_us: np.ndarray) -> np.ndarray:
        """What ops would have taken at the lower frequency throughout, of shape (n_ops,)."""
        late = np.maximum(latency_us - AFTER_US, 0.0) * regains(ops)
        return latency_us + late * (1 / self.ratio - 1)

    def regained(self, ops: Iterable[Op], lowered_us: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What ops take that would take so long at the lower frequency, and standard deviations of it."""
        of_int8 = regains(ops)
        late = np.maximum(lowered_us - AFTER_US, 0.0) * of_int8
        slope = np.where(of_int8 & (lowered_us > AFTER_US), self.ratio, 1.0)
        return lowered_us - late * (1 - self.ratio), std * slope


def lowers_frequency(identity: Mapping[str, object]) -> bool:
    """Whether the agent of a device of this identity record lowers the core's frequency before every op."""
    return is_linux_board(str(identity.get("board", ""))) and identity.get("fpu") == "AVX-512"


def regains(ops: Iterable[Op]) -> np.ndarray:
    """Of which ops the kernels leave the core's frequency alone: bool of shape (n_ops,)."""
    return np.array([op.dtype == "s8" for op in ops])


def _ratios(ops: Sequence[Op], latency_us: np.ndarray, rows: Sequence[int], work: WorkFunction) -> Iterator[float]:
    """Of one group's long ops."""
    if ops[rows[0]].dtype != "s8":
        return
    short = [i for i in rows if latency_us[i] < _BEFORE * AFTER_US]
    long = [i for i in rows if latency_us[i] > _BEYOND * AFTER_US]
    if not long or len(short) < _LEAST_OPS:
        return
    fit = NonNegativeTerms().fit(known_terms([ops[i] for i in short], work, host=True)[1], latency_us[short])
    lowered_us = fit.predict(known_terms([ops[i] for i in long], work, host=True)[1])
    for took, lowered in zip(latency_us[long], lowered_us, strict=True):
        ratio = (took - AFTER_US) / (lowered - AFTER_US) if lowered > AFTER_US else math.inf
        yield min(ratio, 1.0)
