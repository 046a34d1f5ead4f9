"""The network and plan that a command was asked for."""

from __future__ import annotations

from costmodels.layers import everything
from profiler.cli_support import parse_input_shape
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan

#: Where neither the command nor a plan says.
DEFAULT_INPUT = "3x64x64"


def network_and_plan(network: str | None, input_shape: str | None, plan: StepPlan | None) -> tuple[Network, StepPlan]:
    """The layers of the network, and what trains: what the plan says, or everything.

    Args:
        network: Built-in name or ``module:factory``; None: the plan's.
        input_shape: ``CxHxW``; None: the plan's, or :data:`DEFAULT_INPUT`.
        plan: What trains; None: everything. One of the two is there.

    Raises:
        UserError: no such network; or the plan is for another one.
    """
    name = network or plan.network
    shape = parse_input_shape(input_shape or DEFAULT_INPUT) if input_shape or plan is None else plan.input_shape
    _, lowered = load_network(name, shape, () if plan is None else plan.edits)
    return lowered, plan or everything(lowered)
