"""The command ``profile`` run in this process, on a network of the user's own: what its tests share."""

import contextlib
import io

import pytest

from profiler import cli
from profiler.cli_support import run_app
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head, LayerPlan, StepPlan

NETWORK_FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.last = nn.Conv2d(4, 6, 1)

    def forward(self, x):
        y = torch.relu(self.norm(self.stem(x)))
        y = self.last(y + self.depthwise(y))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1)

class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)

def broken():
    raise RuntimeError("no weights")

def leave():
    raise SystemExit(4)
"""
NETWORK = ("--network", "clinet:Net", "--input", "3x16x16")
#: The device that is always there.
MEASURE = ("--port", "native://")


def profile(*arguments):
    """Run the command in this process; (exit status, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_:
        run_app(cli.app, "profile", [str(a) for a in arguments])
    return exit_.value.code, out.getvalue(), err.getvalue()


def save_plan(path, *, images=2, notes=None, optimizer="adam", head=None):
    network = load_network("clinet:Net", (3, 16, 16))[1]
    layers = {layer.name: LayerPlan((0, 2)) for layer in network.trainable[-2:]}
    plan = StepPlan.for_network(
        network, layers, images=images, optimizer=optimizer, head=head or Head(), notes=notes or {}
    )
    plan.save(path)
    return path
