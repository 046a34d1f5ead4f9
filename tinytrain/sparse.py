"""A torch network under a plan, split where training begins.

What no trained parameter influences is the *prefix*: it runs without gradients, and its values are dropped as soon as
they have been read. The rest, the *suffix*, runs through :mod:`tinytrain.sparse_ops`. Between them lie the *cut*
tensors, those of the prefix (or the input) that the suffix reads: one where the plan's frontier lies in a plain chain,
two where it lies beside a residual connection. They do not change while the plan trains, so they can be kept
(:mod:`tinytrain.cache`).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from profiler.workloads.plan import LayerPlan
from tinytrain.sparse_ops import Clamp, SparseLayer, clamped

_LAYERS = (nn.Conv2d, nn.Linear, nn.GroupNorm)


class SparseNetwork:
    """A network that computes gradients of a plan's channels only.

    Args:
        model: Without batch normalisation that still has to be folded; its weights are shared, not copied.
        layers: Layer name to what trains in it.

    Attributes:
        layers: The trained layers by name, each with ``weight`` and ``bias`` that gradients are taken of.
        cut: Names of the tensors that lie between prefix and suffix.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, LayerPlan]) -> None:
        self._model = model
        traced = model if isinstance(model, fx.GraphModule) else fx.symbolic_trace(model)
        self._modules = dict(traced.named_modules())
        self._nodes = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output")]
        (self._input,) = [n for n in traced.graph.nodes if n.op == "placeholder" and not n.args]
        self._output = next(n for n in traced.graph.nodes if n.op == "output").args[0]
        self._folded: dict[fx.Node, fx.Node] = {}
        self.layers: dict[str, SparseLayer] = {}
        self._run: dict[fx.Node, SparseLayer] = {}
        for node in self._nodes:
            if isinstance(self._module(node), _LAYERS):
                self._run[node] = self._layer(node, layers.get(str(node.target)))
        self._influenced = self._influence()
        suffix = [node for node in self._nodes if node in self._influenced]
        read = {s for node in (suffix or [self._output]) for s in _sources(node)} if suffix else {self._output}
        # In the order in which they are computed, so that names and positions mean the same at every call.
        self._cut = [n for n in (self._input, *self._nodes) if n in read and n not in self._influenced]
        self.cut = tuple(n.name for n in self._cut)
        self._prefix = self._needed(self._cut)
        self._suffix = suffix
        self._last_prefix, self._last_suffix = _last_uses(self._prefix), _last_uses(suffix)

    @torch.no_grad()
    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """The cut tensors of a batch, each of shape (n, ...)."""
        values = {self._input: images.contiguous(memory_format=torch.channels_last)}
        del images
        keep = set(self._cut)
        for node in self._prefix:
            values[node] = self._compute(node, values, gradients=False)
            _drop(node, values, self._last_prefix, keep)
        return tuple(values[node] for node in self._cut)

    def suffix(self, cut: Sequence[Tensor]) -> Tensor:
        """The network's output of the cut tensors, with autograd behind it; shape (n, features)."""
        values = dict(zip(self._cut, cut, strict=True))
        del cut
        for node in self._suffix:
            values[node] = self._compute(node, values, gradients=True)
            _drop(node, values, self._last_suffix, {self._output})
        return values[self._output]

    def __call__(self, images: Tensor) -> Tensor:
        """Images to outputs."""
        return self.suffix(self.prefix(images))

    def parameters(self) -> list[Tensor]:
        """What gradients are taken of: per trained layer its chosen weights, flat, then its chosen biases."""
        return [t for layer in self.layers.values() for t in (layer.weight, layer.bias) if t is not None]

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def _layer(self, node: fx.Node, plan: LayerPlan | None) -> SparseLayer:
        """A layer with the clamp that alone reads its output."""
        clamp = None
        if len(node.users) == 1:
            user = next(iter(node.users))
            clamp = _clamp_of(user, self._module(user))
            if clamp is not None:
                self._folded[user] = node
        layer = SparseLayer(self._module(node), plan if plan is not None and plan.trains else None, clamp)
        if layer.plan is not None:
            self.layers[str(node.target)] = layer
        return layer

    def _influence(self) -> set[fx.Node]:
        found: set[fx.Node] = set()
        for node in self._nodes:
            layer = self._run.get(node)
            if (layer is not None and layer.plan is not None) or any(s in found for s in _sources(node)):
                found.add(node)
        return found

    def _needed(self, wanted: Sequence[fx.Node]) -> list[fx.Node]:
        needed = set(wanted)
        for node in reversed(self._nodes):
            if node in needed:
                needed.update(_sources(node))
        return [node for node in self._nodes if node in needed]

    def _compute(self, node: fx.Node, values: dict[fx.Node, Tensor], *, gradients: bool) -> Tensor:
        if node in self._folded:
            return values[self._folded[node]]
        if node in self._run:
            layer, x = self._run[node], values[_sources(node)[0]]
            return layer(x) if gradients else layer.forward(x)
        clamp = _clamp_of(node, self._module(node))
        if clamp is not None:
            x = values[_sources(node)[0]]
            return clamped(x, clamp) if gradients else clamp.apply_(x.clone())
        args = fx.map_arg(node.args, lambda n: values[n])
        kwargs = fx.map_arg(node.kwargs, lambda n: values[n])
        if node.op == "call_module":
            return self._modules[str(node.target)](*args, **kwargs)
        # Nothing in place: the cut tensors are kept, and autograd may have kept the others.
        if node.op == "call_method":
            return getattr(args[0], str(node.target).rstrip("_"))(*args[1:], **kwargs)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self._model)
        target = operator.add if node.target is operator.iadd else node.target
        return target(*args, **kwargs)


def _sources(node: fx.Node) -> list[fx.Node]:
    return list(node.all_input_nodes)


def _last_uses(nodes: Sequence[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Node to the tensors that nothing of ``nodes`` reads after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for source in _sources(node):
            last[source] = node
    by_reader: dict[fx.Node, list[fx.Node]] = {}
    for source, reader in last.items():
        by_reader.setdefault(reader, []).append(source)
    return by_reader


def _drop(
    node: fx.Node, values: dict[fx.Node, Tensor], last: Mapping[fx.Node, list[fx.Node]], keep: set[fx.Node]
) -> None:
    for source in last.get(node, ()):
        if source not in keep:
            values.pop(source, None)


def _clamp_of(node: fx.Node, module: nn.Module | None) -> Clamp | None:
    if isinstance(module, nn.ReLU6) or node.target is nn.functional.relu6:
        return Clamp(0.0, 6.0)
    relus = (torch.relu, nn.functional.relu)
    if isinstance(module, nn.ReLU) or node.target in relus or (node.op == "call_method" and node.target == "relu"):
        return Clamp(0.0, float("inf"))
    return None
