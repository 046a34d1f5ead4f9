"""Published update schemes as step plans: the five that MCUNetV3 (arXiv 2206.15472) released for mcunet-5fps.

A scheme trains the biases of the last convolutions, and of some of them the weights that read the first so many input
channels. Convolutions, depthwise ones among them, are counted from 0, the network's first. Each is named by the memory
that its authors count for what training keeps beside inference at an input of 3x128x128, in KiB
(:func:`costmodels.analytical.int8_memory_bytes`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from profiler.errors import UserError
from profiler.ops import Conv2d, Depthwise
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, Saving, StepPlan

#: Of a plan made from a scheme, where nothing else is said.
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Scheme:
    """What one published scheme trains.

    Attributes:
        network: Built-in name of the network that it was searched for.
        convolutions: How many convolutions that network has.
        last_biases: The biases of so many last convolutions train.
        input_ratios: Of which convolutions weights train too, by number, and the share of input channels.
    """

    network: str
    convolutions: int
    last_biases: int
    input_ratios: dict[int, float]


def _mcunet(last_biases: int, input_ratios: dict[int, float]) -> Scheme:
    return Scheme("mcunet-5fps", 42, last_biases, input_ratios)


SCHEMES: dict[str, Scheme] = {
    "mcunetv3-49kb": _mcunet(20, {24: 1 / 4, 27: 1 / 2, 30: 1 / 2}),
    "mcunetv3-74kb": _mcunet(21, {21: 1, 24: 1, 27: 1 / 2, 30: 1}),
    "mcunetv3-99kb": _mcunet(22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1 / 8, 39: 1 / 4}),
    "mcunetv3-124kb": _mcunet(24, {21: 1 / 4, 24: 1, 27: 1, 30: 1, 33: 1 / 2, 39: 1 / 2}),
    "mcunetv3-148kb": _mcunet(23, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1, 39: 1 / 2}),
}


def find_scheme(name: str) -> Scheme:
    """The scheme of this name.

    Raises:
        UserError: there is none.
    """
    if name not in SCHEMES:
        raise UserError(f"there is no scheme {name!r}", hint=f"there are {', '.join(SCHEMES)}", exit_status=2)
    return SCHEMES[name]


def published_scheme(
    network: Network, name: str, *, savings: Iterable[Saving] = (), learning_rate: float = LEARNING_RATE
) -> StepPlan:
    """A published scheme as a plan of dtype ``s8``, with SGD and one image, as it was published.

    Args:
        network: One with the layers of the scheme's network, at any size of input.
        name: A key of :data:`SCHEMES`.
        savings: Of memory, see :class:`StepPlan`.
        learning_rate: Of the update; what it is does not change the cost.

    Raises:
        UserError: there is no such scheme, or the network has not the convolutions that it names.
    """
    scheme = find_scheme(name)
    convolutions = [layer for layer in network.layers if isinstance(layer.geometry, Conv2d | Depthwise)]
    if len(convolutions) != scheme.convolutions or any(
        not isinstance(convolutions[i].geometry, Conv2d) for i in scheme.input_ratios
    ):
        raise UserError(
            f"the scheme {name} is for {scheme.network}, which has {scheme.convolutions} convolutions; {network.name} "
            f"has {len(convolutions)}, or others",
            hint=f"give --network {scheme.network}",
        )
    layers = {layer.name: LayerPlan() for layer in convolutions[-scheme.last_biases :]}
    for index, ratio in scheme.input_ratios.items():
        layer = convolutions[index]
        count = round(ratio * layer.geometry.channels("in"))  # type: ignore[attr-defined]
        layers[layer.name] = LayerPlan(tuple(range(count)), "in")
    return StepPlan.for_network(
        network,
        layers,
        optimizer="sgd",
        learning_rate=learning_rate,
        dtype="s8",
        savings=frozenset(savings),
        notes={"scheme": name},
    )
