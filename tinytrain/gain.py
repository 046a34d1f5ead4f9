"""What training is worth: Fisher information of the channels that a plan trains, and the choices that a layer leaves.

The gain of a plan is Σ Δ_o over the output channels whose weights it trains. Costs are not in it: they stand in the
constraints, so that they are not counted twice. Biases that train by themselves have no gain of their own here.

Input channels are no choices: Δ_o says nothing of them, and steps would cost the same. In two of MCUNetV3's schemes
for mcunet-5fps at 3x64x64, the same shares of output channels in place of input channels take as many MACs and, as
planned, 1 % less memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from profiler.errors import UserError
from profiler.ops import GroupNorm, Layer
from profiler.workloads.network import Network
from profiler.workloads.plan import Dtype, LayerPlan

#: Ratios of a layer's output channels that a plan may train: those of MCUNetV3's search (arXiv 2206.15472).
RATIOS = (1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class Choice:
    """One way to train a layer.

    Attributes:
        layer: Its name.
        plan: What trains in it.
        gain: Σ Δ_o over ``plan.channels``.
    """

    layer: str
    plan: LayerPlan
    gain: float


def can_train(layer: Layer, dtype: Dtype) -> bool:
    """Whether there are kernels that train weights of this layer: int8 ones of grouped convolutions stay frozen."""
    g = layer.geometry
    return g.trainable and not (dtype == "s8" and (isinstance(g, GroupNorm) or getattr(g, "groups", 1) > 1))


def layer_choices(
    network: Network, information: Mapping[str, Tensor], ratios: Sequence[float] = RATIOS, dtype: Dtype = "f32"
) -> dict[str, tuple[Choice, ...]]:
    """The choices of every layer that can train, fewest channels first, in network order.

    Args:
        network: What is trained.
        information: Δ_o of the layers to choose from, shape (output channels,) each.
        ratios: Shares of a layer's output channels, each above 0 and at most 1; at least one channel each.
        dtype: Of the plan. ``f32`` trains the channels of highest Δ_o. ``s8`` keeps trained weights in a segment of
            their own, so that the first so many channels train, whatever their Δ_o.

    Raises:
        UserError: a ratio out of range.
        ValueError: information of other shape than the layer, or that is not finite and at least 0.
    """
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise UserError(
            f"the ratios {list(ratios)} are not all above 0 and at most 1",
            hint="give --ratios 1/8,1/4,1",
            exit_status=2,
        )
    result = {}
    for layer in network.trainable:
        if layer.name not in information or not can_train(layer, dtype):
            continue
        geometry = layer.geometry
        delta = information[layer.name].double()
        channels = geometry.channels("out")  # type: ignore[attr-defined]
        if delta.shape != (channels,) or not bool(((delta >= 0) & delta.isfinite()).all()):
            raise ValueError(f"the information of {layer.name} must be {channels} finite figures of at least 0")
        counts = sorted({max(1, round(ratio * channels)) for ratio in ratios})
        ranked = torch.arange(channels) if dtype == "s8" else delta.argsort(descending=True, stable=True)
        taken = (ranked[:count].sort().values for count in counts)
        result[layer.name] = tuple(
            Choice(
                layer.name,
                LayerPlan(tuple(chosen.tolist()), "out", bool(geometry.bias_elements)),  # type: ignore[attr-defined]
                float(delta[chosen].sum()),
            )
            for chosen in taken
        )
    return result
