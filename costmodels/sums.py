"""Latencies of layers and steps as sums over ops, each part asked for once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from profiler.ops import Layer, Op, Optimizer, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan


class OpSums:
    """What a cost source that sums over ops says of layers and of many similar steps.

    Which ops there are in a step, besides the gradients and updates of what is trained, depends only on which layers'
    outputs the plan influences. So most of the plans that a selection tries are judged by a few additions, and only
    one of each set of influenced layers is lowered to ops.

    Args:
        latencies_us: Latencies of ops in order, in microseconds.
    """

    def __init__(self, latencies_us: Callable[[Sequence[Op]], Sequence[float]]) -> None:
        self._latencies_us = latencies_us
        self._rest_us: dict[tuple, float] = {}

    def step_latency_ms(self, network: Network, plan: StepPlan) -> float:
        """:meth:`costmodels.sources.CostSource.step_latency_ms`.

        Raises:
            UserError: the plan is for another network, or cannot be lowered.
        """
        if plan.dtype == "s8":
            # Where weights lie, what is recomputed and what is fused depends on all of the plan: there is no rest.
            return self._whole(network, plan) / 1e3
        needed = (plan.fingerprint, network.fingerprint, plan.head, plan.images, frozenset(plan.influenced(network)))
        if needed not in self._rest_us:
            self._rest_us[needed] = self._rest(network, plan)
        trained = [
            plan.images * gradient + update
            for gradient, update in (
                self._latencies_us(_trained_ops(network[name], layer_plan, plan.optimizer))
                for name, layer_plan in plan.layers.items()
                if layer_plan.trains
            )
        ]
        return float(self._rest_us[needed] + sum(trained)) / 1e3

    def layer_latency_us(self, layer: Layer, *, images: int, optimizer: Optimizer) -> float:
        """An image's ``grad_weight`` of all channels and ``grad_input`` of one layer, and its share of the update."""
        g = layer.geometry
        everything = LayerPlan(tuple(range(g.channels("out"))), bias=bool(g.bias_elements))  # type: ignore[attr-defined]
        ops = [*_trained_ops(layer, everything, optimizer), Op(g, Pass.GRAD_INPUT)]
        gradient, update, chain = self._latencies_us(ops)
        return float(gradient + chain + update / images)

    def _whole(self, network: Network, plan: StepPlan) -> float:
        """Microseconds of the step, lowered to ops."""
        from profiler.workloads.step import training_step  # noqa: PLC0415  (loads the kernels' library)

        step = training_step(network, plan)
        each_image = sum(self._latencies_us([item.op for item in step.image_ops]))
        return float(plan.images * each_image + sum(self._latencies_us([item.op for item in step.update_ops])))

    def _rest(self, network: Network, plan: StepPlan) -> float:
        """Microseconds of everything but gradients of weights and updates."""
        from profiler.workloads.step import training_step  # noqa: PLC0415  (loads the kernels' library)

        image_ops = [op.op for op in training_step(network, plan).image_ops if op.op.pass_ is not Pass.GRAD_WEIGHT]
        return plan.images * sum(self._latencies_us(image_ops))


def _trained_ops(layer: Layer, layer_plan: LayerPlan, optimizer: Optimizer) -> tuple[Op, Op]:
    """``grad_weight`` and ``update`` of what trains in a layer."""
    what = {
        "trained_channels": len(layer_plan.channels),
        "trained_axis": layer_plan.axis,
        "trains_bias": layer_plan.bias,
    }
    geometry = layer.geometry
    return Op(geometry, Pass.GRAD_WEIGHT, **what), Op(geometry, Pass.UPDATE, optimizer=optimizer, **what)
