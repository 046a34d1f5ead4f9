"""From a network and a step plan to the ops of one training step, in order.

Forward and backward are done image by image with gradients accumulated, then the weights are updated once. A layer's
gradient is computed only where the plan trains that layer or one that feeds it, so the chain of ``grad_input`` ops ends
at the frontier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from profiler.buffers import ELEMENT_BYTES, Element
from profiler.errors import UserError
from profiler.ops import (
    Access,
    Add,
    CosineHead,
    GroupNorm,
    MaxPool2d,
    Op,
    Pass,
    Quantization,
    Relu,
    SoftmaxCrossEntropy,
)
from profiler.workloads.coverage import network_ops
from profiler.workloads.head import HEAD_KINDS, head_geometries
from profiler.workloads.network import INPUT, Network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.traits import buffers_of, op_of

__all__ = [
    "HEAD_KINDS",
    "Role",
    "StepOp",
    "StepTensor",
    "TrainingStep",
    "network_ops",
    "training_step",
]

#: Tensors that belong to no layer, beside the network's input.
LABEL, LOSS, PROTOTYPES = "label", "loss", "prototypes"


class Role(StrEnum):
    """What a tensor of a step is, and so how long it lives and what it starts as."""

    IMAGE = "image"  # filled anew for every image; free once nothing reads it any more
    LABEL = "label"  # filled anew for every image
    ACTIVATION = "activation"  # from the op that writes it to the last that reads it
    GRADIENT = "gradient"  # of an activation; lives like one
    WEIGHT = "weight"
    BIAS = "bias"
    CONSTANT = "constant"  # scales of int8 tensors, never changed
    ACCUMULATOR = "accumulator"  # gradient of weights, summed over the images
    MOMENT = "moment"  # of the optimiser
    PROTOTYPES = "prototypes"
    LOSS = "loss"  # summed over the images


TRANSIENT = frozenset({Role.IMAGE, Role.ACTIVATION, Role.GRADIENT})
#: Of what is read-only where it does not train.
FIXED = frozenset({Role.WEIGHT, Role.BIAS, Role.CONSTANT})


@dataclass(frozen=True)
class StepTensor:
    """One tensor of a training step.

    Attributes:
        name: ``LAYER/ROLE``, or ``input``, ``label``, ``loss``, ``prototypes``.
        elements: How many it has.
        role: What it is.
        trained: For weights and biases: whether this step changes them, so that they lie in memory that can be
            written.
        element: Type of its elements.
    """

    name: str
    elements: int
    role: Role
    trained: bool = False
    element: Element = "f32"

    @property
    def byte_count(self) -> int:
        return self.elements * ELEMENT_BYTES[self.element]


@dataclass(frozen=True)
class StepOp:
    """One op of a training step.

    Attributes:
        layer: The layer's name (for the head ``head.normalize``, ``head.cosine``, ``head.loss``). Where gradients of
            a forked tensor meet, the layer whose output forks.
        op: What is computed.
        per_image: Whether it runs once an image, or once a step.
        tensors: Names of the op's buffers, in the order of :meth:`profiler.ops.Op.buffers`.
        channels: Numbers of the channels that train; None for the first ``op.trained_channels``.
        quantization: Scalars of an op of dtype ``s8``.
    """

    layer: str
    op: Op
    per_image: bool
    tensors: tuple[str, ...]
    channels: tuple[int, ...] | None = None
    quantization: Quantization | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that it reads."""
        return self._named(Access.WRITE)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it writes, also those it reads before."""
        return self._named(Access.READ)

    def _named(self, without: Access) -> tuple[str, ...]:
        pairs = zip(self.tensors, buffers_of(self.op), strict=True)
        return tuple(name for name, spec in pairs if spec.access is not without)


@dataclass(frozen=True)
class TrainingStep:
    """The ops of one training step.

    Attributes:
        network: Name of the network.
        plan: What trains.
        ops: Those of one image in order, then the updates.
        tensors: Every tensor that the ops name.
    """

    network: str
    plan: StepPlan
    ops: tuple[StepOp, ...]
    tensors: dict[str, StepTensor]

    @property
    def image_ops(self) -> tuple[StepOp, ...]:
        return tuple(op for op in self.ops if op.per_image)

    @property
    def update_ops(self) -> tuple[StepOp, ...]:
        return tuple(op for op in self.ops if not op.per_image)


def training_step(network: Network, plan: StepPlan) -> TrainingStep:
    """The ops that one training step runs.

    Args:
        network: The network, ending in a vector: features for the head ``cosine_prototype``, logits for
            ``cross_entropy``.
        plan: What trains; a plan that trains nothing gives the forward pass and the loss.

    Raises:
        UserError: the plan is not for this network, or the network does not end in what the head needs.
    """
    plan.check(network)
    if plan.dtype == "s8":
        from profiler.workloads.step_s8 import Int8Builder  # noqa: PLC0415 - it extends this module's builder

        builder: StepBuilder = Int8Builder(network, plan)
    else:
        builder = StepBuilder(network, plan)
    builder.forward()
    if builder.needs_gradient:
        builder.backward()
        builder.updates()
    return builder.step()


class StepBuilder:
    """Collects the ops and tensors of one training step."""

    def __init__(self, network: Network, plan: StepPlan) -> None:
        self.network = network
        self.plan = plan
        self.planned: dict[str, LayerPlan] = {name: p for name, p in plan.layers.items() if p.trains}
        self.head = head_geometries(network, plan.head)
        self.ops: list[StepOp] = []
        self.tensors: dict[str, StepTensor] = {}
        self.gradient: dict[str, str] = {}  # layer -> tensor with the gradient of its output, as far as summed
        self.sums = 0
        self.needs_gradient = plan.influenced(network)

    def step(self) -> TrainingStep:
        """What has been collected."""
        return TrainingStep(self.network.name, self.plan, tuple(_dying_first(self.ops, self.tensors)), self.tensors)

    def forward(self) -> None:
        for layer in self.network.layers:
            g = layer.geometry
            weights = ()
            if g.trainable:
                has_bias = g.bias_elements  # type: ignore[attr-defined]
                weights = (f"{layer.name}/weight", f"{layer.name}/bias") if has_bias else (f"{layer.name}/weight",)
            sources = [output_of(name) for name in layer.inputs]
            results = [output_of(layer.name)]
            if isinstance(g, GroupNorm):
                results.append(_statistics(layer.name))
            self._emit(layer.name, op_of(g, Pass.FORWARD), (*sources, *weights, *results))
        self.forward_head(output_of(self.network.output))

    def forward_head(self, features: str) -> None:
        """From the tensor of the network's output to the loss."""
        value = features
        for name, g in self.head:
            if isinstance(g, SoftmaxCrossEntropy):
                tensors = (value, LABEL, f"{name}/probabilities", LOSS)
            elif isinstance(g, CosineHead):
                tensors = (value, PROTOTYPES, output_of(name))
            else:
                tensors = (value, output_of(name))
            self._emit(name, op_of(g, Pass.FORWARD), tensors)
            value = output_of(name)

    def backward(self) -> None:
        self.gradient[self.network.output] = self.backward_head(output_of(self.network.output))
        for layer in reversed(self.network.layers):
            if layer.name not in self.needs_gradient:
                continue
            g, gradient = layer.geometry, self.gradient.get(layer.name)
            if gradient is None:
                raise UserError(
                    f"the plan trains layer {layer.name!r}, which the output of {self.network.name} does not depend on",
                    hint="take it out of the plan",
                )
            if layer.name in self.planned:
                self._grad_weight(layer.name, layer.inputs[0], gradient)
            targets = [name for name in layer.inputs if name in self.needs_gradient]
            if isinstance(g, Add):
                # The gradient of a sum is the gradient of each term: nothing to compute.
                for name in targets:
                    self._contribute(name, gradient)
                continue
            for name in targets:
                result = f"{name}/grad_from/{layer.name}"
                if isinstance(g, GroupNorm):
                    tensors = (output_of(name), gradient, f"{layer.name}/weight", _statistics(layer.name), result)
                elif g.trainable:
                    tensors = (gradient, f"{layer.name}/weight", result)
                elif isinstance(g, Relu):
                    tensors = (output_of(layer.name), gradient, result)
                elif isinstance(g, MaxPool2d):
                    tensors = (output_of(name), gradient, result)
                else:
                    tensors = (gradient, result)
                self._emit(layer.name, op_of(g, Pass.GRAD_INPUT), tensors)
                self._contribute(name, result)

    def backward_head(self, features: str) -> str:
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
            self._emit(name, op_of(g, Pass.GRAD_INPUT), tensors)
            gradient = result
        return gradient

    def _contribute(self, layer: str, gradient: str) -> None:
        """Add one reader's share to the gradient of ``layer``'s output; at once, so that less has to be kept."""
        if layer not in self.gradient:
            self.gradient[layer] = gradient
            return
        self.sums += 1
        total = f"{layer}/grad_sum/{self.sums}"
        add = op_of(Add(self.tensors[gradient].elements), Pass.GRAD_INPUT)
        self._emit(layer, add, (self.gradient[layer], gradient, total))
        self.gradient[layer] = total

    def _grad_weight(self, name: str, source: str, gradient: str) -> None:
        p = self.planned[name]
        g = self.network[name].geometry
        op = op_of(g, Pass.GRAD_WEIGHT, trained_channels=len(p.channels), trained_axis=p.axis, trains_bias=p.bias)
        tensors = [gradient]
        if p.channels:
            statistics = [_statistics(name)] if isinstance(g, GroupNorm) else []
            tensors = [output_of(source), gradient, *statistics, f"{name}/weight_gradient"]
        if p.bias:
            tensors.append(f"{name}/bias_gradient")
        self._emit(name, op, tuple(tensors), channels=_unless_first(p.channels))

    def updates(self) -> None:
        for layer in self.network.layers:
            p = self.planned.get(layer.name)
            if p is None:
                continue
            op = op_of(
                layer.geometry,
                Pass.UPDATE,
                trained_channels=len(p.channels),
                trained_axis=p.axis,
                trains_bias=p.bias,
                optimizer=self.plan.optimizer,
            )
            tensors = tuple(f"{layer.name}/{spec.role}" for spec in buffers_of(op))
            self._emit(layer.name, op, tensors, per_image=False, channels=_unless_first(p.channels))

    def _emit(
        self,
        layer: str,
        op: Op,
        tensors: tuple[str, ...],
        *,
        per_image: bool = True,
        channels: tuple[int, ...] | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        if quantization is None and op.dtype == "s8":
            quantization = _MADE_UP
        self.ops.append(StepOp(layer, op, per_image, tensors, channels, quantization))
        if layer not in self.planned:
            for tensor in _frozen_tensors(op, tensors):
                self.tensors.setdefault(tensor.name, tensor)
            return
        for name, spec in zip(tensors, buffers_of(op), strict=True):
            if name not in self.tensors:
                role = _role(name, spec.role, op.pass_)
                trained = self._trained(layer, role, spec.role)
                self.tensors[name] = StepTensor(name, spec.elements, role, trained, spec.element)

    def _trained(self, layer: str, role: Role, buffer_role: str) -> bool:
        p = self.planned.get(layer)
        if p is None:
            return False
        if self.plan.dtype == "s8" and role is Role.WEIGHT:  # in segments
            return buffer_role == "trained_weight"
        return (role is Role.WEIGHT and bool(p.channels)) or (role is Role.BIAS and p.bias)


#: Scalars of int8 ops for which none matter.
_MADE_UP = Quantization()


@lru_cache(maxsize=1 << 14)
def _frozen_tensors(op: Op, names: tuple[str, ...]) -> tuple[StepTensor, ...]:
    """The tensors of an op of a layer that does not train: the same in most steps of a network."""
    pairs = zip(names, buffers_of(op), strict=True)
    return tuple(StepTensor(n, spec.elements, _role(n, spec.role, op.pass_), False, spec.element) for n, spec in pairs)


def output_of(layer: str) -> str:
    return INPUT if layer == INPUT else f"{layer}/output"


def _statistics(layer: str) -> str:
    return f"{layer}/statistics"


def _unless_first(channels: tuple[int, ...]) -> tuple[int, ...] | None:
    """None where the channels are the first so many: those need not travel."""
    return None if not channels or channels[-1] == len(channels) - 1 else channels


_SPECIAL = {INPUT: Role.IMAGE, LABEL: Role.LABEL, LOSS: Role.LOSS, PROTOTYPES: Role.PROTOTYPES}
_BY_BUFFER = {
    "weight": Role.WEIGHT,
    "trained_weight": Role.WEIGHT,
    "depthwise_weight": Role.WEIGHT,
    "depthwise_bias": Role.BIAS,
    "requantization": Role.CONSTANT,
    "depthwise_requantization": Role.CONSTANT,
    "scale": Role.CONSTANT,
    "scales": Role.CONSTANT,
    "bias": Role.BIAS,
    "weight_gradient": Role.ACCUMULATOR,
    "bias_gradient": Role.ACCUMULATOR,
    "weight_moment1": Role.MOMENT,
    "weight_moment2": Role.MOMENT,
    "bias_moment1": Role.MOMENT,
    "bias_moment2": Role.MOMENT,
}


def _role(name: str, buffer_role: str, pass_: Pass) -> Role:
    role = _SPECIAL.get(name) or _BY_BUFFER.get(buffer_role)
    if role is None:
        role = Role.ACTIVATION if pass_ is Pass.FORWARD else Role.GRADIENT
    return role


def _dying_first(ops: Sequence[StepOp], tensors: dict[str, StepTensor]) -> Iterable[StepOp]:
    """Order the terms of sums so that the first is one that nothing reads afterwards, where there is such a term:
    a sum may overwrite its first term."""
    last = {name: index for index, op in enumerate(ops) for name in op.tensors}
    for index, op in enumerate(ops):
        if isinstance(op.op.geometry, Add) and op.op.dtype == "f32":
            a, b, total = op.tensors
            if last[a] != index and last[b] == index:
                yield StepOp(op.layer, op.op, op.per_image, (b, a, total))
                continue
        yield op
