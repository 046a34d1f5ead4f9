"""What whole training steps cost: the sum over their ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodels.features import group_key
from costmodels.sources import StepCost
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan
from profiler.workloads.step import training_step

if TYPE_CHECKING:
    from costmodels.model import CostModel


def step_cost(model: CostModel, network: Network, plan: StepPlan) -> StepCost:
    """Cost of one training step: the sum over its ops, those that run once an image times the images.

    The standard deviation takes errors of ops in one group as fully correlated (they share unit costs) and those
    of different groups as independent.

    Raises:
        UserError: the plan is for another network.
    """
    step = training_step(network, plan)
    ops = [step_op.op for step_op in step.ops]
    costs = model.costs("latency", ops)
    rows = []
    latency_us, group_std = 0.0, {}
    for step_op, (mean, std, _, _, extrapolates) in zip(step.ops, costs, strict=True):
        op, count = step_op.op, plan.images if step_op.per_image else 1
        latency_us += count * mean
        key = group_key(op)
        group_std[key] = group_std.get(key, 0.0) + count * std
        rows.append(
            {
                "layer": step_op.layer,
                "kind": op.kind,
                "pass": str(op.pass_),
                "dtype": op.dtype,
                "count": count,
                "macs": count * op.macs,
                "latency_ms": count * mean / 1e3,
                "latency_std_ms": count * std / 1e3,
                "energy_mj": None,
                "extrapolates": extrapolates,
            }
        )
    std_us = float(np.sqrt(sum(std**2 for std in group_std.values())))
    memory = model.memory.step_bytes(step) + max(map(model.stack_bytes, ops))
    return StepCost(latency_us / 1e3, std_us / 1e3, None, memory, tuple(rows))
