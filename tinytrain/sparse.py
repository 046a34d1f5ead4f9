"""A torch network under a plan, split where training begins.

What no trained parameter influences is the *prefix*: it runs without gradients, and its values are dropped as soon as
they have been read. The rest, the *suffix*, runs through :mod:`tinytrain.sparse_ops`. Between them lie the *cut*
tensors, those of the prefix (or the input) that the suffix reads: one where the plan's frontier lies in a plain chain,
two where it lies beside a residual connection. They do not change while the plan trains, so they can be kept
(:mod:`tinytrain.cache`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from profiler.workloads.plan import LayerPlan
from tinytrain.sparse_ops import Addition, Clamp, ClampAlone, Op, Other, SparseLayer, SparseNorm

_ADDITIONS = (operator.add, operator.iadd, torch.add)
#: Images that go through the prefix at once. Its first maps are the largest of the network, and with a batch of 25 take
#: twice the memory of all that training keeps; from eight images on a pass is not slower for being split.
_TOGETHER = 8


@dataclass(frozen=True, eq=False)
class _Node:
    """A node as it is run.

    Attributes:
        op: What it does.
        sources: Places of its inputs.
        place: Of its output.
        wanted: Whether something that trains influences each input.
        dropped: Places that nothing reads after it.
    """

    op: Op
    sources: tuple[int, ...]
    place: int
    wanted: tuple[bool, ...]
    dropped: tuple[int, ...]


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
        (image,) = [n for n in traced.graph.nodes if n.op == "placeholder" and not n.args]
        output = next(n for n in traced.graph.nodes if n.op == "output").args[0]
        read_by_output = {output}
        for node in reversed(traced.graph.nodes):
            if node in read_by_output:
                read_by_output.update(node.all_input_nodes)
        nodes = [node for node in traced.graph.nodes if node in read_by_output and node.op != "placeholder"]
        self.layers: dict[str, SparseLayer | SparseNorm] = {}
        folded: dict[fx.Node, fx.Node] = {}
        ops: dict[fx.Node, Op] = {}
        for node in nodes:
            if node not in folded:
                ops[node] = self._op(node, layers, folded)
        for clamp, layer in folded.items():
            readers = (ops.get(user) for user in clamp.users)
            ops[layer].output_kept = any(isinstance(r, SparseLayer) and r.keeps_input for r in readers)
        # A folded clamp's output is its layer's.
        sources = {n: tuple(folded.get(s, s) for s in n.all_input_nodes) for n in ops}
        output = folded.get(output, output)
        influenced: set[fx.Node] = set()
        for node in ops:
            if str(node.target) in self.layers or any(s in influenced for s in sources[node]):
                influenced.add(node)
        suffix = [node for node in ops if node in influenced]
        read = {s for node in suffix for s in sources[node]} if suffix else {output}
        # In the order in which they are computed, so that names and positions mean the same at every call.
        cut = [n for n in (image, *ops) if n in read and n not in influenced]
        names = {layer: clamp.name for clamp, layer in folded.items()}
        self.cut = tuple(names.get(n, n.name) for n in cut)
        needed = set(cut)
        for node in reversed(list(ops)):
            if node in needed:
                needed.update(sources[node])
        prefix = [node for node in ops if node in needed]
        place = {node: number for number, node in enumerate((image, *ops))}

        def program(of: Sequence[fx.Node], keep: set[fx.Node]) -> list[_Node]:
            last = {source: node for node in of for source in sources[node]}
            return [
                _Node(
                    ops[node],
                    tuple(place[s] for s in sources[node]),
                    place[node],
                    tuple(s in influenced for s in sources[node]),
                    tuple(place[s] for s, reader in last.items() if reader is node and s not in keep),
                )
                for node in of
            ]

        self._prefix, self._suffix = program(prefix, set(cut)), program(suffix, {output})
        self._cut, self._output, self._places = [place[n] for n in cut], place[output], len(place)

    @torch.no_grad()
    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """The cut tensors of any number of images, each of shape (n, ...)."""
        parts = [self._prefix_of(part) for part in images.tensor_split(max(1, math.ceil(len(images) / _TOGETHER)))]
        return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))

    def _prefix_of(self, images: Tensor) -> tuple[Tensor, ...]:
        values: list[Tensor | None] = [None] * self._places
        values[0] = images.contiguous(memory_format=torch.channels_last)
        _forward(self._prefix, values)
        return tuple(values[place] for place in self._cut)

    @torch.no_grad()
    def output(self, cut: Sequence[Tensor]) -> Tensor:
        """As :meth:`suffix`, without autograd: nothing is kept."""
        values = self._values(cut)
        del cut
        _forward(self._suffix, values)
        return values[self._output]

    def suffix(self, cut: Sequence[Tensor]) -> Tensor:
        """The network's output of the cut tensors, with autograd behind it; shape (n, features)."""
        return _Suffix.apply(self, cut, *self.parameters()) if self._suffix else cut[0]

    def __call__(self, images: Tensor) -> Tensor:
        """Images to outputs."""
        return self.suffix(self.prefix(images))

    def parameters(self) -> list[Tensor]:
        """What gradients are taken of: per trained layer its chosen weights, flat, then its chosen biases."""
        return [t for layer in self.layers.values() for t in layer.parameters]

    def run(self, cut: Sequence[Tensor]) -> tuple[Tensor, list[Any]]:
        """The output, and what :meth:`back` needs: an entry a node of the suffix, in the order in which they ran."""
        values = self._values(cut)
        del cut
        tape = []
        for node in self._suffix:
            values[node.place], kept = node.op.run(*[values[s] for s in node.sources])
            tape.append(kept)
            for place in node.dropped:
                values[place] = None
        return values[self._output], tape

    def back(self, tape: list[Any], gradient: Tensor) -> list[Tensor]:
        """Gradients of :meth:`parameters`; ``tape`` is used up, so that what is kept goes as it has been read."""
        gradients: dict[int, Tensor] = {self._output: gradient}
        found: dict[int, Tensor] = {}
        for node in reversed(self._suffix):
            own, of_parameters = node.op.back(tape.pop(), gradients.pop(node.place), node.wanted)
            for source, part in zip(node.sources, own, strict=True):
                if part is not None:
                    there = gradients.get(source)
                    gradients[source] = part if there is None else there + part
            found.update(zip(map(id, node.op.parameters), of_parameters, strict=True))
        return [found[id(parameter)] for parameter in self.parameters()]

    def _values(self, cut: Sequence[Tensor]) -> list[Tensor | None]:
        values: list[Tensor | None] = [None] * self._places
        for place, tensor in zip(self._cut, cut, strict=True):
            values[place] = tensor
        return values

    def _op(self, node: fx.Node, layers: Mapping[str, LayerPlan], folded: dict[fx.Node, fx.Node]) -> Op:
        """What a node does, a layer with the clamp that alone reads its output."""
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear | nn.GroupNorm):
            plan = layers.get(str(node.target))
            plan = plan if plan is not None and plan.trains else None
            if isinstance(module, nn.GroupNorm):
                layer = SparseNorm(module, plan)
            else:
                clamp, users = None, list(node.users)
                if len(users) == 1 and (clamp := self._clamp_of(users[0])) is not None:
                    folded[users[0]] = node
                layer = SparseLayer(module, plan, clamp)
            if plan is not None:
                self.layers[str(node.target)] = layer
            return layer
        clamp = self._clamp_of(node)
        if clamp is not None:
            return ClampAlone(clamp)
        if node.target in _ADDITIONS and len(node.all_input_nodes) == 2 and not node.kwargs:
            return Addition()
        return Other(self._function(node, module))

    def _clamp_of(self, node: fx.Node) -> Clamp | None:
        module = self._modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.ReLU6) or node.target is nn.functional.relu6:
            return Clamp(0.0, 6.0)
        relus = (torch.relu, nn.functional.relu)
        if isinstance(module, nn.ReLU) or node.target in relus or (node.op == "call_method" and node.target == "relu"):
            return Clamp(0.0, float("inf"))
        return None

    def _function(self, node: fx.Node, module: nn.Module | None):
        """The node as a function of its inputs, nothing in place: the cut tensors are kept."""

        def call(*inputs: Tensor) -> Tensor:
            given = dict(zip(node.all_input_nodes, inputs, strict=True))
            args = fx.map_arg(node.args, lambda n: given[n])
            kwargs = fx.map_arg(node.kwargs, lambda n: given[n])
            if module is not None:
                return module(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target).rstrip("_"))(*args[1:], **kwargs)
            if node.op == "get_attr":
                return operator.attrgetter(str(node.target))(self._model)
            target = operator.add if node.target is operator.iadd else node.target
            return target(*args, **kwargs)

        return call


def _forward(program: Sequence[_Node], values: list[Tensor | None]) -> None:
    for node in program:
        values[node.place] = node.op.forward(*[values[s] for s in node.sources])
        for place in node.dropped:
            values[place] = None


class _Suffix(torch.autograd.Function):
    """The suffix as one node of autograd."""

    @staticmethod
    def forward(ctx, network: SparseNetwork, cut: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        output, ctx.tape = network.run(cut)
        ctx.network = network
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return None, None, *ctx.network.back(ctx.tape, gradient)
