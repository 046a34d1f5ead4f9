"""Batch normalisation folded into the layer before it, as the device's network has it."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def fold_norms(module: nn.Module) -> nn.Module:
    """A network of the same function, in evaluation mode, without batch normalisations.

    Module names stay, so that a step plan's layers are found: the folded layer keeps its own name and an identity
    takes the normalisation's place. A network without normalisations is returned as it is.

    Args:
        module: One that :func:`profiler.workloads.lower.lower` accepts.
    """
    module.eval()
    if not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in module.modules()):
        return module
    traced = fx.symbolic_trace(module)
    for node in traced.graph.nodes:
        if node.op != "call_module" or node.args[0].op != "call_module":
            continue
        norm = traced.get_submodule(node.target)
        layer_name = node.args[0].target
        layer = traced.get_submodule(layer_name)
        if isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d):
            folded = fuse_conv_bn_eval(layer, norm)
        elif isinstance(norm, nn.BatchNorm1d) and isinstance(layer, nn.Linear):
            folded = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        traced.set_submodule(layer_name, folded)
        traced.set_submodule(node.target, nn.Identity())
    return traced.eval()
