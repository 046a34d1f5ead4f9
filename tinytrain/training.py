"""The training step, defined once: this is what the device's program computes, written in torch.

For every image of the batch in turn

    u = f(x) / max(‖f(x)‖, 1e-12)        features of unit length
    z = scale · C u                      C: unit-length prototypes of the support set, held fixed
    L = -log softmax(z)[label]

and its gradients are added to those of the images before. After the last image the sums are divided by the number of
images and the optimiser moves the chosen channels once. Plain SGD: w ← w - η g. Adam: beta1 0.9, beta2 0.999,
epsilon 1e-8, moments corrected for their start at zero, as ``torch.optim.Adam``; only chosen channels have moments.

Prototypes are taken once, before the first step, by :func:`tinytrain.episodes.prototypes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from profiler.errors import UserError
from profiler.ops import Conv2d
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from tinytrain.sparse import SparseNetwork

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def head_loss(output: Tensor, labels: Tensor, head: Head, prototypes: Tensor | None) -> Tensor:
    """Loss of each image, shape (n,).

    Args:
        output: The network's output, shape (n, features).
        labels: Shape (n,).
        head: ``cosine_prototype`` or ``cross_entropy``.
        prototypes: Unit-length rows, shape (classes, features); None for ``cross_entropy``.
    """
    if head.kind == "cosine_prototype":
        if prototypes is None:
            raise ValueError("the cosine_prototype head needs prototypes")
        output = head.scale * nn.functional.normalize(output, dim=1) @ prototypes.T
    elif head.kind != "cross_entropy":
        raise ValueError(f"unknown head {head.kind!r}")
    return nn.functional.cross_entropy(output, labels, reduction="none")


def chosen_weights(shape: Iterable[int], geometry: object, plan: LayerPlan) -> Tensor:
    """Which weights of a layer train.

    Args:
        shape: Of torch's weight: (out, in / groups, kernel_h, kernel_w), (out, in) for linear, (channels,) for
            group_norm.
        geometry: The layer's geometry.
        plan: Its channels and axis. An input channel of a grouped convolution feeds its own group's outputs only.

    Returns:
        Positions in the flattened weight, ascending, shape (trained weights,).
    """
    mask = torch.zeros(tuple(shape), dtype=torch.bool)
    if plan.axis == "out" or geometry.kind in ("depthwise", "group_norm"):
        mask[list(plan.channels)] = True
    else:
        groups = geometry.groups if isinstance(geometry, Conv2d) else 1
        outputs, inputs = mask.shape[0] // groups, mask.shape[1]
        for channel in plan.channels:
            group = channel // inputs
            mask[group * outputs : (group + 1) * outputs, channel % inputs] = True
    return mask.flatten().nonzero().flatten()


@dataclass(eq=False)
class Trained:
    """The chosen part of one parameter.

    Attributes:
        name: Of the parameter (``blocks.3.pointwise1.weight``).
        parameter: The whole parameter.
        positions: Of the chosen part in the flattened parameter, ascending, shape (chosen,).
        gradient_of: What autograd is asked for the gradient of, shape (chosen,).
    """

    name: str
    parameter: nn.Parameter
    positions: Tensor
    gradient_of: Tensor

    @classmethod
    def at(cls, name: str, parameter: nn.Parameter, positions: Tensor) -> Trained:
        return cls(name, parameter, positions, torch.zeros(len(positions), dtype=parameter.dtype, requires_grad=True))

    @cached_property
    def count(self) -> int:
        """Of the chosen weights."""
        return len(self.positions)

    @cached_property
    def _flat(self) -> Tensor:
        return self.parameter.detach().view(-1)

    def move(self, by: Tensor) -> None:
        """Subtract from the chosen part; what is not chosen keeps its bits."""
        if self.count == self._flat.numel():
            self._flat.sub_(by)
        else:
            self._flat.index_add_(0, self.positions, by, alpha=-1)


class SparseTrainer:
    """A torch model with a plan applied: :meth:`step` moves the chosen channels and nothing else.

    Only what the plan needs is computed and kept; see :mod:`tinytrain.sparse`.

    Args:
        model: The network; its parameters are frozen and moved in place. Its normalisations must be folded.
        network: What it was lowered to.
        plan: What trains.

    Attributes:
        sparse: The network as the plan trains it.
        trained: What moves.

    Raises:
        UserError: the plan was made for another network, or the model is not that network.
    """

    def __init__(self, model: nn.Module, network: Network, plan: StepPlan) -> None:
        plan.check(network)
        self.model, self.plan, self.steps = model.eval(), plan, 0
        self.trained: list[Trained] = []
        model.requires_grad_(False)
        self.sparse = SparseNetwork(model, plan.layers)
        for name, layer_plan in plan.layers.items():
            if not layer_plan.trains:
                continue
            if name not in self.sparse.layers:
                raise UserError(
                    f"the plan trains layer {name!r}, which the torch model does not have",
                    hint="apply the plan to the network it was made for",
                )
            layer = self.sparse.layers[name]
            module = layer.module
            if layer_plan.channels:
                positions = chosen_weights(module.weight.shape, network[name].geometry, layer_plan)
                layer.weight = self._add(f"{name}.weight", module.weight, positions)
            if layer_plan.bias:
                partial = layer_plan.channels and layer_plan.axis == "out"
                positions = torch.tensor(layer_plan.channels if partial else range(len(module.bias)))
                layer.bias = self._add(f"{name}.bias", module.bias, positions)
        # One vector of all of them: an optimiser's step is many small operations.
        moments = self.trained_parameters if plan.optimizer == "adam" else 0
        dtype = self.trained[0].parameter.dtype if self.trained else torch.float32
        self._moment1, self._moment2 = torch.zeros(moments, dtype=dtype), torch.zeros(moments, dtype=dtype)
        self._root = torch.empty(moments, dtype=dtype)

    def _add(self, name: str, parameter: nn.Parameter, positions: Tensor) -> Tensor:
        self.trained.append(Trained.at(name, parameter, positions))
        return self.trained[-1].gradient_of

    @property
    def trained_parameters(self) -> int:
        return sum(trained.count for trained in self.trained)

    def step(self, images: Tensor, labels: Tensor, prototypes: Tensor | None) -> float:
        """One training step.

        Args:
            images: The batch, shape (n, channels, height, width); n need not be the plan's.
            labels: Shape (n,).
            prototypes: See :func:`head_loss`.

        Returns:
            Mean loss before the update.
        """
        return self.step_from(self.sparse.prefix(images), labels, prototypes)

    def step_from(self, cut: Sequence[Tensor], labels: Tensor, prototypes: Tensor | None) -> float:
        """One training step from what :meth:`SparseNetwork.prefix` gave for the batch."""
        # The sum of the images' gradients, which a device adds up one image at a time.
        total = head_loss(self.sparse.suffix(cut), labels, self.plan.head, prototypes).sum()
        wanted = [trained.gradient_of for trained in self.trained]
        self.steps += 1
        if wanted:
            self._update(torch.cat(torch.autograd.grad(total, wanted)).div_(len(labels)))
        return total.item() / len(labels)

    @torch.no_grad()
    def _update(self, gradient: Tensor) -> None:
        rate = self.plan.learning_rate
        if self.plan.optimizer == "adam":
            self._moment1.lerp_(gradient, 1 - BETA1)
            self._moment2.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            root = torch.sqrt(self._moment2, out=self._root).div_(math.sqrt(1 - BETA2**self.steps)).add_(EPSILON)
            gradient = torch.div(self._moment1, root, out=gradient)
            rate /= 1 - BETA1**self.steps
        changes = gradient.mul_(rate).split([trained.count for trained in self.trained])
        for trained, change in zip(self.trained, changes, strict=True):
            trained.move(change)


def apply_plan(model: nn.Module, network: Network, plan: StepPlan) -> SparseTrainer:
    """Freeze ``model`` but for the plan's channels; see :class:`SparseTrainer`."""
    return SparseTrainer(model, network, plan)


def pseudo_query(support: Tensor, seed: int) -> Tensor:
    """Support images shifted by up to a tenth and changed in brightness and contrast, the same for the same seed.

    They stand in for the query, which a task does not show before it is learnt.
    """
    generator = torch.Generator().manual_seed(seed)
    _, _, height, width = support.shape
    changed = []
    for image in support:
        reach = (max(1, height // 10), max(1, width // 10))
        shift = [int(torch.randint(-r, r + 1, (1,), generator=generator)) for r in reach]
        contrast, brightness = torch.rand(2, generator=generator).tolist()
        padded = nn.functional.pad(image[None], (reach[1], reach[1], reach[0], reach[0]), mode="replicate")[0]
        top, left = reach[0] + shift[0], reach[1] + shift[1]
        moved = padded[:, top : top + height, left : left + width]
        changed.append((moved * (0.8 + 0.4 * contrast) + 0.2 * (brightness - 0.5)).clamp(-1, 1))
    return torch.stack(changed)
