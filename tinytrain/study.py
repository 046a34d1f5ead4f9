"""The study: which of selection's parts matter, each of them exchanged while all else stays.

A method is a denominator of the score, an accounting of the budget, whether the frontier is seen, and a solver. Every
method chooses for the same tasks under the same budgets; which budgets those are, whether a step keeps them, and what
could have been had instead is judged by one cost source for all, or by what the device measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from torch import Tensor

from costmodels.sources import CostSource
from profiler.errors import UserError
from profiler.workloads.network import Network
from profiler.workloads.plan import Dtype, LayerPlan, Saving, StepPlan
from tinytrain.budget import Budget
from tinytrain.criterion import Denominator
from tinytrain.gain import RATIOS
from tinytrain.selection import INSPECTED_SHARE, Selection, Solver, inspected_layers, select, step_table
from tinytrain.selection_costs import StepTable

Accounting = Literal["own", "chain", "measured"]
ACCOUNTINGS: tuple[Accounting, ...] = ("own", "chain", "measured")

#: Random plans that do not fit in memory, for each that is wanted, before they are given up.
_MOST_REFUSED = 1000


@dataclass(frozen=True)
class Method:
    """One cell of the factorial.

    Attributes:
        solver: Who chooses.
        accounting: What the budget is counted by: a layer's own MACs, as published; MACs with the chain of gradients;
            or the model fitted to measurements.
        denominator: Of the score; None where no score decides.
        frontier: Whether scores, or prices, count the gradients of later layers; None where nothing asks.
    """

    solver: Solver
    accounting: Accounting
    denominator: Denominator | None = None
    frontier: bool | None = None

    @property
    def name(self) -> str:
        seen = {None: None, True: "frontier", False: "own"}[self.frontier]
        return "/".join(filter(None, (self.solver, self.accounting, self.denominator, seen)))


def factorial() -> tuple[Method, ...]:
    """Every method: solvers × accountings, and of those that ask for them × denominators × frontier."""
    methods = []
    for accounting in ACCOUNTINGS:
        for frontier in (False, True):
            methods += [Method("greedy", accounting, d, frontier) for d in ("published", "device")]  # type: ignore[arg-type]
            methods.append(Method("marginal", accounting, None, frontier))
        methods.append(Method("exact", accounting))
    return tuple(methods)


@dataclass(frozen=True)
class StudySettings:
    """What a study is about; one that goes on must have the same.

    Attributes:
        network: Name of the network.
        input_shape: Channels, height, width.
        device: Of the fitted model, its label.
        dtype: Of the plans.
        savings: Of memory, for dtype ``s8``.
        images: In the batch of a step.
        optimizer: Of the update.
        classes: Of the tasks.
        ratios: Shares of a layer's channels.
        inspected_share: Of the layers, from the last.
        confidence: With which budgets are to be kept.
        budget_shares: Budgets, between the cheapest step and the one that trains all that is inspected.
        memory_bytes: Most of a step, its program included, beside each budget; None for no limit.
        random_plans: How many random plans stand beside the methods'.
        seed: Of those.
    """

    network: str
    input_shape: tuple[int, int, int]
    device: str
    dtype: Dtype = "f32"
    savings: tuple[Saving, ...] = ()
    images: int = 1
    optimizer: str = "adam"
    classes: int = 5
    ratios: tuple[float, ...] = RATIOS
    inspected_share: float = INSPECTED_SHARE
    confidence: float = 0.95
    budget_shares: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)
    memory_bytes: int | None = None
    random_plans: int = 200
    seed: int = 0

    def to_dict(self) -> dict:
        """As JSON gives it back."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Choice:
    """What a method chose for a task under a budget.

    Attributes:
        task: Name of the task.
        budget_ms: Of one training step.
        method: :attr:`Method.name`.
        plan: :func:`plan_key` of the plan; empty where nothing kept the budget by the method's own accounting.
        step: :func:`step_key` of the plan: plans of one step cost the same.
        gain: Σ Δ_o of its channels.
        fisher_share: Of all inspected channels' Fisher information.
        expected_ms: What the method's own accounting says.
        seconds: The choice took.
    """

    task: str
    budget_ms: float
    method: str
    plan: str
    step: str
    gain: float
    fisher_share: float
    expected_ms: float | None
    seconds: float


class Methods:
    """Everything that methods need and that no task changes: a table of costs for each accounting.

    Args:
        settings: Of the study.
        network: What is trained.
        sources: A cost source for each accounting.

    Raises:
        UserError: a source is missing.
    """

    def __init__(self, settings: StudySettings, network: Network, sources: Mapping[Accounting, CostSource]) -> None:
        from profiler.workloads.plan import Head  # noqa: PLC0415

        if missing := [name for name in ACCOUNTINGS if name not in sources]:
            raise UserError(f"the study has no cost source for {missing[0]!r}", hint=f"give {', '.join(ACCOUNTINGS)}")
        self.settings, self.network = settings, network
        self.inspected = inspected_layers(network, settings.inspected_share)
        self.tables: dict[Accounting, StepTable] = {
            name: step_table(
                network,
                self.inspected,
                sources[name],
                ratios=settings.ratios,
                head=Head(classes=settings.classes),
                images=settings.images,
                optimizer=settings.optimizer,
                dtype=settings.dtype,
                savings=frozenset(settings.savings),
            )
            for name in ACCOUNTINGS
        }

    @property
    def judge(self) -> StepTable:
        """The table of the fitted model, by which all are judged where nothing was measured."""
        return self.tables["measured"]

    def budgets_ms(self) -> tuple[float, ...]:
        """The study's budgets: shares of the way from the cheapest plan to the one that trains all inspected layers.

        Where memory is limited, to the random plan that takes longest.
        """
        table = self.judge
        budget = Budget(confidence=self.settings.confidence)
        least = float(table.first.upper(budget.deviations)[:, 0].min())
        everything = {table.layers[layer]: table.plans[i] for i, layer in enumerate(table.layer_of)}
        longest = (everything,) if self.settings.memory_bytes is None else self.random_steps
        most = max(budget.upper(table.step_sums(layers), "latency_ms") for layers in longest)
        return tuple(least + share * (most - least) for share in self.settings.budget_shares)

    def choose(self, method: Method, information: Mapping[str, Tensor], budget_ms: float) -> Selection | None:
        """What the method chooses; None where nothing keeps the budget by its accounting."""
        try:
            return select(
                information,
                self.tables[method.accounting],
                Budget(budget_ms, self.settings.memory_bytes, self.settings.confidence),
                ratios=self.settings.ratios,
                solver=method.solver,
                denominator=method.denominator,
                frontier=method.frontier,
                criterion_source=self.judge.source,
            )
        except UserError:
            return None

    def fits(self, layers: Mapping[str, LayerPlan]) -> bool:
        """Whether the device has the memory that a step takes."""
        memory_bytes = self.settings.memory_bytes
        return memory_bytes is None or self.judge.fits(layers, memory_bytes)

    @property
    def random_steps(self) -> tuple[dict[str, LayerPlan], ...]:
        """Random plans over the same layers and ratios: a frontier, and each later layer or not, by its table's plans.

        Which channels they are depends on the task: those of highest information, as methods take them. Where memory is
        limited, plans are drawn until so many fit, as they are first placed.
        """
        return self._random[0]

    @property
    def random_refused(self) -> int:
        """How many random plans were drawn that memory excludes."""
        return self._random[1]

    @cached_property
    def _random(self) -> tuple[tuple[dict[str, LayerPlan], ...], int]:
        rng = np.random.default_rng(self.settings.seed)
        table, limit = self.judge, self.settings.memory_bytes
        found: list[dict[str, LayerPlan]] = []
        refused = 0
        while len(found) < self.settings.random_plans:
            frontier = int(rng.integers(len(table.layers)))
            density = rng.random()
            layers = [frontier, *(i for i in range(frontier + 1, len(table.layers)) if rng.random() < density)]
            picked = [int(rng.choice(np.flatnonzero(table.layer_of == layer))) for layer in layers]
            plans = table.chosen(picked)
            if limit is None or (table.sums(picked).memory_bytes <= limit and table.step_memory(plans).high <= limit):
                found.append(plans)
            else:
                refused += 1
            if refused > _MOST_REFUSED * self.settings.random_plans:
                raise UserError(
                    f"hardly a random plan fits in {limit:,} bytes: {len(found)} of the first {len(found) + refused}",
                    hint="give the study more memory, or a smaller input",
                )
        return tuple(found), refused


def plan_key(plan: StepPlan) -> str:
    """Equal for plans that train the same channels."""
    return _hash([(name, p.axis, p.channels, p.bias) for name, p in plan.layers.items()])


def step_key(layers: Mapping[str, LayerPlan]) -> str:
    """Equal for plans whose steps cost the same: as many channels of the same layers."""
    return _hash([(name, p.axis, len(p.channels), p.bias) for name, p in layers.items()])


def _hash(content: Sequence) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
