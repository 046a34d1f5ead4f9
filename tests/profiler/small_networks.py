"""Random small networks with forks and sums, and torch's own training step for them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from profiler import prng
from profiler.ops import Conv2d, Depthwise, Linear
from profiler.reference import expected
from profiler.reference_f32 import trained_indices
from profiler.workloads.lower import lower
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.program import DeviceMemory, offset_of, region_of, step_program
from profiler.workloads.step import training_step

torch.set_num_threads(1)  # tensors this small only wait for each other

MEMORY = DeviceMemory(
    arena_bytes=64 << 20, blob_bytes=64 << 10, blob_seed=77, blob_segments=(127, 126, 125, 124), entry_bytes=104
)
NO_BLOB = DeviceMemory(arena_bytes=64 << 20, blob_bytes=0, blob_seed=0, blob_segments=(), entry_bytes=104)


class Residual(nn.Module):
    """Expansion, depthwise convolution, projection, added to the input; or twice that, where ``double``."""

    def __init__(self, rng, channels, double):
        super().__init__()
        hidden = channels * int(rng.integers(1, 4))
        kernel = int(rng.choice([1, 3, 5]))
        self.expand = nn.Conv2d(channels, hidden, 1, bias=bool(rng.integers(2)))
        self.norm = nn.BatchNorm2d(hidden, eps=0) if self.expand.bias is not None and rng.integers(2) else nn.Identity()
        self.relu = nn.ReLU6() if rng.integers(2) else nn.ReLU()
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding="same", groups=hidden)
        self.project = nn.Conv2d(hidden, channels, 1)
        self.shortcut = nn.Conv2d(channels, channels, 1) if rng.integers(3) == 0 else nn.Identity()
        self.double = double
        self.relu_after = bool(rng.integers(2))

    def forward(self, x):
        y = self.project(self.depthwise(self.relu(self.norm(self.expand(x)))))
        y = self.shortcut(x) + y
        if self.double:
            y = torch.add(y, x)
        return F.relu(y) if self.relu_after else y


class SmallNetwork(nn.Module):
    """A stem, residual blocks and reductions, then pooling or flattening, then maybe a linear layer."""

    def __init__(self, rng, logits=0):
        super().__init__()
        channels = int(rng.integers(2, 7))
        parts = [nn.Conv2d(3, channels, 3, int(rng.integers(1, 3)), padding=1), nn.ReLU()]
        for _ in range(int(rng.integers(1, 4))):
            choice = int(rng.integers(5))
            if choice <= 1:
                parts.append(Residual(rng, channels, double=bool(rng.integers(2))))
            elif choice == 2:
                parts.append(nn.MaxPool2d(3, 2, padding=1) if rng.integers(2) else nn.AvgPool2d(2, 1, padding=1))
            elif choice == 3:
                groups = 2 if channels % 2 == 0 else 1
                more = channels * int(rng.integers(1, 3))
                parts += [nn.Conv2d(channels, more, (3, 1), (2, 1), padding=(1, 0), groups=groups), nn.ReLU6()]
                channels = more
            else:
                parts += [nn.Conv2d(channels, channels, 3, 1, padding=1, groups=channels), nn.ReLU6()]
        self.parts = nn.Sequential(*parts)
        self.pools = bool(rng.integers(2))
        with torch.no_grad():
            flat = self._flatten(self.parts.eval()(torch.zeros(1, 3, 9, 8))).shape[1]
        self.last = nn.Linear(flat, logits or int(rng.integers(2, 8))) if logits or rng.integers(2) else nn.Identity()

    def _flatten(self, x):
        return x.mean((2, 3)) if self.pools else torch.flatten(x, 1)

    def forward(self, x):
        return self.last(self._flatten(self.parts(x)))


class LiteResidual(nn.Module):
    """TinyTL's (arXiv 2007.11622): half the map, a grouped convolution, GroupNorm, ReLU, pointwise, back to the map.

    Args:
        channels: Of the block's input and output.
        norm_groups: Of the GroupNorm; TinyTL's have 8 channels each.
        function: Whether up-sampling is a function call rather than a module.
    """

    def __init__(self, channels, norm_groups, *, bias=True, function=False):
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=2, bias=False)
        self.norm = nn.GroupNorm(norm_groups, channels, bias=bias)
        self.relu = nn.ReLU()
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.up = None if function else nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x):
        y = self.pointwise(self.relu(self.norm(self.grouped(self.pool(x)))))
        return self.up(y) if self.up else F.interpolate(y, x.shape[2:], mode="bilinear")


class LiteNetwork(nn.Module):
    """A stem and two frozen blocks with a lite residual beside each, then pooling."""

    def __init__(self, channels=16):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, 2, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.lites = nn.ModuleList(
            (LiteResidual(channels, channels // 8), LiteResidual(channels, 4, bias=False, function=True))
        )

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block, lite in zip(self.blocks, self.lites, strict=True):
            x = F.relu(block(x)) + lite(x)
        return x.mean((2, 3))


INPUT_SHAPE = (3, 9, 8)


def random_network(seed, logits=0):
    """A torch module in float64 and evaluation mode, and its layers."""
    module = SmallNetwork(np.random.default_rng(seed), logits).double().eval()
    return module, lower(module, INPUT_SHAPE, "small")


def random_plan(seed, network, logits=0, **settings):
    """Some layers with some channels, on either axis, with or without their biases; never none."""
    rng = np.random.default_rng(seed + 1)
    layers = {}
    for layer in network.trainable:
        g = layer.geometry
        if rng.integers(2) and len(layers) < len(network.trainable) - 1:
            continue
        axis = "in" if rng.integers(3) == 0 and not isinstance(g, Depthwise) else "out"
        count = g.channels(axis)
        picked = rng.choice(count, size=int(rng.integers(0, count + 1)), replace=False)
        if rng.integers(3) == 0:
            picked = np.arange(count)
        bias = bool(g.bias_elements) and bool(rng.integers(4))
        if len(picked) or bias:
            layers[layer.name] = LayerPlan(tuple(sorted(int(c) for c in picked)), axis, bias)
    if not layers:
        layers[network.trainable[-1].name] = LayerPlan((0,), "out", False)
    classes = logits or int(rng.integers(2, 6))
    head = Head("cross_entropy" if logits else "cosine_prototype", classes)
    settings = {"images": int(rng.integers(1, 4)), "optimizer": "adam" if rng.integers(2) else "sgd"} | settings
    return StepPlan.for_network(network, layers, head=head, learning_rate=0.01, **settings)


def starting_value(program, name, seed, memory, image=0):
    """What a tensor holds before the first op, from the PRNG alone."""
    for index, entry in enumerate(program.entries):
        if entry.fill is not None:
            for s in entry.fill.slices:
                if s.name == name:
                    f = entry.fill
                    stream = f.stream + ((image << 16) if index >= program.setup_end else 0)
                    return prng.fill(f.mode, f.parameter, seed, stream, f.elements)[s.first : s.first + s.elements]
        elif name in entry.tensors:
            position = entry.tensors.index(name)
            reference, spec = entry.references[position], entry.op.buffers()[position]
            assert region_of(reference) == 1
            offset = offset_of(reference)
            return prng.blob_window(memory.blob_seed, memory.blob_segments, memory.blob_bytes, offset, spec.elements)
    raise KeyError(name)


def to_device(g, weight, flattened_map=None):
    """A torch weight in the device's layout; ``flattened_map`` is (C, H, W) where a linear layer reads such a map."""
    if isinstance(g, Conv2d):
        return weight.permute(0, 2, 3, 1)
    if isinstance(g, Depthwise):
        return weight.squeeze(1).permute(1, 2, 0)
    if isinstance(g, Linear) and flattened_map is not None:
        return weight.reshape(-1, *flattened_map).permute(0, 2, 3, 1).reshape(weight.shape)
    return weight


def from_device(g, weight, flattened_map=None):
    """The inverse of :func:`to_device`."""
    w = torch.from_numpy(np.asarray(weight, dtype=np.float64)).reshape(g.weight_shape)
    if isinstance(g, Conv2d):
        return w.permute(0, 3, 1, 2)
    if isinstance(g, Depthwise):
        return w.permute(2, 0, 1).unsqueeze(1)
    if isinstance(g, Linear) and flattened_map is not None:
        c, h, width = flattened_map
        return w.reshape(-1, h, width, c).permute(0, 3, 1, 2).reshape(w.shape)
    return w


def flattened_map_of(network, layer=None):
    """(C, H, W) of the map that a linear layer (or the head) reads flattened; None where it reads a vector."""
    if layer is not None and not isinstance(layer.geometry, Linear):
        return None
    source = network.output if layer is None else layer.inputs[0]
    while source != "input" and len(network[source].geometry.output_shape) == 1:
        if network[source].geometry.kind not in ("relu", "add"):
            return None
        source = network[source].inputs[0]
    if source == "input":
        return network.input_shape
    h, w, c = network[source].geometry.output_shape
    return c, h, w


def torch_step(module, network, plan, program, *, seed, memory):
    """One training step by autograd and torch.optim, in float64.

    Returns:
        Loss summed over the images, and for every trained layer its weights and bias, in the device's layouts.
    """
    modules = dict(module.named_modules())
    for layer in network.trainable:
        g, m = layer.geometry, modules[layer.name]
        m.weight.data = from_device(
            g, starting_value(program, f"{layer.name}/weight", seed, memory), flattened_map_of(network, layer)
        ).contiguous()
        if g.bias_elements:
            bias = starting_value(program, f"{layer.name}/bias", seed, memory)
            m.bias.data = torch.from_numpy(bias.astype(np.float64))
    losses = []
    for image in range(plan.images):
        h, w = network.input_shape[1:]
        pixels = starting_value(program, "input", seed, memory, image).astype(np.float64)
        x = torch.from_numpy(pixels.reshape(h, w, -1)).permute(2, 0, 1).unsqueeze(0)
        label = torch.from_numpy(starting_value(program, "label", seed, memory, image)).long()
        y = module(x)
        flattened = flattened_map_of(network)
        if flattened is not None:
            y = y.reshape(1, *flattened).permute(0, 2, 3, 1).reshape(1, -1)
        if plan.head.kind == "cosine_prototype":
            prototypes = starting_value(program, "prototypes", seed, memory).astype(np.float64)
            prototypes = torch.from_numpy(prototypes.reshape(plan.head.classes, -1))
            y = plan.head.scale * F.normalize(y, dim=1) @ prototypes.T
        losses.append(F.cross_entropy(y, label))
    trained = {name: modules[name] for name in plan.layers}
    parameters = [p for m in trained.values() for p in (m.weight, m.bias) if p is not None]
    optimizer = torch.optim.Adam if plan.optimizer == "adam" else torch.optim.SGD
    optimizer = optimizer(parameters, lr=plan.learning_rate)
    torch.stack(losses).mean().backward()
    result = {}
    for name, m in trained.items():
        p, g = plan.layers[name], network[name].geometry
        shape = flattened_map_of(network, network[name])
        mask = np.zeros(g.weight_shape)
        mask.reshape(-1)[trained_indices(g, p.axis, p.channels).reshape(-1)] = 1 if p.channels else 0
        m.weight.grad *= from_device(g, mask, shape)
        if m.bias is not None:
            chosen = list(p.channels) if p.axis == "out" and p.channels else range(g.bias_elements)
            keep = torch.zeros_like(m.bias)
            keep[list(chosen)] = float(p.bias)
            m.bias.grad *= keep
    optimizer.step()
    for name, m in trained.items():
        g = network[name].geometry
        weight = to_device(g, m.weight.detach(), flattened_map_of(network, network[name]))
        result[f"{name}/weight"] = weight.reshape(-1).numpy()
        if m.bias is not None:
            result[f"{name}/bias"] = m.bias.detach().numpy()
    return float(torch.stack(losses).detach().sum()), result


def relative(a, b):
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)


def check_against_torch(module, network, plan, *, memory, seed):
    """Hold the reference of a step's program against autograd and torch.optim."""
    tolerance = 1e-9
    program = step_program(training_step(network, plan), memory)
    results = expected(program, seed, memory)
    loss, weights = torch_step(module, network, plan, program, seed=seed, memory=memory)
    assert results["loss"][0] == pytest.approx(loss, rel=tolerance)
    checked = 0
    for name, wanted in weights.items():
        if name in results:
            assert relative(results[name], wanted) < tolerance, name
            checked += 1
    assert checked == sum(bool(p.channels) + p.bias for p in plan.layers.values())
