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
from scipy.optimize import nnls

from costmodels.analytical import gradient_layers
from costmodels.sources import CostSource, StepCost, StepSums
from profiler.ops import Layer, Op, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import criterion
from tinytrain.budget import mean_and_std
from tinytrain.criterion import Denominator, Terms, persistent_bytes

#: Passes of what trains of a layer; the others depend on the frontier alone.
OWN = ("grad_weight", "update")
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
        self._terms: dict[tuple, Terms] = {}
        self._build()

    @property
    def summed(self) -> tuple[str, ...]:
        """Names of the quantities of a :class:`Sums`, in order."""
        return SUMMED if self.energy else SUMMED[:1]

    def plan(self, layers: Mapping[str, LayerPlan]) -> StepPlan:
        """The template with these layers' plans in it, in network order."""
        merged = self.template.layers | dict(layers)
        return replace(self.template, layers={x.name: merged[x.name] for x in self.network.layers if x.name in merged})

    def terms(self, source: CostSource, denominator: Denominator | None, frontier: bool) -> Terms:
        """What the criterion divides by, see :func:`tinytrain.criterion.terms`; worked out once for all tasks."""
        key = (source, denominator or criterion.default_denominator(source), frontier)
        if key not in self._terms:
            self._terms[key] = criterion.terms(
                self.network, source, self.template, denominator=key[1], frontier=frontier
            )
        return self._terms[key]

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
        nothing, reference = self._ask({}), self._ask(before)
        alone = [self._ask(member) for member in members]
        behind = [self._ask(before | member) for member in members]
        added = self._means(behind) - self._means([reference])
        parts = _Parts(self.network, self.step_cost({name: p for member in members for name, p in member.items()}))
        own = parts.own_of(self)
        fronts = np.array([parts.without_own(self.plan(member)) for member in members]) + own
        scales = [self._scales(q, alone, fronts) for q in self.summed]
        idle = parts.without_own(self.template)[None]
        self.nothing = self._sums(self._means([nothing]), idle, scales, [nothing[1]])[0]
        self.first = self._sums(self._means(alone), fronts, scales, [memory for _, memory in alone])
        # Where a plan is fullest differs: what stays in memory all the time is what it needs in any case.
        kept = [persistent_bytes(self.network[self.layers[self.layer_of[i]]], plan, self.template, saved_input=False)
                for i, plan in enumerate(self.plans)]  # fmt: skip
        memory = np.array([low for _, low in behind]) - reference[1]
        self.added = self._sums(added, own, scales, np.clip(memory, 0, kept))
        self.chain = all(
            set(self.layers[layer:]) <= self.plan(members[i]).influenced(self.network)
            for layer, i in enumerate(np.flatnonzero(np.diff(self.layer_of, prepend=-1)))
        )

    def _ask(self, layers: Mapping[str, LayerPlan]) -> tuple[StepSums, int]:
        """What adds up of the step that trains these, and bytes that it needs at least: quicker than the whole step,
        whose memory is planned."""
        plan = self.plan(layers)
        return self.source.step_sums(self.network, plan), self.source.step_memory(self.network, plan).low

    def _means(self, costs: Sequence[tuple[StepSums, int]]) -> np.ndarray:
        """Of every step and quantity, shape (steps, quantities)."""
        return np.array([[mean_and_std(sums, name)[0] for name in self.summed] for sums, _ in costs])

    @staticmethod
    def _sums(means: np.ndarray, parts: np.ndarray, scales: Sequence[np.ndarray], memory: Sequence[float]) -> Sums:
        scaled = [
            np.column_stack([scale[0] * parts, scale[1] * means[:, q]]) for q, scale in enumerate(scales)
        ]  # fmt: skip
        return Sums(means, np.stack(scaled, axis=1), np.array(memory, dtype=float))

    def _scales(self, quantity: str, costs: Sequence[tuple[StepSums, int]], parts: np.ndarray) -> np.ndarray:
        """(a, b) so that the standard deviations of these steps are nearest to √(a² Σ parts² + b² mean²)."""
        means, stds = np.array([mean_and_std(sums, quantity) for sums, _ in costs]).T
        if not stds.any():
            return np.zeros(2)
        least = np.maximum(stds, 1e-12 * means)
        squares = np.column_stack([(parts**2).sum(1), means**2]) / least[:, None] ** 2
        unit = squares.max(0, initial=1e-300)
        return np.sqrt(nnls(squares / unit, np.ones(len(means)))[0] / unit)

    def _before(self) -> dict[str, LayerPlan]:
        """A frontier before all that may be chosen: the layer before them, or as little as can be of the first."""
        names = [layer.name for layer in self.network.trainable]
        layer = self.network[names[max(0, names.index(self.layers[0]) - 1)]]
        has_bias = bool(layer.geometry.bias_elements)  # type: ignore[attr-defined]
        return {layer.name: LayerPlan(() if has_bias else (0,), "out", has_bias)}


class _Parts:
    """Standard deviations of a step's ops, apart by kind, pass and dtype: errors of such a part are taken to be the
    same, as a fitted model takes those of a kernel.

    Args:
        network: What is trained.
        cost: A step that trains all that may be chosen.
    """

    def __init__(self, network: Network, cost: StepCost) -> None:
        self.network = network
        keys: dict[tuple, int] = {}
        for row in cost.rows:
            keys.setdefault(_part(row), len(keys))
        self._none = np.zeros(len(keys))
        self._forward = self._none.copy()
        #: By layer, and whether an op is the layer's own ``grad_input``, which a frontier does not need, or one on its
        #: output's gradient (a sum where it forks, what was clamped), which it does.
        self._chain: dict[tuple[str, bool], np.ndarray] = {}
        #: By layer and pass.
        self._own: dict[tuple[str, str], np.ndarray] = {}
        for row in cost.rows:
            std_ms = float(row.get("latency_std_ms", math.nan))  # type: ignore[arg-type]
            if math.isnan(std_ms):
                continue
            layer, pass_ = str(row["layer"]), str(row["pass"])
            if pass_ == "forward":
                where = self._forward
            elif pass_ in OWN:
                where = self._own.setdefault((layer, pass_), self._none.copy())
            else:
                known = network.by_name.get(layer)
                carries = known is None or row["kind"] == known.geometry.kind
                where = self._chain.setdefault((layer, carries), self._none.copy())
            where[keys[_part(row)]] += std_ms

    def own_of(self, table: StepTable) -> np.ndarray:
        """Of every choice's gradient and update, shape (choices, parts): of the largest choice as the step has it, of
        the others as those of their ops alone are to that one's."""
        largest = [np.flatnonzero(table.layer_of == layer)[-1] for layer in table.layer_of]
        total = np.zeros((len(table.plans), len(self._none)))
        if not self._own:
            return total
        for pass_ in OWN:
            ops = [_own_op(self.network[table.layers[layer]], plan, Pass(pass_), table.template)
                   for layer, plan in zip(table.layer_of, table.plans, strict=True)]  # fmt: skip
            std = table.source.predict(ops)["latency_std_us"].to_numpy(dtype=float)
            shares = np.divide(std, std[largest], out=np.ones(len(std)), where=std[largest] > 0)
            of_largest = [self._own.get((table.layers[layer], pass_), self._none) for layer in table.layer_of]
            total += shares[:, None] * np.array(of_largest)
        return total

    def without_own(self, plan: StepPlan) -> np.ndarray:
        """Of the forward pass, and of the gradients that reach down to the plan's frontier."""
        influenced, carrying = plan.influenced(self.network), gradient_layers(self.network, plan)
        total = self._forward.copy()
        for (layer, carries), parts in self._chain.items():
            of_head = influenced and layer not in self.network.by_name
            if of_head or layer in (carrying if carries else influenced):
                total += parts
        return total


def _own_op(layer: Layer, plan: LayerPlan, pass_: Pass, template: StepPlan) -> Op:
    trains = {"trained_channels": len(plan.channels), "trained_axis": plan.axis, "trains_bias": plan.bias}
    return Op(layer.geometry, pass_, template.dtype, optimizer=template.optimizer, **trains)


def _part(row: Mapping[str, object]) -> tuple:
    return row.get("kind"), row.get("pass"), row.get("dtype")
