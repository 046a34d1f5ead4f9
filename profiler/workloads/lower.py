"""From a torch network to layers: symbolic trace, shapes, folding of batch normalisation.

Only geometry is read here, no weights. Maps are NHWC on the device, so where a map of more than one position is
flattened, a linear layer's input features are in the order (row, column, channel), not torch's (channel, row, column).
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import operator
from collections import Counter
from dataclasses import dataclass, field, fields

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from profiler.errors import UserError
from profiler.ops import Conv2d, Depthwise, Geometry, Layer, Linear
from profiler.workloads import catalog
from profiler.workloads.network import INPUT, Network
from profiler.workloads.rules import (
    FUNCTION_RULES,
    METHOD_RULES,
    MODULE_RULES,
    SUPPORTED,
    Rule,
    Unsupported,
    is_batch_norm,
)

#: Fields of an op travel as 16-bit numbers, element counts as 32-bit ones.
_LARGEST_FIELD = 0xFFFF
_ELEMENT_FIELDS = ("elements", "maximum")


def lower(module: nn.Module, input_shape: tuple[int, int, int], name: str, edits: tuple[str, ...] = ()) -> Network:
    """Read a plain network's layers off a torch module.

    Args:
        module: Convolutions, linear layers, ReLU and ReLU6, sums of two tensors, pooling, flattening; batch
            normalisation directly behind a convolution or linear layer is folded into it; identities and dropout
            vanish. The module itself is left as it is.
        input_shape: Channels, height, width of one image.
        name: What the network is called in plans and runs.
        edits: What was added to ``module`` since it was the network of that name.

    Returns:
        The network; a layer is named by its module's qualified name, or, for a function called inside a module, by
        that module's name and the function's (``blocks.3.add``).

    Raises:
        UserError: the network cannot be traced or does not take such an input, or has ops that no kernel computes;
            all of them are named, with those that are supported.
    """
    graph_module = _trace(module, name)
    _propagate_shapes(graph_module, input_shape, name)
    return _Lowering(graph_module, name, tuple(input_shape), tuple(edits)).run()


def load_network(
    spec: str, input_shape: tuple[int, int, int], edits: tuple[str, ...] = ()
) -> tuple[nn.Module, Network]:
    """A network by the name that ``--network`` takes.

    Args:
        spec: A built-in name, or ``module:factory`` of a module that can be imported, the current directory included;
            the factory takes no argument and returns a torch module.
        input_shape: Channels, height, width.
        edits: What to add to it, see :data:`profiler.workloads.catalog.EDITS`.

    Returns:
        The torch module (its weights are whatever its factory gives it) and its layers.

    Raises:
        UserError: no such network or edit, its factory fails, or it has ops that no kernel computes.
    """
    module = catalog.edited(catalog.create(spec), edits, input_shape)
    return module, lower(module, input_shape, spec, edits)


def _trace(module: nn.Module, name: str) -> fx.GraphModule:
    try:
        # A copy: evaluation mode and the shapes' dry run must not show in the caller's module.
        return fx.symbolic_trace(copy.deepcopy(module)).eval()
    except Exception as error:
        raise UserError(
            f"the network {name} cannot be traced by torch.fx: {_first_line(error)}",
            hint="bring a network whose forward has no control flow that depends on tensors",
        ) from None


def _propagate_shapes(graph_module: fx.GraphModule, input_shape: tuple[int, int, int], name: str) -> None:
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    required = [node for node in placeholders if not node.args]
    if len(required) != 1 or placeholders[0] is not required[0]:
        raise UserError(
            f"the network {name} takes {len(required)} inputs, where one image is expected",
            hint="wrap it in a module that takes one tensor",
        )
    parameter = next(graph_module.parameters(), torch.zeros(()))
    try:
        image = torch.zeros(1, *input_shape, dtype=parameter.dtype, device=parameter.device)
        # ShapeProp prints its traceback before it raises; the sentence below is what the user needs.
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            ShapeProp(graph_module).propagate(image, *(node.args[0] for node in placeholders[1:]))
    except Exception as error:
        cause = error.__cause__ or error
        text = "x".join(map(str, input_shape))
        raise UserError(
            f"the network {name} does not take an input of {text}: {_first_line(cause)}",
            hint="give --input as channels x height x width",
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta")
    shape = getattr(meta, "shape", None)
    return None if shape is None else tuple(int(s) for s in shape)


@dataclass
class _Lowering:
    """One walk over the traced graph."""

    graph_module: fx.GraphModule
    name: str
    input_shape: tuple[int, int, int]
    edits: tuple[str, ...]
    #: fx node to the layer (or INPUT) that holds its value.
    holder: dict[fx.Node, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    index_of: dict[str, int] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)
    uses: Counter = field(default_factory=Counter)

    def run(self) -> Network:
        output: str | None = None
        ends_in_map = False
        for node in self.graph_module.graph.nodes:
            if node.op == "placeholder":
                self.holder[node] = INPUT
            elif node.op == "output":
                output, shape = self._output(node)
                ends_in_map = max(shape, default=1) != math.prod(shape)
            elif _shape(node) is not None:
                self._visit(node)
            # What is left are sizes and other numbers, already folded into the shapes.
        if self.unsupported:
            raise UserError(
                f"the network {self.name} has ops that no kernel computes: {'; '.join(self.unsupported)}",
                hint=f"supported are {SUPPORTED}",
            )
        if output is None or output not in self.index_of:
            raise UserError(
                f"the network {self.name} returns {'its input' if output == INPUT else 'something else than a tensor'}",
                hint="bring a network that returns one tensor computed by at least one layer",
            )
        return Network(self.name, self.input_shape, self._live(output), output, ends_in_map, self.edits)

    def _live(self, output: str) -> tuple[Layer, ...]:
        """The layers that the output depends on."""
        wanted = {output}
        for layer in reversed(self.layers):
            if layer.name in wanted:
                wanted.update(layer.inputs)
        return tuple(layer for layer in self.layers if layer.name in wanted)

    def _output(self, node: fx.Node) -> tuple[str | None, tuple[int, ...]]:
        """The layer that gives the result, None where that is no single tensor; and the result's shape."""
        value = node.args[0]
        if isinstance(value, tuple | list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, fx.Node):
            return None, ()
        return self.holder.get(value), _shape(value) or ()

    def _visit(self, node: fx.Node) -> None:
        rule, target = self._rule(node)
        path = self._path(node)
        try:
            if target is not None and is_batch_norm(target):
                self.holder[node] = self._fold(node, target)
                return
            if rule is None:
                raise Unsupported("")
            if _overwrites_what_is_read_later(node, target):
                raise Unsupported("in place, on a tensor that is read again afterwards")
            sources = _tensor_args(node)
            result = rule(node, target, [_shape(s) for s in sources], _shape(node))
        except Unsupported as why:
            # The walk goes on, so that one error names them all.
            reason = f" ({why})" if str(why) else ""
            self.unsupported.append(f"{path}: {_kind(node, target)}{reason}")
            self.holder[node] = path
            return
        except ValueError as error:
            raise UserError(
                f"the network {self.name} has a layer that makes no sense: {path}: {error}",
                hint="check the module and --input",
            ) from None
        if result is None:
            self.holder[node] = self.holder[sources[0]]
            return
        inputs = tuple(self.holder[s] for s in sources[: _operands(result)])
        self._append(node, path, result, inputs, weighted=target is not None and result.trainable)

    def _append(self, node: fx.Node, path: str, geometry: Geometry, inputs: tuple[str, ...], weighted: bool) -> None:
        for f in fields(geometry):
            value = getattr(geometry, f.name)
            limit = 0xFFFFFFFF if f.name in _ELEMENT_FIELDS else _LARGEST_FIELD
            if value > limit:
                self.unsupported.append(f"{path}: {geometry.kind} ({f.name} {value} is above {limit})")
        self.uses[path] += 1
        if self.uses[path] > 1 and weighted:
            self.unsupported.append(f"{path}: {geometry.kind} (called {self.uses[path]} times with shared weights)")
        stem, number = path, self.uses[path]
        while path in self.index_of or path == INPUT:
            path, number = f"{stem}.{number}", number + 1
        self.index_of[path] = len(self.layers)
        self.layers.append(Layer(path, geometry, inputs))
        self.holder[node] = path

    def _rule(self, node: fx.Node) -> tuple[Rule | None, nn.Module | None]:
        if node.op == "call_module":
            target = self.graph_module.get_submodule(str(node.target))
            return MODULE_RULES.get(type(target)), target
        if node.op == "call_function":
            return FUNCTION_RULES.get(node.target), None
        if node.op == "call_method":
            return METHOD_RULES.get(str(node.target)), None
        return None, None

    def _path(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return str(node.target)
        stack = node.meta.get("nn_module_stack") or {}
        scope = next(reversed(stack), "")
        function = node.name.rstrip("0123456789").rstrip("_") or node.name
        return f"{scope}.{function}" if scope else function

    def _fold(self, node: fx.Node, norm: nn.Module) -> str:
        """Let the batch normalisation of ``node`` vanish into the layer before it, which then has a bias."""
        if not norm.track_running_stats:
            raise Unsupported("without running statistics it normalises by each batch's own: there is nothing to fold")
        source = node.args[0]
        holder = self.holder[source]
        direct = source.op == "call_module" and holder in self.index_of
        if direct:
            layer = self.layers[self.index_of[holder]]
            folds = isinstance(layer.geometry, Conv2d | Depthwise | Linear)
            if folds and len(source.users) == 1:
                self.layers[self.index_of[holder]] = Layer(
                    layer.name, type(layer.geometry)(*layer.geometry.values()[:-1], 1), layer.inputs
                )
                return holder
        raise Unsupported("only directly behind a convolution or linear layer that nothing else reads")


def _tensor_args(node: fx.Node) -> list[fx.Node]:
    return [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, fx.Node) and _shape(a) is not None]


def _overwrites_what_is_read_later(node: fx.Node, target: nn.Module | None) -> bool:
    """Layers are functions of their inputs: an operation in place is one too, unless its input is read again."""
    in_place = (
        getattr(target, "inplace", False)
        or node.kwargs.get("inplace")
        or node.target is operator.iadd
        or (isinstance(node.target, str) and node.op == "call_method" and node.target.endswith("_"))
    )
    sources = _tensor_args(node)
    if not in_place or not sources:
        return False
    behind = node
    while behind.op != "root":
        behind = behind.next
        if behind in sources[0].users:
            return True
    return False


def _operands(geometry: Geometry) -> int:
    return 2 if geometry.kind == "add" else 1


def _kind(node: fx.Node, target: nn.Module | None) -> str:
    if target is not None:
        return type(target).__name__
    if node.op == "get_attr":
        return f"tensor {node.target}"
    return str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
