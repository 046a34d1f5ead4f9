"""The measured ops that a model was fitted to: kept with it, so that whatever stands beside it can learn from the same.

Where the model goes, they go: baselines need them, a learning curve, and another device's model that starts from it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodels.measured import Measured
from profiler.ops import Op

#: Names of the arrays in a model's file, after their prefix.
PREFIX = "training/"
_COSTS = ("latency_us", "latency_noise", "energy_uj", "energy_noise", "memory_bytes")


@dataclass(frozen=True, eq=False)
class TrainingOps:
    """Ops and what they cost; each array of shape (n_ops,), NaN or 0 where a cost was not measured.

    Attributes:
        ops: Each once.
        latency_us, latency_noise: Medians, the harness's own cost subtracted, and their relative standard errors.
        energy_uj, energy_noise: Medians and their relative standard uncertainties.
        memory_bytes: Peaks of arena and stack.
    """

    ops: tuple[Op, ...]
    latency_us: np.ndarray
    latency_noise: np.ndarray
    energy_uj: np.ndarray
    energy_noise: np.ndarray
    memory_bytes: np.ndarray

    @classmethod
    def of(cls, measured: Measured) -> TrainingOps:
        """All of a table's ops."""
        return cls(
            measured.ops,
            measured.latency_us,
            measured.noise,
            measured.energy_uj,
            measured.energy_noise,
            measured.memory_bytes,
        )

    def costs(self, target: str) -> tuple[Sequence[Op], np.ndarray]:
        """The ops of which a target (``latency``, ``energy``, ``memory``) was measured, and its values."""
        values = {"latency": self.latency_us, "energy": self.energy_uj, "memory": self.memory_bytes}[target]
        known = values > 0
        return [op for op, keep in zip(self.ops, known, strict=True) if keep], values[known]

    def to_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Put everything into a model's arrays; the ops as compressed JSON."""
        text = json.dumps([op.to_dict() for op in self.ops], separators=(",", ":"))
        arrays[PREFIX + "ops"] = np.frombuffer(zlib.compress(text.encode()), dtype=np.uint8)
        arrays |= {PREFIX + name: getattr(self, name) for name in _COSTS}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> TrainingOps:
        """Read :meth:`to_arrays`' arrays.

        Raises:
            KeyError, ValueError: they are not there, or damaged.
        """
        try:
            records = json.loads(zlib.decompress(arrays[PREFIX + "ops"].tobytes()))
        except zlib.error as error:
            raise ValueError(f"the ops that it was fitted to: {error}") from None
        ops = tuple(Op.from_dict(record) for record in records)
        costs = [np.asarray(arrays[PREFIX + name], dtype=np.float64) for name in _COSTS]
        if any(cost.shape != (len(ops),) for cost in costs):
            raise ValueError("the ops that it was fitted to are not as many as their costs")
        return cls(ops, *costs)
