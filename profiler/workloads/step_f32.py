"""The parts of float32 training steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from profiler.errors import UserError
from profiler.ops import Add, CosineHead, GroupNorm, MaxPool2d, Optimizer, Pass, Relu, SoftmaxCrossEntropy
from profiler.workloads.head import head_geometries
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, StepPlan
from profiler.workloads.step import LABEL, LOSS, PROTOTYPES, Part, Trained, output_of
from profiler.workloads.traits import buffers_of, op_of

_Arguments = ParamSpec("_Arguments")
_Parts = TypeVar("_Parts", bound="FloatParts")
#: Tensors of layers (inputs of a layer that need a gradient) and the gradient of each as far as summed; None: not yet.
Targets = tuple[tuple[str, str | None], ...]


def made_once(
    make: Callable[Concatenate[_Parts, _Arguments], Part],
) -> Callable[Concatenate[_Parts, _Arguments], Part]:
    """Remember the part for each arguments. They are all that it may depend on beside what the steps share."""

    @wraps(make)
    def part(self: _Parts, *args: _Arguments.args) -> Part:
        key = (make, args)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = make(self, *args)
        return found

    return part  # type: ignore[return-value]


class FloatParts:
    """Makes the parts of a network's steps. A method that makes one is told all that it needs of the plan.

    Args:
        network: What is trained.
        head: The loss.
        optimizer: Of the update.

    Raises:
        UserError: the network does not end in what the head needs.
    """

    def __init__(self, network: Network, head: Head, optimizer: Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        self.head = head_geometries(network, head)
        self._made: dict[tuple, Part] = {}

    def of_image(self, plan: StepPlan) -> Iterator[Part]:
        """What runs for every image, in order.

        Raises:
            UserError: what trains cannot be trained.
        """
        trained = trained_of(plan)
        for layer in self.network.layers:
            # Forward, all the same how many channels train.
            own = trained.get(layer.name)
            yield self.forward(layer.name, None if own is None else own._replace(channels=min(1, own.channels)))
        yield self.forward_head()
        needs = plan.influenced(self.network)
        if not needs:
            return
        head = self.backward_head()
        yield head
        gradients = dict(head.gradients)
        for layer in reversed(self.network.layers):
            if layer.name in needs:
                gradient = self._gradient(layer.name, gradients)
                part = self.backward(
                    layer.name, trained.get(layer.name), gradient, targets_of(layer.inputs, needs, gradients)
                )
                gradients |= part.gradients
                yield part

    def of_update(self, plan: StepPlan) -> Iterator[Part]:
        """What runs once, in order."""
        trained = trained_of(plan)
        return (self.update(x.name, trained[x.name]) for x in self.network.layers if x.name in trained)

    def _gradient(self, layer: str, gradients: dict[str, str]) -> str:
        if layer not in gradients:
            raise UserError(
                f"the plan trains layer {layer!r}, which the output of {self.network.name} does not depend on",
                hint="take it out of the plan",
            )
        return gradients[layer]

    @made_once
    def forward(self, name: str, trained: Trained | None) -> Part:
        """One layer's."""
        part, layer = Part(), self.network[name]
        g, weights = layer.geometry, ()
        if g.trainable:
            has_bias = g.bias_elements  # type: ignore[attr-defined]
            weights = (f"{name}/weight", f"{name}/bias") if has_bias else (f"{name}/weight",)
        results = [output_of(name)]
        if isinstance(g, GroupNorm):
            results.append(_statistics(name))
        part.add(name, op_of(g, Pass.FORWARD), (*map(output_of, layer.inputs), *weights, *results), trained)
        return part

    @made_once
    def forward_head(self) -> Part:
        """From the network's output to the loss."""
        part = Part()
        self._forward_head(part, output_of(self.network.output))
        return part

    def _forward_head(self, part: Part, features: str) -> None:
        """From the tensor of the network's output to the loss."""
        value = features
        for name, g in self.head:
            if isinstance(g, SoftmaxCrossEntropy):
                tensors = (value, LABEL, f"{name}/probabilities", LOSS)
            elif isinstance(g, CosineHead):
                tensors = (value, PROTOTYPES, output_of(name))
            else:
                tensors = (value, output_of(name))
            part.add(name, op_of(g, Pass.FORWARD), tensors)
            value = output_of(name)

    @made_once
    def backward_head(self) -> Part:
        """From the loss to the network's output."""
        part = Part()
        part.gradients[self.network.output] = self._backward_head(part, output_of(self.network.output))
        return part

    def _backward_head(self, part: Part, features: str) -> str:
        """From the loss to the tensor of the network's output, whose gradient's name it returns."""
        gradient = ""
        for name, g in reversed(self.head):
            result = f"{name}/grad_input"
            if isinstance(g, SoftmaxCrossEntropy):
                tensors = (f"{name}/probabilities", LABEL, result)
            elif isinstance(g, CosineHead):
                tensors = (gradient, PROTOTYPES, result)
            else:
                tensors = (features, gradient, result)
            part.add(name, op_of(g, Pass.GRAD_INPUT), tensors)
            gradient = result
        return gradient

    @made_once
    def backward(self, name: str, trained: Trained | None, gradient: str, targets: Targets) -> Part:
        """One layer's gradients.

        Args:
            name: The layer.
            trained: What trains of it.
            gradient: The tensor with the gradient of its output.
            targets: Its inputs that need a gradient.
        """
        part, g = Part(gradients={layer: known for layer, known in targets if known}), self.network[name].geometry
        if trained is not None:
            self._grad_weight(part, name, trained, gradient)
        for target, _ in targets:
            if isinstance(g, Add):
                # The gradient of a sum is the gradient of each term: nothing to compute.
                self._contribute(part, name, target, gradient)
                continue
            result = f"{target}/grad_from/{name}"
            if isinstance(g, GroupNorm):
                tensors = (output_of(target), gradient, f"{name}/weight", _statistics(name), result)
            elif g.trainable:
                tensors = (gradient, f"{name}/weight", result)
            elif isinstance(g, Relu):
                tensors = (output_of(name), gradient, result)
            elif isinstance(g, MaxPool2d):
                tensors = (output_of(target), gradient, result)
            else:
                tensors = (gradient, result)
            part.add(name, op_of(g, Pass.GRAD_INPUT), tensors, trained)
            self._contribute(part, name, target, result)
        return part

    def _grad_weight(self, part: Part, name: str, trained: Trained, gradient: str) -> None:
        layer = self.network[name]
        tensors = [gradient]
        if trained.channels:
            statistics = [_statistics(name)] if isinstance(layer.geometry, GroupNorm) else []
            tensors = [output_of(layer.inputs[0]), gradient, *statistics, f"{name}/weight_gradient"]
        if trained.bias:
            tensors.append(f"{name}/bias_gradient")
        part.add(name, op_of(layer.geometry, Pass.GRAD_WEIGHT, "f32", *trained), tensors, trained)

    def _contribute(self, part: Part, reader: str, layer: str, gradient: str) -> None:
        """Add one reader's share to the gradient of ``layer``'s output; at once, so that less has to be kept."""
        known = part.gradients.get(layer)
        if known is None:
            part.gradients[layer] = gradient
            return
        total = f"{layer}/grad_sum/{reader}"
        while total in part.tensors:  # a layer that reads the same twice
            total += "+"
        add = Add(math.prod(self.network[layer].geometry.output_shape))
        part.add(layer, op_of(add, Pass.GRAD_INPUT), (known, gradient, total))
        part.gradients[layer] = total

    @made_once
    def update(self, name: str, trained: Trained) -> Part:
        """One layer's."""
        part, op = Part(), op_of(self.network[name].geometry, Pass.UPDATE, "f32", *trained, self.optimizer)
        part.add(name, op, [f"{name}/{spec.role}" for spec in buffers_of(op)], trained, per_image=False)
        return part


def trained_of(plan: StepPlan) -> dict[str, Trained]:
    """What trains of each layer of which anything does."""
    return {name: Trained.of(p) for name, p in plan.layers.items() if p.trains}


def targets_of(inputs: Collection[str], needs: Collection[str], gradients: dict[str, str]) -> Targets:
    """Those of a layer's inputs that need a gradient."""
    return tuple([(name, gradients.get(name)) for name in inputs if name in needs])


def _statistics(layer: str) -> str:
    return f"{layer}/statistics"
