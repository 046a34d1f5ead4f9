"""Why a layer is in a plan, or not: its potential, each of its costs, its scores, and what stood against more of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from costmodels.analytical import AnalyticalCosts, gradient_layers, layer_macs, layer_parameters
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain.criterion import persistent_bytes, scores
from tinytrain.selection import Selection

UNITS = {"latency_ms": "ms", "energy_mj": "mJ", "memory_bytes": "bytes"}


def explain(selection: Selection, information: Mapping[str, Tensor]) -> list[dict]:
    """A row an inspected layer, in network order.

    Args:
        selection: What was selected.
        information: From which.

    Returns:
        Rows of ``layer; potential; potential_percent`` of all inspected; ``own_macs, chain_macs`` of an image (forward
        MACs of the layer, and of those whose ``grad_input`` it needs); ``weights; persistent_bytes``; ``own_ms,
        chain_ms`` of a step that trains all of it (what it adds behind an earlier frontier, and what being the frontier
        adds to that), ``own_mj, chain_mj`` where energy is limited; ``score_published, score_device`` (None without a
        device's costs); ``gain`` of what was taken; ``channels``; ``why``.
    """
    problem = selection.problem
    table, template = problem.table, problem.table.template
    network = table.network
    total = sum(float(delta.sum()) for delta in information.values()) or 1.0
    published = scores(network, information, table.source, template, denominator="published")
    device = None
    if not isinstance(table.source, AnalyticalCosts):
        device = scores(network, information, table.source, template, denominator="device")
    channels = {taken.score.layer: f"{taken.channels}/{taken.all_channels}" for taken in selection.order}
    gains = {taken.score.layer: taken.fisher for taken in selection.order}
    reasons = _reasons(selection)
    rows = []
    for number, name in enumerate(table.layers):
        layer = network[name]
        largest = int(problem.of_layer(number)[-1])
        added = table.added.means[largest]
        chain = table.first.means[largest] - table.nothing.means - added
        alone = StepPlan.for_network(network, {name: LayerPlan.whole(layer)}, head=template.head)
        row = {
            "layer": name,
            "potential": published[name].potential,
            "potential_percent": 100 * published[name].potential / total,
            "own_macs": layer_macs(layer.geometry),
            "chain_macs": sum(network[x].geometry.forward_macs for x in gradient_layers(network, alone)),
            "weights": layer_parameters(layer.geometry),
            "persistent_bytes": persistent_bytes(layer, LayerPlan.whole(layer), template, saved_input=True),
        }
        for q, quantity in enumerate(table.summed):
            unit = UNITS[quantity].lower()
            row |= {f"own_{unit}": float(added[q]), f"chain_{unit}": float(np.maximum(chain[q], 0.0))}
        row |= {
            "score_published": published[name].score,
            "score_device": device[name].score if device else None,
            "gain": gains[name],
            "channels": channels[name],
            "why": reasons[name],
        }
        rows.append(row)
    return rows


def _reasons(selection: Selection) -> dict[str, str]:
    """For each layer what happens to the step with the next larger choice of it, all else as it is."""
    problem = selection.problem
    table = problem.table
    picked = {int(table.layer_of[i]): i for i in range(len(problem.flat)) if _is_in(selection, i)}
    frontier = next(iter(selection.plan.layers))
    reasons = {}
    for layer, name in enumerate(table.layers):
        choices = problem.of_layer(layer).tolist()
        held = picked.get(layer)
        taken = "not taken" if held is None else "taken, the frontier" if name == frontier else "taken"
        larger = [i for i in choices if held is None or i > held]
        if not larger:
            reasons[name] = f"{taken}: all that was to choose from"
            continue
        more = [i for other, i in picked.items() if other != layer] + larger[:1]
        cost = problem.cost(more)
        excess = selection.budget.excess(cost)
        what = f"{len(problem.flat[larger[0]].plan.channels)} channels"
        if not excess:
            grows = problem.flat[larger[0]].gain > (problem.flat[held].gain if held is not None else 0.0)
            why = "would fit too" if grows else "would add no gain"
            reasons[name] = f"{taken}: {what} {why}"
            continue
        quantity = max(excess, key=lambda q: excess[q])
        reasons[name] = (
            f"{taken}: with {what} the step would take {_figure(selection.budget.upper(cost, quantity), quantity)}, "
            f"allowed are {_figure(selection.budget.limits[quantity], quantity)}"
        )
    return reasons


def _is_in(selection: Selection, number: int) -> bool:
    choice = selection.problem.flat[number]
    return selection.plan.layers.get(choice.layer) == choice.plan


def _figure(value: float, quantity: str) -> str:
    return f"{value:,.0f} bytes" if quantity == "memory_bytes" else f"{value:,.6g} {UNITS[quantity]}"
