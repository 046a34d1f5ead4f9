"""From a network and a step plan of dtype ``s8`` to the ops of one training step, in order.

Forward is int8; backward are float32 gradients with respect to the int8 values, towards int8 weights (MCUNetV3, arXiv
2206.15472). A layer's gradient first passes the op ``requantize``, which undoes the output's scale and blocks what was
clamped; what was clamped is known from the output itself where it is kept, else from a bit an element.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

from profiler.errors import UserError
from profiler.geometry import Weighted
from profiler.ops import (
    Add,
    Axis,
    Conv2d,
    Depthwise,
    Dequantize,
    FusedConv2d,
    MaskSource,
    MaxPool2d,
    Optimizer,
    Pass,
    Quantization,
    Requantize,
    SaturationMask,
)
from profiler.workloads.combined_s8 import fused_geometry, overwrites_input, streamed_geometry
from profiler.workloads.head import DEQUANTIZE_LAYER
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, Saving, StepPlan
from profiler.workloads.quantized import Node, output_node, quantization_of, quantized_nodes, streamed_quantization
from profiler.workloads.step import Part, Trained, output_of
from profiler.workloads.step_f32 import FloatParts, Targets, made_once, targets_of, trained_of
from profiler.workloads.traits import buffers_of, op_of


class Again(NamedTuple):
    """A layer that runs forward once more, for what was clamped of its output.

    Attributes:
        name: The layer.
        trained: What trains of it.
        in_place: Whether it overwrites its input.
    """

    name: str
    trained: Trained | None
    in_place: bool


class Masks(NamedTuple):
    """How it is known what was clamped.

    Attributes:
        noted: Of a layer's own output by bits, not by the output itself.
        again: The two layers before it, where what was clamped of them is to be found again first.
    """

    noted: bool
    again: tuple[Again, ...]


class Int8Parts(FloatParts):
    """Makes the parts of a network's int8 steps.

    Args:
        network: What is trained.
        head: The loss.
        optimizer: Of the update.
        savings: See :class:`profiler.workloads.plan.StepPlan`.

    Raises:
        UserError: a layer has no int8 kernels, or the network does not end in what the head needs.
    """

    def __init__(self, network: Network, head: Head, optimizer: Optimizer, savings: Collection[Saving]) -> None:
        super().__init__(network, head, optimizer)
        self.nodes = quantized_nodes(network)
        self.last = output_node(network, self.nodes)
        self.fused = "fused_update" in savings
        self._readers: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        #: Layers whose outputs are clamped.
        self._clamping = {name for name, node in self.nodes.items() if isinstance(node.geometry, Weighted | Add)}
        #: What could be saved, depending on what trains.
        chained = list(self._chained())
        self._streamable = [
            (source.name, node.name)
            for source, node in chained
            if "stream" in savings and streamed_geometry(source.geometry, node.geometry) is not None
        ]
        self._overwriting = [
            (source.name, node.name)
            for source, node in chained
            if "in_place" in savings and overwrites_input(node.geometry)
        ]
        self._recomputable = [
            (source.name, node.name)
            for source, node in chained
            if "recompute_masks" in savings and self._recomputes(source, node)
        ]

    def _chained(self) -> Iterator[tuple[Node, Node]]:
        """Layers with the one before each that it alone reads."""
        for node in self.nodes.values():
            source = self.nodes.get(node.inputs[0])
            if source is not None and len(self._readers[source.name]) == 1:
                yield source, node

    def _recomputes(self, source: Node, node: Node) -> bool:
        """Whether what is clamped of a depthwise convolution and the layer before it can be found again, just before
        the layer behind passes a gradient on."""
        readers = self._readers.get(node.name, ())
        behind = len(readers) == 1 and isinstance(readers[0].geometry, Weighted)
        return isinstance(node.geometry, Depthwise) and isinstance(source.geometry, Conv2d) and behind

    # ---- what a plan is made of

    def of_image(self, plan: StepPlan) -> Iterator[Part]:
        needs = {name for name in plan.influenced(self.network) if name in self.nodes}
        self._check(plan, needs)
        trained = trained_of(plan)
        # Outputs that backward reads as inputs of trained weights.
        saved = {self.nodes[name].inputs[0] for name, own in trained.items() if own.channels}
        # What was clamped of these outputs must be noted before they are gone.
        noted = (self._clamping & needs) - saved
        in_place = {name for source, name in self._overwriting if source not in saved}
        # Neither is met by a gradient.
        streamed = {source: name for source, name in self._streamable if source not in needs and name not in needs}
        # The input of the first is kept anyway.
        again = {
            name: tuple(Again(x, trained.get(x), x in in_place) for x in (source, name))
            for source, name in self._recomputable
            if name in noted and source in noted and self.nodes[source].inputs[0] in saved
        }
        later = {x.name for pair in again.values() for x in pair}
        ends = set(streamed.values())
        for name in self.nodes:
            if name in streamed:
                yield self.stream(name, streamed[name])
            elif name not in ends:
                yield self.forward_node(name, trained.get(name), name in in_place, name in noted and name not in later)
        yield self.forward_head()
        if not needs:
            return
        head = self.backward_head()
        yield head
        gradients = dict(head.gradients)
        for name in reversed(self.nodes):
            if name in needs:
                gradient = self._gradient(name, gradients)
                targets = targets_of(self.nodes[name].inputs, needs, gradients)
                masks = Masks(name in noted, next((again[target] for target, _ in targets if target in again), ()))
                part = self.backward_node(name, trained.get(name), gradient, targets, masks)
                gradients |= part.gradients
                yield part

    def of_update(self, plan: StepPlan) -> Iterator[Part]:
        trained = trained_of(plan)
        for name, node in self.nodes.items():
            if name in trained and self._fused(node, trained[name]) is None:
                yield self.update(name, trained[name])

    def _check(self, plan: StepPlan, needs: Collection[str]) -> None:
        if self.fused and (plan.images != 1 or plan.optimizer != "sgd"):
            raise UserError(
                f"a fused update keeps no gradient, so it wants one image and sgd; the plan has {plan.images} "
                f"images and {plan.optimizer}",
                hint="take fused_update out of the plan's savings, or set images to 1 and the optimizer to sgd",
            )
        for name, node in self.nodes.items():
            if name in needs and isinstance(node.geometry, MaxPool2d):
                raise UserError(
                    f"the plan's gradient passes max pooling {name!r}, which has no int8 kernel backward",
                    hint="train later layers only, or make the plan with dtype f32",
                )

    # ---- forward

    @made_once
    def forward_node(self, name: str, trained: Trained | None, in_place: bool, noted: bool) -> Part:
        """One layer's, and what was clamped of its output."""
        part = Part()
        self._forward_node(part, Again(name, trained, in_place), self._inputs(name), output_of(name))
        if noted:
            self._mask(part, name, output_of(name))
        return part

    def _forward_node(self, part: Part, run: Again, sources: Collection[str], output: str) -> None:
        name, trained, in_place = run
        g = self.nodes[name].geometry
        if isinstance(g, Weighted):
            variant = "in_place" if in_place else "blocked"
            op = op_of(g, Pass.FORWARD, "s8", *_segments(trained), variant=variant)
        else:
            op = op_of(g, Pass.FORWARD, "s8")
        own = [f"{name}/{spec.role}" for spec in buffers_of(op)[len(sources) : -1]]
        part.add(name, op, (*sources, *own, output), trained, quantization=self._quantization(name))

    def _inputs(self, name: str) -> list[str]:
        return [output_of(source) for source in self.nodes[name].inputs]

    def _quantization(self, name: str) -> Quantization:
        return quantization_of(self.nodes, self.nodes[name])

    def _mask(self, part: Part, name: str, output: str) -> None:
        g = SaturationMask(math.prod(self.nodes[name].geometry.output_shape))
        tensors = (output, f"{name}/mask")
        part.add(name, op_of(g, Pass.FORWARD, "s8"), tensors, quantization=self._quantization(name))

    @made_once
    def stream(self, name: str, depthwise: str) -> Part:
        """A pointwise convolution, row by row into the depthwise one that it feeds."""
        g = streamed_geometry(self.nodes[name].geometry, self.nodes[depthwise].geometry)
        assert g is not None
        part, op, tensors = Part(), op_of(g, Pass.FORWARD, "s8"), self._inputs(name)
        for spec in buffers_of(op)[1:-1]:
            role = spec.role.removeprefix("depthwise_")
            tensors.append(f"{depthwise if role != spec.role else name}/{role}")
        q = streamed_quantization(self.nodes, self.nodes[name], self.nodes[depthwise])
        part.add(name, op, (*tensors, output_of(depthwise)), quantization=q)
        return part

    @made_once
    def forward_head(self) -> Part:
        part, op = Part(), op_of(self._dequantize, Pass.FORWARD, "s8")
        tensors = (output_of(self.last), f"{DEQUANTIZE_LAYER}/scale", output_of(DEQUANTIZE_LAYER))
        # What is the network's output is its input.
        q = Quantization(self._quantization(self.last).output_zero_point)
        part.add(DEQUANTIZE_LAYER, op, tensors, quantization=q)
        self._forward_head(part, output_of(DEQUANTIZE_LAYER))
        return part

    @property
    def _dequantize(self) -> Dequantize:
        return Dequantize(math.prod(self.nodes[self.last].geometry.output_shape))

    # ---- backward

    @made_once
    def backward_head(self) -> Part:
        part, op = Part(), op_of(self._dequantize, Pass.GRAD_INPUT, "s8")
        gradient = self._backward_head(part, output_of(DEQUANTIZE_LAYER))
        part.gradients[self.last] = f"{self.last}/grad_from/{DEQUANTIZE_LAYER}"
        part.add(DEQUANTIZE_LAYER, op, (gradient, f"{DEQUANTIZE_LAYER}/scale", part.gradients[self.last]))
        return part

    @made_once
    def backward_node(self, name: str, trained: Trained | None, gradient: str, targets: Targets, masks: Masks) -> Part:
        """One layer's gradients.

        Args:
            name: The layer.
            trained: What trains of it.
            gradient: The tensor with the gradient of its output.
            targets: Its inputs that need a gradient.
            masks: How it is known what was clamped.
        """
        part = Part(gradients={layer: known for layer, known in targets if known})
        node = self.nodes[name]
        g = node.geometry
        if isinstance(g, Add):
            reached = dict(targets)
            for position, source in enumerate(node.inputs):
                if source in reached:
                    term = self._requantize(part, node, masks, gradient, position)
                    self._contribute(part, name, source, term)
            return part
        if not isinstance(g, Weighted):
            for target, _ in targets:
                result = f"{target}/grad_from/{name}"
                part.add(name, op_of(g, Pass.GRAD_INPUT), (gradient, result))
                self._contribute(part, name, target, result)
            return part
        own = self._requantize(part, node, masks, gradient)
        if trained is not None and not trained.channels:  # first, so that the gradient is free for what comes next
            self._train(part, node, trained, own)
        for target, _ in targets:  # before the weights change
            if masks.again:
                self._recompute_masks(part, *masks.again)
            result = f"{target}/grad_from/{name}"
            op = op_of(g, Pass.GRAD_INPUT, "s8", *_segments(trained))
            weights = [f"{name}/{spec.role}" for spec in buffers_of(op)[1:-1]]
            part.add(name, op, (own, *weights, result), trained)
            self._contribute(part, name, target, result)
        if trained is not None and trained.channels:
            self._train(part, node, trained, own)
        return part

    def _recompute_masks(self, part: Part, first: Again, depthwise: Again) -> None:
        """Run two layers forward once more, for what was clamped of their outputs."""
        sources = self._inputs(first.name)
        for run in (first, depthwise):
            output = f"{run.name}/output_again"
            self._forward_node(part, run, sources, output)
            self._mask(part, run.name, output)
            sources = [output]

    def _requantize(self, part: Part, node: Node, masks: Masks, gradient: str, term: int | None = None) -> str:
        """The gradient of a node's accumulators, or, of a sum, of one of its terms."""
        name = node.name
        source = MaskSource.BITS if masks.noted else MaskSource.OUTPUT
        g = Requantize(math.prod(node.geometry.output_shape) // node.channels, node.channels, source)
        mask = f"{name}/mask" if masks.noted else output_of(name)
        scale = "scale" if term is None else f"scale_{'ab'[term]}"
        result = f"{name}/grad_sum_of/{name if term is None else node.inputs[term]}"
        while result in part.tensors:  # a sum of a tensor and itself
            result += "+"
        tensors = (mask, f"{name}/{scale}", gradient, result)
        part.add(name, op_of(g, Pass.GRAD_INPUT, "s8"), tensors, quantization=self._quantization(name))
        return result

    def _fused(self, node: Node, trained: Trained) -> FusedConv2d | None:
        """What computes a layer's gradient and applies it at once; None where the gradient is kept."""
        return fused_geometry(node.geometry, trains_weights=trained.channels > 0) if self.fused else None

    def _train(self, part: Part, node: Node, trained: Trained, gradient: str) -> None:
        weights = trained.channels > 0
        saved = (output_of(node.inputs[0]),) if weights else ()
        if (fused := self._fused(node, trained)) is not None:
            op = op_of(fused, Pass.UPDATE, "s8", *trained)
        else:
            op = op_of(node.geometry, Pass.GRAD_WEIGHT, "s8", *trained)
        own = [f"{node.name}/{spec.role}" for spec in buffers_of(op)[len(saved) + 1 :]]
        part.add(node.name, op, (*saved, gradient, *own), trained, quantization=self._quantization(node.name))

    @made_once
    def update(self, name: str, trained: Trained) -> Part:
        part, op = Part(), op_of(self.nodes[name].geometry, Pass.UPDATE, "s8", *trained, self.optimizer)
        tensors = [f"{name}/{spec.role}" for spec in buffers_of(op)]
        part.add(name, op, tensors, trained, per_image=False, quantization=self._quantization(name))
        return part


def _segments(trained: Trained | None) -> tuple[int, Axis]:
    """How many channels' weights of a layer lie apart, and along which axis."""
    return (0, "out") if trained is None else trained[:2]
