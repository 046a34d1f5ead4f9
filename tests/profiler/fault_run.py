"""A run of small ops over a bad line, and what it must share with one over a good line."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fault_proxy import Fault, FaultyLine
from peers import long_program

from profiler import store
from profiler.link.session import Device, open_device
from profiler.measure.loop import Loop
from profiler.measure.schedule import Policy
from profiler.measure.sitting import manifest, sitting, split
from profiler.ops import Add, Conv2d, Depthwise, Linear, Op, Pass, Relu, SoftmaxCrossEntropy

#: Emulated: its ticks are the same in every boot.
BOARD = "qemu://stm32f405"
POLICY = Policy(reference_every=10)
SEED = 3
#: What differs from run to run of the same slot.
_VOLATILE = ("trial", "at", "duration_s", "wire_bytes")


def small_ops(count: int) -> list[Op]:
    """So many ops of several kinds, whose trials take a few milliseconds each."""
    ops: list[Op] = []
    for n in range(1, count):
        ops += [
            Op(Relu(16 * n), Pass.FORWARD),
            Op(Add(8 * n), Pass.FORWARD),
            Op(Conv2d(4, 4, n % 7 + 1, n % 5 + 2, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD),
            Op(Linear(8 + n, 5), Pass.GRAD_WEIGHT, trained_channels=5, trains_bias=True),
            Op(Depthwise(4, 4, n, 3, 3, pad_h=1, pad_w=1), Pass.GRAD_INPUT),
            Op(Linear(8 + n, 4), Pass.UPDATE, trained_channels=4, trains_bias=True, optimizer="adam"),
            Op(SoftmaxCrossEntropy(n + 2), Pass.GRAD_INPUT),
        ]
    return list(dict.fromkeys(ops))[:count]


@dataclass(frozen=True)
class Measured:
    """What a run gave.

    Attributes:
        trials: All of them, in order, as they are read back from the disk.
        steps: Ticks of a stored program of 40 ops, whose results come in pages, measured before and after the trials.
        statistics: Of the link.
        seconds: What it took.
    """

    trials: list[dict[str, Any]]
    steps: list[np.ndarray]
    statistics: dict[str, int]
    seconds: float

    @property
    def by_slot(self) -> dict[str, dict[str, Any]]:
        return {t["slot"]: {k: v for k, v in t.items() if k not in _VOLATILE} for t in self.trials}


def measure(device: Device, folder: Path, ops: list[Op]) -> Measured:
    """What ``profile`` does: each op checked against PyTorch, then timed; and two long programs."""
    start_s = time.monotonic()
    programs, left = split(ops, device.identity, device.memory, POLICY.warm_ups + POLICY.repetitions)
    assert not left
    step = long_program(device.memory, copies=40)
    steps = [device.run(step, repetitions=6).ticks]
    with (
        store.Run.create(folder, manifest(device, BOARD, {"network": "none"}, POLICY, left)) as run,
        sitting(device, run),
    ):
        Loop(device, run, programs, POLICY, SEED).measure()
    steps.append(device.run(step, repetitions=6).ticks)
    seconds = time.monotonic() - start_s
    return Measured(list(store.iterate(folder)), steps, device.statistics.to_dict(), seconds)


def clean_run(folder: Path, ops: list[Op]) -> Measured:
    with open_device(BOARD) as device:
        return measure(device, folder, ops)


@dataclass(frozen=True)
class Faulty:
    """A run over a bad line: what it gave, and what was done to it."""

    measured: Measured
    hits: Counter[Fault]
    bytes_travelled: int

    def report(self) -> str:
        """The faults by kind, what they cost, and how many there were."""
        statistics = self.measured.statistics
        kinds = ", ".join(f"{count} {fault}" for fault, count in self.hits.most_common())
        costs = ", ".join(f"{statistics[name]} {name}" for name in ("retries", "resets", "bad_crc", "stale_replies"))
        return (
            f"{self.hits.total()} faults in {self.bytes_travelled:,} bytes, {len(self.measured.trials)} trials, "
            f"{self.measured.seconds:.0f} s: {kinds}; {costs}"
        )


def faulty_run(folder: Path, ops: list[Op], *, seed: int, rate: float, **options: Any) -> Faulty:
    with (
        FaultyLine(BOARD, folder, seed=seed, rate=rate, **options) as line,
        open_device(line.path, timeout_s=15) as device,
    ):
        measured = measure(device, folder / "run", ops)
        byte_count = line.to_device.byte_count + line.to_host.byte_count
        return Faulty(measured, line.hits, byte_count)


def differences(found: Measured, clean: Measured) -> list[str]:
    """How a run differs from a clean one, where it must not; a sentence each."""
    said = []
    counts = Counter(t["slot"] for t in found.trials)
    said += [f"{slot} is there {count} times" for slot, count in counts.items() if count != 1]
    theirs, ours = found.by_slot, clean.by_slot
    said += [f"{slot} is missing" for slot in ours.keys() - theirs.keys()]
    said += [f"{slot} is nobody's" for slot in theirs.keys() - ours.keys()]
    for slot in ours.keys() & theirs.keys():
        for field, value in ours[slot].items():
            if theirs[slot].get(field) != value:
                said.append(f"{slot}: {field} is {theirs[slot].get(field)!r}, clean {value!r}")
    same_steps = all((a == b).all() for a, b in zip(found.steps, clean.steps, strict=True))
    return said + ([] if same_steps else ["the ticks of the long program differ"])


def replace_trials(measured: Measured, trials: list[dict[str, Any]]) -> Measured:
    return dataclasses.replace(measured, trials=trials)
