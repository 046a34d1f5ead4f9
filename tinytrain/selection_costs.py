"""What the plans of one selection cost, as sums: a frontier's own step, and what each further layer adds to it.

A cost source answers for whole steps. Solvers look at millions of plans, so a :class:`StepTable` asks it for one step a
choice and takes differences: what a choice costs where it is the frontier, and what it adds behind a frontier. In
float32 those sums are the steps' own latencies and energies, because all else of a step depends on the frontier only;
int8 steps differ by how neighbouring layers share what they save. Memory is a peak: its sum is a lower bound. So what a
solver settles on is always asked for whole, by :meth:`StepTable.step_cost`.

The table holds nothing of a task: a device and a network need one, whatever the images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from costmodels.sources import CostSource, StepCost
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain.budget import mean_and_std
from tinytrain.criterion import persistent_bytes

#: Quantities that add up, and whose uncertainty counts.
SUMMED = ("latency_ms", "energy_mj")


@dataclass(frozen=True, eq=False)
class Sums:
    """Costs that add up, of one step or of many.

    Attributes:
        means: Latency and, where wanted, energy; shape (..., quantities).
        parts: Standard deviations, apart by what shares its errors: those of one part add up, and the parts are
            independent of one another; shape (..., quantities, parts).
        memory_bytes: Not more than the step's memory; shape (...).
    """

    means: np.ndarray
    parts: np.ndarray
    memory_bytes: np.ndarray

    def __getitem__(self, index: object) -> Sums:
        return Sums(self.means[index], self.parts[index], self.memory_bytes[index])

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.means + other.means, self.parts + other.parts, self.memory_bytes + other.memory_bytes)

    def total(self) -> Sums:
        """The sum over the first axis."""
        return Sums(self.means.sum(0), self.parts.sum(0), self.memory_bytes.sum(0))

    def upper(self, deviations: float) -> np.ndarray:
        """Means plus so many standard deviations, shape (..., quantities)."""
        return self.means + deviations * np.linalg.norm(self.parts, axis=-1)


class StepTable:
    """Costs of steps that train some of these layers.

    Args:
        network: What is trained.
        source: Who is asked.
        template: The plan without the choices: what trains in any case (biases, say), head, images, optimizer, dtype.
        choices: For each layer to choose from, in network order, its plans, cheapest first.
        energy: Whether energies are wanted too.

    Attributes:
        layers: Names of the layers that may be chosen.
        layer_of: Index into ``layers`` of every choice, shape (choices,).
        plans: Every choice's plan, layer after layer.
        first: Cost of the step in which a choice is all that is chosen.
        added: What a choice adds behind an earlier frontier.
        nothing: Cost of the step in which nothing is chosen.
        chain: Whether every layer feeds all later ones, so that what a choice adds does not depend on the frontier.
        asked: How often the source was asked for a whole step.
    """

    def __init__(
        self,
        network: Network,
        source: CostSource,
        template: StepPlan,
        choices: Mapping[str, Sequence[LayerPlan]],
        *,
        energy: bool = False,
    ) -> None:
        self.network, self.source, self.template, self.energy = network, source, template, energy
        self.layers = tuple(choices)
        self.plans = tuple(plan for plans in choices.values() for plan in plans)
        self.layer_of = np.repeat(np.arange(len(choices)), [len(plans) for plans in choices.values()])
        self.asked = 0
        self._known: dict[tuple, StepCost] = {}
        self._part_keys: dict[tuple, int] = {}
        self._build()

    @property
    def summed(self) -> tuple[str, ...]:
        """Names of the quantities of a :class:`Sums`, in order."""
        return SUMMED if self.energy else SUMMED[:1]

    def plan(self, layers: Mapping[str, LayerPlan]) -> StepPlan:
        """The template with these layers' plans in it, in network order."""
        merged = self.template.layers | dict(layers)
        return replace(self.template, layers={x.name: merged[x.name] for x in self.network.layers if x.name in merged})

    def step_cost(self, layers: Mapping[str, LayerPlan]) -> StepCost:
        """What the source says of the whole step; asked once for plans with as many channels of the same layers."""
        key = tuple(sorted((name, p.axis, len(p.channels), p.bias) for name, p in layers.items()))
        if key not in self._known:
            self.asked += 1
            self._known[key] = self.source.step(self.network, self.plan(layers))
        return self._known[key]

    def sums(self, picked: Sequence[int]) -> Sums:
        """Costs of the step with these choices, at most one a layer, as a sum."""
        if not len(picked):
            return self.nothing
        rest = sorted(picked, key=lambda i: self.layer_of[i])
        return self.first[rest[0]] + self.added[rest[1:]].total()

    def after(self, current: np.ndarray, moves: np.ndarray) -> Sums:
        """Costs of the steps in which each of these choices takes the place of what its layer has.

        Args:
            current: The choice of each layer, -1 for none, shape (layers,).
            moves: Numbers of choices, shape (moves,).

        Returns:
            Of shape (moves, ...).
        """
        taken = np.flatnonzero(current >= 0)
        if not len(taken):
            return self.first[moves]
        front, layers = taken[0], self.layer_of[moves]
        held = current[layers]
        behind = self.added[current[taken[1:]]].total()
        as_front = self.first[moves] + behind
        deeper = as_front + self.added[current[front]]
        beside = self.first[current[front]] + behind + self.added[moves]
        replaced = self.added[held]

        def pick(name: str) -> np.ndarray:
            a, b, c, old = (getattr(x, name) for x in (deeper, as_front, beside, replaced))
            shape = (-1,) + (1,) * (a.ndim - 1)
            new = c - np.where((held >= 0).reshape(shape), old, 0.0)
            where = [(layers < front).reshape(shape), (layers == front).reshape(shape)]
            return np.select(where, [a, b], new)

        return Sums(pick("means"), pick("parts"), pick("memory_bytes"))

    def chosen(self, picked: Sequence[int]) -> dict[str, LayerPlan]:
        """Layer names to plans."""
        return {self.layers[self.layer_of[i]]: self.plans[i] for i in sorted(picked)}

    def _build(self) -> None:
        members = [{self.layers[self.layer_of[i]]: plan} for i, plan in enumerate(self.plans)]
        before = self._before()
        nothing, reference = self.step_cost({}), self.step_cost(before)
        alone = [self.step_cost(member) for member in members]
        behind = [self.step_cost(before | member) for member in members]
        for cost in (nothing, *alone, *behind):
            for row in cost.rows:
                self._part_keys.setdefault(_part_key(row), len(self._part_keys))
        widest = self.step_cost({name: plan for member in members for name, plan in member.items()})
        self._scales = self._part_scales(widest)
        self.nothing = self._sums_of([nothing])[0]
        self.first = self._sums_of(alone)
        added, reference = self._sums_of(behind), self._sums_of([reference])
        # Where a plan is fullest differs: what stays in memory all the time is what it needs in any case.
        kept = [persistent_bytes(self.network[self.layers[self.layer_of[i]]], plan, self.template, saved_input=False)
                for i, plan in enumerate(self.plans)]  # fmt: skip
        memory = np.minimum(added.memory_bytes - reference.memory_bytes, kept)
        parts = np.maximum(added.parts - reference.parts, 0)
        self.added = Sums(added.means - reference.means, parts, np.maximum(memory, 0))
        self.chain = all(
            set(self.layers[layer:]) <= self.plan(members[i]).influenced(self.network)
            for layer, i in enumerate(np.flatnonzero(np.diff(self.layer_of, prepend=-1)))
        )

    def _before(self) -> dict[str, LayerPlan]:
        """A frontier before all that may be chosen: the layer before them, or as little as can be of the first."""
        names = [layer.name for layer in self.network.trainable]
        layer = self.network[names[max(0, names.index(self.layers[0]) - 1)]]
        has_bias = bool(layer.geometry.bias_elements)  # type: ignore[attr-defined]
        return {layer.name: LayerPlan(() if has_bias else (0,), "out", has_bias)}

    def _part_scales(self, cost: StepCost) -> np.ndarray:
        """What parts are multiplied by so that together they are the source's own standard deviation of this step."""
        parts = self._parts(cost)
        norms = np.linalg.norm(parts, axis=1)
        stds = np.array([mean_and_std(cost, name)[1] for name in self.summed])
        return np.divide(stds, norms, out=np.ones_like(stds), where=norms > 0)

    def _parts(self, cost: StepCost) -> np.ndarray:
        parts = np.zeros((len(self.summed), len(self._part_keys) + 1))
        for row in cost.rows:
            std = row.get("latency_std_ms", math.nan)
            if not math.isnan(std):  # type: ignore[arg-type]
                parts[0, self._part_keys[_part_key(row)]] += std
        if self.energy:
            parts[1, -1] = mean_and_std(cost, "energy_mj")[1]
        return parts

    def _sums_of(self, costs: Sequence[StepCost]) -> Sums:
        means = np.array([[mean_and_std(cost, name)[0] for name in self.summed] for cost in costs])
        parts = np.array([self._parts(cost) * self._scales[:, None] for cost in costs])
        return Sums(means, parts, np.array([float(cost.memory_bytes) for cost in costs]))


def _part_key(row: Mapping[str, object]) -> tuple:
    """Ops whose errors a fitted model takes as fully correlated, as far as a step's rows tell."""
    return row.get("kind"), row.get("pass"), row.get("dtype")
