"""One definition of the training step: torch's and the device's ops, in float64, on the same weights and images."""

import copy

import numpy as np
import pytest
import torch
from five_layers import Small
from torch import nn

from profiler.ops import Access
from profiler.reference_f32 import op_reference
from profiler.workloads.entries import StepConstants
from profiler.workloads.lower import lower
from profiler.workloads.network import INPUT
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.step import LABEL, LOSS, PROTOTYPES, training_step
from tinytrain import backbones, episodes
from tinytrain.folding import fold_norms
from tinytrain.training import apply_plan


def device_layout(module: nn.Module) -> np.ndarray:
    weight = module.weight.detach()
    if isinstance(module, nn.Linear):
        return weight.numpy().copy()
    if module.groups == module.in_channels == module.out_channels and module.groups > 1:
        return weight[:, 0].permute(1, 2, 0).numpy().copy()
    return weight.permute(0, 2, 3, 1).numpy().copy()


def run_on_ops(network, plan, model, batch, prototypes) -> dict[str, np.ndarray]:
    """Every tensor after the step's ops, each computed by the reference that devices are verified against."""
    step = training_step(network, plan)
    values = {name: np.zeros(tensor.elements) for name, tensor in step.tensors.items()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            values[f"{name}/weight"] = device_layout(module)
            values[f"{name}/bias"] = module.bias.detach().numpy().copy()
    values[PROTOTYPES] = prototypes.numpy()
    constants = StepConstants(plan.learning_rate, 1 / plan.images)

    def compute(item) -> None:
        specs = item.op.buffers()
        inputs = {
            spec.role: values[name].reshape(spec.shape)
            for spec, name in zip(specs, item.tensors, strict=True)
            if spec.access is not Access.WRITE
        }
        results = op_reference(item.op, inputs, channels=item.channels, constants=constants)
        for spec, name in zip(specs, item.tensors, strict=True):
            if spec.role in results:
                values[name] = results[spec.role]

    for image, label in zip(*batch, strict=True):
        values[INPUT], values[LABEL] = image.permute(1, 2, 0).numpy(), label[None].numpy()
        for item in step.image_ops:
            compute(item)
    for item in step.update_ops:
        compute(item)
    return values


def compare(model, network, plan, size):
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(plan.images, 3, *size, generator=generator, dtype=torch.float64) * 2 - 1
    labels = torch.randint(plan.head.classes, (plan.images,), generator=generator)
    support = torch.rand(2 * plan.head.classes, 3, *size, generator=generator, dtype=torch.float64) * 2 - 1
    classes = torch.arange(plan.head.classes).repeat_interleave(2)
    prototypes = episodes.prototypes(episodes.embed(model, support), classes, plan.head.classes)
    expected = run_on_ops(network, plan, copy.deepcopy(model), (images, labels), prototypes)
    before = copy.deepcopy(model)
    loss = apply_plan(model, network, plan).step(images, labels, prototypes)
    assert loss * plan.images == pytest.approx(expected[LOSS].item(), rel=1e-9)
    for name in plan.layers:
        module = model.get_submodule(name)
        own, start = device_layout(module), device_layout(before.get_submodule(name))
        assert np.allclose(expected[f"{name}/weight"].reshape(own.shape), own, rtol=1e-9, atol=1e-12), name
        assert np.allclose(expected[f"{name}/bias"].ravel(), module.bias.detach().numpy(), rtol=1e-9, atol=1e-12), name
        if plan.layers[name].channels:
            assert not np.array_equal(own, start)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_torch_and_the_devices_ops_move_the_same_weights_alike(optimizer):
    torch.manual_seed(1)
    model = Small().double().eval()
    network = lower(model, (3, 10, 10), "small")
    layers = {
        "stem": LayerPlan((1, 4)),
        "depthwise": LayerPlan((1, 4)),
        "grouped": LayerPlan((2, 5), "in"),
        "linear": LayerPlan((), "out", True),
    }
    plan = StepPlan.for_network(
        network, layers, head=Head(classes=3), images=4, optimizer=optimizer, learning_rate=0.05
    )
    compare(fold_norms(model), network, plan, (10, 10))


def test_the_definitions_agree_on_a_backbone_with_residuals_and_relu6():
    torch.manual_seed(0)
    model = backbones.create("mcunet-5fps").double()
    for _, conv in backbones.convolutions(model):  # torch's own start fades to nothing over 42 layers
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", a=0)
        nn.init.uniform_(conv.bias, -0.1, 0.3)
    network = lower(model, (3, 32, 32), "mcunet-5fps")
    layers = {
        "blocks.8.pointwise1": LayerPlan(tuple(range(0, 144, 3))),
        "blocks.9.depthwise": LayerPlan(tuple(range(48, 96))),
        "blocks.12.pointwise2": LayerPlan(tuple(range(12)), "in"),
        "blocks.13.pointwise2": LayerPlan(tuple(range(40))),
    }
    plan = StepPlan.for_network(network, layers, images=1, optimizer="adam", learning_rate=0.01)
    compare(model, network, plan, (32, 32))
