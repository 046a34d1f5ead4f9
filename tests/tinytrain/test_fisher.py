import pytest
import torch
from torch import nn

from profiler.workloads.plan import Head
from tinytrain import backbones, episodes
from tinytrain.fisher import fisher_information

HEAD = Head(classes=3)


def literal(model: nn.Module, layer: str, images, labels, prototypes) -> torch.Tensor:
    """The formula as it stands: image by image, channel by channel, position by position."""
    caught = {}
    module = model.get_submodule(layer)
    total = None
    for image, label in zip(images, labels, strict=True):
        handle = module.register_forward_hook(lambda m, i, o: caught.update(a=o.clone()) or caught["a"])
        features = model(image[None].clone().requires_grad_(True))
        handle.remove()
        logits = HEAD.scale * features / features.norm() @ prototypes.T
        loss = torch.logsumexp(logits, 1)[0] - logits[0, label]
        a = caught["a"]
        (g,) = torch.autograd.grad(loss, a)
        channels = a.shape[1]
        if total is None:
            total = [0.0] * channels
        for o in range(channels):
            inner = 0.0
            for value, slope in zip(a[0, o].flatten().tolist(), g[0, o].flatten().tolist(), strict=True):
                inner += value * slope
            total[o] += inner**2
    return torch.tensor(total, dtype=torch.float64) / (2 * len(images))


def check(model, layers, images, labels, prototypes):
    fast = fisher_information(model, layers, images, labels, head=HEAD, prototypes=prototypes, batch=2)
    assert list(fast) and set(fast) == set(layers)
    for layer in layers:
        slow = literal(model, layer, images, labels, prototypes)
        assert torch.linalg.norm(fast[layer] - slow) <= 1e-6 * torch.linalg.norm(slow), layer
        assert slow.sum() > 0


def test_hooks_give_what_the_formula_says(small):
    small = small.double()
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(5, 3, 10, 10, generator=generator, dtype=torch.float64)
    prototypes = nn.functional.normalize(torch.randn(3, 6, generator=generator, dtype=torch.float64), dim=1)
    check(small, ["stem", "depthwise", "grouped", "linear"], images, torch.tensor([0, 1, 2, 2, 1]), prototypes)


def test_hooks_give_what_the_formula_says_on_a_backbone():
    model = backbones.create("mcunet-5fps").double()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prototypes = episodes.prototypes(episodes.embed(model, images), torch.tensor([0, 1, 2]), 3)
    layers = ["blocks.2.pointwise2", "blocks.12.depthwise", "blocks.13.pointwise1", "blocks.13.pointwise2"]
    check(model, layers, images, torch.tensor([1, 2, 0]), prototypes)


def test_the_batch_size_changes_nothing(small):
    images = torch.rand(6, 3, 10, 10)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    prototypes = nn.functional.normalize(torch.randn(3, 6), dim=1)
    results = [
        fisher_information(small, ["stem"], images, labels, head=HEAD, prototypes=prototypes, batch=batch)["stem"]
        for batch in (1, 4, 6)
    ]
    assert torch.allclose(results[0], results[1], rtol=1e-4)
    assert torch.allclose(results[0], results[2], rtol=1e-4)


def test_the_model_is_left_as_it_was(small):
    small.train()
    small.linear.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in small.state_dict().items()}
    prototypes = nn.functional.normalize(torch.randn(3, 6), dim=1)
    fisher_information(
        small, ["stem"], torch.rand(2, 3, 10, 10), torch.tensor([0, 1]), head=HEAD, prototypes=prototypes
    )
    assert small.training
    assert [n for n, p in small.named_parameters() if not p.requires_grad] == ["linear.weight"]
    assert all(p.grad is None for p in small.parameters())
    assert all(torch.equal(before[key], value) for key, value in small.state_dict().items())
    assert not small.stem._forward_hooks


@pytest.mark.parametrize("times", [2, 5])
def test_showing_an_image_again_changes_nothing(small, times):
    """Gradients are those of each image's own loss: a loss averaged over the batch would shrink them."""
    images, labels = torch.rand(1, 3, 10, 10), torch.tensor([0])
    prototypes = nn.functional.normalize(torch.randn(3, 6), dim=1)
    one = fisher_information(small, ["grouped"], images, labels, head=HEAD, prototypes=prototypes)["grouped"]
    repeated = fisher_information(
        small,
        ["grouped"],
        images.expand(times, -1, -1, -1),
        labels.expand(times),
        head=HEAD,
        prototypes=prototypes,
    )["grouped"]
    assert torch.allclose(one, repeated, rtol=1e-5)
