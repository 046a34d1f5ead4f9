"""The network and plan that a command was asked for."""

from __future__ import annotations

from pathlib import Path

from costmodels.layers import everything
from profiler.cli_support import parse_input_shape
from profiler.errors import UserError
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan

#: Where neither the command nor a plan says.
DEFAULT_INPUT = "3x64x64"


def network_and_plan(network: str | None, input_shape: str | None, plan: Path | None) -> tuple[Network, StepPlan]:
    """The layers of the network, and what trains: what the plan says, or everything.

    Args:
        network: Built-in name or ``module:factory``; None: the plan's.
        input_shape: ``CxHxW``; None: the plan's, or :data:`DEFAULT_INPUT`.
        plan: Its file.

    Raises:
        UserError: neither network nor plan; no such network; or the plan is for another one.
    """
    step_plan = None if plan is None else StepPlan.load(plan)
    if step_plan is None and network is None:
        raise UserError("there is nothing to predict", hint="give --network, --plan, or both", exit_status=2)
    name = network or step_plan.network
    if input_shape or step_plan is None:
        shape = parse_input_shape(input_shape or DEFAULT_INPUT)
    else:
        shape = step_plan.input_shape
    _, lowered = load_network(name, shape, () if step_plan is None else step_plan.edits)
    return lowered, step_plan or everything(lowered)
