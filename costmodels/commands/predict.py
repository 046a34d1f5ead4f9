"""``costmodels predict``: what a training step costs, layer by layer and pass by pass."""

from __future__ import annotations

from typing import Annotated

import typer

from costmodels.commands.options import InputShape, Json, Model, NetworkName, PlanFile, read_plan
from profiler.cli_support import message, parse_input_shape, print_json, print_table, warn
from profiler.errors import UserError


def predict(
    model: Model,
    *,
    network: NetworkName = None,
    input_shape: InputShape = None,
    plan: PlanFile = None,
    ops: Annotated[bool, typer.Option("--ops", help="A row an op too.")] = False,
    json: Json = False,
) -> None:
    """Cost of a training step: latency, energy and memory of each layer and pass, and of all of it.

    Intervals hold 90 % of what would be measured. What lies outside the range that was measured is flagged in words.

    Example: costmodels predict an500.model --network mcunet-5fps --input 3x64x64 --plan plan.json
    """
    if network is None and plan is None:
        raise UserError("there is nothing to predict", hint="give --network, --plan, or both", exit_status=2)
    asked = read_plan(plan)
    if input_shape:
        parse_input_shape(input_shape)
    from costmodels.commands.network import network_and_plan  # noqa: PLC0415  (torch takes seconds: not for --help)
    from costmodels.layers import extrapolated, layer_passes, layer_table, pass_table, remedy  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415
    from costmodels.plots import energy_note, timer_note  # noqa: PLC0415

    costs = CostModel.load(model)
    lowered, step_plan = network_and_plan(network, input_shape, asked)
    cost = costs.step(lowered, step_plan)
    passes = layer_passes(costs, lowered, step_plan, cost)
    low, high = cost.latency_interval_ms
    if json:
        print_json(
            {
                "model": costs.label,
                "timer": costs.card_["timer"],
                "energy_source": costs.card_["energy_source"],
                "network": lowered.name,
                "images": step_plan.images,
                "latency_ms": cost.latency_ms,
                "latency_std_ms": cost.latency_std_ms,
                "latency_low_ms": low,
                "latency_high_ms": high,
                "energy_mj": cost.energy_mj,
                "energy_std_mj": cost.energy_std_mj,
                "memory_bytes": cost.memory_bytes,
                "program_bytes": cost.program_bytes,
                "layers": passes.to_dict("records"),
                "ops": list(cost.rows),
            }
        )
        return
    note = timer_note(costs.card_["timer"])
    if cost.energy_mj is not None:
        note = f"{note}; {energy_note(costs.card_['energy_source'])}"
    title = f"{lowered.name}: one training step on {costs.card_['device']}"
    if ops:
        print_table(cost.table, title=f"{title}, op by op", caption=note)
    layers = layer_table(passes)
    if cost.energy_mj is None:
        layers = layers.drop(columns="energy_mj")
    print_table(layers, title=title, caption=note)
    print_table(pass_table(passes), title="By pass", caption=note)
    if guessed := extrapolated(passes):
        warn(f"{guessed}; {remedy(passes)}")
    energy = "" if cost.energy_mj is None else f", {cost.energy_mj:,.4g} mJ"
    program = f" beside {cost.program_bytes:,} of the program" if cost.program_bytes else ""
    message(
        f"step of {step_plan.images} image{'s' if step_plan.images > 1 else ''}: {cost.latency_ms:,.2f} ms (90 %: "
        f"{low:,.2f} to {high:,.2f}){energy}, {cost.memory_bytes:,} bytes of arena and stack{program} ({note})"
    )
