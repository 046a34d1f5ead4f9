"""The Fisher pass of TinyTrain as the device runs it: forward and gradients down to the first inspected layer, and of
every inspected layer the sum of activation times gradient over each channel's positions.

That sum is the weight gradient of a depthwise 1×1 convolution whose input is the layer's output, so that it needs no op
of its own:

    s_no = Σ_d a_nd · g_nd          one image n, channel o, positions d

What is left of Δ_o = 1/(2N) · Σ_n s_no², a square and a sum a channel, has no op: images pass one at a time, and who
drives the device reads the sums after each (4 B a channel) or squares them itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from profiler.ops import Depthwise, Layer, Op, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import Dtype, Head, LayerPlan, StepPlan
from profiler.workloads.step import Part, Trained, TrainingStep, assembled, output_of
from profiler.workloads.step_f32 import FloatParts, Targets


def sum_name(layer: str) -> str:
    """Name of the tensor with a layer's s_no, shape (output channels,)."""
    return f"{layer}/fisher_sum"


def sum_op(layer: Layer, dtype: Dtype = "f32") -> Op:
    """What computes a layer's s_no from its output and that output's gradient."""
    *extents, channels = layer.geometry.output_shape
    height, width = (*extents, 1, 1)[:2]
    positions = Depthwise(height, width, channels, 1, 1, has_bias=0)
    return Op(positions, Pass.GRAD_WEIGHT, dtype, trained_channels=channels)


def gradient_plan(network: Network, layers: Sequence[str], **settings) -> StepPlan:
    """A plan whose step carries gradients just as far as the Fisher pass of these layers does; ``settings`` are its."""
    trained = {
        name: LayerPlan() if network[name].geometry.bias_elements else LayerPlan((0,), "out", False)  # type: ignore[attr-defined]
        for name in layers
    }
    return StepPlan.for_network(network, trained, **settings)


def fisher_pass(network: Network, layers: Sequence[str], head: Head) -> TrainingStep:
    """The ops of one image's Fisher pass in float32; no weight changes.

    Args:
        network: The network.
        layers: Those of which s_no is wanted, in network order.
        head: The loss.

    Raises:
        UserError: there is no such layer, or the network does not end in what the head needs.
        ValueError: no layers.
    """
    if not layers:
        raise ValueError("a Fisher pass needs a layer at least")
    plan = gradient_plan(network, layers, head=head, optimizer="sgd")
    parts = _FisherParts(network, plan.head, plan.optimizer)
    return assembled(network, plan, list(parts.of_image(plan)))


class _FisherParts(FloatParts):
    """In place of weight gradients: sums of activation times gradient."""

    def forward(self, name: str, trained: Trained | None) -> Part:
        return super().forward(name, None)

    def backward(self, name: str, trained: Trained | None, gradient: str, targets: Targets) -> Part:
        passed_on = super().backward(name, None, gradient, targets)
        if trained is None:
            return passed_on
        part, op = Part(), sum_op(self.network[name])
        assert math.prod(self.network[name].geometry.output_shape) == math.prod(op.geometry.input_shape)
        part.add(name, op, (output_of(name), gradient, sum_name(name)))
        return Part(part.ops + passed_on.ops, part.tensors | passed_on.tensors, passed_on.gradients)
