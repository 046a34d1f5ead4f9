"""What a whole task costs on the device: prototypes, the Fisher pass, and so many training steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from costmodels.sources import CostSource, StepCost
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan


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

    Prototypes are a forward pass of every support image. The Fisher pass is costed as the gradients of the inspected
    layers' biases: like those it sums, over the positions of each channel, a gradient that reaches down to the first
    inspected layer (the product with the activation is not counted, and no kernel for it has been measured). Choosing
    itself runs on the host.

    Args:
        source: Where costs come from.
        network: What is trained.
        plan: What was chosen.
        step: Its cost.
        inspected: Layers of which the information is taken; empty for a plan that is not chosen by task.
        support: Images of the support set.
        steps: Training steps of a task.
    """
    bare = replace(plan, layers={}, images=support, optimizer="sgd", savings=plan.savings - {"fused_update"})
    parts = [_part("prototypes", support, source.step(network, bare))]
    if inspected:
        layers = {
            name: LayerPlan() if network[name].geometry.bias_elements else LayerPlan((0,), "out", False)  # type: ignore[attr-defined]
            for name in inspected
        }
        pass_ = source.step(network, replace(bare, layers=layers))
        parts.append(_part("Fisher pass", support, pass_))
    energy = None if step.energy_mj is None else steps * step.energy_mj
    parts.append(TaskPart("training", steps * plan.images, steps * step.latency_ms, energy))
    return tuple(parts)


def _part(name: str, images: int, cost: StepCost) -> TaskPart:
    """The cost without the update, which is none here."""
    updates = [row for row in cost.rows if row["pass"] == "update"]
    latency_ms = cost.latency_ms - sum(float(row["latency_ms"]) for row in updates)  # type: ignore[arg-type]
    energy_mj = cost.energy_mj
    if energy_mj is not None and cost.latency_ms:
        energy_mj *= latency_ms / cost.latency_ms
    return TaskPart(name, images, latency_ms, energy_mj)
