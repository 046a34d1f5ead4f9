import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from costmodels.analytical import AnalyticalCosts
from profiler.errors import UserError
from profiler.ops import Op, Pass
from profiler.workloads.lower import lower
from profiler.workloads.plan import Head
from profiler.workloads.step import training_step
from tinytrain import backbones, data, episodes
from tinytrain.adaptation import adapt
from tinytrain.baselines import METHODS, domain_information, find_method, task_information
from tinytrain.budget import Budget
from tinytrain.delta import weights_hash
from tinytrain.edits import with_adapters, with_lite_residuals
from tinytrain.selection import inspected_layers, select, step_table
from tinytrain.tasks import Prepared

SOURCE = data.EmbeddedSource("in a test")


@pytest.fixture(scope="module")
def digits():
    return SOURCE.images()


@pytest.fixture(scope="module")
def ready(digits):
    model = backbones.create("mcunet-5fps", SOURCE.weights("mcunet-5fps"))
    episode = episodes.draw(digits, 1, shots=2, queries=2)
    task = episode.load(digits, (36, 36))  # maps of 18, 9, 5, 3 and 2
    prototypes = episodes.prototypes(episodes.embed(model, task.support), task.support_labels, 5)
    network = lower(model, (3, 36, 36), "mcunet-5fps")
    return Prepared(model, network, episode, task, Head(classes=5), prototypes, "digits")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_what_it_says_and_leaves_the_task_as_it_was(ready, name):
    before = weights_hash(ready.model)
    own, plan = find_method(name).prepare(ready, images=5, learning_rate=1e-3)
    # Edited networks compute what the backbone does until they are trained, so prototypes stay.
    with torch.no_grad():
        assert torch.allclose(own.model(ready.task.query), ready.model(ready.task.query), rtol=1e-4, atol=1e-5)
    training_step(own.network, plan)  # every plan is one that a device can run
    moved_from = {key: value.clone() for key, value in own.model.state_dict().items()}
    own = replace(own, model=copy.deepcopy(own.model))
    result, _ = adapt(own, plan, steps=2)
    moved = {key for key, value in own.model.state_dict().items() if not torch.equal(value, moved_from[key])}
    last = ready.network.trainable[-1].name
    expected = {
        "none": lambda key: False,
        "full": lambda key: True,
        "last": lambda key: key.startswith(f"{last}."),
        "biases": lambda key: key.endswith("bias"),
        "tinytl": lambda key: key.startswith("lite.") or key.endswith("bias"),
        "adapters": lambda key: key.startswith("adapter."),
    }.get(name, lambda key: key.startswith("blocks."))
    assert {key for key in moved if not expected(key)} == set()
    assert bool(moved) == (name != "none")
    assert result.trained_parameters == trained_values(own.network, plan)
    assert weights_hash(ready.model) == before


def trained_values(network, plan) -> int:
    """Counted by the device's own gradient ops."""
    ops = [
        Op(
            network[name].geometry,
            Pass.GRAD_WEIGHT,
            trained_channels=len(layer.channels),
            trained_axis=layer.axis,
            trains_bias=layer.bias,
        )
        for name, layer in plan.layers.items()
    ]
    return sum(op.trained_weights + op.trained_biases for op in ops)


def test_lite_residuals_pool_where_the_map_allows_and_are_tinytls():
    model = backbones.create("mcunet-5fps")
    even, odd = (with_lite_residuals(model, (size, size)) for size in (128, 84))
    assert all(isinstance(lite.pool, nn.AvgPool2d) for lite in even.lite.values())
    assert not all(isinstance(lite.pool, nn.AvgPool2d) for lite in odd.lite.values())
    for edited, size in ((even, 128), (odd, 84)):
        assert edited(torch.zeros(1, 3, size, size)).shape == (1, 160)
        lower(edited, (3, size, size), "edited")
    for lite in even.lite.values():
        assert (lite.grouped.groups, lite.grouped.kernel_size[0] <= 5, lite.grouped.bias) == (2, True, None)
        assert lite.norm.num_channels // lite.norm.num_groups == 8


def test_adapters_lie_behind_the_later_blocks_only():
    edited = with_adapters(backbones.create("mbv2-w0.35"), (64, 64))
    assert list(edited.adapter) == [str(n) for n in range(8, 17)]


def test_methods_that_are_not_there_or_not_for_the_network_are_refused(ready):
    with pytest.raises(UserError, match=r"no method 'magic'.*sparse-update:mcunetv3-49kb"):
        find_method("magic")
    other = backbones.create("mbv2-w0.35")
    foreign = replace(ready, model=nn.Sequential(other), network=lower(other, (3, 36, 36), "mbv2-w0.35"))
    with pytest.raises(UserError, match="is none"):
        find_method("tinytl").prepare(foreign)
    with pytest.raises(UserError, match="42 convolutions"):
        find_method("sparse-update:mcunetv3-49kb").prepare(foreign)


def test_a_static_plan_is_chosen_of_a_domains_tasks_and_not_of_the_task(ready, digits):
    layers = inspected_layers(ready.network, 0.2)
    one = domain_information(ready, digits, layers, [7])
    several = domain_information(ready, digits, layers, [7, 8, 9])
    assert sum(float(delta.sum()) for delta in several.values()) == pytest.approx(1)
    assert not torch.allclose(one[layers[-1]], several[layers[-1]])
    own = task_information(ready, layers)
    assert set(own) == set(several) == set(layers)
    again = domain_information(ready, digits, layers, [ready.episode.seed])
    scaled = sum(float(delta.sum()) for delta in own.values())
    assert torch.allclose(again[layers[0]], own[layers[0]] / scaled, rtol=1e-6)
    table = step_table(ready.network, layers, AnalyticalCosts(1e-3, "chain"), head=ready.head, images=5)
    plan = select(several, table, Budget(1e3)).plan
    assert set(plan.layers) <= set(layers)
    with pytest.raises(ValueError, match="a task at least"):
        domain_information(ready, digits, layers, [])
