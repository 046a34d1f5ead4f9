"""Costs by formula, as TinyTrain counts them (arXiv 2307.09988): MACs for compute, elements for memory.

Nothing here is measured. Compute is multiply-accumulates, a whole backward pass being twice the forward pass; memory
is ``max over layers of (in + out / groups)`` floats plus 16 B a trained parameter (weight, gradient, two moments). Of
steps of dtype ``s8`` memory is counted as MCUNetV3 counts it (arXiv 2206.15472).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from costmodels.sources import MemoryBounds, Moment, StepCost, StepSums
from profiler.errors import UserError
from profiler.ops import WORD_BYTES, Conv2d, Depthwise, Geometry, Layer, Op, Optimizer, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan

Accounting = Literal["chain", "own"]

#: Weight, gradient and Adam's two moments, 4 B each: charged whichever optimiser runs, as the published tables do.
BYTES_PER_TRAINED_PARAMETER = 16


def layer_macs(geometry: Geometry) -> int:
    """M_i of TinyTrain's criterion: a layer's own forward MACs, padding counted and bias not."""
    return geometry.forward_macs


def layer_parameters(geometry: Geometry) -> int:
    """‖W_i‖ of TinyTrain's criterion: the *number* of a layer's weights, bias not counted."""
    return math.prod(geometry.weight_shape) if geometry.trainable else 0  # type: ignore[attr-defined]


def forward_macs(network: Network) -> int:
    """MACs of one image's forward pass."""
    return sum(layer.geometry.forward_macs for layer in network.layers)


def gradient_layers(network: Network, plan: StepPlan) -> set[str]:
    """Names of the layers whose ``grad_input`` runs: those that read a tensor which a trained layer influences.

    In a plain chain these are the layers after the frontier; where the network forks, only what lies on a way from
    a trained layer to the loss.
    """
    influenced = plan.influenced(network)
    return {layer.name for layer in network.layers if any(name in influenced for name in layer.inputs)}


def backward_macs(network: Network, plan: StepPlan, accounting: Accounting = "chain") -> int:
    """MACs of one image's backward pass under ``plan``.

    ``own`` is a sum over the layers that train weights, each counted alone: M_i for its ``grad_input`` and M_i times
    its share of trained channels for its ``grad_weight``, so that training everything costs twice the forward pass
    (the published 44.9 M for MCUNet). ``chain`` counts what has to run: the ``grad_weight`` of trained channels and
    the ``grad_input`` of every layer between the frontier and the loss, trained or not; the frontier itself needs no
    ``grad_input``, so training everything costs twice the forward pass less the first layer's MACs.
    """
    return sum(macs for _, pass_, macs in _backward(network, plan, accounting))


def memory_bytes(network: Network, plan: StepPlan) -> int:
    """TinyTrain's memory: the largest ``(in + out / groups)`` of a weighted layer in floats, and 16 B a parameter.

    Trained biases count as parameters. Of a plan of dtype ``s8``: :func:`int8_memory_bytes`.
    """
    if plan.dtype == "s8":
        return int8_memory_bytes(network, plan)
    largest = 0
    trained = 0
    for layer in network.trainable:
        g = layer.geometry
        groups = g.groups if isinstance(g, Conv2d) else g.in_channels if isinstance(g, Depthwise) else 1
        largest = max(largest, math.prod(g.input_shape) + math.prod(g.output_shape) // groups)
        layer_plan = plan.layers.get(layer.name)
        if layer_plan is not None and layer_plan.trains:
            op = _gradient_op(g, layer_plan)
            trained += op.trained_weights + op.trained_biases
    return largest * WORD_BYTES + BYTES_PER_TRAINED_PARAMETER * trained


def int8_memory_bytes(network: Network, plan: StepPlan) -> int:
    """MCUNetV3's count (arXiv 2206.15472) of what training keeps beside inference, by which its schemes are named.

    In bits: of a layer whose bias trains, one an output element (what was clamped) and 32 a bias; of one whose weights
    train also 8 an element of the trained channels of its input and 8 a trained weight. Activations of the forward pass
    and gradients are not in it.
    """
    bits = 0
    for name, p in plan.layers.items():
        g = network[name].geometry
        if not p.trains:
            continue
        op = _gradient_op(g, p)
        bits += math.prod(g.output_shape) + 32 * op.trained_biases
        if p.channels:
            kept = math.prod(g.input_shape)
            if p.axis == "in" or isinstance(g, Depthwise):
                kept = kept // g.channels(p.axis) * len(p.channels)  # type: ignore[attr-defined]
            bits += 8 * (kept + op.trained_weights)
    return -(-bits // 8)


def full_plan(network: Network, **settings: object) -> StepPlan:
    """The plan that trains every channel and bias.

    Args:
        network: What is trained.
        settings: Of the plan: ``head``, ``images``, ``optimizer``, ``dtype`` and so on.
    """
    layers = {layer.name: LayerPlan.whole(layer) for layer in network.trainable}
    return StepPlan.for_network(network, layers, **settings)


@dataclass(frozen=True)
class AnalyticalCosts:
    """The cost source of formulas.

    Args:
        us_per_mac: The one scalar that turns MACs into time on a device; a fitted model's ``us_per_mac``. Without it
            there are MACs and bytes but no latency: table columns are NaN and asking for a latency is an error.
        accounting: How a step's backward MACs are counted, see :func:`backward_macs`.
        device: Whose scalar it is, for the label.
    """

    us_per_mac: float | None = None
    accounting: Accounting = "chain"
    device: str = ""

    @classmethod
    def scaled_to_step(
        cls, network: Network, plan: StepPlan, latency_ms: float, accounting: Accounting = "chain", device: str = ""
    ) -> AnalyticalCosts:
        """The source whose one scalar makes this step, as measured, cost what it took.

        Args:
            network: What was run.
            plan: What it trained; :func:`full_plan` for the full step.
            latency_ms: What it took.
            accounting: How MACs are counted, of this step and of all others.
            device: For the label.
        """
        macs = cls(None, accounting).step_macs(network, plan)
        return cls(1e3 * latency_ms / macs, accounting, device)

    @property
    def label(self) -> str:
        suffix = f", {self.device}" if self.device else ""
        return f"analytical ({self.accounting} MACs{suffix})"

    def op_latency_us(self, op: Op) -> float:
        """``us_per_mac`` times the op's MACs; 0 for ops without MACs, which this way of counting does not see.

        Raises:
            UserError: no ``us_per_mac`` was given.
        """
        return self._scalar() * op.macs

    def predict(self, ops: Sequence[Op]) -> pd.DataFrame:
        """A row an op; latencies are NaN without ``us_per_mac``."""
        scalar = self._scalar_or_nan
        return pd.DataFrame(
            {
                "op_key": [op.key for op in ops],
                "macs": [op.macs for op in ops],
                "latency_us": [scalar * op.macs for op in ops],
                **dict.fromkeys(("latency_std_us", "latency_low_us", "latency_high_us"), math.nan),
                **dict.fromkeys(("energy_uj", "energy_std_uj", "energy_low_uj", "energy_high_uj"), math.nan),
                "scratch_bytes": 0,
                "memory_bytes": [op.bytes_touched for op in ops],
                "extrapolates": False,
            }
        )

    def step_macs(self, network: Network, plan: StepPlan) -> int:
        """MACs of one training step: forward and backward of every image."""
        return plan.images * (forward_macs(network) + backward_macs(network, plan, self.accounting))

    def step(self, network: Network, plan: StepPlan) -> StepCost:
        """Cost of a step; ``latency_ms`` is NaN without ``us_per_mac``. The head's ops are not counted."""
        scalar = self._scalar_or_nan
        counted = [(layer, Pass.FORWARD, layer.geometry.forward_macs) for layer in network.layers]
        counted += _backward(network, plan, self.accounting)
        rows = tuple(
            {
                "layer": layer.name,
                "kind": layer.geometry.kind,
                "pass": str(pass_),
                "dtype": plan.dtype,
                "count": plan.images,
                "macs": plan.images * macs,
                "latency_ms": plan.images * macs * scalar / 1e3,
                "latency_std_ms": math.nan,
                "energy_mj": None,
                "extrapolates": False,
            }
            for layer, pass_, macs in counted
        )
        total = sum(macs for *_, macs in counted) * plan.images
        return StepCost(total * scalar / 1e3, math.nan, None, memory_bytes(network, plan), rows)

    def step_latency_ms(self, network: Network, plan: StepPlan) -> float:
        """``step(network, plan).latency_ms``, without its rows; NaN without ``us_per_mac``."""
        return self.step_macs(network, plan) * self._scalar_or_nan / 1e3

    def step_sums(self, network: Network, plan: StepPlan) -> StepSums:
        """Latency alone: formulas have no uncertainty and no energy."""
        return StepSums(self.step_latency_ms(network, plan), math.nan)

    def step_memory(self, network: Network, plan: StepPlan) -> MemoryBounds:
        """:func:`memory_bytes`, twice."""
        counted = memory_bytes(network, plan)
        return MemoryBounds(counted, counted)

    def step_moments(self, network: Network, plan: StepPlan) -> dict[Moment, int]:
        """:func:`memory_bytes`: formulas know no moments."""
        return {(): memory_bytes(network, plan)}

    def layer_cost(self, layer: Layer, *, images: int, optimizer: Optimizer) -> tuple[float, str]:
        """M_i, the layer's own MACs, as published: neither images nor optimizer count."""
        return float(layer_macs(layer.geometry)), "MACs"

    @property
    def _scalar_or_nan(self) -> float:
        return math.nan if self.us_per_mac is None else self.us_per_mac

    def _scalar(self) -> float:
        if self.us_per_mac is None:
            raise UserError(
                "analytical costs have MACs but no latency, because no time per MAC was given",
                hint="fit a run with `costmodels fit RUN --out MODEL` and pass its us_per_mac (in MODEL/model.json)",
            )
        return self.us_per_mac


def _gradient_op(geometry: Geometry, layer_plan: LayerPlan) -> Op:
    return Op(
        geometry,
        Pass.GRAD_WEIGHT,
        trained_channels=len(layer_plan.channels),
        trained_axis=layer_plan.axis,
        trains_bias=layer_plan.bias,
    )


def _backward(network: Network, plan: StepPlan, accounting: Accounting) -> list:
    """(layer, pass, MACs of one image) in the order in which the passes run."""
    if accounting not in ("chain", "own"):
        raise ValueError(f"accounting must be 'chain' or 'own', got {accounting!r}")
    if accounting == "own":
        chain = {name for name, layer_plan in plan.layers.items() if layer_plan.channels}
    else:
        chain = gradient_layers(network, plan)
    counted = []
    for layer in reversed(network.layers):
        layer_plan = plan.layers.get(layer.name)
        if layer_plan is not None and layer_plan.trains:
            counted.append((layer, Pass.GRAD_WEIGHT, _gradient_op(layer.geometry, layer_plan).macs))
        if layer.name in chain:
            counted.append((layer, Pass.GRAD_INPUT, layer.geometry.forward_macs))
    return counted
