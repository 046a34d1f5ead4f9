"""What a whole task costs on the device: prototypes, the Fisher pass, and so many training steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from costmodels.analytical import AnalyticalCosts
from costmodels.sources import CostSource, StepCost, StepRow
from profiler.workloads.fisher_pass import gradient_plan, sum_op
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan


@dataclass(frozen=True)
class TaskPart:
    """One part of a task.

    Attributes:
        name: ``prototypes``, ``Fisher pass`` or ``training``.
        images: That pass through the network in it.
        latency_ms: Of all of it.
        energy_mj: The same; None where the source has no energy.
    """

    name: str
    images: int
    latency_ms: float
    energy_mj: float | None


def task_parts(
    source: CostSource,
    network: Network,
    plan: StepPlan,
    step: StepCost,
    inspected: Sequence[str],
    *,
    support: int,
    steps: int,
) -> tuple[TaskPart, ...]:
    """Costs of the parts of a task.

    Prototypes are a forward pass of every support image. The Fisher pass (:mod:`profiler.workloads.fisher_pass`) is
    forward, head, the gradients down to the output of the first inspected layer (by analytical costs in either way of
    counting: they have to run) and, of each inspected layer, the sums of activation times gradient, as a depthwise
    weight gradient computes them. Left out is what no op does, a few operations a channel or feature: squares of these
    sums, means of features, augmentation. Choosing itself runs on the host.

    Args:
        source: Where costs come from.
        network: What is trained.
        plan: What was chosen.
        step: Its cost.
        inspected: Layers of which the information is taken; empty for a plan that is not chosen by task.
        support: Images of the support set.
        steps: Training steps of a task.
    """
    settings = {
        "head": plan.head,
        "images": support,
        "optimizer": "sgd",
        "dtype": plan.dtype,
        "savings": plan.savings - {"fused_update"},
    }
    forward = source.step(network, StepPlan.for_network(network, {}, **settings))
    parts = [_part("prototypes", support, forward, lambda row: row["layer"] in network.by_name)]
    if inspected:
        whole = replace(source, accounting="chain") if isinstance(source, AnalyticalCosts) else source
        carried = whole.step(network, gradient_plan(network, inspected, **settings))
        chain = _part("Fisher pass", support, carried, lambda row: row["pass"] not in ("grad_weight", "update"))
        sums = whole.predict([sum_op(network[name], plan.dtype) for name in inspected])
        sums_ms = support * float(sums["latency_us"].sum()) / 1e3
        energy_mj = chain.energy_mj
        if energy_mj is not None and chain.latency_ms:
            energy_mj *= 1 + sums_ms / chain.latency_ms
        parts.append(replace(chain, latency_ms=chain.latency_ms + sums_ms, energy_mj=energy_mj))
    energy = None if step.energy_mj is None else steps * step.energy_mj
    parts.append(TaskPart("training", steps * plan.images, steps * step.latency_ms, energy))
    return tuple(parts)


def _part(name: str, images: int, cost: StepCost, belongs: Callable[[StepRow], bool]) -> TaskPart:
    """The cost of some of a step's ops; energy in proportion to their time."""
    latency_ms = sum(float(row["latency_ms"]) for row in cost.rows if belongs(row))  # type: ignore[arg-type]
    energy_mj = cost.energy_mj
    if energy_mj is not None and cost.latency_ms:
        energy_mj *= latency_ms / cost.latency_ms
    return TaskPart(name, images, latency_ms, energy_mj)
