"""A task learnt and what is left of it on disk."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from five_layers import Small

from profiler.errors import UserError
from profiler.workloads.lower import lower
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from tinytrain import episodes
from tinytrain.adaptation import adapt
from tinytrain.cache import TaskActivations
from tinytrain.delta import Delta, weights_hash
from tinytrain.folding import fold_norms
from tinytrain.sparse import SparseNetwork
from tinytrain.tasks import Prepared


@pytest.fixture
def ready(images):
    torch.manual_seed(1)
    model = Small().eval()
    network = lower(model, (3, 10, 10), "small")
    model = fold_norms(model)
    episode = episodes.draw(images, 1, ways=3, shots=4)
    task = episode.load(images, (10, 10))
    prototypes = episodes.prototypes(episodes.embed(model, task.support), task.support_labels, 3)
    return Prepared(model, network, episode, task, Head(classes=3), prototypes, "made up")


def plan_of(ready, **layers):
    return StepPlan.for_network(ready.network, layers, head=ready.head, images=6, learning_rate=0.02)


def trained(ready, plan, **settings):
    own = replace(ready, model=copy.deepcopy(ready.model))
    result, delta = adapt(own, plan, **settings)
    return own.model, result, delta


def test_a_delta_gives_the_trained_network_bit_by_bit_and_no_other(ready, tmp_path):
    plan = plan_of(ready, grouped=LayerPlan((1, 6), "in"), linear=LayerPlan((0, 3)))
    model, result, delta = trained(ready, plan, steps=3)
    path = tmp_path / "delta.npz"
    assert delta.save(path) == path.stat().st_size
    fresh = copy.deepcopy(ready.model)
    Delta.load(path).apply(fresh, ready.network)
    assert weights_hash(fresh) == weights_hash(model) != weights_hash(ready.model)
    assert result.trained_parameters == sum(len(v) for v in delta.values.values()) == 4 + 4 + 8 + 2 * 8 + 2
    with pytest.raises(UserError, match="trained from other weights"):
        Delta.load(path).apply(fresh, ready.network)
    del delta.values["linear.bias"]
    with pytest.raises(UserError, match=r"not the 2 values of linear\.bias"):
        delta.apply(copy.deepcopy(ready.model), ready.network)


def test_plans_that_share_activations_learn_what_each_learns_alone(ready):
    prefixes = []
    shared = TaskActivations(ready.task, count=6, steps=4, seed=ready.episode.seed)
    for layers in (
        {"linear": LayerPlan((0, 3))},
        {"grouped": LayerPlan((1, 6), "in"), "linear": LayerPlan((0, 3))},
        {"grouped": LayerPlan((0, 2)), "linear": LayerPlan((1, 2))},
        {},
    ):
        plan = plan_of(ready, **layers)
        alone, expected, _ = trained(ready, plan, steps=4)
        together, result, _ = trained(ready, plan, steps=4, shared=shared)
        for own, other in zip(together.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)
        assert result.accuracy_before_percent == expected.accuracy_before_percent
        assert result.accuracy_after_percent == expected.accuracy_after_percent
        assert (result.steps, result.last_loss) == (
            expected.steps,
            pytest.approx(expected.last_loss, 1e-4, nan_ok=True),
        )
        sparse = SparseNetwork(copy.deepcopy(ready.model), layers)
        prefixes.append(shared.of(ready.network, sparse))
    assert len({id(kept) for kept in prefixes}) == 3  # both of the grouped layer's frontier share one


def test_what_is_no_delta_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read the delta"):
        Delta.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match="is no delta"):
        Delta.load(tmp_path / "text.npz")


def test_values_that_are_no_floats_are_refused(ready, tmp_path):
    delta = trained(ready, plan_of(ready, linear=LayerPlan((0, 3))), steps=1)[2]
    for kind in (np.complex64, np.int32, "U5"):
        arrays = {name: value.numpy().astype(kind) for name, value in delta.values.items()}
        path = tmp_path / "odd.npz"
        np.savez(path, plan=np.array(delta.plan.to_json()), base=np.array(delta.base), **arrays)
        with pytest.raises(UserError, match=r"is no delta \(linear.weight is of .*, not float32\)"):
            Delta.load(path)


@pytest.mark.parametrize("head", [Head("margin", 3), Head("cross_entropy", 3)])
def test_a_head_that_gives_no_loss_of_the_task_is_refused(ready, head):
    narrow = replace(ready, prototypes=ready.prototypes[:, :2])
    with pytest.raises(UserError, match=f"the plan's head '{head.kind}' gives no loss of 3 classes from 2 outputs"):
        adapt(narrow, replace(plan_of(ready, linear=LayerPlan((0,))), head=head), steps=1)


def test_a_cached_pool_changes_the_time_and_not_the_result(ready):
    plan = plan_of(ready, grouped=LayerPlan((0, 7)), linear=LayerPlan((2,)))
    models = [trained(ready, plan, steps=4, pool=2, cache=cache)[0] for cache in (True, False)]
    for own, other in zip(*(m.parameters() for m in models), strict=True):
        assert torch.allclose(own, other, rtol=1e-5, atol=1e-6)


def test_a_plan_of_nothing_takes_no_step(ready):
    model, result, delta = trained(ready, plan_of(ready), steps=4)
    assert (result.steps, result.trained_parameters, delta.values) == (0, 0, {})
    assert result.accuracy_after_percent == result.accuracy_before_percent
    assert weights_hash(model) == weights_hash(ready.model)


def test_training_lowers_the_loss(ready):
    plan = plan_of(ready, linear=LayerPlan(tuple(range(6))), grouped=LayerPlan(tuple(range(8))))
    _, result, _ = trained(ready, plan, steps=25, images=12, pool=1)
    assert result.last_loss < 0.9 * result.first_loss
