"""TinyTrain's criterion: which layers are worth training for what they cost.

    P_i = Σ_o Δ_o
    s_i = P_i / [ (m_i / max_l m_l) · (c_i / max_l c_l) ]

Published (arXiv 2307.09988) are m_i = ‖W_i‖, the number of layer i's weights, and c_i = M_i, its own MACs. With the
device's denominator m_i is what training the layer keeps in memory (:func:`persistent_bytes`) and c_i what the cost
source says that its backward ops take. Neither counts that training layer i needs the gradients of all later layers;
``frontier`` adds those to c_i. The maxima run over all layers with weights, so that scores do not depend on how many of
them are inspected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from costmodels.analytical import AnalyticalCosts, gradient_layers, layer_macs, layer_parameters
from costmodels.sources import CostSource
from profiler.ops import Add, Layer, Op, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain.gain import can_train

#: What a layer's potential is divided by.
Denominator = Literal["published", "device"]


@dataclass(frozen=True)
class Score:
    """A layer's standing.

    Attributes:
        layer: Its name.
        potential: P_i.
        memory: m_i, in ``memory_unit``.
        memory_unit: ``weights`` or ``bytes``.
        cost: c_i, in ``unit``.
        unit: ``MACs`` or ``us``.
        score: s_i; 0 where the potential is.
    """

    layer: str
    potential: float
    memory: float
    memory_unit: str
    cost: float
    unit: str
    score: float


@dataclass(frozen=True)
class Terms:
    """What potentials are divided by: the same for every task.

    Attributes:
        memory: m_i of every layer that can train, in ``units[0]``.
        cost: c_i of these, in ``units[1]``.
        units: ``weights`` and ``MACs``, or ``bytes`` and ``us``.
    """

    memory: Mapping[str, float]
    cost: Mapping[str, float]
    units: tuple[str, str]


def scores(
    network: Network,
    information: Mapping[str, Tensor],
    source: CostSource,
    template: StepPlan,
    *,
    denominator: Denominator | None = None,
    frontier: bool = False,
) -> dict[str, Score]:
    """s_i of every layer that can train and of which the information is known: :func:`scores_of` :func:`terms`."""
    return scores_of(information, terms(network, source, template, denominator=denominator, frontier=frontier))


def default_denominator(source: CostSource) -> Denominator:
    """The published one where the source is analytical, else the device's."""
    return "published" if isinstance(source, AnalyticalCosts) else "device"


def terms(
    network: Network,
    source: CostSource,
    template: StepPlan,
    *,
    denominator: Denominator | None = None,
    frontier: bool = False,
) -> Terms:
    """m_i and c_i of every layer that can train.

    Args:
        network: The network.
        source: Where a device's costs come from; not asked for the published denominator.
        template: A plan with the images, optimizer and dtype of the step.
        denominator: See this module; by default the published one where the source is analytical.
        frontier: Count the gradients of later layers as a cost of each layer.

    Raises:
        ValueError: no such denominator.
    """
    denominator = denominator or default_denominator(source)
    if denominator not in ("published", "device"):
        raise ValueError(f"the denominator is published or device, got {denominator!r}")
    published = denominator == "published"
    everything = {x.name: LayerPlan.whole(x) for x in network.trainable if can_train(x, template.dtype)}
    memory = {
        name: layer_parameters(network[name].geometry)
        if published
        else persistent_bytes(network[name], plan, template, saved_input=True)
        for name, plan in everything.items()
    }
    costs = _published_costs(network, template, frontier) if published else _costs(network, source, template, frontier)
    return Terms(memory, costs, ("weights", "MACs") if published else ("bytes", "us"))


def scores_of(information: Mapping[str, Tensor], terms: Terms) -> dict[str, Score]:
    """s_i of the layers of which information and terms are known.

    Args:
        information: Δ_o by layer name, shape (output channels,) each.
        terms: m_i and c_i.
    """
    largest_memory, largest_cost = max(terms.memory.values()), max(terms.cost.values())
    result = {}
    for name, memory in terms.memory.items():
        if name not in information:
            continue
        cost = terms.cost[name]
        potential = float(information[name].double().sum())
        share = (memory / largest_memory) * (cost / largest_cost)
        score = potential / share if potential else 0.0
        result[name] = Score(name, potential, memory, terms.units[0], cost, terms.units[1], score)
    return result


def persistent_bytes(layer: Layer, plan: LayerPlan, template: StepPlan, *, saved_input: bool) -> int:
    """Bytes that training (part of) a layer keeps, beside what the forward pass needs anyway.

    Its weights in memory that can be written, gradients, the optimiser's moments and, with ``saved_input``, the input
    kept from the forward pass to the gradient. An update that is fused with the gradient keeps no gradient.
    """
    trains = {"trained_channels": len(plan.channels), "trained_axis": plan.axis, "trains_bias": plan.bias}
    update = Op(layer.geometry, Pass.UPDATE, template.dtype, optimizer=template.optimizer, **trains)
    fused = "fused_update" in template.savings
    kept = sum(
        b.byte_count for b in update.buffers() if b.role != "scales" and not (fused and b.role.endswith("_gradient"))
    )
    if saved_input and plan.channels:
        gradient = Op(layer.geometry, Pass.GRAD_WEIGHT, template.dtype, **trains)
        kept += sum(b.byte_count for b in gradient.buffers() if b.role == "input")
    return kept


def _published_costs(network: Network, template: StepPlan, frontier: bool) -> dict[str, float]:
    """M_i, and with ``frontier`` the MACs of the later layers' ``grad_input``."""
    costs = {}
    for layer in network.trainable:
        costs[layer.name] = float(layer_macs(layer.geometry))
        if frontier:
            costs[layer.name] += sum(network[name].geometry.forward_macs for name in _later(network, layer, template))
    return costs


def _costs(network: Network, source: CostSource, template: StepPlan, frontier: bool) -> dict[str, float]:
    """An image's ``grad_input`` and ``grad_weight`` of all channels and its share of the update, in microseconds."""
    costs = {}
    layers = [layer for layer in network.trainable if can_train(layer, template.dtype)]
    for layer in layers:
        if template.dtype == "f32" and not isinstance(source, AnalyticalCosts):  # whose layer costs are MACs, not time
            own = source.layer_cost(layer, images=template.images, optimizer=template.optimizer)[0]
        else:
            own = _sum_of_ops_us(layer, source, template)
        costs[layer.name] = own
    if frontier:
        chain = {
            x.name: source.op_latency_us(Op(x.geometry, Pass.GRAD_INPUT, template.dtype))
            for x in network.layers
            if not isinstance(x.geometry, Add) and (template.dtype == "f32" or x.geometry.trainable)
        }
        for layer in layers:
            costs[layer.name] += sum(chain.get(name, 0.0) for name in _later(network, layer, template))
    return costs


def _sum_of_ops_us(layer: Layer, source: CostSource, template: StepPlan) -> float:
    plan = LayerPlan.whole(layer)

    def op(pass_: Pass) -> Op:
        trains = {"trained_channels": len(plan.channels), "trained_axis": plan.axis, "trains_bias": plan.bias}
        if pass_ is Pass.GRAD_INPUT:  # int8 weights that train lie in a segment of their own, which it reads
            trains = trains | {"trains_bias": False} if template.dtype == "s8" else {}
        return Op(layer.geometry, pass_, template.dtype, optimizer=template.optimizer, **trains)

    us = {p: source.op_latency_us(op(p)) for p in (Pass.GRAD_INPUT, Pass.GRAD_WEIGHT, Pass.UPDATE)}
    return us[Pass.GRAD_INPUT] + us[Pass.GRAD_WEIGHT] + us[Pass.UPDATE] / template.images


def _later(network: Network, layer: Layer, template: StepPlan) -> set[str]:
    """Names of the layers whose ``grad_input`` training this layer alone would need."""
    plan = StepPlan.for_network(network, {layer.name: LayerPlan.whole(layer)}, head=template.head)
    return gradient_layers(network, plan)
