"""What whole training steps cost: sums over their ops, in the context of a step."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from costmodels.context import StepContext, StepObservation, context_key
from costmodels.features import group_key
from costmodels.measured_steps import MeasuredStep
from costmodels.sources import MemoryBounds, Moment, StepCost, StepRow, StepRows, StepSums
from costmodels.step_energy import StepEnergy
from costmodels.sums import OpSums
from profiler.devices.identity import INSTRUCTIONS
from profiler.ops import Layer, Op, Optimizer
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan
from profiler.workloads.step import Part, step_parts, training_step

if TYPE_CHECKING:
    from costmodels.model import CostModel

#: Columns of sums over ops: latency in the step in us, energy alone in uJ; then two a group of ops: standard deviations
#: of both, which add up within a group. The first group is all ops whose kernels were not fitted.
_LATENCY, _ENERGY, _GROUPS = 0, 1, 2
_UNFITTED = "unfitted"
#: Of how many plans the sums are kept.
_MOST_PLANS = 1 << 16


class _Totals(NamedTuple):
    """What is known of a plan's step.

    Attributes:
        sums: What adds up.
        stack_bytes: The largest of its ops.
        parts: The step's.
    """

    sums: StepSums
    stack_bytes: int
    parts: tuple[Part, ...]


class StepCosts:
    """Costs of the steps of a fitted model.

    Errors of ops in one group (a kernel) are taken as fully correlated, since they share unit costs, and those of
    different groups as independent; the context's calibration comes on top. Kernels that were not fitted count as one
    group: what they are foretold by is the same for all, and where a dtype was not measured it is wrong for all.

    Args:
        model: Where costs of ops come from.
        context: What they cost in a step.
        energy: From ops or latency to a step's energy.
    """

    def __init__(self, model: CostModel, context: StepContext | None = None, energy: StepEnergy | None = None) -> None:
        self._model = model
        self.context = context or StepContext()
        self.energy = energy or StepEnergy()
        self._groups = {_UNFITTED: 0}
        self._sums = OpSums(self._columns, model.stack_bytes, lambda: model.memory.programs)
        self._known: dict[Hashable, _Totals] = {}

    # --------------------------------------------------------------------------------------------- predicting

    def step(self, network: Network, plan: StepPlan) -> StepCost:
        """Cost of one training step; its rows are made when they are looked at.

        Raises:
            UserError: the plan is for another network, or cannot be lowered.
        """
        sums, stack, parts = self._totals(network, plan)
        memory = self._model.memory.plan_bytes(network, plan, parts) + stack
        rows = StepRows(lambda: self._rows(network, plan))
        return StepCost(memory_bytes=memory, rows=rows, **vars(sums))

    def sums(self, network: Network, plan: StepPlan) -> StepSums:
        """What adds up of it."""
        return self._totals(network, plan).sums

    def _totals(self, network: Network, plan: StepPlan) -> _Totals:
        """What is kept of a plan, because a selection asks for the same plans again and again."""
        plan.check(network)
        key = (
            network.fingerprint,
            *(plan.dtype, plan.savings, plan.head, plan.optimizer, plan.images),
            tuple([(name, len(p.channels), p.axis, p.bias) for name, p in plan.layers.items()]),
        )
        if key not in self._known:
            if len(self._known) >= _MOST_PLANS:
                self._known.clear()
            self._known[key] = self._added_up(network, plan)
        return self._known[key]

    def _added_up(self, network: Network, plan: StepPlan) -> _Totals:
        step = tuple(step_parts(network, plan))
        totals, stack, program_bytes = self._sums.step_costs(network, plan, step)
        latency_us, energy_uj = float(totals[_LATENCY]), float(totals[_ENERGY])
        parts = totals[_GROUPS:].reshape(-1, 2)
        of_latency, of_energy = (math.hypot(*stds) for stds in parts[1:].T)
        unfitted = parts[0].tolist()
        calibration = self.context.calibration
        std_us = calibration.std(latency_us, of_latency, unfitted[0])
        ops_energy = (energy_uj, of_energy, unfitted[1]) if "energy" in self._model.targets else None
        energy = self.energy.of(ops_energy, (latency_us, calibration.std(latency_us, of_latency), unfitted[0]))
        if energy is None:
            return _Totals(StepSums(latency_us / 1e3, std_us / 1e3, program_bytes=program_bytes), int(stack), step)
        in_mj = (energy[0] / 1e3, energy[1] / 1e3)
        return _Totals(StepSums(latency_us / 1e3, std_us / 1e3, *in_mj, program_bytes), int(stack), step)

    def memory(self, network: Network, plan: StepPlan) -> MemoryBounds:
        """Bounds of the memory of a step."""
        _, stack, parts = self._totals(network, plan)
        low, high = self._model.memory.plan_bounds(network, plan, parts)
        return MemoryBounds(low + stack, high + stack)

    def moments(self, network: Network, plan: StepPlan) -> dict[Moment, int]:
        """Bytes at moments of a step."""
        stack = self._totals(network, plan).stack_bytes
        return {moment: taken + stack for moment, taken in self._model.memory.plan_moments(network, plan).items()}

    def layer_latency_us(self, layer: Layer, *, images: int, optimizer: Optimizer) -> float:
        """An image's backward ops of one layer, all of it trained, and its share of the update."""
        return self._sums.layer_latency_us(layer, images=images, optimizer=optimizer)

    def _costs(self, ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
        """(latency in a step, its standard deviation) of one run of each op, in us."""
        warm = self._model.costs("latency", ops)
        mean = np.array([cost.mean for cost in warm])
        std = np.array([cost.std for cost in warm])
        keys = [context_key(op) for op in ops]
        return self.context.latency_us(keys, mean, self._cold_us(ops)), self.context.factors_of(keys) * std

    def _cold_us(self, ops: Sequence[Op]) -> np.ndarray | None:
        if "latency_cold" not in self._model.targets:
            return None
        return np.array([cost.mean for cost in self._model.costs("latency_cold", ops)])

    def _columns(self, ops: Sequence[Op]) -> np.ndarray:
        groups = {
            target: self._group_numbers(target, ops)
            for target in ("latency", "energy")
            if target in self._model.targets
        }
        columns = np.zeros((len(ops), _GROUPS + 2 * len(self._groups)))
        each = np.arange(len(ops))
        columns[:, _LATENCY], columns[each, _GROUPS + 2 * groups["latency"]] = self._costs(ops)
        if "energy" in self._model.targets:
            costs = self._model.costs("energy", ops)
            columns[:, _ENERGY] = [cost.mean for cost in costs]
            columns[each, _GROUPS + 2 * groups["energy"] + 1] = [cost.std for cost in costs]
        return columns

    def _group_numbers(self, target: str, ops: Sequence[Op]) -> np.ndarray:
        """Of the groups whose errors a target's costs share, of shape (n_ops,)."""
        fitted = self._model.targets[target].groups
        keys = [key if (key := group_key(op)) in fitted else _UNFITTED for op in ops]
        return np.array([self._groups.setdefault(key, len(self._groups)) for key in keys])

    def _rows(self, network: Network, plan: StepPlan) -> tuple[StepRow, ...]:
        step = training_step(network, plan)
        ops = [item.op for item in step.ops]
        latency, std = self._costs(ops)
        outside = [cost.extrapolates for cost in self._model.costs("latency", ops)]
        energy: Sequence[float | None] = [None] * len(ops)
        if self.energy.method == "power":
            energy = (self.energy.power_w * latency / 1e3).tolist()
        elif "energy" in self._model.targets:
            energy = [self.energy.factor * cost.mean / 1e3 for cost in self._model.costs("energy", ops)]
        rows = []
        for i, item in enumerate(step.ops):
            count = plan.images if item.per_image else 1
            rows.append(
                {
                    "layer": item.layer,
                    "kind": item.op.kind,
                    "pass": str(item.op.pass_),
                    "dtype": item.op.dtype,
                    "count": count,
                    "macs": count * item.op.macs,
                    "latency_ms": count * float(latency[i]) / 1e3,
                    "latency_std_ms": count * float(std[i]) / 1e3,
                    "energy_mj": None if energy[i] is None else count * energy[i],
                    "extrapolates": outside[i],
                }
            )
        return tuple(rows)

    # ------------------------------------------------------------------------------------------------ fitting

    @classmethod
    def fit(cls, model: CostModel, steps: Sequence[MeasuredStep]) -> StepCosts:
        """Learn from measured steps what ops cost in a step, and how a step's energy is best predicted.

        Args:
            model: Fitted to single ops.
            steps: Measured on the same device.
        """
        if not steps:
            return cls(model)
        alone = cls(model)
        floor = model.targets["latency"].noise_floor
        observed = [alone._observed(step) for step in steps]
        counts_instructions = model.card_["timer"] == INSTRUCTIONS
        context = StepContext.fit(observed, floor, counts_instructions=counts_instructions)
        costs = cls(model, context)
        with_energy = [(step, seen) for step, seen in zip(steps, observed, strict=True) if step.energy_uj > 0]
        if not with_energy:
            return costs
        latency = np.array([context.step_us(seen) for _, seen in with_energy])
        latency_std = np.array(
            [context.calibration.std(us, seen.std_us) for us, (_, seen) in zip(latency, with_energy, strict=True)]
        )
        ops, energy_floor = None, 0.0
        if "energy" in model.targets:
            mean, std = np.array([alone._ops_energy(step) for step, _ in with_energy]).T
            ops, energy_floor = (mean, std), model.targets["energy"].noise_floor
        measured = np.array([step.energy_uj for step, _ in with_energy])
        costs.energy = StepEnergy.fit(measured, ops=ops, latency=(latency, latency_std), floor=energy_floor)
        return costs

    def _observed(self, step: MeasuredStep) -> StepObservation:
        warm = np.array([cost.mean for cost in self._model.costs("latency", step.ops)])
        return StepObservation(
            keys=tuple(map(context_key, step.ops)),
            counts=step.counts,
            warm_us=warm,
            cold_us=self._cold_us(step.ops),
            measured_us=step.latency_us,
            std_us=self._propagated("latency", step),
            key_std_us=self._propagated_by_key("latency", step),
            network=step.plan.fingerprint,
        )

    def _ops_energy(self, step: MeasuredStep) -> tuple[float, float]:
        mean = np.array([cost.mean for cost in self._model.costs("energy", step.ops)])
        return float(step.counts @ mean), self._propagated("energy", step)

    def _propagated(self, target: str, step: MeasuredStep) -> float:
        return math.hypot(*self._propagated_by_key(target, step).values())

    def _propagated_by_key(self, target: str, step: MeasuredStep) -> dict[str, float]:
        """Standard deviations of the sums of ops of each kind, pass and dtype."""
        of_group: dict[tuple[str, str], float] = {}
        for op, count, cost in zip(step.ops, step.counts, self._model.costs(target, step.ops), strict=True):
            key = context_key(op), group_key(op)
            of_group[key] = of_group.get(key, 0.0) + count * cost.std
        by_key: dict[str, float] = {}
        for (key, _), std in of_group.items():
            by_key[key] = math.hypot(by_key.get(key, 0.0), std)
        return by_key

    # ------------------------------------------------------------------------------------------------- saving

    def summary(self) -> list[dict[str, object]]:
        """A row a quantity, for people: how far steps were off, each predicted by what was fitted to the others."""
        context, energy = self.context, self.energy
        rows: list[dict[str, object]] = [{"quantity": "latency", "n_steps": context.n_steps, **context.figures}]
        if energy.n_steps:
            how = {"ops": "sum of ops", "power": "power x time"}[energy.method]
            figure = {"mape_percent": energy.figures[f"{energy.method}_mape_percent"]}
            rows.append({"quantity": f"energy, as {how}", "n_steps": energy.n_steps, **figure})
        return rows

    def to_record(self) -> dict:
        """What :meth:`from_record` reads."""
        return {"context": self.context.to_record(), "energy": self.energy.to_record()}

    @classmethod
    def from_record(cls, model: CostModel, record: dict) -> StepCosts:
        """What :meth:`to_record` wrote.

        Raises:
            KeyError, TypeError, ValueError: the record is damaged.
        """
        context, energy = StepContext.from_record(record["context"]), StepEnergy.from_record(record["energy"])
        return cls(model, context, energy)
