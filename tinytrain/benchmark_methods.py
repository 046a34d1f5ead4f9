"""The methods of a benchmark by name: each says what trains for one task on one device.

A method is a function of a :class:`Setup`. Those that choose by task take its Fisher information and cost table, which
are made when they are first asked for; those that change the network (added modules) return a changed task with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from costmodels.analytical import AnalyticalCosts
from costmodels.model import CostModel
from profiler.errors import UserError
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import baselines
from tinytrain.budget import Budget
from tinytrain.contributions import Contributions
from tinytrain.gain import RATIOS
from tinytrain.scheme_search import Searched, search
from tinytrain.selection import INSPECTED_SHARE, Selection, Solver, inspected_layers, select, step_table
from tinytrain.selection_costs import StepTable
from tinytrain.tasks import Prepared


@dataclass(frozen=True)
class Limits:
    """What one training step may cost; every limit is optional.

    Attributes:
        latency_ms: Milliseconds.
        latency_share: Of the predicted latency of a step that trains the whole network, above 0 and at most 1.
        energy_mj: Millijoules.
        memory_bytes: Bytes.
        confidence: See :class:`tinytrain.budget.Budget`.
    """

    latency_ms: float | None = None
    latency_share: float | None = None
    energy_mj: float | None = None
    memory_bytes: int | None = None
    confidence: float = 0.95

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return any(x is not None for x in (self.latency_ms, self.latency_share, self.energy_mj, self.memory_bytes))


class Setup:
    """One task on one device, before a method has chosen.

    Args:
        ready: The task.
        model: Of the device's costs.
        limits: Of the step.
        images: In the batch of a step.
        optimizer: ``adam`` or ``sgd``.
        learning_rate: Of the update.
        ratios: Shares of a layer's channels that may train.
        inspected_share: Of the layers to choose from, counted from the last.
        tables: Tables of costs, static plans and searched schemes made so far under these settings and this model;
            shared by tasks and networks.
        kept: Fisher information of this task where another device has asked for it already.
        domain: Of the task, by name.
        domain_information: Gives the domain's, from other tasks.
        contributions: File of those of the network's parts, see :mod:`tinytrain.contributions`.
    """

    def __init__(
        self,
        ready: Prepared,
        model: CostModel,
        limits: Limits,
        *,
        images: int = 1,
        optimizer: str = "adam",
        learning_rate: float = 1e-3,
        ratios: tuple[float, ...] = RATIOS,
        inspected_share: float = INSPECTED_SHARE,
        tables: dict[tuple, StepTable | Searched | Selection] | None = None,
        kept: dict[str, Tensor] | None = None,
        domain: str = "",
        domain_information: Callable[[], Mapping[str, Tensor]] = dict,
        contributions: Path | None = None,
    ) -> None:
        self.domain, self.domain_information, self.contributions = domain, domain_information, contributions
        self.ready, self.model, self.limits, self.ratios = ready, model, limits, ratios
        self.inspected = inspected_layers(ready.network, inspected_share)
        self.template = StepPlan.for_network(
            ready.network, {}, head=ready.head, images=images, optimizer=optimizer, learning_rate=learning_rate
        )
        self._tables = {} if tables is None else tables
        self._kept = {} if kept is None else kept

    @property
    def information(self) -> Mapping[str, Tensor]:
        """Δ_o of the inspected layers, of this task."""
        if not self._kept:
            self._kept |= baselines.task_information(self.ready, self.inspected)
        return self._kept

    @cached_property
    def analytical(self) -> AnalyticalCosts:
        """Layers' own MACs, as published, in ms by the one scalar with which the full step costs what the device's
        model says."""
        card, network = self.model.card_, self.ready.network
        full_ms = self.model.step_latency_ms(network, self.everything)
        device = f"{card['device']}, timer: {card['timer']}"
        return AnalyticalCosts.scaled_to_step(network, self.everything, full_ms, "own", device)

    def table(self, source: CostModel | AnalyticalCosts) -> StepTable:
        """What steps cost by this source."""
        template = self.template
        key = (source.label, self.ready.network.fingerprint, template.head, template.images, template.optimizer)
        return self._once(
            key,
            lambda: step_table(
                self.ready.network,
                self.inspected,
                source,
                ratios=self.ratios,
                energy=self.limits.energy_mj is not None,
                head=template.head,
                images=template.images,
                optimizer=template.optimizer,
            ),
        )

    @property
    def static(self) -> Selection:
        """The selection by the domain's information.

        Raises:
            UserError: no plan keeps the budget.
        """
        t = self.template
        key = ("static", self.domain, self.ready.network.fingerprint, t.head, t.images, t.optimizer)
        return self._once(key, lambda: self.select(self.domain_information(), self.model, "exact"))

    def select(
        self, information: Mapping[str, Tensor], source: CostModel | AnalyticalCosts, solver: Solver
    ) -> Selection:
        """See :func:`tinytrain.selection.select`."""
        return select(information, self.table(source), self.budget, ratios=self.ratios, solver=solver)

    @property
    def searched(self) -> Searched:
        """The static scheme that SparseUpdate's search finds under the budget.

        Raises:
            UserError: contributions are missing or of another network, or no scheme keeps the budget.
        """
        if self.contributions is None:
            raise UserError(
                f"there are no contributions of {self.ready.network.name}",
                hint="give --contributions NETWORK=FILE; `tinytrain search` measures them",
            )
        template, contributions = self.template, self.contributions
        settings = {name: getattr(template, name) for name in ("head", "images", "optimizer", "learning_rate")}
        return self._once(
            ("searched", contributions, self.ready.network.fingerprint, *settings.values()),
            lambda: search(Contributions.load(contributions), self.ready.network, self.model, self.budget, **settings),
        )

    def _once(self, key: tuple, make: Callable) -> Any:
        if key not in self._tables:
            self._tables[key] = make()
        return self._tables[key]

    @cached_property
    def everything(self) -> StepPlan:
        """The plan that trains the whole network."""
        layers = {layer.name: LayerPlan.whole(layer) for layer in self.ready.network.trainable}
        return replace(self.template, layers=layers)

    @cached_property
    def budget(self) -> Budget:
        """The limits in figures of this device."""
        limits = self.limits
        latencies = [math.inf if limits.latency_ms is None else limits.latency_ms]
        if limits.latency_share is not None:
            full = self.model.step_latency_ms(self.ready.network, self.everything)
            latencies.append(limits.latency_share * full)
        energy_mj = math.inf if limits.energy_mj is None else limits.energy_mj
        return Budget(min(latencies), limits.memory_bytes, limits.confidence, energy_mj)


@dataclass(frozen=True)
class Chosen:
    """What a method wants trained.

    Attributes:
        plan: Without layers where nothing trains.
        ready: The task; another than the setup's where the method has changed the network.
        fisher_share: Of all inspected channels' Fisher information; NaN where the method did not ask for it.
        selection_s: What choosing took on the host after the Fisher pass, in seconds; NaN where nothing was chosen.
    """

    plan: StepPlan
    ready: Prepared
    fisher_share: float = math.nan
    selection_s: float = math.nan


@dataclass(frozen=True)
class Method:
    """A named way to train.

    Attributes:
        name: As ``--methods`` takes it.
        what: One line for people.
        choose: What it does; :class:`UserError` where no plan keeps the budget.
        budgeted: Whether it asks for a budget.
        trains: Whether anything trains, so that a learning rate matters.
    """

    name: str
    what: str
    choose: Callable[[Setup], Chosen]
    budgeted: bool = False
    trains: bool = True


def _baseline(setup: Setup, method: baselines.Method) -> Chosen:
    template = setup.template
    ready, plan = method.prepare(
        setup.ready, images=template.images, optimizer=template.optimizer, learning_rate=template.learning_rate
    )
    return Chosen(plan, ready)


def _selected(setup: Setup, selection: Selection) -> Chosen:
    # Tables and static plans are shared by all learning rates.
    plan = replace(selection.plan, learning_rate=setup.template.learning_rate)
    return Chosen(plan, setup.ready, selection.fisher_share, selection.seconds)


def _searched(setup: Setup) -> Chosen:
    return Chosen(setup.searched.plan, setup.ready)


#: The name of the method that asks for contributions.
SEARCHED = "sparse-update-searched"

_SELECTIONS = (
    Method(
        SEARCHED,
        "SparseUpdate's search: the static scheme of most contribution within the budget (`tinytrain search`)",
        _searched,
        budgeted=True,
    ),
    Method(
        "static",
        "the static Fisher plan: as tinytrain, by the information of other tasks of the domain",
        lambda setup: _selected(setup, setup.static),
        budgeted=True,
    ),
    Method(
        "tinytrain-analytical",
        "TinyTrain's published criterion and greedy solver, the budget on own MACs",
        lambda setup: _selected(setup, setup.select(setup.information, setup.analytical, "greedy")),
        budgeted=True,
    ),
    Method(
        "tinytrain",
        "most Fisher information within the budget by the device's cost model",
        lambda setup: _selected(setup, setup.select(setup.information, setup.model, "exact")),
        budgeted=True,
    ),
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *(
            Method(m.name, m.what, lambda setup, m=m: _baseline(setup, m), trains=m.name != "none")
            for m in baselines.METHODS.values()
        ),
        *_SELECTIONS,
    )
}


def find_methods(names: Sequence[str]) -> tuple[Method, ...]:
    """The methods of these names.

    Raises:
        UserError: there is no such method, or one twice.
    """
    for name in names:
        if name not in METHODS:
            raise UserError(f"there is no method {name!r}", hint=f"there are {', '.join(METHODS)}", exit_status=2)
    if len(set(names)) < len(names):
        raise UserError("a method is named twice", hint="name each once", exit_status=2)
    return tuple(METHODS[name] for name in names)
