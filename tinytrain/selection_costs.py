"""What the plans of one selection cost, as sums: a frontier's own step, and what each further layer adds to it.

A cost source answers for whole steps. Solvers look at millions of plans, so a :class:`StepTable` asks it for one step a
choice and takes differences: what a choice costs where it is the frontier, and what it adds behind a frontier. In
float32 those sums are the steps' own latencies and energies, because all else of a step depends on the frontier only;
int8 steps differ by how neighbouring layers share what they save. Memory is a peak, and where it lies depends on the
plan: where the source tells bytes by the moment of a step (int8), those of each are summed, else what stays all the
time; both are lower bounds. The step's program comes on top, which is as large all the time. So what a solver settles
on is always asked for whole.

The table holds nothing of a task: a device and a network need one, whatever the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from costmodels.analytical import AnalyticalCosts, gradient_layers
from costmodels.sources import CostSource, MemoryBounds, Moment, StepCost, StepSums
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
        moments_bytes: At moments of the step, not more than its memory, program included; shape (..., moments).
    """

    means: np.ndarray
    parts: np.ndarray
    moments_bytes: np.ndarray

    @property
    def memory_bytes(self) -> np.ndarray:
        """Not more than the step's memory; shape (...)."""
        return self.moments_bytes.max(-1)

    def __getitem__(self, index: object) -> Sums:
        return Sums(self.means[index], self.parts[index], self.moments_bytes[index])

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.means + other.means, self.parts + other.parts, self.moments_bytes + other.moments_bytes)

    def total(self) -> Sums:
        """The sum over the first axis."""
        return Sums(self.means.sum(0), self.parts.sum(0), self.moments_bytes.sum(0))

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
        self._bounds: dict[tuple, MemoryBounds] = {}
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
        key = _step_of(layers)
        if key not in self._known:
            self.asked += 1
            self._known[key] = self.source.step(self.network, self.plan(layers))
        return self._known[key]

    def step_sums(self, layers: Mapping[str, LayerPlan]) -> StepSums:
        """What adds up of :meth:`step_cost`, for much less work."""
        return self.source.step_sums(self.network, self.plan(layers))

    def step_memory(self, layers: Mapping[str, LayerPlan]) -> MemoryBounds:
        """Bounds of :meth:`step_cost`'s memory, program included, for less work: seconds less where the planner would
        search."""
        key = _step_of(layers)
        if key in self._known:
            exact = self._known[key].total_memory_bytes
            return MemoryBounds(exact, exact)
        if key not in self._bounds:
            plan = self.plan(layers)
            program = self.source.step_sums(self.network, plan).program_bytes
            low, high = self.source.step_memory(self.network, plan)
            self._bounds[key] = MemoryBounds(low + program, high + program)
        return self._bounds[key]

    def fits(self, layers: Mapping[str, LayerPlan], memory_bytes: float) -> bool:
        """Whether a step's memory is at most this; planned to the byte only where bounds do not tell."""
        low, high = self.step_memory(layers)
        return high <= memory_bytes or (
            low <= memory_bytes and self.step_cost(layers).total_memory_bytes <= memory_bytes
        )

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

        return Sums(pick("means"), pick("parts"), pick("moments_bytes"))

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
        everything = {name: plan for member in members for name, plan in member.items()}
        parts = _Parts(self.network, self.step_cost(everything))
        own = parts.own_of(self)
        fronts = np.array([parts.without_own(self.plan(member)) for member in members]) + own
        scales = [self._scales(q, alone, fronts) for q in self.summed]
        idle = parts.without_own(self.template)[None]
        moments = _Moments([nothing[1], reference[1], *(m for _, m in alone), *(m for _, m in behind)])
        first = moments.bytes_of([m for _, m in alone])
        first += _programs(sums for sums, _ in alone)
        idling = moments.bytes_of([nothing[1]]) + nothing[0].program_bytes
        self.nothing = self._sums(self._means([nothing]), idle, scales, idling)[0]
        self.first = self._sums(self._means(alone), fronts, scales, first)
        # What a layer adds may depend on who else trains: with all others, and without any.
        full = [before | everything | member for member in members]
        lacking = [before | {x: p for x, p in everything.items() if x != name} for name in self.layers]
        memory = moments.bytes_of([m for _, m in behind]) - moments.bytes_of([reference[1]])
        if moments.known:
            # Two layers may save the same: what a layer adds where all others train is the least it adds.
            least = moments.bytes_of([self._moments(layers) for layers in full])
            least -= moments.bytes_of([self._moments(layers) for layers in lacking])[self.layer_of]
            memory = np.minimum(memory, least)
        elif not isinstance(self.source, AnalyticalCosts):  # formulas count no peak
            # Where a plan is fullest differs: what stays in memory all the time is what it needs in any case.
            named = (self.network[self.layers[layer]] for layer in self.layer_of)
            kept = [persistent_bytes(layer, plan, self.template, saved_input=False)
                    for layer, plan in zip(named, self.plans, strict=True)]  # fmt: skip
            memory = np.clip(memory, 0, np.array(kept)[:, None])
        program = _programs(sums for sums, _ in behind) - reference[0].program_bytes
        if program.any():
            least = _programs(map(self.step_sums, full)) - _programs(map(self.step_sums, lacking))[self.layer_of]
            memory = memory + np.minimum(program, least)
        self.added = self._sums(added, own, scales, memory)
        self.chain = all(
            set(self.layers[layer:]) <= self.plan(members[i]).influenced(self.network)
            for layer, i in enumerate(np.flatnonzero(np.diff(self.layer_of, prepend=-1)))
        )

    def _ask(self, layers: Mapping[str, LayerPlan]) -> tuple[StepSums, dict[Moment, int]]:
        """What adds up of the step that trains these, and bytes that it needs at least: quicker than the whole step,
        whose memory is planned."""
        return self.step_sums(layers), self._moments(layers)

    def _moments(self, layers: Mapping[str, LayerPlan]) -> dict[Moment, int]:
        return self.source.step_moments(self.network, self.plan(layers))

    def _means(self, costs: Sequence[tuple[StepSums, dict[Moment, int]]]) -> np.ndarray:
        """Of every step and quantity, shape (steps, quantities)."""
        return np.array([[mean_and_std(sums, name)[0] for name in self.summed] for sums, _ in costs])

    @staticmethod
    def _sums(means: np.ndarray, parts: np.ndarray, scales: Sequence[np.ndarray], memory: np.ndarray) -> Sums:
        scaled = [
            np.column_stack([scale[0] * parts, scale[1] * means[:, q]]) for q, scale in enumerate(scales)
        ]  # fmt: skip
        return Sums(means, np.stack(scaled, axis=1), memory)

    def _scales(self, quantity: str, costs: Sequence[tuple[StepSums, object]], parts: np.ndarray) -> np.ndarray:
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


class _Moments:
    """Moments of steps in one order.

    Args:
        steps: Bytes by moment, of steps among which are all that there will be.
    """

    def __init__(self, steps: Sequence[Mapping[Moment, int]]) -> None:
        self._order = list(dict.fromkeys(moment for step in steps for moment in step))
        self.known = self._order != [()]
        #: While a layer's own gradient would be computed, a step that does not train it takes what it does while the
        #: gradient of the layer's input is.
        self._instead: dict[Moment, Moment] = {}
        for moment in self._order:
            if len(moment) > 1 and moment[1] == str(Pass.GRAD_INPUT) and moment[2] != "requantize":
                self._instead[moment[0], "own"] = moment

    def bytes_of(self, steps: Sequence[Mapping[Moment, int]]) -> np.ndarray:
        """Bytes at every moment, 0 at those that a step does not have; shape (steps, moments)."""
        return np.array(
            [[step.get(m, step.get(self._instead.get(m, m), 0)) for m in self._order] for step in steps], dtype=float
        )


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


def _programs(steps: Iterable[StepSums]) -> np.ndarray:
    """Bytes of steps' programs, shape (steps, 1)."""
    return np.array([[sums.program_bytes] for sums in steps], dtype=float)


def _step_of(layers: Mapping[str, LayerPlan]) -> tuple:
    """Equal for plans whose steps cost the same."""
    return tuple(sorted((name, p.axis, len(p.channels), p.bias) for name, p in layers.items()))


def _own_op(layer: Layer, plan: LayerPlan, pass_: Pass, template: StepPlan) -> Op:
    trains = {"trained_channels": len(plan.channels), "trained_axis": plan.axis, "trains_bias": plan.bias}
    return Op(layer.geometry, pass_, template.dtype, optimizer=template.optimizer, **trains)


def _part(row: Mapping[str, object]) -> tuple:
    return row.get("kind"), row.get("pass"), row.get("dtype")
