"""``costmodels predict``: what a training step costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from costmodels.commands.options import Json, Model
from profiler.cli_support import message, parse_input_shape, print_json, print_table
from profiler.errors import UserError


def predict(
    model: Model,
    network: Annotated[
        str | None, typer.Option(help="Built-in name or module:factory; by default the plan's.", show_default=False)
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input", help="Channels x height x width; by default the plan's, or 3x64x64.", show_default=False
        ),
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Step plan; by default everything trains.")] = None,
    json: Json = False,
) -> None:
    """Cost of a training step, op by op.

    Example: costmodels predict an500.model --network mcunet-5fps --input 3x64x64 --plan plan.json
    """
    from costmodels.model import CostModel  # noqa: PLC0415
    from costmodels.plots import timer_note  # noqa: PLC0415
    from profiler.workloads.lower import load_network  # noqa: PLC0415
    from profiler.workloads.plan import LayerPlan, StepPlan  # noqa: PLC0415

    costs = CostModel.load(model)
    step_plan = None if plan is None else StepPlan.load(plan)
    if network is None and step_plan is None:
        raise UserError("there is nothing to predict", hint="give --network, --plan, or both", exit_status=2)
    shape = parse_input_shape(input_shape or "3x64x64") if input_shape or not step_plan else step_plan.input_shape
    _, lowered = load_network(network or step_plan.network, shape)
    if step_plan is None:
        layers = {
            layer.name: LayerPlan(tuple(range(layer.geometry.channels("out"))), bias=bool(layer.geometry.bias_elements))
            for layer in lowered.trainable
        }
        step_plan = StepPlan.for_network(lowered, layers)
    cost = costs.step(lowered, step_plan)
    if json:
        print_json(
            {
                "model": costs.label,
                "timer": costs.card_["timer"],
                "network": lowered.name,
                "latency_ms": cost.latency_ms,
                "latency_std_ms": cost.latency_std_ms,
                "energy_mj": cost.energy_mj,
                "memory_bytes": cost.memory_bytes,
                "ops": list(cost.rows),
            }
        )
        return
    note = timer_note(costs.card_["timer"])
    print_table(cost.table, title=f"{lowered.name}: one training step on {costs.card_['device']}", caption=note)
    by_pass = cost.table.groupby("pass", sort=False)["latency_ms"].sum().reset_index()
    print_table(by_pass, title="By pass", caption=note)
    message(
        f"step: {cost.latency_ms:,.2f} ± {cost.latency_std_ms:,.2f} ms, {cost.memory_bytes:,} bytes of memory ({note})"
    )
