"""Designs: which ops of a space to measure, chosen while measuring.

A design goes on in batches. Each holds ops that were chosen and some that never are: held-out ops, drawn at random from
the same space in an order that is fixed beforehand, on which the model is judged after every batch. The run's manifest
has the batch in flight and what was decided before, so that a design that was killed goes on with the same ops.
"""

from __future__ import annotations

import datetime
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from profiler.measure.chosen import Pace, Results
from profiler.measure.design_terms import (
    LEAST_JUDGED,
    Chooser,
    DesignName,
    Drawn,
    Goal,
    Outcome,
    Record,
    group_name,
    judgements,
)
from profiler.measure.first_ops import first_ops, in_turn
from profiler.measure.loop import Loop
from profiler.measure.schedule import Caches, Policy, is_linux, reference_op
from profiler.measure.sitting import Left, split
from profiler.measure.space_filling import spread
from profiler.ops import Op
from profiler.store import Run, now
from profiler.workloads.op_space import Family, Space, weight_of

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter
    from profiler.measure.verify import Expected

#: Share of all ops that is held out.
HELD_OUT_SHARE = 1 / 6
#: A batch takes this share of the time that the design took so far, since later ones change less, but at least so many
#: seconds, and so many times what choosing took. Learning, which takes longer, waits for so many times its own time.
_BATCH_SHARE, _BATCH_LEAST_S, _BATCH_CHOOSING, _LEARNING_EVERY = 0.15, 5.0, 3.0, 4.0
#: Ops that are measured at a time, in random order; fewer of the first batch, in which each tells most.
_PART_OPS, _FIRST_PART_OPS = 100, 50
#: The reference op has this share of the ops with MACs below it where other processes may take the core away.
_LINUX_REFERENCE = 0.9
#: Candidates of a family to choose from: so many, and so many more for each op of it that is measured.
_POOL_LEAST, _POOL_EACH = 32, 2
#: And for the first batch: some paths through a kernel are rare.
_POOL_FIRST = 96


class Design:
    """Chooses and measures until its goal is reached. May be interrupted at any point; another one goes on.

    Args:
        device: An open device.
        run: Where trials and decisions go; what it holds already is gone on with.
        space: What to choose from.
        sets_aside: Whether an op belongs to those that are never chosen.
        policy: How often each op is measured.
        seed: Of the inputs and of the order.
        name: How ops are chosen.
        goal: When to end.
        chooser: The model; needed by an active design, and by a target.
        caches: With what in them each op is timed; the first of them is what the model learns.
        meter: Measures energy too.
        expected: As of :class:`~profiler.measure.loop.Loop`.
        on_trial: Called with every trial that was written.
        on_batch: Called when a batch is chosen, with how many ops it has, and the record.
    """

    def __init__(
        self,
        device: Any,
        run: Run,
        space: Space,
        policy: Policy,
        seed: int,
        *,
        name: DesignName,
        goal: Goal,
        sets_aside: Callable[[Op], bool],
        chooser: Chooser | None = None,
        caches: Sequence[Caches] = (Caches.WARM,),
        meter: EnergyMeter | None = None,
        expected: Callable[[Any], dict[str, Expected]] | None = None,
        on_trial: Callable[[dict[str, Any]], None] = lambda trial: None,
        on_batch: Callable[[int, Record], None] = lambda ops, record: None,
    ) -> None:
        self.device, self.run, self.space, self.policy, self.seed = device, run, space, policy, seed
        self.name, self.goal, self.chooser = name, goal, chooser
        self.caches, self.meter = tuple(caches), meter
        self.on_trial, self.on_batch = on_trial, on_batch
        self._expected = expected
        self._sets_aside = sets_aside
        self.results = Results(device.identity, self.caches[0])
        for trial in run.trials:
            self.results.add(trial)
        self.record = Record(**run.manifest.get("design", {"name": str(name)}))
        self._left = {item["op_key"] for item in run.manifest["not_measured"]}
        self._candidates = {family: Drawn(self._draws(family, aside=False)) for family in space.families}
        self._held_out = {family: Drawn(self._draws(family, aside=True)) for family in space.families}
        self._judging_order = list(space.families)
        random.Random(f"{seed}/held out").shuffle(self._judging_order)
        self._first: list[Op] | None = None
        self._choosing_s = self._learning_s = 0.0
        self._learned_at_s = -math.inf
        self._errors: dict[Family, list[float]] = {}
        self._before_s = self._spent_before()
        self._start_s = time.monotonic()

    def measure(self) -> Outcome:
        """Measure until the goal is reached.

        Raises:
            UserError: whatever ends the measuring.
        """
        self.record.outcome = None
        if self.record.pending:
            pending = [Op.from_dict(record) for record in self.record.pending]
            self._measure_batch(pending, set(self.record.pending_held_out))
        while True:
            outcome = self._judge()
            if outcome is None:
                began_s = time.monotonic()
                chosen, held_out = self._choose()
                self._choosing_s = time.monotonic() - began_s
                if not chosen and not held_out:
                    outcome = Outcome.EXHAUSTED
            if outcome is not None:
                self.record.outcome, self.record.spent_s = str(outcome), round(self.spent_s, 3)
                self._write()
                return outcome
            aside = {op.key for op in held_out}
            for part in self._parts(chosen, held_out):
                if self.spent_s < self.goal.time_s:
                    self._measure_batch(part, aside)

    @property
    def spent_s(self) -> float:
        """Time that the design took so far, all sittings together."""
        return self._before_s + time.monotonic() - self._start_s

    # ---------------------------------------------------------------- choosing

    def _draws(self, family: Family, *, aside: bool) -> Iterator[Op]:
        ops = self.space.draw(family, "held out" if aside else "candidates")
        return (op for op in ops if self._sets_aside(op) is aside)

    def _choose(self) -> tuple[list[Op], list[Op]]:
        """The next batch: what was chosen, and what is held out."""
        measured = self._measured_by_family()
        count = sum(map(len, measured.values()))
        most = math.inf if self.goal.most_ops is None else self.goal.most_ops - count
        first = picked = self._left_of_first()
        if not first:
            pools = {
                family: self._unmeasured(drawn, _POOL_LEAST + _POOL_EACH * len(measured[family]))
                for family, drawn in self._candidates.items()
            }
            left_s = self.goal.time_s - self.spent_s
            least_s = max(_BATCH_LEAST_S, _BATCH_CHOOSING * self._choosing_s)
            budget_s = max(_BATCH_SHARE * self.spent_s, least_s)
            if left_s - budget_s < least_s:  # what was learned after this batch would come too late
                budget_s = left_s
            pace = self.results.pace()
            budget_s *= 1 - HELD_OUT_SHARE
            if self.name is DesignName.ACTIVE:
                assert self.chooser is not None
                weights = {family: weight_of(family) for family in pools}
                picked = self.chooser.choose(
                    pools, self._errors, weights=weights, seconds=pace.seconds, budget_s=budget_s
                )
            else:
                picked = self._spread(pools, measured, max(1, round(budget_s / self._mean_s(pace))))
        picked = picked[: int(min(most, len(picked)))]
        held = len(self.results.held_out)
        wanted = round((count + len(picked)) * HELD_OUT_SHARE / (1 - HELD_OUT_SHARE)) - held
        if not count and len(picked) == len(first):  # unless the limit is near, one of each family
            wanted = max(wanted, len(self.space.families))
        return picked, self._next_held_out(max(0, wanted))

    def _left_of_first(self) -> list[Op]:
        """What is to be measured before anything is chosen by what is known, as far as it is not yet."""
        if self._first is None:
            self._first = first_ops({f: drawn.without((), _POOL_FIRST) for f, drawn in self._candidates.items()})
        return [op for op in self._first if op.key not in self.results.ops and op.key not in self._left]

    def _parts(self, chosen: list[Op], held_out: list[Op]) -> Iterator[list[Op]]:
        """A batch in parts, the best first, so that what the time does not suffice for is what matters least.

        Where other processes disturb, it is measured as one: the further an op's trials lie apart, the better.
        """
        part_ops = _FIRST_PART_OPS if self._left_of_first() else _PART_OPS
        count = 1 if is_linux(self.device.identity) else math.ceil((len(chosen) + len(held_out)) / part_ops)
        for part in range(count):
            share = slice(part * len(chosen) // count, (part + 1) * len(chosen) // count)
            yield [*chosen[share], *held_out[part::count]]

    def _mean_s(self, pace: Pace) -> float:
        known = self.results.known(self.results.ops)
        return float(pace.seconds(known.latency_us).mean()) if len(known.ops) else 0.1

    def _spread(self, pools: Mapping[Family, list[Op]], measured: Mapping[Family, list[Op]], count: int) -> list[Op]:
        """Space-filling: of each family in turn the op farthest from those that are measured."""
        each = -(-count // max(1, len(pools)))
        return in_turn([spread(pools[family], measured[family], each) for family in pools])[:count]

    def _next_held_out(self, count: int) -> list[Op]:
        """The next of the held-out ops: the families' first, then their second, and so on, of some more than others."""
        done = dict.fromkeys(self._judging_order, 0)
        for key in self.results.held_out:
            family = Family.of(self.results.ops[key])
            done[family] = done.get(family, 0) + 1
        found: list[Op] = []
        while len(found) < count and done:
            family = min(done, key=lambda f: done[f] / weight_of(f))
            taken = {op.key for op in found}
            op = next((op for op in self._unmeasured(self._held_out[family], 1, taken)), None)
            if op is None:
                del done[family]
                continue
            found.append(op)
            done[family] += 1
        return found

    def _unmeasured(self, drawn: Drawn, count: int, taken: Iterable[str] = ()) -> list[Op]:
        """The first so many of a family's ops that are neither measured nor known not to fit."""
        return drawn.without({*self.results.ops, *self._left, *taken}, count)

    def _measured_by_family(self) -> dict[Family, list[Op]]:
        measured: dict[Family, list[Op]] = {family: [] for family in self.space.families}
        for key, op in self.results.ops.items():
            if key not in self.results.held_out:
                measured.setdefault(Family.of(op), []).append(op)
        return measured

    # ---------------------------------------------------------------- judging

    def _judge(self) -> Outcome | None:
        """Why to end; None: go on. A model is judged on held-out ops, now and then and at the end."""
        chosen = [key for key in self.results.ops if key not in self.results.held_out]
        outcome = None
        if self.spent_s >= self.goal.time_s:
            outcome = Outcome.TIME
        elif self.goal.most_ops is not None and len(chosen) >= self.goal.most_ops:
            outcome = Outcome.COUNT
        if self.chooser is None or not chosen:
            return outcome
        self.chooser.observe(self.results.known(chosen))
        began_s = time.monotonic()
        if outcome is None and began_s - self._learned_at_s < _LEARNING_EVERY * self._learning_s:
            return None
        self.chooser.learn()
        self._learned_at_s = time.monotonic()
        self._learning_s = self._learned_at_s - began_s
        self._errors = {}
        held = self.results.known(self.results.held_out & self.results.ops.keys())
        if held.ops:
            for op, error in zip(held.ops, self.chooser.predict(held.ops) / held.latency_us - 1, strict=True):
                self._errors.setdefault(Family.of(op), []).append(float(error))
        self._note(self._errors)
        target = self.goal.target_error
        return (
            Outcome.TARGET if target is not None and self._errors and self._reached(self._errors, target) else outcome
        )

    def _reached(self, errors: Mapping[Family, Sequence[float]], target: float) -> bool:
        """Whether every kind, pass and dtype that has held-out ops is foretold well enough."""
        for name, judged in judgements(errors).items():
            if judged.n < LEAST_JUDGED:
                more = any(self._unmeasured(self._held_out[f], 1) for f in self.space.families if group_name(f) == name)
                if more:
                    return False
            elif judged.upper > target:
                return False
        return True

    def _note(self, errors: Mapping[Family, Sequence[float]]) -> None:
        """Add what was found to the last batch's record."""
        if not self.record.batches or not errors:
            return
        judged = judgements(errors)
        worst = sorted(judged, key=lambda name: -judged[name].upper)[:5]
        every = [abs(error) for values in errors.values() for error in values]
        self.record.batches[-1] |= {
            "error": round(float(np.mean(every)), 6),
            "worst": {name: round(judged[name].upper, 6) for name in worst if math.isfinite(judged[name].upper)},
        }

    # ---------------------------------------------------------------- measuring

    def _measure_batch(self, ops: list[Op], held_out: set[str]) -> None:
        programs, left = self._programs(ops)
        self._left |= {item.op.key for item in left}
        ops = [op for op in ops if op in programs]
        if ops and self.record.reference is None:
            share = _LINUX_REFERENCE if is_linux(self.device.identity) else 0.5
            self.record.reference = reference_op(ops, share).to_dict()
        self.record.spent_s, self.record.batch_began_at = round(self.spent_s, 3), now()
        self.record.pending = [op.to_dict() for op in ops]
        self.record.pending_held_out = [op.key for op in ops if op.key in held_out]
        self._write(op.key for op in ops)
        self.on_batch(len(ops), self.record)
        loop = Loop(
            self.device,
            self.run,
            programs,
            self.policy,
            self.seed,
            caches=self.caches,
            expected=self._expected,
            meter=self.meter,
            on_trial=self._take_in,
            reference=self._reference(),
            first_index=1000 * len(self.record.batches),
            held_out={op for op in ops if op.key in held_out},
            deadline_s=self._start_s + self.goal.time_s - self._before_s,
        )
        self._last_s = time.monotonic()
        loop.measure()
        measured = self._measured_by_family()
        self.record.pending, self.record.pending_held_out = [], []
        self.record.batches.append(
            {
                "chosen": sum(map(len, measured.values())),
                "held_out": len(self.results.held_out),
                "spent_s": round(self.spent_s, 3),
            }
        )

    def _reference(self) -> tuple[Op, Any] | None:
        if self.record.reference is None:
            return None
        op = Op.from_dict(self.record.reference)
        programs, _ = self._programs([op])
        return (op, programs[op]) if op in programs else None

    def _programs(self, ops: Sequence[Op]) -> tuple[dict[Op, Any], list[Left]]:
        return split(ops, self.device.identity, self.device.memory, self.policy.warm_ups + self.policy.repetitions)

    def _take_in(self, trial: dict[str, Any]) -> None:
        end_s = time.monotonic()
        self.results.add(trial, end_s - self._last_s)
        self._last_s = end_s
        self.on_trial(trial)

    # ---------------------------------------------------------------- the manifest

    def _write(self, more: Iterable[str] = ()) -> None:
        """Have what was decided on disk. The plan lists what is measured and what is about to be."""
        keys = list(dict.fromkeys([*self.results.ops, *more]))
        self.run.write_manifest(
            design=asdict(self.record),
            plan=self.run.manifest["plan"] | {"ops": keys},
        )

    def _spent_before(self) -> float:
        """Time that earlier sittings took: until their last batch began, and from then until its last trial."""
        began = self.record.batch_began_at
        if began is None or not self.record.pending or not self.run.trials:
            return self.record.spent_s
        last = self.run.trials[-1]["at"]
        more = datetime.datetime.fromisoformat(last) - datetime.datetime.fromisoformat(began)
        return self.record.spent_s + max(0.0, more.total_seconds())
