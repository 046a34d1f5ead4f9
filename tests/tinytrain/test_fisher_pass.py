"""The Fisher pass as a device's program: what it computes, and what a task is said to cost."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from five_layers import Small
from host_device import HostDevice
from made_up import MadeUpCosts
from small_networks import MEMORY, from_device, starting_value

from costmodels.analytical import AnalyticalCosts
from profiler.link.session import open_device
from profiler.measure.steps import check_outputs
from profiler.ops import Pass
from profiler.reference import expected
from profiler.workloads.fisher_pass import fisher_pass, sum_name
from profiler.workloads.lower import load_network, lower
from profiler.workloads.plan import Head, StepPlan
from profiler.workloads.program import step_program
from profiler.workloads.step import training_step
from tinytrain.fisher import fisher_information
from tinytrain.folding import fold_norms
from tinytrain.selection import inspected_layers
from tinytrain.selection_task import task_parts

HEAD = Head(classes=4)


def small():
    torch.manual_seed(3)
    return fold_norms(Small().eval()).double()


def with_the_programs_weights(module, network, program, seed):
    """The torch network with the weights, image, label and prototypes that the program starts with."""
    module = copy.deepcopy(module)
    modules = dict(module.named_modules())

    def value(name):
        return starting_value(program, name, seed, MEMORY).astype(np.float64)

    for layer in network.trainable:
        modules[layer.name].weight.data = from_device(layer.geometry, value(f"{layer.name}/weight")).contiguous()
        if layer.geometry.bias_elements:
            modules[layer.name].bias.data = torch.from_numpy(value(f"{layer.name}/bias"))
    height, width = network.input_shape[1:]
    image = torch.from_numpy(value("input").reshape(height, width, -1)).permute(2, 0, 1).unsqueeze(0)
    label = torch.from_numpy(starting_value(program, "label", seed, MEMORY)).long()
    return module, image, label, torch.from_numpy(value("prototypes").reshape(HEAD.classes, -1))


@pytest.mark.parametrize("inspected", [1, 2, 4])
def test_squares_of_the_programs_sums_are_the_fisher_information_of_an_image(inspected):
    module = small()
    network = lower(module, (3, 10, 10), "small")
    layers = [layer.name for layer in network.trainable][-inspected:]
    program = step_program(fisher_pass(network, layers, HEAD), MEMORY)
    for seed in (1, 2):
        torch_module, image, label, prototypes = with_the_programs_weights(module, network, program, seed)
        wanted = fisher_information(torch_module, layers, image, label, head=HEAD, prototypes=prototypes)
        reference = expected(program, seed, MEMORY)
        kernels = HostDevice(MEMORY).run(program, seed)
        for name in layers:
            information = reference[sum_name(name)] ** 2 / 2
            assert float(wanted[name].sum()) > 0
            np.testing.assert_allclose(information, wanted[name].numpy(), rtol=1e-6, atol=1e-12)
            largest = float(wanted[name].max())
            np.testing.assert_allclose(kernels[sum_name(name)] ** 2 / 2, information, rtol=1e-3, atol=1e-4 * largest)


def test_gradients_stop_at_the_output_of_the_first_inspected_layer_and_nothing_is_trained():
    network = load_network("mcunet-5fps", (3, 32, 32))[1]
    layers = inspected_layers(network)
    step = fisher_pass(network, layers, HEAD)
    assert not any(tensor.trained for tensor in step.tensors.values())
    passes = {pass_: {op.layer for op in step.ops if op.op.pass_ is pass_} for pass_ in Pass}
    assert passes[Pass.UPDATE] == set() and passes[Pass.GRAD_WEIGHT] == set(layers)
    behind = {layer.name for layer in network.layers[[x.name for x in network.layers].index(layers[0]) + 1 :]}
    # Sums of gradients that meet are named after the layer that forks: that is the first inspected one, too.
    through = {x.layer for x in step.ops if x.op.pass_ is Pass.GRAD_INPUT and x.op.kind != "add"}
    assert through & network.by_name.keys() <= behind
    with pytest.raises(ValueError, match="a layer at least"):
        fisher_pass(network, [], HEAD)


@pytest.mark.parametrize("mw", [None, 30.0])
def test_a_task_costs_what_its_ops_do(mw):
    source = MadeUpCosts(mw=mw)
    network = load_network("mcunet-5fps", (3, 32, 32))[1]
    layers, support = inspected_layers(network), 25
    plan = StepPlan.for_network(network, {}, head=HEAD, images=5)
    step = replace(source.step(network, plan), latency_ms=7.0, energy_mj=None if mw is None else 0.5)
    prototypes, fisher, training = task_parts(source, network, plan, step, layers, support=support, steps=40)

    def all_of(ops):
        return support * sum(source.op_latency_us(op) for op in ops) / 1e3

    forward = [x.op for x in training_step(network, plan).ops if x.layer in network.by_name]
    assert prototypes.latency_ms == pytest.approx(all_of(forward))
    assert fisher.latency_ms == pytest.approx(all_of(x.op for x in fisher_pass(network, layers, HEAD).ops))
    assert (training.images, training.latency_ms) == (200, 280.0)
    if mw is None:
        assert (prototypes.energy_mj, fisher.energy_mj, training.energy_mj) == (None, None, None)
    else:
        assert prototypes.energy_mj == pytest.approx(prototypes.latency_ms * mw / 1e3)
        assert fisher.energy_mj == pytest.approx(fisher.latency_ms * mw / 1e3)
        assert training.energy_mj == pytest.approx(20.0)


def test_analytical_costs_count_the_fisher_passs_gradients_in_either_accounting():
    network = load_network("mcunet-5fps", (3, 32, 32))[1]
    plan = StepPlan.for_network(network, {}, head=HEAD)
    ops = [x.op for x in fisher_pass(network, inspected_layers(network), HEAD).ops]
    macs = sum(op.macs for op in ops if op.kind not in ("cosine_head", "softmax_cross_entropy", "l2_normalize"))
    for accounting in ("own", "chain"):
        source = AnalyticalCosts(0.001, accounting)
        step = source.step(network, plan)
        parts = task_parts(source, network, plan, step, inspected_layers(network), support=10, steps=1)
        assert parts[1].latency_ms == pytest.approx(10 * macs * 1e-6)


def test_the_fisher_pass_is_right_on_an_emulated_board():
    network = load_network("mcunet-5fps", (3, 32, 32))[1]
    step = fisher_pass(network, inspected_layers(network), HEAD)
    with open_device("qemu://mps2-an500") as device:
        program = step_program(step, device.memory)
        result = device.run(program, repetitions=0, warmups=1, seed=5)
        checks = check_outputs(program, expected(program, 5, device.memory), device.digest, seed=5)
    assert result is not None and len(checks) == 1 + len(inspected_layers(network))
    assert all(check.right for check in checks), [check for check in checks if not check.right]
