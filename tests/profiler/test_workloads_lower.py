"""What of a torch network becomes layers, and how the rest is refused."""

import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import INPUT_SHAPE, random_network
from torch import nn

from profiler.errors import UserError
from profiler.ops import Add, AvgPool2d, Conv2d, Depthwise, GlobalAvgPool, Linear, MaxPool2d, Relu
from profiler.workloads.catalog import BUILT_IN
from profiler.workloads.lower import load_network, lower
from profiler.workloads.mlperf_tiny import INPUT_SHAPES


class Calls(nn.Module):
    """A convolution, then whatever a test wants done with its output."""

    def __init__(self, function, *modules):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.ModuleList(modules)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x), *self.inner)


def layers_of(module, shape=(3, 8, 6)):
    return lower(module, shape, "net").layers


def behind_conv(function, *modules, shape=(3, 8, 6)):
    first, *rest = layers_of(Calls(function, *modules), shape)
    assert first.name == "conv"
    return rest


def sequence(*modules):
    return [layer.geometry for layer in layers_of(nn.Sequential(*modules))]


@pytest.mark.parametrize(
    ("module", "geometry"),
    [
        (nn.Conv2d(3, 5, 3), Conv2d(8, 6, 3, 5, 3, 3)),
        (nn.Conv2d(3, 5, (1, 3), (2, 1), (0, 1), bias=False), Conv2d(8, 6, 3, 5, 1, 3, 2, 1, 0, 1, 1, 0)),
        (nn.Conv2d(3, 5, (5, 3), padding="same"), Conv2d(8, 6, 3, 5, 5, 3, 1, 1, 2, 1)),
        (nn.Conv2d(3, 5, 2, padding="valid"), Conv2d(8, 6, 3, 5, 2, 2)),
        (nn.Conv2d(3, 6, 3, groups=3), Conv2d(8, 6, 3, 6, 3, 3, groups=3)),
        (nn.Conv2d(3, 3, 3, 2, 1, groups=3), Depthwise(8, 6, 3, 3, 3, 2, 2, 1, 1)),
        (nn.AvgPool2d(2), AvgPool2d(8, 6, 3, 2, 2, 2, 2)),
        (nn.AvgPool2d((3, 1), (2, 1), (1, 0)), AvgPool2d(8, 6, 3, 3, 1, 2, 1, 1, 0)),
        (nn.MaxPool2d(3, 2, 1), MaxPool2d(8, 6, 3, 3, 3, 2, 2, 1, 1)),
        (nn.AdaptiveAvgPool2d(1), GlobalAvgPool(8, 6, 3)),
        (nn.AdaptiveAvgPool2d((1, 1)), GlobalAvgPool(8, 6, 3)),
        (nn.ReLU(), Relu(144)),
        (nn.ReLU6(), Relu(144, 6)),
        (nn.Hardtanh(0, 4), Relu(144, 4)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_module_becomes_its_layer(module, geometry):
    assert sequence(module) == [geometry]


@pytest.mark.parametrize(
    ("function", "geometry"),
    [
        (F.relu, Relu(192)),
        (torch.relu, Relu(192)),
        (lambda x: x.relu(), Relu(192)),
        (lambda x: F.relu(x, inplace=True), Relu(192)),
        (F.relu6, Relu(192, 6)),
        (lambda x: F.hardtanh(x, 0.0, 3.0), Relu(192, 3)),
        (lambda x: torch.clamp(x, min=0), Relu(192)),
        (lambda x: x.clamp(0, 6), Relu(192, 6)),
        (lambda x: x + x, Add(192)),
        (lambda x: torch.add(x, x), Add(192)),
        (lambda x: x.add(x), Add(192)),
        (lambda x: x.mean((2, 3)), GlobalAvgPool(8, 6, 4)),
        (lambda x: x.mean([-1, -2], keepdim=True), GlobalAvgPool(8, 6, 4)),
        (lambda x: torch.mean(x, dim=(2, 3)), GlobalAvgPool(8, 6, 4)),
        (lambda x: x.mean(3).mean(2), GlobalAvgPool(8, 6, 4)),
        (lambda x: x.mean(2, keepdim=True).mean(3), GlobalAvgPool(8, 6, 4)),
        (lambda x: x.mean(2).mean(2), GlobalAvgPool(8, 6, 4)),
        (lambda x: F.adaptive_avg_pool2d(x, 1), GlobalAvgPool(8, 6, 4)),
        (lambda x: F.avg_pool2d(x, 2), AvgPool2d(8, 6, 4, 2, 2, 2, 2)),
        (lambda x: F.avg_pool2d(x, 3, 1, 1), AvgPool2d(8, 6, 4, 3, 3, 1, 1, 1, 1)),
        (lambda x: F.max_pool2d(x, 2), MaxPool2d(8, 6, 4, 2, 2, 2, 2)),
        (lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1), MaxPool2d(8, 6, 4, 3, 3, 2, 2, 1, 1)),
    ],
)
def test_a_function_becomes_its_layer(function, geometry):
    (layer,) = behind_conv(function)
    assert layer.geometry == geometry
    assert set(layer.inputs) == {"conv"}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.flatten(x, 1),
        lambda x: x.flatten(1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view(-1, 192),
        lambda x: F.dropout(x, 0.5, False).flatten(1),
        lambda x: x.contiguous().flatten(1),
    ],
)
def test_flattening_is_no_layer(function):
    (last,) = behind_conv(lambda x, linear: linear(function(x)), nn.Linear(192, 5))
    assert last.geometry == Linear(192, 5)
    assert last.inputs == ("conv",)


def test_squeezing_behind_a_pool_is_no_layer():
    layers = behind_conv(lambda x, linear: linear(x.mean((2, 3), True).squeeze(-1).squeeze(-1)), nn.Linear(4, 5))
    assert [layer.geometry for layer in layers] == [GlobalAvgPool(8, 6, 4), Linear(4, 5)]


def test_identities_and_dropout_vanish():
    assert sequence(nn.Identity(), nn.ReLU(), nn.Dropout2d(), nn.Flatten(), nn.Dropout(0.5)) == [Relu(144)]


@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalisation_folds_into_the_layer_before_it(bias):
    geometries = sequence(
        nn.Conv2d(3, 4, 3, bias=bias),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4, bias=bias),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(32, 6, bias=bias),
        nn.BatchNorm1d(6),
    )
    assert geometries == [Conv2d(8, 6, 3, 4, 3, 3), Relu(96), Depthwise(6, 4, 4, 3, 3), Linear(32, 6)]


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        Calls(lambda x, norm: x + norm(x), nn.BatchNorm2d(4)),
    ],
)
def test_batch_normalisation_elsewhere_is_refused(network):
    with pytest.raises(UserError, match=r"BatchNorm2d \(only directly behind a convolution"):
        lower(network, (3, 8, 6), "net")


def test_a_batch_normalisation_without_running_statistics_is_refused_for_that():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(UserError, match=r"BatchNorm2d \(without running statistics"):
        lower(network, (3, 8, 6), "net")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.sigmoid, "sigmoid: sigmoid"),
        (lambda x: torch.cat([x, x], 1), "cat: cat"),
        (lambda x: x * x, "mul: mul"),
        (lambda x: x + 1, "add: add .of a tensor and a number"),
        (lambda x: x + x.mean((2, 3), True), "add: add .of shapes 1x4x8x6 and 1x4x1x1"),
        (lambda x: torch.add(x, x, alpha=2), "with alpha 2"),
        (lambda x: x.mean(1), "mean: mean"),
        (lambda x: x.mean(3), "mean: mean"),
        (lambda x: x.view(1, 2, 2, 8, 6), "view: view .to 1x2x2x8x6"),
        (lambda x: x.permute(0, 2, 3, 1), "permute: permute"),
        (lambda x: F.avg_pool2d(x, 2, ceil_mode=True), "with ceil_mode"),
        (lambda x: F.avg_pool2d(x, 3, 1, 1, False, False), "with padding that does not count"),
        (lambda x: F.max_pool2d(x, 2, dilation=2), "with dilation"),
        (lambda x: F.adaptive_avg_pool2d(x, 2), "to 2, there is 1"),
        (F.hardtanh, "clamped from below 0"),
        (lambda x: F.hardtanh(x, 0, 0.5), "clamped at 0.5"),
        (lambda x: x.relu_() + x, "in place, on a tensor that is read again"),
    ],
)
def test_what_no_kernel_computes_is_named(function, message):
    with pytest.raises(UserError, match=message) as error:
        lower(Calls(function), (3, 8, 6), "net")
    assert "supported are Conv2d" in str(error.value)
    assert error.value.exit_status == 1


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(3, 4, 3, dilation=2), "dilation"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "padding mode reflect"),
        (nn.Conv2d(3, 4, (3, 2), padding="same"), "even kernel"),
        (nn.Linear(6, 4), "applied to every row"),
        (nn.GELU(), "GELU"),
        (nn.InstanceNorm2d(3), "InstanceNorm2d"),
        (nn.Hardtanh(), "clamped from -1"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (nn.Upsample(scale_factor=2), "Upsample"),
    ],
)
def test_modules_that_no_kernel_computes_are_named(module, message):
    with pytest.raises(UserError, match=message):
        lower(nn.Sequential(module), (3, 8, 6), "net")


def test_a_refusal_names_every_op_at_once():
    network = nn.Sequential(nn.GELU(), nn.Conv2d(3, 4, 3, dilation=2), nn.Sequential(nn.Sigmoid()), nn.ReLU())
    with pytest.raises(UserError) as error:
        lower(network, (3, 8, 6), "net")
    for part in ("0: GELU", "1: Conv2d (dilation", "2.0: Sigmoid"):
        assert part in str(error.value)
    assert "ReLU" not in str(error.value).split("supported are")[0]


def test_weights_that_two_layers_share_are_refused():
    shared = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError, match="called 2 times with shared weights"):
        lower(nn.Sequential(shared, nn.ReLU(), shared), (3, 8, 6), "net")


def test_an_activation_module_may_be_used_again():
    relu = nn.ReLU()
    layers = layers_of(nn.Sequential(nn.Conv2d(3, 3, 1), relu, nn.Conv2d(3, 3, 1), relu))
    assert [layer.name for layer in layers] == ["0", "1", "2", "1.2"]


def test_layers_inside_modules_have_qualified_names():
    _, network = load_network("mcunet-5fps", (3, 64, 64))
    names = [layer.name for layer in network.layers]
    assert len(set(names)) == len(names)
    assert "blocks.2.pointwise1" in names
    assert network["blocks.2.add"].inputs == ("blocks.1.pointwise2", "blocks.2.pointwise2")


def test_what_the_output_does_not_depend_on_is_left_out():
    def forward(x, unused):
        unused(x)
        return x.relu()

    assert [layer.geometry for layer in behind_conv(forward, nn.Conv2d(4, 7, 1))] == [Relu(192)]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 2, 2)])
def test_a_wrong_input_is_one_sentence(shape):
    with pytest.raises(UserError, match=f"does not take an input of {'x'.join(map(str, shape))}: ") as error:
        lower(nn.Sequential(nn.Conv2d(3, 4, 5)), shape, "net")
    assert "\n" not in str(error.value)


def test_control_flow_that_depends_on_data_is_refused():
    with pytest.raises(UserError, match="cannot be traced"):
        lower(Calls(lambda x: x if x.sum() > 0 else -x), (3, 8, 6), "net")


@pytest.mark.parametrize(
    ("function", "message"), [(lambda x: (x, x), "something else than a tensor"), (lambda x: 3, "something else")]
)
def test_a_network_that_returns_no_tensor_is_refused(function, message):
    with pytest.raises(UserError, match=message):
        lower(Calls(function), (3, 8, 6), "net")


def test_a_network_without_layers_is_refused():
    with pytest.raises(UserError, match="returns its input"):
        lower(nn.Identity(), (3, 8, 6), "net")


def test_what_does_not_fit_an_op_s_fields_is_refused():
    with pytest.raises(UserError, match="in_features 98304 is above 65535"):
        lower(nn.Sequential(nn.Flatten(), nn.Linear(98304, 1)), (3, 256, 128), "net")


def test_the_caller_s_module_is_left_as_it_is():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    lower(module, (3, 8, 6), "net")
    assert all(m.training for m in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_only_maps_of_more_than_one_position_count_as_ending_in_a_map():
    assert lower(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (3, 8, 6), "net").ends_in_map
    assert not lower(nn.Sequential(nn.Conv2d(3, 4, (8, 6))), (3, 8, 6), "net").ends_in_map
    assert not lower(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), (3, 8, 6), "net").ends_in_map


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_layers_agree_with_torch_about_shapes_and_order(seed):
    module, network = random_network(seed)
    known = {"input"}
    for layer in network.layers:
        assert set(layer.inputs) <= known
        known.add(layer.name)
    elements = network[network.output].geometry.output_shape
    assert torch.Size([1, torch.Size(elements).numel()]) == module(torch.zeros(1, *INPUT_SHAPE).double()).shape
    weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert weights == sum(torch.Size(layer.geometry.weight_shape).numel() for layer in network.trainable)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_networks_are_known_by_name(name):
    module, network = load_network(name, INPUT_SHAPES.get(name, (3, 32, 32)))
    assert isinstance(module, nn.Module)
    assert network.name == name
    assert network.trainable


def test_a_user_s_network_comes_from_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "mynet_for_test.py").write_text(
        "from torch import nn\n"
        "def create(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))\n"
        "def broken(): raise RuntimeError('no weights')\n"
        "number = 3\n"
        "def three(): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    _, network = load_network("mynet_for_test:create", (3, 4, 4))
    assert [layer.geometry for layer in network.layers] == [Conv2d(4, 4, 3, 4, 3, 3), Linear(16, 2)]
    for spec, message in (
        ("mynet_for_test:missing", "cannot be imported"),
        ("nosuchmodule_for_test:create", "cannot be imported"),
        ("mynet_for_test:broken", "could not be made: RuntimeError: no weights"),
        ("mynet_for_test:number", "is not a function"),
        ("mynet_for_test:three", "is int, not a torch module"),
        ("nosuchnetwork", "give one of mcunet-5fps"),
        (":", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=message):
            load_network(spec, (3, 4, 4))
