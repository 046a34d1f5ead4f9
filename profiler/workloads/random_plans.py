"""Random step plans of a network, to fit and to judge what is foretold of whole steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np

from profiler.errors import UserError
from profiler.ops import Layer
from profiler.workloads.network import Network
from profiler.workloads.plan import Dtype, Head, LayerPlan, Saving, StepPlan

#: Of the layers behind the frontier, how many train too.
_SHARE_OF_LAYERS = 0.5
#: Of those that train and have a bias, how many train only that.
_SHARE_OF_BIASES = 0.15
_LARGEST_BATCH = 3
#: How often a plan is drawn again, on average, before it is said that too few fit.
_TRIES = 30


def random_plan(
    network: Network,
    rng: np.random.Generator,
    *,
    dtype: Dtype = "f32",
    depth: int | None = None,
    head: Head | None = None,
) -> StepPlan:
    """A plan with a random frontier, channels, axes, biases and images; of dtype ``s8`` with random savings, too.

    About half of the layers behind the frontier train, a few of them nothing but their bias.

    Args:
        network: What the plan is for.
        rng: Where chance comes from.
        dtype: Of the plan.
        depth: The frontier is so many trainable layers from the end; by default any of them, alike.
        head: The loss.
    """
    trainable = network.trainable
    frontier, *later = trainable[-(depth or int(rng.integers(1, len(trainable) + 1))) :]
    trained = [frontier, *(layer for layer in later if rng.random() < _SHARE_OF_LAYERS)]
    layers = {layer.name: _layer_plan(layer, rng, dtype) for layer in trained}
    images = int(rng.integers(1, _LARGEST_BATCH + 1))
    settings = {"images": images, "head": head or Head()}
    if dtype == "f32":
        return StepPlan.for_network(network, layers, optimizer=str(rng.choice(["adam", "sgd"])), **settings)
    savings = frozenset(s for s in get_args(Saving) if rng.random() < 0.5 and (s != "fused_update" or images == 1))
    return StepPlan.for_network(network, layers, optimizer="sgd", dtype=dtype, savings=savings, **settings)


def _layer_plan(layer: Layer, rng: np.random.Generator, dtype: Dtype) -> LayerPlan:
    g = layer.geometry
    has_bias = bool(g.bias_elements)  # type: ignore[attr-defined]
    if has_bias and rng.random() < _SHARE_OF_BIASES:
        return LayerPlan(bias=True)
    axis = "in" if g.kind in ("conv2d", "linear") and rng.random() < 0.3 else "out"
    count = g.channels(axis)  # type: ignore[attr-defined]
    share = rng.choice([1 / 8, 1 / 4, 1 / 2, 1, rng.random()])
    trained = max(1, round(share * count))
    # Int8 weights that train lie in memory of their own: the first so many.
    chosen = range(trained) if dtype == "s8" else sorted(rng.choice(count, trained, replace=False).tolist())
    return LayerPlan(tuple(chosen), axis, has_bias)


def random_plans(
    network: Network,
    count: int,
    seed: int,
    *,
    dtype: Dtype = "f32",
    head: Head | None = None,
    runs: Callable[[str, StepPlan], bool] = lambda name, plan: True,
) -> dict[str, StepPlan]:
    """Random plans whose frontiers are spread over the network's depth, by name.

    Args:
        network: What they are for.
        count: How many.
        seed: The same seed gives the same plans.
        dtype: Of all of them.
        head: Of all of them.
        runs: Whether a plan (its name, itself) can be run; one that cannot is drawn again, with any frontier.

    Raises:
        UserError: nearly none can be run.
    """
    rng = np.random.default_rng([seed, count])
    found: dict[str, StepPlan] = {}
    tries = 0
    for i in range(count):
        name = f"random-{seed}-{i:02d}"
        depth: int | None = 1 + int((i + rng.random()) / count * len(network.trainable))
        while True:
            plan = random_plan(network, rng, dtype=dtype, depth=depth, head=head)
            if runs(name, plan):
                break
            depth, tries = None, tries + 1
            if tries > _TRIES * count:
                raise UserError(
                    f"of {tries + len(found)} random plans of {network.name} the device can run {len(found)}",
                    hint="take a smaller --input, another --dtype, or a device with more memory",
                )
        found[name] = plan
    return found
