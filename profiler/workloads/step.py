"""From a network and a step plan to the ops of one training step, in order.

Forward and backward are done image by image with gradients accumulated, then the weights are updated once. A layer's
gradient is computed only where the plan trains that layer or one that feeds it, so the chain of ``grad_input`` ops ends
at the frontier.

A step is made of parts: what one layer adds to it at one place. What is in a part depends on little of the plan, so
that the steps of a network share most of their parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from profiler.buffers import ELEMENT_BYTES, Element
from profiler.ops import Access, Add, Axis, Op, Optimizer, Pass, Quantization
from profiler.workloads.coverage import network_ops
from profiler.workloads.head import HEAD_KINDS
from profiler.workloads.network import INPUT, Network
from profiler.workloads.plan import Dtype, Head, LayerPlan, Saving, StepPlan
from profiler.workloads.traits import buffers_of

if TYPE_CHECKING:
    from profiler.workloads.step_f32 import FloatParts

__all__ = [
    "HEAD_KINDS",
    "Part",
    "Role",
    "StepOp",
    "StepTensor",
    "Trained",
    "TrainingStep",
    "network_ops",
    "step_parts",
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


class Trained(NamedTuple):
    """What trains in one layer, but for which channels.

    Attributes:
        channels: How many; 0 in a layer of which only the bias trains.
        axis: Whether they are output or input channels.
        bias: Whether the bias trains.
    """

    channels: int
    axis: Axis
    bias: bool

    @classmethod
    def of(cls, layer_plan: LayerPlan) -> Trained:
        channels = len(layer_plan.channels)
        return cls(channels, layer_plan.axis if channels else "out", layer_plan.bias)


@dataclass(eq=False)
class Part:
    """What one layer adds to a step at one place of it. Equal parts of a network's steps are the same object.

    Attributes:
        ops: In order.
        tensors: Every tensor that the ops name.
        gradients: Layer to the tensor with the gradient of its output, as far as summed after the part.
    """

    ops: list[StepOp] = field(default_factory=list)
    tensors: dict[str, StepTensor] = field(default_factory=dict)
    gradients: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        layer: str,
        op: Op,
        names: Iterable[str],
        trained: Trained | None = None,
        *,
        per_image: bool = True,
        quantization: Quantization | None = None,
    ) -> None:
        """Append an op.

        Args:
            layer: See :class:`StepOp`.
            op: What is computed.
            names: Its tensors, in the order of its buffers.
            trained: What trains of the layer.
            per_image: See :class:`StepOp`.
            quantization: Of an int8 op; by default scalars that do not matter.
        """
        if quantization is None and op.dtype == "s8":
            quantization = _MADE_UP
        names = tuple(names)
        self.ops.append(StepOp(layer, op, per_image, names, None, quantization))
        for name, spec in zip(names, buffers_of(op), strict=True):
            if name not in self.tensors:
                role = _role(name, spec.role, op.pass_)
                changes = _changes(trained, role, spec.role, op.dtype)
                self.tensors[name] = StepTensor(name, spec.elements, role, changes, spec.element)


#: Scalars of int8 ops for which none matter.
_MADE_UP = Quantization()


def _changes(trained: Trained | None, role: Role, buffer_role: str, dtype: str) -> bool:
    """Whether a tensor of a layer of which this trains is changed by the update."""
    if trained is None:
        return False
    if dtype == "s8" and role is Role.WEIGHT:  # in segments
        return buffer_role == "trained_weight"
    return (role is Role.WEIGHT and trained.channels > 0) or (role is Role.BIAS and trained.bias)


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
    return assembled(network, plan, step_parts(network, plan))


def step_parts(network: Network, plan: StepPlan) -> list[Part]:
    """The parts of a training step, in order, for channels that are the first so many.

    Args:
        network: See :func:`training_step`.
        plan: Checked to be for this network.

    Raises:
        UserError: the network and the plan give no step of the plan's dtype.
    """
    parts = parts_of(network, plan.dtype, plan.head, plan.optimizer, plan.savings)
    return [*parts.of_image(plan), *parts.of_update(plan)]


@lru_cache(maxsize=16)
def parts_of(
    network: Network, dtype: Dtype, head: Head, optimizer: Optimizer, savings: frozenset[Saving]
) -> FloatParts:
    """Makes the parts of a network's steps, each once."""
    # They make this module's parts.
    from profiler.workloads.step_f32 import FloatParts  # noqa: PLC0415
    from profiler.workloads.step_s8 import Int8Parts  # noqa: PLC0415

    return Int8Parts(network, head, optimizer, savings) if dtype == "s8" else FloatParts(network, head, optimizer)


def assembled(network: Network, plan: StepPlan, parts: Sequence[Part]) -> TrainingStep:
    """The step of these parts, with the plan's own channels."""
    tensors: dict[str, StepTensor] = {}
    for part in parts:
        for name, tensor in part.tensors.items():
            tensors.setdefault(name, tensor)
    chosen = {name: p.channels for name, p in plan.layers.items() if not p.trains_leading}
    ops = [
        replace(item, channels=chosen[item.layer]) if item.layer in chosen and item.op.trained_channels else item
        for part in parts
        for item in part.ops
    ]
    return TrainingStep(network.name, plan, tuple(_dying_first(ops)), tensors)


def output_of(layer: str) -> str:
    return INPUT if layer == INPUT else f"{layer}/output"


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


def _dying_first(ops: Sequence[StepOp]) -> Iterable[StepOp]:
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
