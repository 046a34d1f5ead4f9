"""The trial loop: verify, measure, write, again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiler.link.errors import DeviceReset, Refused, Stopped
from profiler.measure import verify
from profiler.measure.clock import Clock
from profiler.measure.observed import observed_run
from profiler.measure.schedule import EMPTY, Caches, Policy, Slot, is_this_host, reference_op, round_slots
from profiler.measure.statistics import median
from profiler.measure.trials import COUNTING, accepted_ticks, caches_of, not_timed, op_trial, timed
from profiler.ops import Op
from profiler.store import Run

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter


@dataclass
class _Known:
    """What the trials so far say about one op, warm or cold."""

    ticks: list[int] = field(default_factory=list)
    rounds: int = 0
    spent_s: float = 0.0
    given_up: bool = False
    repetition_s: float | None = None  # wall-clock time, link included

    def add(self, trial: dict[str, Any]) -> None:
        self.rounds = max(self.rounds, trial["round"] + 1)
        self.spent_s += trial.get("duration_s", 0.0)
        if trial["status"] in COUNTING:
            self.ticks += accepted_ticks(trial)
        # What was stopped once would be stopped again.
        self.given_up |= trial["status"] != "ok"
        if trial["ticks"] and "duration_s" in trial:
            taken_s = trial["duration_s"] / len(trial["ticks"])
            self.repetition_s = min(taken_s, self.repetition_s or taken_s)


class Loop:
    """Measures the ops of a run that are not measured yet.

    Args:
        device: An open device.
        run: Where the trials go; those it holds already are not repeated.
        programs: A program for every op to measure, in the plan's order; for the empty op too.
        policy: How often.
        seed: Of the order and of the inputs.
        caches: With what in them each op is timed: warm, cold, or both.
        expected: Gives the reference of a program (see :func:`profiler.measure.verify.expected_outputs`).
        meter: Measures energy too; None: time and memory only.
        on_trial: Called with every trial that was written.
        reference: What shows drift, and its program; None: the op in the middle.
        first_index: What places of the reference op count from: one run may have several loops, one after the other.
        held_out: Ops that no fit may see, besides those that the store keeps from every fit.
        deadline_s: On the clock ``time.monotonic``: no trial begins after it.
    """

    def __init__(
        self,
        device: Any,
        run: Run,
        programs: dict[Op, Any],
        policy: Policy,
        seed: int,
        *,
        caches: Sequence[Caches] = (Caches.WARM,),
        expected: Callable[[Any], dict[str, verify.Expected]] | None = None,
        meter: EnergyMeter | None = None,
        on_trial: Callable[[dict[str, Any]], None] = lambda trial: None,
        reference: tuple[Op, Any] | None = None,
        first_index: int = 0,
        held_out: Collection[Op] = (),
        deadline_s: float = math.inf,
    ) -> None:
        self.device, self.run, self.policy, self.seed = device, run, policy, seed
        self.ops = [op for op in programs if op != EMPTY]
        self.reference = reference[0] if reference else reference_op(self.ops) if self.ops else None
        self.programs = programs | dict([reference] if reference else [])
        self.first_index = first_index
        self.held_out = frozenset(held_out)
        self.deadline_s = deadline_s
        self.wanted = [(op, c) for op in self.ops for c in caches]
        self._expected = expected or (lambda program: verify.expected_outputs(program, seed, device.memory))
        self.meter = meter
        self.on_trial = on_trial
        self._known: dict[tuple[str, str], _Known] = {(op.key, c): _Known() for op, c in self.wanted}
        self._keys = {op.key for op in self.ops}
        self._verified: set[str] = set()
        self._reference_verified = self._reference_bad = False
        self._failures: dict[str, str] = {}
        self._given_up: set[str] = set()
        self._slots: set[str] = set()
        for trial in run.trials:
            self._learn(trial)

    def _learn(self, trial: dict[str, Any]) -> None:
        self._slots.add(trial["slot"])
        if trial["status"] == "failed":
            self._failures[trial["op_key"]] = trial["reason"]
        if trial["type"] == "reference":
            self._reference_verified |= trial["relative_error"] is not None
            self._reference_bad |= trial["status"] != "ok"
        if trial["type"] == "op":
            known = self._known.get((trial["op_key"], caches_of(trial)))
            if known is not None:
                known.add(trial)
            if trial["status"] != "ok":
                self._given_up.add(trial["op_key"])
            if trial["relative_error"] is not None and trial["status"] != "wrong":
                self._verified.add(trial["op_key"])

    def pending(self, round_: int) -> list[tuple[Op, Caches]]:
        """What takes part in round ``round_``, judged by the trials of the rounds before."""
        if round_ == 0:
            return self.wanted
        earlier: dict[tuple[str, str], _Known] = {}
        clock = Clock()
        for trial in self.run.trials:
            if trial["round"] < round_:
                clock.add(trial["ticks"])
            if trial["type"] == "op" and trial["round"] < round_ and trial["op_key"] in self._keys:
                earlier.setdefault((trial["op_key"], caches_of(trial)), _Known()).add(trial)
        result = []
        for op, caches in self.wanted:
            known = earlier[op.key, caches]
            if not known.given_up and not self.policy.done(known.ticks, known.rounds, known.spent_s, clock):
                result.append((op, caches))
        return result

    def slots_left(self, round_: int) -> list[Slot]:
        """Slots of a round that no trial fills yet, in order."""
        wanted = self.pending(round_)
        if not wanted:
            return []
        slots = round_slots(wanted, self.reference, round_, self.policy, self.seed, first_index=self.first_index)
        return [slot for slot in slots if slot.name not in self._slots and slot.op in self.programs]

    def measure(self, *, on_round: Callable[[int, int], None] = lambda round_, slots: None) -> None:
        """Measure whatever is missing. May be interrupted at any point; another call goes on.

        Args:
            on_round: Called with each round's number and how many slots it has left.
        """
        for round_ in range(self.policy.rounds_max):
            slots = self.slots_left(round_)
            on_round(round_, len(slots))
            wanted = dict.fromkeys(slot.op for slot in slots if slot.type == "op")
            wanted = [op for op in wanted if op.key not in self._verified]
            ahead = 0 if is_this_host(self.device.identity) else verify.AHEAD
            queue = [(op.key, self.programs[op]) for op in wanted]
            with verify.Ahead(queue, self._expected, ahead=ahead) as references:
                for slot in slots:
                    if time.monotonic() >= self.deadline_s:
                        return
                    self._fill(slot, references)

    def _fill(self, slot: Slot, references: verify.Ahead) -> None:
        if slot.type == "reference" and (slot.op.key in self._given_up or self._reference_bad):
            return
        verified = slot.type == "empty" or slot.op.key in self._verified
        verified |= slot.type == "reference" and self._reference_verified
        device = self.device
        trial = op_trial(slot, build_hash=device.identity.build_hash, seed=self.seed, region=device.arena_region)
        if slot.op in self.held_out:
            trial["held_out"] = True
        program = self.programs[slot.op]
        try:
            if slot.op.key in self._failures:  # it brought the device down often enough, in whichever slot
                trial |= not_timed("failed", self._failures[slot.op.key])
            elif not verified:
                verdict = verify.verify(self.device, program, references.get(slot.op.key, program), self.seed)
                trial["relative_error"] = verdict.relative_error if verdict.relative_error < 1e300 else 1e300
                if not verdict.right:
                    trial |= not_timed("wrong", verdict.sentence)
            if trial["status"] == "ok":
                warm_ups = self.policy.warm_ups
                cold = slot.caches is Caches.COLD
                known = self._known.get((slot.op.key, slot.caches))
                repetitions = warm_ups + self._repetitions(slot, known)
                expected_s = None
                if known is not None and known.repetition_s is not None:
                    expected_s = repetitions * known.repetition_s
                result, state = observed_run(
                    device, program, repetitions=repetitions, seed=self.seed, cold=cold, expected_s=expected_s
                )
                trial |= timed(result, warm_ups, repetitions) | state
                if self.meter is not None and trial["status"] == "ok":
                    trial["energy"] = self.meter.measure(
                        device,
                        program,
                        execution_s=median(accepted_ticks(trial)) / device.identity.timer_hz,
                        seed=self.seed,
                        cold=cold,
                        name=slot.name,
                    )
        except Refused as error:
            trial |= not_timed("refused", error.args[0])
        except Stopped as error:
            trial |= not_timed("stopped", error.args[0])
        except DeviceReset as error:
            # The link has tried again already: this op brings the device down. The others need not suffer. The sentence
            # tells why, as far as the device knows: its watchdog, or a fault and its registers.
            trial |= not_timed("failed", error.args[0])
        self._learn(self.run.append(trial))
        self.on_trial(trial)

    def _repetitions(self, slot: Slot, known: _Known | None) -> int:
        """Counted repetitions of a slot's trial, by what the trials before tell of its op."""
        if slot.type == "empty":
            return self.policy.repetitions_of_empty
        known_s = min(known.ticks) / self.device.identity.timer_hz if known is not None and known.ticks else None
        return self.policy.repetitions_of(known_s)
