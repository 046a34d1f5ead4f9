"""From a network and a step plan of dtype ``s8`` to the ops of one training step, in order.

Forward is int8; backward are float32 gradients with respect to the int8 values, towards int8 weights (MCUNetV3, arXiv
2206.15472). A layer's gradient first passes the op ``requantize``, which undoes the output's scale and blocks what was
clamped; what was clamped is known from the output itself where it is kept, else from a bit an element.
"""

from __future__ import annotations

import math

from profiler.errors import UserError
from profiler.geometry import Weighted
from profiler.ops import (
    Add,
    Conv2d,
    Depthwise,
    Dequantize,
    MaskSource,
    MaxPool2d,
    Pass,
    Requantize,
    SaturationMask,
)
from profiler.workloads.combined_s8 import fused_geometry, overwrites_input, streamed_geometry
from profiler.workloads.network import INPUT, Network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.quantized import Node, output_node, quantization_of, quantized_nodes, streamed_quantization
from profiler.workloads.step import StepBuilder, output_of
from profiler.workloads.traits import buffers_of, op_of

DEQUANTIZE_LAYER = "head.dequantize"


class Int8Builder(StepBuilder):
    """Collects the ops and tensors of one int8 training step."""

    def __init__(self, network: Network, plan: StepPlan) -> None:
        super().__init__(network, plan)
        self.nodes = quantized_nodes(network)
        self.last = output_node(network, self.nodes)
        self.needs = {name for name in self.nodes if name in self.needs_gradient}
        self.fused = "fused_update" in plan.savings
        self._check_plan()
        #: Outputs that backward reads as inputs of trained weights.
        self.saved = {self.nodes[name].inputs[0] for name, p in self.planned.items() if p.channels}
        readers: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        self.readers = readers
        self.streamed = self._streamed() if "stream" in plan.savings else {}
        self.recomputed = self._recomputed() if "recompute_masks" in plan.savings else {}

    def _check_plan(self) -> None:
        for name, p in self.planned.items():
            if p.channels and p.channels[-1] != len(p.channels) - 1:
                raise UserError(
                    f"the plan trains single channels of layer {name!r}; with dtype s8 those that train are the first "
                    "so many, whose weights lie in memory of their own",
                    hint="let the plan train a slice that starts at channel 0",
                )
            if isinstance(self.network[name].geometry, MaxPool2d):
                raise UserError(f"layer {name!r} has nothing to train", hint="take it out of the plan")
        if self.fused and (self.plan.images != 1 or self.plan.optimizer != "sgd"):
            raise UserError(
                f"a fused update keeps no gradient, so it wants one image and sgd; the plan has {self.plan.images} "
                f"images and {self.plan.optimizer}",
                hint="take fused_update out of the plan's savings, or set images to 1 and the optimizer to sgd",
            )
        for name in self.needs:
            if isinstance(self.nodes[name].geometry, MaxPool2d):
                raise UserError(
                    f"the plan's gradient passes max pooling {name!r}, which has no int8 kernel backward",
                    hint="train later layers only, or make the plan with dtype f32",
                )

    # ---- forward

    def _streamed(self) -> dict[str, Node]:
        """Pointwise convolutions that are streamed, by name, and the depthwise one that each feeds: neither is met by
        a gradient."""
        pairs = {}
        for node in self.nodes.values():
            g = node.geometry
            source = self.nodes.get(node.inputs[0])
            if source is None or streamed_geometry(source.geometry, g) is None:
                continue
            alone = len(self.readers[source.name]) == 1
            if alone and not {source.name, node.name} & self.needs and source.name not in self.planned:
                pairs[source.name] = node
        return pairs

    def _recomputed(self) -> dict[str, Node]:
        """Depthwise convolutions whose mask, and that of the layer before, which is returned, are computed again: the
        input of that layer is kept anyway."""
        pairs = {}
        for node in self.nodes.values():
            source = self.nodes.get(node.inputs[0])
            if not isinstance(node.geometry, Depthwise) or source is None or not isinstance(source.geometry, Conv2d):
                continue
            bits = self._needs_bits(node) and self._needs_bits(source)
            if bits and source.inputs[0] in self.saved and len(self.readers[source.name]) == 1:
                pairs[node.name] = source
        return pairs

    def _recompute_masks(self, depthwise: Node) -> None:
        """Run two layers forward once more, for what was clamped of their outputs."""
        for node in (self.recomputed[depthwise.name], depthwise):
            self._forward_node(node, again=True)
            self._mask(node, again=True)

    def forward(self) -> None:
        again = {name for d, source in self.recomputed.items() for name in (d, source.name)}
        for node in self.nodes.values():
            if node.name in self.streamed:
                self._stream(node, self.streamed[node.name])
            elif not any(node is target for target in self.streamed.values()):
                self._forward_node(node)
                if node.name not in again:
                    self._mask(node)
        dequantize = Dequantize(math.prod(self.nodes[self.last].geometry.output_shape))
        tensors = (output_of(self.last), f"{DEQUANTIZE_LAYER}/scale", output_of(DEQUANTIZE_LAYER))
        q = quantization_of(self.nodes, self.nodes[self.last])
        self._emit(DEQUANTIZE_LAYER, op_of(dequantize, Pass.FORWARD, "s8"), tensors, quantization=_as_input(q))
        self.forward_head(output_of(DEQUANTIZE_LAYER))

    def _segments(self, name: str) -> tuple[int, str]:
        """How many channels' weights of a layer lie apart, and along which axis."""
        p = self.planned.get(name, LayerPlan(bias=False))
        return len(p.channels), p.axis if p.channels else "out"

    def _forward_node(self, node: Node, *, again: bool = False) -> None:
        g, name = node.geometry, node.name
        sources = [output_of(source) for source in node.inputs]
        if again and node.name in self.recomputed:
            sources = [f"{node.inputs[0]}/output_again"]
        if isinstance(g, Weighted):
            k, axis = self._segments(name)
            op = op_of(g, Pass.FORWARD, "s8", k, axis, variant=self._variant(node))
            own = [f"{name}/{spec.role}" for spec in buffers_of(op)[1:]]
        else:
            op = op_of(g, Pass.FORWARD, "s8")
            own = [f"{name}/{spec.role}" for spec in buffers_of(op)[len(sources) :]]
        if again:
            own[-1] = f"{name}/output_again"
        self._emit(name, op, (*sources, *own), quantization=quantization_of(self.nodes, node))

    def _variant(self, node: Node) -> str:
        """``in_place`` for a depthwise convolution whose input nothing reads again."""
        g, source = node.geometry, node.inputs[0]
        if "in_place" not in self.plan.savings or not isinstance(g, Depthwise):
            return "blocked"
        read_again = source in self.saved or len(self.readers[source]) > 1 or source == INPUT
        return "in_place" if overwrites_input(g) and not read_again else "blocked"

    def _stream(self, pointwise: Node, depthwise: Node) -> None:
        g = streamed_geometry(pointwise.geometry, depthwise.geometry)
        assert g is not None
        op = op_of(g, Pass.FORWARD, "s8")
        tensors = [output_of(pointwise.inputs[0])]
        for spec in buffers_of(op)[1:-1]:
            role = spec.role.removeprefix("depthwise_")
            owner = depthwise if role != spec.role else pointwise
            tensors.append(f"{owner.name}/{role}")
        q = streamed_quantization(self.nodes, pointwise, depthwise)
        self._emit(pointwise.name, op, (*tensors, output_of(depthwise.name)), quantization=q)

    def _needs_bits(self, node: Node) -> bool:
        """Whether what was clamped of a node's output must be noted before the output is gone."""
        clamps = isinstance(node.geometry, Weighted | Add)
        return clamps and node.name in self.needs and node.name not in self.saved

    def _mask(self, node: Node, *, again: bool = False) -> None:
        if not self._needs_bits(node):
            return
        g = SaturationMask(math.prod(node.geometry.output_shape))
        q = quantization_of(self.nodes, node)
        output = f"{node.name}/output_again" if again else output_of(node.name)
        self._emit(node.name, op_of(g, Pass.FORWARD, "s8"), (output, f"{node.name}/mask"), quantization=q)

    # ---- backward

    def backward(self) -> None:
        gradient = self.backward_head(output_of(DEQUANTIZE_LAYER))
        result = f"{self.last}/grad_from/{DEQUANTIZE_LAYER}"
        g = Dequantize(math.prod(self.nodes[self.last].geometry.output_shape))
        self._emit(DEQUANTIZE_LAYER, op_of(g, Pass.GRAD_INPUT, "s8"), (gradient, f"{DEQUANTIZE_LAYER}/scale", result))
        self.gradient[self.last] = result
        for node in reversed(list(self.nodes.values())):
            if node.name in self.needs:
                self._backward_node(node)

    def _backward_node(self, node: Node) -> None:
        gradient = self.gradient.get(node.name)
        if gradient is None:
            raise UserError(
                f"the plan trains layer {node.name!r}, which the output of {self.network.name} does not depend on",
                hint="take it out of the plan",
            )
        g = node.geometry
        targets = [name for name in node.inputs if name in self.needs]
        if isinstance(g, Add):
            for position, name in enumerate(node.inputs):
                if name in self.needs:
                    self._contribute(name, self._requantize(node, gradient, f"scale_{'ab'[position]}", name))
            return
        if not isinstance(g, Weighted):
            for name in targets:
                result = f"{name}/grad_from/{node.name}"
                self._emit(node.name, op_of(g, Pass.GRAD_INPUT), (gradient, result))
                self._contribute(name, result)
            return
        own = self._requantize(node, gradient, "scale", node.name)
        p = self.planned.get(node.name)
        if p is not None and not p.channels:  # first, so that the gradient is free for what comes next
            self._train(node, own)
        for name in targets:  # before the weights change
            if name in self.recomputed:
                self._recompute_masks(self.nodes[name])
            result = f"{name}/grad_from/{node.name}"
            k, axis = self._segments(node.name)
            op = op_of(g, Pass.GRAD_INPUT, "s8", k, axis)
            weights = [f"{node.name}/{spec.role}" for spec in buffers_of(op)[1:-1]]
            self._emit(node.name, op, (own, *weights, result))
            self._contribute(name, result)
        if p is not None and p.channels:
            self._train(node, own)

    def _requantize(self, node: Node, gradient: str, scale: str, towards: str) -> str:
        """The gradient of a node's accumulators (or, of a sum, of one term)."""
        g = node.geometry
        channels = self._channels(node)
        source = MaskSource.BITS if self._needs_bits(node) else MaskSource.OUTPUT
        op = op_of(Requantize(math.prod(g.output_shape) // channels, channels, source), Pass.GRAD_INPUT, "s8")
        mask = f"{node.name}/mask" if source is MaskSource.BITS else output_of(node.name)
        result = f"{node.name}/grad_sum_of/{towards}"
        tensors = (mask, f"{node.name}/{scale}", gradient, result)
        self._emit(node.name, op, tensors, quantization=quantization_of(self.nodes, node))
        return result

    def _channels(self, node: Node) -> int:
        """Of a node's output; a sum, whose geometry knows elements only, has those of its terms."""
        while isinstance(node.geometry, Add) and node.inputs[0] in self.nodes:
            node = self.nodes[node.inputs[0]]
        return node.geometry.output_shape[-1]

    def _train(self, node: Node, gradient: str) -> None:
        g, p = node.geometry, self.planned[node.name]
        trains = {"trained_channels": len(p.channels), "trained_axis": p.axis, "trains_bias": p.bias}
        q = quantization_of(self.nodes, node)
        saved = (output_of(node.inputs[0]),) if p.channels else ()
        fused = fused_geometry(g, trains_weights=bool(p.channels)) if self.fused else None
        if fused is not None:
            op = op_of(fused, Pass.UPDATE, "s8", **trains)
            own = [f"{node.name}/{spec.role}" for spec in buffers_of(op)[len(saved) + 1 :]]
            self._emit(node.name, op, (*saved, gradient, *own), quantization=q)
            return
        op = op_of(g, Pass.GRAD_WEIGHT, "s8", **trains)
        own = [f"{node.name}/{spec.role}" for spec in buffers_of(op)[len(saved) + 1 :]]
        self._emit(node.name, op, (*saved, gradient, *own), quantization=q)

    def updates(self) -> None:
        for name, p in self.planned.items():
            g = self.nodes[name].geometry
            if self.fused and fused_geometry(g, trains_weights=bool(p.channels)) is not None:
                continue
            op = op_of(g, Pass.UPDATE, "s8", len(p.channels), p.axis, p.bias, self.plan.optimizer)
            tensors = tuple(f"{name}/{spec.role}" for spec in buffers_of(op))
            self._emit(name, op, tensors, per_image=False, quantization=quantization_of(self.nodes, self.nodes[name]))


def _as_input(q):
    """The scalars with the output's zero point as the input's: for what reads that output."""
    return type(q)(q.output_zero_point)
