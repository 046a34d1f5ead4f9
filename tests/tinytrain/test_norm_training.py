"""Networks with GroupNorm and up-sampling: Fisher information, the criterion and sparse training of their norms."""

import copy

import torch
from torch import nn

from costmodels.analytical import AnalyticalCosts
from profiler.workloads.lower import lower
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from tinytrain.criterion import scores
from tinytrain.fisher import fisher_information
from tinytrain.training import apply_plan

SHAPE = (3, 12, 12)
HEAD = Head("cross_entropy", classes=8)


class Lite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.norm = nn.GroupNorm(2, 8)
        self.pointwise = nn.Conv2d(8, 8, 1, bias=False)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x):
        x = self.stem(x).relu()
        return (x + self.up(self.pointwise(self.norm(self.grouped(self.pool(x))).relu()))).mean((2, 3))


def prepared():
    torch.manual_seed(2)
    model = Lite().double().eval()
    images = torch.rand(5, *SHAPE, dtype=torch.float64) - 0.5
    return model, lower(model, SHAPE, "lite"), images, torch.tensor([0, 7, 3, 3, 1])


def test_only_the_chosen_scales_and_shifts_move_and_as_autograd_says():
    model, network, images, labels = prepared()
    settings = {"head": HEAD, "images": 5, "optimizer": "sgd", "learning_rate": 0.1}
    plan = StepPlan.for_network(network, {"norm": LayerPlan((1, 6))}, **settings)
    before = copy.deepcopy(model)
    nn.functional.cross_entropy(before(images), labels).backward()
    apply_plan(model, network, plan).step(images, labels, None)
    for name in ("weight", "bias"):
        start = getattr(before.norm, name)
        change = getattr(model.norm, name) - start
        wanted = torch.zeros(8, dtype=torch.float64)
        wanted[[1, 6]] = -0.1 * start.grad[[1, 6]]
        torch.testing.assert_close(change.detach(), wanted.detach(), rtol=1e-9, atol=1e-12)
        assert (wanted != 0).sum() == 2
    assert torch.equal(model.grouped.weight, before.grouped.weight)


def test_norms_have_fisher_information_and_a_finite_score():
    model, network, images, labels = prepared()
    names = [layer.name for layer in network.trainable]
    assert "norm" in names
    information = fisher_information(model, names, images, labels, head=HEAD, prototypes=None)
    assert information["norm"].shape == (8,) and information["norm"].sum() > 0
    standing = scores(network, information, AnalyticalCosts(), StepPlan.for_network(network, {}, head=HEAD))
    assert set(standing) == set(names)
    assert all(0 < score.score < float("inf") for score in standing.values())
