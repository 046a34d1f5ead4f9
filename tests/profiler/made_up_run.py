"""A run that nobody measured, with whatever disturbance a test asks for."""

import random

from profiler.measure.schedule import EMPTY, Policy
from profiler.ops import Conv2d, Op, Pass

OPS = [Op(Conv2d(8, 8, c, 4, 3, 3), Pass.FORWARD) for c in range(1, 41)]
REFERENCE = OPS[20]
TIMER_HZ = 168_000_000


def manifest(**changes):
    sitting = {"started_at": "", "ended_at": "", "outcome": "complete", "trials": 0, "host": {"load_average": 0.1},
               "link": {"frames_sent": 1000, "frames_received": 1000, "retries": 1}}  # fmt: skip
    return {
        "device": "board",
        "port": "/dev/ttyACM0",
        "identity": {
            "board": "board",
            "core": "Cortex-M4F",
            "timer_hz": TIMER_HZ,
            "timer_bits": 32,
            "clock_hz": TIMER_HZ,
            "build_hash": "b1",
            "ticks_per_instruction": [0, 1],
        },
        "labels": {"timer": "dwt", "energy": None},
        "plan": {"kind": "ops", "network": "net", "ops": [op.key for op in OPS], "caches": ["warm"], "region": ""},
        "policy": Policy(repetitions=6, rounds_min=10, rounds_max=14).to_dict(),
        "not_measured": [],
        "sittings": [sitting],
        "host": {"cpu_count": 4},
    } | changes


def trial(op, ticks, type_="op", **more):
    return {
        "type": type_,
        "slot": "",
        "op": op.to_dict(),
        "op_key": op.key,
        "macs": op.macs,
        "round": 0,
        "build_hash": "b1",
        "region": "",
        "caches": "warm",
        "status": "ok",
        "ticks": ticks,
        "warm_ups": 0,
        "rejected": [],
        "relative_error": 0.0,
        "arena_peak_bytes": 100,
        "scratch_peak_bytes": 0,
        "stack_peak_bytes": 10,
        "duration_s": sum(ticks) / TIMER_HZ + 0.005,
    } | more


def trials(*, seed=1, rounds=10, repetitions=6, noise=0.002, speed=lambda share: 1.0, reading=lambda op, ticks: ticks):
    """Trials of a run on a board.

    Args:
        seed: Of the noise.
        rounds: Rounds of all ops.
        repetitions: Of an op in each.
        noise: Relative standard deviation of a reading.
        speed: What readings are multiplied by, from how far the run is (0 to 1).
        reading: Of an op and its undisturbed ticks what is read instead.
    """
    chance = random.Random(seed)

    def readings(op, share):
        ticks = 50_000 + 20 * op.macs
        values = (reading(op, ticks) * speed(share) * chance.gauss(1, noise) for _ in range(repetitions))
        return [round(value) for value in values]

    yield trial(EMPTY, [12] * repetitions, "empty")
    total = rounds * len(OPS)
    for round_ in range(rounds):
        for index, op in enumerate(OPS):
            share = (round_ * len(OPS) + index) / total
            if index % 10 == 0:
                yield trial(REFERENCE, readings(REFERENCE, share), "reference")
            yield trial(op, readings(op, share))
