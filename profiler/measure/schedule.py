"""What is measured in which order, and how often: the same for the same seed, so that a killed run can go on."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from profiler.devices.identity import Identity, is_linux_board
from profiler.measure.clock import Clock
from profiler.measure.statistics import lowest_agree, steady
from profiler.ops import Empty, Op, Pass

EMPTY = Op(Empty(), Pass.FORWARD)


class Caches(StrEnum):
    """What caches hold when a timed op begins.

    ``warm``: what the repetition before left there. ``cold``: nothing, they are emptied before each repetition.
    """

    WARM = "warm"
    COLD = "cold"


#: The protocol counts a trial's repetitions in 16 bits, and the first is a warm-up.
MOST_REPETITIONS = 0xFFFF - 1


@dataclass(frozen=True)
class Policy:
    """How often an op is repeated.

    Attributes:
        warm_ups: Repetitions at the start of every trial that are kept, marked and not counted.
        repetitions: Counted repetitions of one trial.
        rounds_min: Rounds that every op takes part in; each is one trial an op, in a new random order.
        rounds_max: Rounds at most, for ops whose median is not yet known well.
        interval_target: 95 % interval of the median, half its width over the median, that is tight enough.
        time_per_op_s: No further round for an op whose trials took this long together.
        reference_every: A trial of the reference op after every so many trials.
        quiet_target: Where other programs disturb: the lowest readings are near enough to each other, relative to them,
            to be those of a quiet device; no further round then. 0: the median alone counts.
        trial_s: A trial of a short op repeats it until it ran for so long, as far as ``repetitions_most`` allow: what
            takes few steps of the timer is known only by many readings, and they cost nothing.
        repetitions_most: See ``trial_s``.
    """

    warm_ups: int = 1
    repetitions: int = 3
    rounds_min: int = 1
    rounds_max: int = 1
    interval_target: float = 0.005
    time_per_op_s: float = 2.0
    reference_every: int = 25
    quiet_target: float = 0.0
    trial_s: float = 0.0
    repetitions_most: int = 0

    @classmethod
    def for_device(
        cls, identity: Identity, repetitions: int | None = None, time_per_op_s: float | None = None
    ) -> Policy:
        """Emulated devices count instructions and repeat exactly; on Linux the repetitions are spread over ten rounds.

        Args:
            identity: The device's.
            repetitions: Counted repetitions an op, all rounds together; None: until the interval is tight.
            time_per_op_s: Instead of the default.
        """
        time_s = cls.time_per_op_s if time_per_op_s is None else time_per_op_s
        if identity.counts_instructions:
            policy = cls(rounds_max=3, time_per_op_s=time_s)
        elif is_linux(identity):
            policy = cls(repetitions=6, rounds_min=10, rounds_max=40, time_per_op_s=time_s, quiet_target=0.02)
            policy = replace(policy, trial_s=50e-6, repetitions_most=32)
        else:
            policy = cls(repetitions=6, rounds_max=10, time_per_op_s=time_s)
        if repetitions is None:
            return policy
        rounds = min(policy.rounds_min, repetitions)
        each = -(-repetitions // rounds)
        return cls(repetitions=each, rounds_min=rounds, rounds_max=rounds, time_per_op_s=time_s)

    @classmethod
    def for_design(
        cls, identity: Identity, repetitions: int | None = None, time_per_op_s: float | None = None
    ) -> Policy:
        """For many ops that a model learns from: where every repetition is the same, two of them show that it is."""
        policy = cls.for_device(identity, repetitions, time_per_op_s)
        if repetitions is None and identity.counts_instructions:
            policy = replace(policy, warm_ups=0, repetitions=2)
        return policy

    @classmethod
    def for_steps(cls, identity: Identity, repetitions: int | None = None) -> Policy:
        """For whole training steps: so many repetitions, 3 where they repeat exactly and 20 elsewhere, and on a Linux
        host more until the lowest agree, since all of a step's may fall into one spell of a busy neighbour."""
        if repetitions is not None:
            return cls.for_device(identity, repetitions)
        policy = cls.for_device(identity, 3 if identity.counts_instructions else 20)
        if is_linux(identity):
            policy = replace(policy, rounds_max=100, time_per_op_s=5.0, quiet_target=0.02)
        return policy

    def repetitions_of(self, execution_s: float | None) -> int:
        """Counted repetitions of one trial of an op that takes so long; None: not known yet."""
        if execution_s is None:
            return self.repetitions
        enough = math.ceil(min(self.trial_s / max(execution_s, 1e-9), self.repetitions_most))
        return max(self.repetitions, enough)

    @property
    def repetitions_of_empty(self) -> int:
        """The same of the empty op, whose readings are subtracted from those of all others."""
        return 4 * self.repetitions_of(0.0) if self.trial_s else self.repetitions

    def done(self, ticks: Sequence[int], rounds: int, spent_s: float, clock: Clock | None = None) -> bool:
        """Whether an op needs no further round; ``clock`` knows whether the timer goes in steps of several ticks."""
        if rounds < self.rounds_min:
            return False
        if rounds >= self.rounds_max or spent_s >= self.time_per_op_s:
            return True
        if self.quiet_target and lowest_agree(ticks, self.quiet_target, clock):
            return True
        return steady(ticks, self.interval_target)

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def is_linux(identity: Identity) -> bool:
    """Whether the device is a Linux host, where other processes disturb."""
    return is_linux_board(identity.board)


def judged_latency(board: str) -> str:
    """By which latency of :func:`profiler.store.load_steps` predictions and budgets are judged on a board of this name.

    On Linux machines by that of the least disturbed repetitions, as cost models learn it: the median holds what
    neighbours took, too.
    """
    return "latency_quiet_ms" if is_linux_board(board) else "latency_ms"


def is_this_host(identity: Identity) -> bool:
    """Whether the device is the host's own processor: cores share what they compute with, and disturb each other."""
    return "native" in identity.board.lower()


@dataclass(frozen=True)
class Slot:
    """A place in the schedule; the trial that fills it carries its name.

    Attributes:
        type: ``op``, ``reference`` or ``empty``.
        op: What is measured.
        round: From 0.
        index: For ``reference``: how many slots of the round lie before it.
        caches: What they hold.
    """

    type: str
    op: Op
    round: int
    index: int = 0
    caches: Caches = Caches.WARM

    @property
    def name(self) -> str:
        """Unique in a run."""
        index = f"|{self.index}" if self.type == "reference" else ""
        return f"{self.type}|{self.op.key}|{self.round}{index}" + ("|cold" if self.caches is Caches.COLD else "")


def reference_op(ops: Sequence[Op], share: float = 0.5) -> Op:
    """The op whose repetition shows drift: that with this share of the ops below it by MACs, among those that have any.

    In the middle by default. A longer one meets more of what else runs on the device.
    """
    ranked = sorted((op for op in ops if op.macs), key=lambda op: (op.macs, op.key)) or sorted(
        ops, key=lambda op: op.key
    )
    return ranked[int(len(ranked) * share)]


def round_slots(
    wanted: Sequence[tuple[Op, Caches]],
    reference: Op | None,
    round_: int,
    policy: Policy,
    seed: int,
    *,
    first_index: int = 0,
) -> Iterator[Slot]:
    """One round: the empty op, then what is wanted in random order with the reference op in between and at both ends.

    Where the reference op comes depends on its place alone, so a resumed run makes the same slots. It is timed as the
    round's other ops are, warm where those are both. Its places count from ``first_index``.
    """
    kinds = [caches for caches in Caches if any(c is caches for _, c in wanted)]
    for caches in kinds:
        yield Slot("empty", EMPTY, round_, caches=caches)
    order = sorted(wanted, key=lambda item: (item[0].key, item[1]))
    random.Random(f"{seed}/{round_}").shuffle(order)
    for index, (op, caches) in enumerate(order):
        if reference is not None and index % policy.reference_every == 0:
            yield Slot("reference", reference, round_, first_index + index, kinds[0])
        yield Slot("op", op, round_, caches=caches)
    if reference is not None and order:
        yield Slot("reference", reference, round_, first_index + len(order), kinds[0])
