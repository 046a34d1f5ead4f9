"""Runs made up for tests of the store."""

from profiler import store
from profiler.ops import Conv2d

MANIFEST = {
    "device": "qemu-stm32f405",
    "identity": {"board": "qemu-stm32f405", "timer_hz": 1_000_000, "clock_hz": 168_000_000, "build_hash": "b1"},
    "labels": {"timer": "instructions"},
}
CONV = Conv2d(8, 8, 3, 4, 3, 3, pad_h=1, pad_w=1)


def trial(op, ticks, *, type_="op", round_=0, warm_ups=1, status="ok", **more):
    return {
        "type": type_,
        "slot": f"{type_}|{op.key}|{round_}",
        "op": op.to_dict(),
        "op_key": op.key,
        "macs": op.macs,
        "round": round_,
        "status": status,
        "ticks": ticks,
        "warm_ups": warm_ups,
        "rejected": [],
        "arena_peak_bytes": 1000,
        "scratch_peak_bytes": 64,
        "stack_peak_bytes": 200,
        "relative_error": 1e-7,
    } | more


def write(folder, trials, manifest=MANIFEST):
    with store.Run.create(folder, manifest) as run:
        for record in trials:
            run.append(record)
    return folder
