"""Batch normalisation for training a backbone from nothing: put behind every convolution, folded away afterwards."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tinytrain.backbones import Backbone, convolutions, create


def with_norms(model: Backbone) -> Backbone:
    """Put a batch normalisation behind every convolution, in place, and draw the weights anew.

    Without it networks of forty layers do not train from nothing.
    """
    for name, conv in convolutions(model):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)))
    return model


def without_norms(model: Backbone) -> Backbone:
    """The same function in evaluation mode, without the normalisations that :func:`with_norms` put in."""
    plain = create(model.name)
    training = model.training
    model.eval()
    for name, _ in convolutions(plain):
        conv, norm = model.get_submodule(name)
        plain.get_submodule(name).load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())
    model.train(training)
    return plain
