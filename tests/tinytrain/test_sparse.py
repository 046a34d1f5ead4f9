"""Sparse training computes what a full gradient with a mask gives, and keeps and computes no more than it needs."""

import copy

import pytest
import torch
from five_layers import Small
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from profiler.workloads.lower import lower
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from tinytrain import backbones
from tinytrain.cache import AugmentationPool, PrefixCache
from tinytrain.folding import fold_norms
from tinytrain.sparse import SparseNetwork
from tinytrain.training import apply_plan, chosen_weights, head_loss

SHAPE = (3, 12, 12)
HEAD = Head("cross_entropy", 6)


class Odd(nn.Module):
    """What the backbones lack: strides and padding of dense and grouped convolutions, norms, forks, functions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.dense = nn.Conv2d(6, 8, 3, padding="same")
        self.wide = nn.Conv2d(8, 8, 5, padding=2, groups=8)  # more positions than taps
        self.skips = nn.Conv2d(8, 8, (5, 3), stride=2, padding=(2, 1), groups=8)  # a stride that leaves rows out
        self.relu = nn.ReLU(inplace=True)
        self.left = nn.Conv2d(8, 8, 5, padding=2, groups=4, bias=False)
        self.norm = nn.GroupNorm(2, 8)
        self.right = nn.Conv2d(8, 8, 1, stride=1)
        self.depthwise = nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8)  # fewer positions than taps
        self.hidden = nn.Linear(8, 10)
        self.linear = nn.Linear(10, 6)

    def forward(self, x):
        x = self.wide(self.relu(self.dense(self.stem(x))))
        left = nn.functional.relu6(self.norm(self.left(x)))
        x = left + self.right(x)
        x += left
        x = torch.relu(self.depthwise(x) + self.skips(x)).mean((2, 3))
        return self.linear(nn.functional.relu(self.hidden(x)))


def masked_reference(model, network, plan, images, labels):
    """Gradients of torch's own autograd, of which the chosen part is cut out."""
    model = copy.deepcopy(model).requires_grad_(True)
    loss = head_loss(model(images), labels, plan.head, None).sum()
    loss.backward()
    found = []
    for name, layer_plan in plan.layers.items():
        module = model.get_submodule(name)
        if layer_plan.channels:
            chosen = chosen_weights(module.weight.shape, network[name].geometry, layer_plan)
            found.append(module.weight.grad.flatten()[chosen])
        if layer_plan.bias:
            partial = layer_plan.channels and layer_plan.axis == "out"
            found.append(module.bias.grad[list(layer_plan.channels)] if partial else module.bias.grad)
    return loss.item(), found


def sparse_gradients(model, network, plan, images, labels):
    trainer = apply_plan(copy.deepcopy(model), network, plan)
    loss = head_loss(trainer.sparse(images), labels, plan.head, None).sum()
    return loss.item(), torch.autograd.grad(loss, [trained.gradient_of for trained in trainer.trained])


def compare(model, network, plan, count=3):
    images = torch.rand(count, *network.input_shape, dtype=torch.float64) * 4 - 2
    labels = torch.arange(count) % plan.head.classes
    expected_loss, expected = masked_reference(model, network, plan, images, labels)
    loss, own = sparse_gradients(model, network, plan, images, labels)
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    for a, b in zip(own, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    return expected


MODELS = {}


def made(kind):
    if kind not in MODELS:
        torch.manual_seed(1)
        model = fold_norms((Small() if kind == "small" else Odd()).double().eval())
        MODELS[kind] = model, lower(model, SHAPE, kind)
    return MODELS[kind]


@st.composite
def plans(draw):
    model, network = made(draw(st.sampled_from(["small", "odd"])))
    names = draw(st.lists(st.sampled_from([layer.name for layer in network.trainable]), min_size=1, unique=True))
    layers = {}
    for layer in network.trainable:
        if layer.name not in names:
            continue
        geometry = layer.geometry
        axes = ["out"] if geometry.kind in ("depthwise", "group_norm") else ["out", "in"]
        axis = draw(st.sampled_from(axes))
        channels = draw(st.sets(st.integers(0, geometry.channels(axis) - 1)))
        bias = bool(geometry.bias_elements) and draw(st.booleans())
        if channels or bias:
            layers[layer.name] = LayerPlan(tuple(sorted(channels)), axis, bias)
    return model, network, StepPlan.for_network(network, layers, head=HEAD)


@settings(max_examples=60, deadline=None)
@given(made_up=plans())
def test_gradients_are_the_chosen_part_of_the_full_gradient(made_up):
    model, network, plan = made_up
    if plan.layers:
        compare(model, network, plan)


def test_gradients_of_a_backbone_are_the_chosen_part_of_the_full_gradient():
    torch.manual_seed(0)
    model = backbones.create("mcunet-5fps").double()
    for _, conv in backbones.convolutions(model):  # torch's own start fades to nothing over 42 layers
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    network = lower(model, (3, 32, 32), "mcunet-5fps")
    layers = {
        "blocks.3.depthwise": LayerPlan((0, 5, 30), "out", False),
        "blocks.7.pointwise1": LayerPlan((1, 2, 17), "in"),
        "blocks.11.depthwise": LayerPlan(tuple(range(384))),
        "blocks.12.pointwise2": LayerPlan(tuple(range(0, 96, 5))),
        "blocks.13.pointwise1": LayerPlan(),
    }
    expected = compare(model, network, StepPlan.for_network(network, layers, head=Head("cross_entropy", 160)))
    assert all(gradient.abs().max() > 1e-6 for gradient in expected)


class Unread(Odd):
    """Computes what its output does not depend on."""

    def forward(self, x):
        y = self.left(self.wide(self.dense(self.stem(x))))
        self.right(y)
        return super().forward(x) if y is None else self.linear(self.hidden(y.mean((2, 3))))


def test_what_the_output_does_not_read_is_left_out():
    torch.manual_seed(1)
    model = Unread().double().eval()
    network = lower(model, SHAPE, "unread")
    layers = {layer.name: LayerPlan.whole(layer) for layer in network.trainable if layer.name != "right"}
    expected = compare(model, network, StepPlan.for_network(network, layers, head=HEAD))
    assert all(gradient.abs().max() > 0 for gradient in expected)


def test_the_output_is_the_networks_own(small):
    model = fold_norms(small)
    images = torch.rand(2, 3, 10, 10)
    for layers in ({}, {"linear": LayerPlan((0,))}, {"stem": LayerPlan((0,))}):
        assert torch.allclose(SparseNetwork(model, layers)(images), model(images), rtol=1e-5, atol=1e-6)


def tensors_of(kept):
    """All tensors in nested tuples and lists."""
    if isinstance(kept, torch.Tensor):
        yield kept
    elif isinstance(kept, tuple | list):
        for part in kept:
            yield from tensors_of(part)


def kept_bytes(model, network, layers, images) -> int:
    """What is held between forward and backward, counted once a storage."""
    plan = StepPlan.for_network(network, layers)
    trainer = apply_plan(copy.deepcopy(model), network, plan)
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = trainer.sparse(images)
    assert output.requires_grad
    for tensor in tensors_of(output.grad_fn.tape):
        pack(tensor)
    weights = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    return sum(count for place, (count, _) in storages.items() if place not in weights)


def test_activations_are_kept_only_where_weights_train_and_of_the_channels_that_train():
    model = backbones.create("mcunet-5fps")
    network = lower(model, (3, 32, 32), "mcunet-5fps")
    images = torch.rand(4, 3, 32, 32)
    last, depthwise = "blocks.13.pointwise2", "blocks.11.depthwise"
    own = 4 * 4 * 576  # 4 bytes, 4 images, one position
    pool = 0  # the mean over positions keeps shapes only
    assert kept_bytes(model, network, {last: LayerPlan((0,))}, images) == own + pool
    assert kept_bytes(model, network, {last: LayerPlan(tuple(range(144)), "in")}, images) == own // 4
    assert kept_bytes(model, network, {last: LayerPlan()}, images) == 0
    behind = 4 * sum(
        layer.geometry.out_channels * layer.geometry.output_shape[0] * layer.geometry.output_shape[1]
        for layer in network.trainable[-8:]
        if not layer.name.endswith("pointwise2")
    )
    assert kept_bytes(model, network, {depthwise: LayerPlan(tuple(range(96)))}, images) <= own // 4 * 0.7 + behind
    everything = {layer.name: LayerPlan(tuple(range(layer.geometry.channels("out")))) for layer in network.trainable}
    assert kept_bytes(model, network, {depthwise: LayerPlan(tuple(range(96)))}, images) < 0.1 * kept_bytes(
        model, network, everything, images
    )


def test_gradients_stop_at_the_frontier_and_what_lies_before_it_is_kept_as_the_cut():
    model = backbones.create("mcunet-5fps")
    sparse = SparseNetwork(model, {"blocks.12.pointwise2": LayerPlan((0,))})
    assert len(sparse.cut) == 2  # the input of the layer, and of its residual connection
    cut = sparse.prefix(torch.rand(2, 3, 32, 32))
    assert not any(tensor.requires_grad for tensor in cut)
    assert [tensor.shape[1] for tensor in cut] == [96, 384]
    assert len(SparseNetwork(model, {"blocks.13.pointwise2": LayerPlan((0,))}).cut) == 1
    called = []
    for name, conv in backbones.convolutions(model):
        conv.register_forward_hook(lambda *_, name=name: called.append(name))
    sparse.suffix(cut)
    assert not called  # hooks are the model's own forward, which is not run


def test_training_from_the_cache_is_training_from_the_images():
    support, labels = torch.rand(6, 3, 10, 10) * 2 - 1, torch.tensor([0, 1, 2, 0, 1, 2])
    prototypes = nn.functional.normalize(torch.randn(3, 6), dim=1)
    moved = []
    for cached in (False, True):
        torch.manual_seed(1)
        model = Small().eval()
        network = lower(model, (3, 10, 10), "small")
        plan = StepPlan.for_network(
            network, {"grouped": LayerPlan((1, 6)), "linear": LayerPlan((2,))}, head=Head(classes=3), learning_rate=0.01
        )
        trainer = apply_plan(fold_norms(model), network, plan)
        pool = AugmentationPool(support, labels, versions=3, seed=4)
        assert pool.images.shape == (18, 3, 10, 10)
        cache = PrefixCache(trainer.sparse, pool.images)  # more of them than go through the prefix at once
        assert cache.byte_count == 18 * 2 * 8 * 5 * 5 * 4  # two maps of 8 channels
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            rows = pool.draw(4, generator)
            assert len({int(row) % 6 for row in rows}) == 4
            if cached:
                trainer.step_from(cache.take(rows), pool.labels[rows], prototypes)
            else:
                trainer.step(pool.images[rows], pool.labels[rows], prototypes)
        moved.append([p.detach().clone() for p in trainer.model.parameters()])
    for own, other in zip(*moved, strict=True):
        assert torch.allclose(own, other, rtol=1e-5, atol=1e-6)
