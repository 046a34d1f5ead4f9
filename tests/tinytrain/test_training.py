import copy

import pytest
import torch
from five_layers import Small
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from profiler.errors import UserError
from profiler.ops import Conv2d
from profiler.workloads.lower import lower
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from tinytrain import episodes
from tinytrain.folding import fold_norms
from tinytrain.training import apply_plan, chosen_weights, head_loss, pseudo_query

SHAPE = (3, 10, 10)


def prepared(layers: dict[str, LayerPlan], **settings) -> tuple[nn.Module, object, StepPlan]:
    torch.manual_seed(1)
    model = Small().eval()
    network = lower(model, SHAPE, "small")
    plan = StepPlan.for_network(network, layers, **{"head": Head(classes=3), "images": 4, **settings})
    return fold_norms(model), network, plan


def batch(seed: int = 0, count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *SHAPE, generator=generator) * 2 - 1
    prototypes = nn.functional.normalize(torch.randn(3, 6, generator=generator), dim=1)
    return images, torch.randint(3, (count,), generator=generator), prototypes


PLAN = {
    "stem": LayerPlan((1, 4), "out", True),
    "depthwise": LayerPlan((1, 4), "out", False),
    "grouped": LayerPlan((2, 5), "in", True),
    "linear": LayerPlan((), "out", True),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_only_the_chosen_channels_move_and_all_else_keeps_its_bits(optimizer):
    model, network, plan = prepared(PLAN, optimizer=optimizer, learning_rate=0.05)
    before = copy.deepcopy(model.state_dict())
    trainer = apply_plan(model, network, plan)
    for step in range(3):
        trainer.step(*batch(step))
    moved = {key: before[key] != value for key, value in model.state_dict().items()}
    assert moved["stem.weight"][[1, 4]].any(dim=(1, 2, 3)).all()
    assert not moved["stem.weight"][[0, 2, 3, 5, 6, 7]].any()
    assert moved["stem.bias"].nonzero().flatten().tolist() == [1, 4]
    assert moved["depthwise.weight"].flatten(1).any(1).nonzero().flatten().tolist() == [1, 4]
    assert not moved["depthwise.bias"].any()
    # Input channel 2 feeds outputs 0 to 3, input channel 5 outputs 4 to 7.
    assert moved["grouped.weight"].flatten(1).nonzero().tolist() == [[o, 2] for o in range(4)] + [
        [o, 1] for o in range(4, 8)
    ]
    assert moved["grouped.bias"].all()
    assert not moved["linear.weight"].any()
    assert moved["linear.bias"].all()


def test_a_plan_of_everything_moves_weights_as_torchs_own_optimisers_do():
    for optimizer, make in (
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.03)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.03)),
    ):
        everything = {
            "stem": LayerPlan(tuple(range(8))),
            "depthwise": LayerPlan(tuple(range(8))),
            "grouped": LayerPlan(tuple(range(8))),
            "linear": LayerPlan(tuple(range(6))),
        }
        model, network, plan = prepared(everything, optimizer=optimizer, learning_rate=0.03)
        model, twin = model.double(), copy.deepcopy(model).double().requires_grad_(True)
        trainer, reference = apply_plan(model, network, plan), make(twin.parameters())
        for step in range(3):
            images, labels, prototypes = (t.double() if t.is_floating_point() else t for t in batch(step))
            loss = trainer.step(images, labels, prototypes)
            reference.zero_grad()
            features = nn.functional.normalize(twin(images), dim=1)
            expected = nn.functional.cross_entropy(10 * features @ prototypes.T, labels)  # a mean over the batch
            expected.backward()
            reference.step()
            assert loss == pytest.approx(expected.item(), rel=1e-9)
        for own, other in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(own, other, rtol=1e-7, atol=1e-9)


def test_steps_lower_the_loss_on_their_own_batch():
    model, network, plan = prepared(PLAN, optimizer="sgd", learning_rate=0.05)
    trainer = apply_plan(model, network, plan)
    losses = [trainer.step(*batch()) for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]


@given(
    groups=st.sampled_from([1, 2, 4]),
    axis=st.sampled_from(["out", "in"]),
    channels=st.sets(st.integers(0, 7), min_size=1),
)
def test_as_many_weights_are_chosen_as_the_ops_gradient_has(groups, axis, channels):
    geometry = Conv2d(5, 5, 8, 8, 3, 3, 1, 1, 1, 1, groups)
    plan = LayerPlan(tuple(sorted(channels)), axis)
    chosen = chosen_weights((8, 8 // groups, 3, 3), geometry, plan)
    rows = geometry.weight_gradient_shape(len(channels), axis)
    assert len(chosen) == torch.Size(rows).numel()
    assert len(chosen.unique()) == len(chosen)


def test_a_plan_for_another_network_is_refused():
    model, _, plan = prepared({"linear": LayerPlan((0,))})
    other = lower(model, (3, 12, 12), "small")
    with pytest.raises(UserError, match="fingerprint"):
        apply_plan(model, other, plan)


def test_a_head_without_prototypes_is_logits():
    logits, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([1])
    loss = head_loss(logits, labels, Head("cross_entropy", 2), None)
    assert torch.allclose(loss, torch.logsumexp(logits, 1) + 1)
    with pytest.raises(ValueError, match="prototypes"):
        head_loss(logits, labels, Head(classes=2), None)


def test_folding_norms_keeps_the_function_and_the_layers(small):
    images = batch()[0]
    expected = small(images)
    folded = fold_norms(small)
    assert torch.allclose(folded(images), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    # The device's network has a bias where the norm was folded in; so must the torch one.
    network = lower(small, SHAPE, "small")
    assert network["stem"].geometry.bias_elements == folded.get_submodule("stem").bias.numel() == 8


def test_pseudo_queries_are_seeded_changed_and_in_range():
    images = batch()[0]
    changed = pseudo_query(images, 1)
    assert changed.shape == images.shape
    assert changed.abs().max() <= 1
    assert torch.equal(changed, pseudo_query(images, 1))
    assert not torch.equal(changed, pseudo_query(images, 2))
    assert not torch.equal(changed, images)


def test_adapting_uses_prototypes_of_the_support_before_the_first_step():
    model, network, plan = prepared({"linear": LayerPlan(tuple(range(6)))}, learning_rate=0.1)
    images, labels = batch(count=6)[0], torch.tensor([0, 1, 2, 0, 1, 2])
    held = episodes.prototypes(episodes.embed(model, images), labels, 3)
    copy_of_held = held.clone()
    trainer = apply_plan(model, network, plan)
    trainer.step(images, labels, held)
    assert torch.equal(held, copy_of_held)
    assert not torch.allclose(episodes.prototypes(episodes.embed(model, images), labels, 3), held)
